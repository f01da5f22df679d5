from typing import Any

import pytest
import torch
from torch import Tensor

from nn.small import FAMILIES, build_hf, encode, encoder_of, padded, theirs
from serfit.config.schema import ModelParams
from serfit.errors import UserError
from serfit.nn.dropout import DropoutSeeds, dropout
from serfit.nn.encoders.base import CNN, EMBEDDING, INPUT, Encoder

LAST = EMBEDDING + 3


def both(states: Any, other: Any, row: int, rtol: float = 1e-5, atol: float = 1e-5) -> None:
    """A row of a batch against the same utterance alone, all kept states, valid frames only."""
    count = states.layout.counts[row]
    assert count == other.layout.counts[0]
    for mine, alone in zip(states.tensors, other.tensors, strict=True):
        torch.testing.assert_close(mine[row, :count], alone[0, :count], rtol=rtol, atol=atol)


def test_one_utterance_is_that_of_transformers(hf: Any, waveforms: list[Tensor]) -> None:
    encoder = encoder_of(hf, keep_all=True)
    with torch.no_grad():
        for waveform in waveforms:
            found = encode(encoder, *padded([waveform]), INPUT, LAST)
            expected = theirs(hf, encoder, waveform, output_hidden_states=True)
            torch.testing.assert_close(found.newest, expected.last_hidden_state, rtol=1e-5, atol=1e-5)
            for mine, other in zip(found.tensors[:-1], expected.hidden_states, strict=False):
                torch.testing.assert_close(mine, other, rtol=1e-5, atol=2e-5)  # the CNN's products in another order
            assert len(found.tensors) == len(expected.hidden_states)


def test_a_padded_batch_of_the_large_layout_is_that_of_transformers(hf: Any, waveforms: list[Tensor]) -> None:
    if not getattr(hf.config, "do_stable_layer_norm", False):
        pytest.skip("transformers lets the padding into the CNN, or into a convolution above it")
    encoder = encoder_of(hf, keep_all=False)
    batch, lengths = padded(waveforms)
    mask = (torch.arange(batch.shape[1]) < lengths[:, None]).long()
    with torch.no_grad():
        found, expected = encode(encoder, batch, lengths, INPUT, LAST), hf(batch, attention_mask=mask)
    for row, count in enumerate(found.layout.counts):
        mine, theirs = found.newest[row, :count], expected.last_hidden_state[row, :count]
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_batch_is_its_utterances(hf: Any, waveforms: list[Tensor], dtype: torch.dtype) -> None:
    encoder = encoder_of(hf.to(dtype), keep_all=True)
    waveforms = [waveform.to(dtype) for waveform in waveforms]
    tolerance = 1e-5 if dtype == torch.float32 else 1e-11
    with torch.no_grad():
        batch = encode(encoder, *padded(waveforms), INPUT, LAST)
        for row, waveform in enumerate(waveforms):
            both(batch, encode(encoder, *padded([waveform]), INPUT, LAST), row, tolerance, tolerance)
    assert batch.newest.dtype == dtype


def test_what_lies_in_the_padding_has_no_influence(hf: Any, waveforms: list[Tensor]) -> None:
    encoder = encoder_of(hf, keep_all=False)
    batch, lengths = padded(waveforms)
    noisy = torch.where(torch.arange(batch.shape[1]) < lengths[:, None], batch, 100.0)
    with torch.no_grad():
        clean, dirty = (encode(encoder, x, lengths, INPUT, LAST) for x in (batch, noisy))
    for row, count in enumerate(clean.layout.counts):
        assert torch.equal(clean.newest[row, :count], dirty.newest[row, :count])
    assert dirty.newest.isfinite().all()


def test_frames_are_counted_as_the_cnn_makes_them(hf: Any) -> None:
    encoder = encoder_of(hf, keep_all=False)
    shortest = encoder.shortest_input
    assert shortest == (560 if hf.config.model_type == "wav2vec2-bert" else 400)
    assert [encoder.frame_count(samples) for samples in (0, shortest - 1, shortest, shortest + 319)] == [0, 0, 1, 1]
    for samples in (shortest, shortest + 319, shortest + 320, 16000, 16079, 16080):
        with torch.no_grad():
            states = encode(encoder, *padded([torch.ones(samples)]), INPUT, CNN)
        assert states.newest.shape == (1, encoder.frame_count(samples), encoder.sizes.channels)
        assert torch.equal(encoder.frame_count(torch.tensor([samples, 7])), torch.tensor([states.newest.shape[1], 0]))


