"""The arithmetic of memory against the tensors that autograd really keeps."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch

from nn.small import encoder_of
from serfit.config.schema import ModelParams, Train
from serfit.nn.dropout import DropoutSeeds
from serfit.nn.encoders import source
from serfit.nn.encoders.build import Provenance
from serfit.nn.encoders.folder import LAYOUT, Normalisation
from serfit.nn.encoders.source import Source
from serfit.nn.model import EmotionModel, build_model
from serfit.training.memory import activation_bytes, first_budget, memory_warning, peak_bytes, state_bytes, total_memory
from tracked import Allocations, as_on_a_gpu

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def shallow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Full width, three layers."""
    real = source.random_settings

    def settings(name: str) -> dict[str, Any]:
        return real(name) | ({} if name == "random:tiny" else {"num_hidden_layers": 3})

    monkeypatch.setattr(source, "random_settings", settings)


FAMILIES = [
    ("hubert", None),
    ("data2vec-audio", None),
    ("wav2vec2-conformer", "relative"),
    ("wav2vec2-conformer", "rotary"),
    ("wav2vec2-bert", "relative_key"),
]


def of_family(family: str, positions: str | None, checkpointing: bool = False) -> EmotionModel:
    """An encoder of another family, full width, three layers, above its CNN."""
    from transformers import AutoConfig, AutoModel

    settings = {"hidden_size": 768, "num_hidden_layers": 3, "num_attention_heads": 12, "intermediate_size": 3072}
    settings |= {} if positions is None else {"position_embeddings_type": positions}
    params = ModelParams()
    hf = AutoModel.from_config(AutoConfig.for_model(family, **settings))
    encoder = encoder_of(hf, keep_all=True, p=0.1, gradient_checkpointing=checkpointing)
    encoder.freeze(params)
    return EmotionModel(encoder, params, 2, Provenance(family, None, "")).eval()


def kept_bytes(model: EmotionModel, seconds: float, *, half: bool) -> float:
    """What the graph of one more utterance in a batch holds on to."""
    totals = []
    for batch in (1, 3):
        own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        seen: dict[int, torch.Tensor] = {}

        def pack(tensor: torch.Tensor, own: set[int] = own, seen: dict[int, torch.Tensor] = seen) -> torch.Tensor:
            index = tensor.untyped_storage().data_ptr()
            if index not in own:
                seen.setdefault(index, tensor)
            return tensor

        stage = model.frozen_stages
        shape = (batch, *model.feature_shape(int(16_000 * seconds), stage))
        inputs = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        context = torch.autocast("cpu", torch.bfloat16) if half else nullcontext()
        with Allocations(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), context:
            model.train()
            model(inputs, torch.full((batch,), shape[1]), start=stage, noise=DropoutSeeds(tuple(range(batch))))
        totals.append(sum(tensor.untyped_storage().nbytes() for tensor in seen.values()))
    return (totals[1] - totals[0]) / 2


