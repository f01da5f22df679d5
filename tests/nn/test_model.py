from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nn.small import FAMILIES, LAYOUTS, build_hf, encode, padded, theirs
from serfit.config.schema import ModelParams
from serfit.nn.dropout import DropoutSeeds
from serfit.nn.losses import ccc_loss
from serfit.nn.model import EmotionModel, build_model, layer_statistics
from serfit.nn.variant import Variant

POOLINGS = ("mean", "attention", "attentive_statistics")


def tiny(name: str = "random:tiny", dimensions: int = 2, **changes: Any) -> EmotionModel:
    """A model whose head reacts strongly, so that small differences show."""
    model = build_model(ModelParams(speech_encoder=name, **changes), dimensions, seed=1)
    with torch.no_grad():
        model.head.out.weight.normal_(0.0, 0.1, generator=torch.Generator().manual_seed(3))
        if model.mix.weights is not None:
            model.mix.weights.copy_(torch.tensor([0.5, -0.5, 0.2]))
    return model


@pytest.mark.parametrize("name", ["random:tiny", "random:tiny-base"])
@pytest.mark.parametrize("layers", ["last", "weighted"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_predictions_are_the_same_from_every_stage(
    name: str, layers: str, pooling: str, waveforms: list[Tensor]
) -> None:
    model = tiny(name, layers=layers, pooling=pooling)
    with torch.no_grad():
        expected = torch.cat([model(*padded([waveform]), 0) for waveform in waveforms])
        for stage in range(model.last_stage + 1):
            features = [model.prefix(waveform, stage) for waveform in waveforms]
            frames = [model.feature_shape(len(waveform), stage)[0] for waveform in waveforms]
            assert [len(feature) for feature in features] == frames
            found = model(*padded(features), stage)
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5, msg=model.stage_name(stage))
    assert expected.std(0).min() > 1e-3
    assert model.last_stage == 4 + (pooling == "mean")


def test_feature_shapes(waveforms: list[Tensor]) -> None:
    weighted = tiny(pooling="mean")
    shapes = [tuple(weighted.prefix(waveforms[0], stage).shape) for stage in range(6)]
    assert shapes == [(16000,), (49, 32), (49, 1, 64), (49, 2, 64), (49, 3, 64), (1, 3, 64)]
    last = tiny(pooling="mean", layers="last")
    shapes = [tuple(last.prefix(waveforms[0], stage).shape) for stage in range(2, 6)]
    assert shapes == [(49, 64), (49, 64), (49, 64), (1, 1, 64)]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layer_statistics_are_those_of_transformers_hidden_states(
    family: str, layout: str, waveforms: list[Tensor], tmp_path: Path
) -> None:
    hf = build_hf(family, layout)
    hf.save_pretrained(tmp_path)
    model = build_model(ModelParams(speech_encoder=str(tmp_path), freeze_speech_encoder=True), 2, seed=1)
    for waveform in waveforms:
        prepared = model.encoder.prepare(waveform)
        found = model.prefix(prepared, model.statistics_stage)
        assert found.shape == model.feature_shape(len(waveform), model.statistics_stage)
        with torch.no_grad():
            expected = theirs(hf, model.encoder, prepared, output_hidden_states=True)
        # their list of wavlm's large layout ends before the final norm
        for layer, state in enumerate((*expected.hidden_states[:-1], expected.last_hidden_state)):
            frames = state[0].double().numpy()
            np.testing.assert_allclose(found[0, layer], frames.mean(axis=0), rtol=1e-5, atol=3e-5)
            np.testing.assert_allclose(found[1, layer], frames.std(axis=0), rtol=1e-5, atol=3e-5)


def test_layer_statistics_are_blind_to_padding(waveforms: list[Tensor]) -> None:
    model = tiny()
    batch, lengths = padded(waveforms)
    together = encode(model.encoder, batch, lengths, 0, model.encoder.last_stage)
    for row, waveform in enumerate(waveforms):
        alone = model.prefix(waveform, model.statistics_stage)
        with torch.no_grad():
            torch.testing.assert_close(layer_statistics(together)[row], alone, rtol=1e-4, atol=1e-5)


def test_double_precision(waveforms: list[Tensor]) -> None:
    model = tiny("random:tiny-base").double()
    with torch.no_grad():
        batch = model(*padded([waveform.double() for waveform in waveforms]), 0)
        alone = torch.cat([model(*padded([waveform.double()]), 0) for waveform in waveforms])
    assert batch.dtype == torch.float64
    torch.testing.assert_close(batch, alone, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("changes", "stage", "name"),
    [
        ({"freeze_cnn": False}, 0, "waveform"),
        ({}, 1, "output of the CNN"),
        ({"freeze_layers": 1}, 3, "output of transformer layer 1 of 2"),
        ({"freeze_layers": 2}, 4, "output of the encoder"),
        ({"freeze_layers": 2, "pooling": "mean"}, 5, "pooled output of the encoder"),
        ({"freeze_speech_encoder": True}, 4, "output of the encoder"),
        ({"freeze_speech_encoder": True, "pooling": "mean", "layers": "last"}, 5, "pooled output of the encoder"),
    ],
)
@pytest.mark.parametrize("encoder", ["random:tiny", "random:tiny-base"])
def test_the_frozen_prefix_follows_the_configuration(
    encoder: str, changes: dict[str, Any], stage: int, name: str
) -> None:
    model = tiny(encoder, **changes)
    assert model.frozen_stages == stage
    assert model.stage_name(stage) == name
    assert not any(tensor.requires_grad for tensor in model.prefix_parameters(stage).values())
    rest = model.state_dict().keys() - model.prefix_parameters(stage).keys() - {"encoder.hf.masked_spec_embed"}
    frozen = {key for key, p in model.named_parameters() if not p.requires_grad}
    assert not rest & frozen


def test_the_prefix_depends_on_exactly_its_parameters(waveforms: list[Tensor]) -> None:
    model = tiny("random:tiny", pooling="mean")
    for stop in range(1, model.last_stage + 1):
        named = model.prefix_parameters(stop)
        clean = model.prefix(waveforms[1], stop)
        for key, tensor in model.named_parameters():
            before = tensor.detach().clone()
            with torch.no_grad():
                tensor.add_(torch.randn(before.shape, generator=torch.Generator().manual_seed(1)))
            changed = not torch.equal(model.prefix(waveforms[1], stop), clean)
            with torch.no_grad():
                tensor.copy_(before)
            # a key's bias shifts all scores of a query alike: softmax cancels it up to rounding
            assert changed == (key in named) or key.endswith("k_proj.bias"), (stop, key)
        assert named.keys() <= model.state_dict().keys()


def test_every_trainable_tensor_learns(waveforms: list[Tensor]) -> None:
    for pooling in POOLINGS:
        model = tiny(pooling=pooling, freeze_cnn=False)
        predictions = model(*padded(waveforms), 0, DropoutSeeds((1, 2, 3, 4)))
        ccc_loss(predictions, torch.rand(4, 2, generator=torch.Generator().manual_seed(1))).value.backward()
        for name, parameter in model.named_parameters():
            assert (parameter.grad is not None) == parameter.requires_grad, name
            assert parameter.grad is None or (parameter.grad.isfinite().all() and parameter.grad.any()), name


@pytest.mark.parametrize("pooling", POOLINGS)
def test_dropout_belongs_to_the_utterance(pooling: str, waveforms: list[Tensor]) -> None:
    model = tiny(pooling=pooling, attention_dropout=0.1).train()
    with torch.no_grad():
        features = [model.prefix(waveform, 1) for waveform in waveforms]
        batch = model(*padded(features), 1, DropoutSeeds((1, 2, 3, 4)))
        alone = torch.cat([model(*padded([f]), 1, DropoutSeeds((k + 1,))) for k, f in enumerate(features)])
        calm = model(*padded(features), 1)
    torch.testing.assert_close(batch, alone, rtol=1e-5, atol=1e-5)
    assert (batch - calm).abs().min() > 1e-4


def test_every_place_that_drops_draws_masks_of_its_own(
    waveforms: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def address(*parts: Any) -> int:
        seen.append(parts)
        return len(seen)

    monkeypatch.setattr("serfit.nn.dropout.address", address)
    tiny(attention_dropout=0.1)(*padded(waveforms[:1]), 0, DropoutSeeds((5,)))
    embedding, per_layer, head = 1, 3, 1
    assert len(seen) == embedding + 2 * per_layer + head == len(set(seen))


def test_a_frozen_model_drops_nothing_but_in_its_head(waveforms: list[Tensor]) -> None:
    model = tiny(freeze_speech_encoder=True, head_dropout=0.0).train()
    with torch.no_grad():
        assert torch.equal(model(*padded(waveforms), 0, DropoutSeeds((1, 2, 3, 4))), model(*padded(waveforms), 0))


@pytest.mark.parametrize("output", ["linear", "sigmoid"])
def test_untrained_predictions_lie_around_the_middle(output: str, waveforms: list[Tensor]) -> None:
    model = build_model(ModelParams(speech_encoder="random:tiny", output=output), 3, seed=1)
    with torch.no_grad():
        predictions = model(*padded(waveforms), 0)
    assert predictions.shape == (4, 3)
    assert ((predictions - 0.5).abs() < 0.3).all()


def test_sigmoid_stays_on_the_scale(waveforms: list[Tensor]) -> None:
    model = tiny(output="sigmoid")
    with torch.no_grad():
        model.head.out.weight.mul_(1000)
        predictions = model(*padded(waveforms), 0)
    assert ((predictions >= 0) & (predictions <= 1)).all()


def test_the_head_depends_on_the_seed_alone() -> None:
    before = torch.random.get_rng_state()
    a, b, c = (
        build_model(ModelParams(speech_encoder=name), 2, seed=seed)
        for name, seed in (("random:tiny", 1), ("random:tiny-base", 1), ("random:tiny", 2))
    )
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(p, q) for p, q in zip(a.head.parameters(), b.head.parameters(), strict=True))
    assert not torch.equal(a.head.hidden.weight, c.head.hidden.weight)
    assert a.provenance.sha256 != c.provenance.sha256
    assert not a.training


def test_embeddings_are_what_the_head_reads(waveforms: list[Tensor]) -> None:
    for pooling in POOLINGS:
        model = tiny(pooling=pooling)
        with torch.no_grad():
            pooled = model.embed(*padded(waveforms), 0)
            assert pooled.shape == (4, model.embedding_width)
            assert torch.equal(model.head(pooled), model(*padded(waveforms), 0))


def test_readout_stays_in_float32_under_autocast(waveforms: list[Tensor]) -> None:
    model = tiny()
    seen: list[torch.dtype] = []
    readout = [m for name, m in model.named_modules() if isinstance(m, nn.Linear) and not name.startswith("encoder.")]
    for module in readout:
        module.register_forward_hook(lambda _m, _x, out: seen.append(out.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        model(*padded(waveforms), 0)
    assert seen == [torch.float32] * 4


@pytest.mark.parametrize("pooling", ["mean", "attentive_statistics"])
def test_predictions_from_every_stage_are_in_float32_under_autocast(pooling: str, waveforms: list[Tensor]) -> None:
    model = tiny(pooling=pooling)
    exact = model(*padded(waveforms), 0)
    for stage in range(model.last_stage + 1):
        with torch.autocast("cpu", torch.bfloat16):
            features = [model.prefix(waveform, stage) if stage else waveform for waveform in waveforms]
            found = model(*padded([feature.float() for feature in features]), stage)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, exact, rtol=0.0, atol=0.1)


def test_hidden_frames_change_predictions_where_something_is_hidden(waveforms: list[Tensor]) -> None:
    model = tiny()
    features, lengths = padded([model.prefix(waveform, 1) for waveform in waveforms])
    mask = torch.zeros(features.shape[:2], dtype=torch.bool)
    mask[0, 3:9] = True
    with torch.no_grad():
        change = (model(features, lengths, 1, time_mask=mask) - model(features, lengths, 1)).abs().amax(1)
    assert change[0] > 1e-4
    assert not change[1:].any()


def test_the_recipe_of_a_prefix_is_plain_data() -> None:
    import json

    a, b = tiny(), tiny("random:tiny-base")
    assert json.loads(json.dumps(a.prefix_recipe(3))) == a.prefix_recipe(3)
    assert a.prefix_recipe(3) != a.prefix_recipe(4)
    assert a.prefix_recipe(3) != b.prefix_recipe(3)
    assert a.prefix_recipe(3) != tiny(layers="last").prefix_recipe(3)
    unlike = build_model(ModelParams(speech_encoder="random:tiny"), 2, seed=1, variant=Variant(mix_norm=False))
    assert a.prefix_recipe(5) != unlike.prefix_recipe(5), "pooled states that weren't normalised are other features"
    assert set(a.prefix_recipe(5)) == {"stage", "keep_all", "architecture"}, "keys of the store stay as they were"


def test_adapters_on_a_frozen_encoder_learn_and_move_the_cut(waveforms: list[Tensor]) -> None:
    peft = pytest.importorskip("peft")
    model = tiny(freeze_speech_encoder=True)
    config = peft.LoraConfig(r=2, target_modules=r".*layers\.1\.attention\.(q|v)_proj", init_lora_weights=False)
    peft.inject_adapter_in_model(config, model.encoder.hf)
    assert model.frozen_stages == 3
    model(*padded(waveforms), 0).square().sum().backward()
    lora = {name: p for name, p in model.named_parameters() if "lora_" in name}
    assert len(lora) == 4
    assert all(name.startswith("encoder.") and p.grad is not None and p.grad.any() for name, p in lora.items())