@pytest.mark.parametrize("family", FAMILIES)
def test_training_mode_changes_nothing_by_itself(family: str, waveforms: list[Tensor]) -> None:
    hf = build_hf(family, "large", mask_time_prob=0.5, layerdrop=0.9, hidden_dropout=0.5, attention_dropout=0.5)
    encoder = encoder_of(hf, keep_all=True, p=0.5, attention_p=0.5)
    with torch.no_grad():
        calm = encode(encoder.eval(), *padded(waveforms), INPUT, LAST)
        training = encode(encoder.train(), *padded(waveforms), INPUT, LAST)
    assert all(torch.equal(a, b) for a, b in zip(calm.tensors, training.tensors, strict=True))


def test_frozen_stages_stay_in_evaluation_mode() -> None:
    encoder = encoder_of(build_hf("wavlm", "large"), keep_all=True)
    encoder.hf.feature_extractor.requires_grad_(False)
    encoder.train()
    assert not any(module.training for module in encoder.hf.feature_extractor.modules())
    assert encoder.hf.feature_projection.training
    assert encoder.hf.encoder.layers[0].training


def test_stages_partition_the_parameters(hf: Any) -> None:
    encoder = encoder_of(hf, keep_all=True)
    names = [name for stage in range(1, LAST + 1) for name, _ in encoder.stage_tensors(stage)]
    assert sorted([*names, "hf.masked_spec_embed"]) == sorted(encoder.state_dict())
    assert sorted(encoder.state_dict()) == sorted(
        name for name, _ in (*encoder.named_parameters(), *encoder.named_buffers())
    )


def test_any_trainable_parameter_ends_the_frozen_prefix_below_its_stage(hf: Any) -> None:
    encoder = encoder_of(hf, keep_all=True).requires_grad_(False)
    for stage in range(1, LAST + 1):
        for parameter in encoder.stage_parameters(stage):
            parameter.requires_grad_(True)
            assert encoder.frozen_stages == stage - 1
            parameter.requires_grad_(False)
    assert encoder.frozen_stages == LAST


@pytest.mark.parametrize("layers", range(4))
def test_the_top_layers_learn_and_nothing_below(hf: Any, layers: int, waveforms: list[Tensor]) -> None:
    encoder = encoder_of(hf, keep_all=False)
    encoder.freeze(ModelParams(freeze_layers=layers))
    trained = {name for name, p in encoder.named_parameters() if p.requires_grad}
    assert all(name.startswith(("hf.encoder.layers.", "hf.encoder.layer_norm")) for name in trained) == (layers > 0)
    assert {name.split(".")[3] for name in trained if ".layers." in name} >= {str(index) for index in range(layers, 3)}
    assert not any(f".layers.{index}." in name for name in trained for index in range(layers) if "pos_conv" not in name)
    states = encode(encoder, *padded(waveforms), INPUT, LAST)
    if trained:
        sum(states.newest[row, :n].square().sum() for row, n in enumerate(states.layout.counts)).backward()  # type: ignore[union-attr]
    learnt = {name for name, p in encoder.named_parameters() if p.grad is not None and p.grad.any()}
    assert trained - learnt <= {name for name in trained if name.endswith("k_proj.bias") or "linear_k.bias" in name}
    assert learnt <= trained


@pytest.mark.parametrize("layout", ["base", "large"])
def test_the_frozen_prefix_ends_at_the_first_trainable_parameter(layout: str) -> None:
    encoder = encoder_of(build_hf("wavlm", layout), keep_all=True)
    assert encoder.frozen_stages == 0
    encoder.requires_grad_(False)
    assert encoder.frozen_stages == LAST
    hf = encoder.hf
    for name, expected in {
        "encoder.layers.2.final_layer_norm.bias": 4,
        "encoder.layers.1.attention.q_proj.weight": 3,
        "encoder.layers.0.attention.rel_attn_embed.weight": 2,
        "encoder.pos_conv_embed.conv.bias": 1,
        "feature_extractor.conv_layers.0.conv.weight": 0,
    }.items():
        hf.get_parameter(name).requires_grad_(True)
        assert encoder.frozen_stages == expected
    encoder.requires_grad_(False)
    hf.encoder.layer_norm.requires_grad_(True)
    assert encoder.frozen_stages == (LAST - 1 if layout == "large" else CNN)