@pytest.mark.slow
@pytest.mark.parametrize("half", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize(
    ("size", "cnn", "seconds"), [("tiny", False, 4), ("tiny", True, 4), ("base", False, 6), ("base", True, 2)]
)
def test_activations_are_what_autograd_keeps(size: str, cnn: bool, seconds: float, half: bool) -> None:
    model = build_model(ModelParams(speech_encoder=f"random:{size}", freeze_cnn=not cnn), dimensions=2, seed=1)
    kept = kept_bytes(model, seconds, half=half)
    predicted = activation_bytes(model, model.frozen_stages, seconds, half=half, checkpointing=False, gpu=False)
    assert predicted.kept == pytest.approx(kept, rel=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("half", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("frozen", [{}, {"freeze_cnn": False}, {"freeze_layers": 2}])
@pytest.mark.parametrize("input", ["utterance", "window"])
def test_activations_of_whisper_are_what_autograd_keeps(input: str, frozen: dict[str, Any], half: bool) -> None:
    settings = {"model_type": "whisper", "d_model": 128, "encoder_ffn_dim": 512, "encoder_attention_heads": 4}
    params = ModelParams.model_validate({"encoder_input": input, **frozen})
    origin = Source("small", settings, "config.json", Normalisation(None, LAYOUT))
    model = build_model(params, 2, 1, source=origin)
    kept = kept_bytes(model, 4, half=half)
    predicted = activation_bytes(model, model.frozen_stages, 4, half=half, checkpointing=False, gpu=False)
    assert predicted.kept == pytest.approx(kept, rel=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("half", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize(("family", "positions"), FAMILIES)
def test_activations_of_every_family_are_what_autograd_keeps(family: str, positions: str | None, half: bool) -> None:
    model = of_family(family, positions)
    kept = kept_bytes(model, 6.0, half=half)
    predicted = activation_bytes(model, 1, 6.0, half=half, checkpointing=False, gpu=False)
    assert predicted.kept == pytest.approx(kept, rel=0.2)


@pytest.mark.slow
@pytest.mark.parametrize(("half", "checkpointing"), [(True, False), (False, True)], ids=["bf16", "computed again"])
@pytest.mark.parametrize(
    ("size", "seconds", "params"), [("large", 4.0, {"layers": "last", "pooling": "attention"}), ("base", 15.0, {})]
)
def test_the_peak_of_a_step_is_foretold(
    size: str, seconds: float, params: dict[str, Any], half: bool, checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against every allocation of a whole step, by the branches that a GPU takes."""
    as_on_a_gpu(monkeypatch)
    model = build_model(ModelParams(speech_encoder=f"random:{size}", **params), 2, 1, checkpointing)
    how: dict[str, Any] = {"half": half, "checkpointing": checkpointing, "gpu": True}
    assert peak_bytes(model, 1, 4, seconds, **how) == pytest.approx(peak_of_a_step(model, 4, seconds, half), rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(("half", "checkpointing"), [(True, False), (False, True)], ids=["bf16", "computed again"])
@pytest.mark.parametrize(("family", "positions"), FAMILIES)
def test_the_peak_of_a_step_is_foretold_for_every_family(
    family: str, positions: str | None, half: bool, checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_on_a_gpu(monkeypatch)
    model = of_family(family, positions, checkpointing)
    how: dict[str, Any] = {"half": half, "checkpointing": checkpointing, "gpu": True}
    assert peak_bytes(model, 1, 4, 8.0, **how) == pytest.approx(peak_of_a_step(model, 4, 8.0, half), rel=0.1)


def peak_of_a_step(model: EmotionModel, batch: int, seconds: float, half: bool) -> float:
    """Most bytes that are allocated at once in a training step above the CNN."""
    model.train()
    frames = model.feature_shape(int(16_000 * seconds), 1)[0]
    inputs = torch.randn(batch, *model.feature_shape(int(16_000 * seconds), 1))
    lengths, noise = torch.full((batch,), frames), DropoutSeeds(tuple(range(batch)))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], fused=True)
    with Allocations() as allocations:
        for tensor in (*model.parameters(), *model.buffers(), inputs):
            allocations.add(tensor)
        for _ in range(2):  # AdamW's moments come with the first
            model.zero_grad(set_to_none=True)
            allocations.peak = 0
            with torch.autocast("cpu", torch.bfloat16, cache_enabled=False) if half else nullcontext():
                predictions = model(inputs, lengths, start=1, noise=noise)
            predictions.float().sum().backward()
            optimizer.step()
    return allocations.peak


def test_checkpointing_keeps_little() -> None:
    """What is kept between the passes must lie below the prediction, which adds the layer being recomputed."""
    plain = build_model(ModelParams(speech_encoder="random:base"), 2, 1)
    model = build_model(ModelParams(speech_encoder="random:base"), 2, 1, gradient_checkpointing=True)
    cost = activation_bytes(model, 1, 6.0, half=False, checkpointing=True, gpu=False)
    assert kept_bytes(model, 6.0, half=False) < cost.kept + cost.passing < kept_bytes(plain, 6.0, half=False)


def test_frozen_parts_cost_their_weights_only() -> None:
    frozen = build_model(ModelParams(speech_encoder="random:base", freeze_speech_encoder=True, pooling="mean"), 2, 1)
    trained = build_model(ModelParams(speech_encoder="random:base"), 2, 1)
    total = sum(parameter.numel() for parameter in frozen.parameters())
    assert state_bytes(frozen, half=False) < 4.1 * total
    assert state_bytes(trained, half=False) > 14 * total
    nothing = activation_bytes(frozen, frozen.frozen_stages, 9.0, half=False, checkpointing=False, gpu=False)
    assert (nothing.kept, nothing.passing) == (0.0, 0.0)
    assert first_budget(frozen, frozen.frozen_stages, None, CPU, Train(), half=False) is None


def test_who_will_not_fit_is_warned(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_model(ModelParams(speech_encoder="random:base"), 2, 1)
    assert memory_warning(model, 1, 10.0, CPU, Train(), half=False) is None
    assert total_memory(CPU) > 0
    monkeypatch.setattr("serfit.training.memory.total_memory", lambda device: state_bytes(model, half=False) // 0.7)
    words = memory_warning(model, 1, 10.0, CPU, Train(), half=False)
    assert words is not None
    assert "longest utterance (10.0 s), and cpu has" in words
    assert first_budget(model, 1, 50.0, CPU, Train(), half=False) == 50
    assert first_budget(model, 1, 50.0, CPU, Train(micro_batch_seconds=20), half=False) == 1000