def gradients(encoder: Encoder, waveforms: list[Tensor], noise: DropoutSeeds, rows: list[slice]) -> dict[str, Tensor]:
    """Gradient of the sum of all valid frames' squares, accumulated over micro-batches."""
    encoder.zero_grad()
    for where in rows:
        states = encode(encoder, *padded(waveforms[where]), INPUT, LAST, noise=noise[where])
        total = sum(x[row, :n].square().mean() for x in states.tensors for row, n in enumerate(states.layout.counts))
        total.backward()  # type: ignore[union-attr]
    return {name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None}


def test_encoder_dropout_acts_where_its_words_say(
    hf: Any, waveforms: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the transformer's input, and twice in each of its layers where these are trainable."""
    sites: list[int] = []

    def noted(x: Tensor, p: float, noise: DropoutSeeds | None, site: int, counts: Any) -> Tensor:
        sites.append(site) if noise is not None and p else None
        return dropout(x, p, noise, site, counts)

    for module in ("wav2vec2", "conformer"):
        monkeypatch.setattr(f"serfit.nn.encoders.{module}.dropout", noted)
    encoder = encoder_of(hf, keep_all=False, p=0.3)
    gradients(encoder, waveforms[:2], DropoutSeeds((3, 1)), [slice(0, 2)])
    layers = range(EMBEDDING + 1, LAST + 1)
    within = (1, 2, 3) if hasattr(hf.encoder.layers[0], "ffn1") else (1, 2)  # a conformer has two feed-forward blocks
    assert sorted(set(sites)) == sorted([4 * EMBEDDING, *(4 * stage + index for stage in layers for index in within)])
    words = str(ModelParams.model_fields["encoder_dropout"].description)
    for index in ("the transformer's input", "after attention and feed-forward blocks", "trainable"):
        assert index in words


@pytest.mark.parametrize("attention_p", [0.0, 0.2])
def test_gradients_with_dropout_ignore_micro_batches(hf: Any, waveforms: list[Tensor], attention_p: float) -> None:
    encoder = encoder_of(hf.double(), keep_all=True, p=0.3, attention_p=attention_p)
    waveforms = [waveform.double() for waveform in waveforms]
    noise = DropoutSeeds((3, 1, 4, 1))
    whole = gradients(encoder, waveforms, noise, [slice(0, 4)])
    halves = gradients(encoder, waveforms, noise, [slice(0, 2), slice(2, 4)])
    single = gradients(encoder, waveforms, noise, [slice(k, k + 1) for k in range(4)])
    calm = gradients(encoder, waveforms, DropoutSeeds((9, 9, 9, 9)), [slice(0, 4)])
    trainable = {name for name, p in encoder.named_parameters() if p.requires_grad}
    assert set(whole) == trainable == {name for name, _ in encoder.named_parameters()} - {"hf.masked_spec_embed"}
    for name, grad in whole.items():
        scale = grad.abs().max().item()
        for other in (halves[name], single[name]):
            assert (grad - other).abs().max().item() <= 1e-10 * max(scale, 1e-3), name
    assert any(not torch.allclose(whole[name], calm[name]) for name in whole)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_checkpointing_changes_nothing(family: str, waveforms: list[Tensor]) -> None:
    hf = build_hf(family, "large")
    noise = DropoutSeeds((1, 2, 3, 4))
    plain = encoder_of(hf, keep_all=True, p=0.2, attention_p=0.1)
    frugal = encoder_of(hf, keep_all=True, p=0.2, attention_p=0.1, gradient_checkpointing=True)
    a, b = (gradients(encoder, waveforms, noise, [slice(0, 4)]) for encoder in (plain, frugal))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_dropout_acts_in_trainable_stages_only(waveforms: list[Tensor]) -> None:
    encoder = encoder_of(build_hf("wavlm", "large"), keep_all=True, p=0.5, attention_p=0.5)
    encoder.requires_grad_(False)
    encoder.hf.encoder.layers[1].requires_grad_(True)
    with torch.no_grad():
        calm = encode(encoder, *padded(waveforms), INPUT, LAST)
        noisy = encode(encoder, *padded(waveforms), INPUT, LAST, noise=DropoutSeeds((1, 2, 3, 4)))
    same = [torch.equal(a, b) for a, b in zip(calm.tensors, noisy.tensors, strict=True)]
    assert same == [True, True, False, False]


def test_hidden_frames_are_those_of_transformers(hf: Any, waveforms: list[Tensor]) -> None:
    encoder = encoder_of(hf, keep_all=False)
    mask = torch.zeros(1, 49, dtype=torch.bool)
    mask[0, 5:20] = True
    with torch.no_grad():
        found = encode(encoder, *padded(waveforms[:1]), INPUT, LAST, time_mask=mask)
        expected = theirs(hf, encoder, waveforms[0], mask_time_indices=mask).last_hidden_state
        plain = encode(encoder, *padded(waveforms[:1]), INPUT, LAST)
    torch.testing.assert_close(found.newest, expected, rtol=1e-5, atol=1e-5)
    assert (found.newest - plain.newest).abs().max() > 0.1


def test_frames_can_be_hidden_without_a_pretrained_vector(waveforms: list[Tensor]) -> None:
    encoder = encoder_of(build_hf("hubert", "large", mask_time_prob=0.0), keep_all=False)
    assert not hasattr(encoder.hf, "masked_spec_embed")
    mask = torch.ones(1, 49, dtype=torch.bool)
    with torch.no_grad():
        a, b = (encode(encoder, x[None], torch.tensor([16000]), 0, LAST, time_mask=mask) for x in waveforms[:1] * 2)
    assert torch.equal(a.newest, b.newest)


def test_the_residual_stream_keeps_its_precision_under_autocast(hf: Any, waveforms: list[Tensor]) -> None:
    encoder = encoder_of(hf, keep_all=True)
    with torch.no_grad():
        exact = encode(encoder, *padded(waveforms), INPUT, LAST)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = encode(encoder, *padded(waveforms), INPUT, LAST)
    assert all(tensor.dtype == torch.float32 for tensor in mixed.tensors)
    error = (mixed.newest - exact.newest)[0].norm() / exact.newest[0].norm()
    assert 0 < error < 0.1


def test_hubert_without_a_norm_before_the_projection(waveforms: list[Tensor]) -> None:
    hf = build_hf("hubert", "base", feat_proj_layer_norm=False)
    with torch.no_grad():
        found = encode(encoder_of(hf, keep_all=False), *padded(waveforms[:1]), INPUT, LAST)
        torch.testing.assert_close(found.newest, hf(waveforms[0][None]).last_hidden_state, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "change"),
    [
        ("hubert", {"conv_pos_batch_norm": True}),
        ("wavlm", {"add_adapter": True}),
        ("wav2vec2", {"adapter_attn_dim": 8}),
        ("data2vec-audio", {"add_adapter": True}),
        ("wav2vec2-conformer", {"add_adapter": True}),
        ("wav2vec2-bert", {"add_adapter": True}),
    ],
)
def test_parts_that_have_no_stage_are_refused(family: str, change: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=rf"{next(iter(change))} in its config.json.*use an encoder without it"):
        encoder_of(build_hf(family, "large", **change), keep_all=False)


def test_waveforms_are_normalised_where_the_layout_expects_it() -> None:
    assert encoder_of(build_hf("wavlm", "large"), keep_all=False).normalise
    assert not encoder_of(build_hf("wavlm", "base"), keep_all=False).normalise
    assert encoder_of(build_hf("wavlm", "base"), keep_all=False, normalise=True).normalise
    assert encoder_of(build_hf("data2vec-audio", "base"), keep_all=False).normalise
    assert not encoder_of(build_hf("wav2vec2-bert", "large"), keep_all=False).normalise
