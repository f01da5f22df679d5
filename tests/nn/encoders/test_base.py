"""Encoders behind one face: what is said of a family is true of it, and another family needs nothing else."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import serfit
from nn.small import FAMILIES, LAYOUTS, build_hf, build_whisper, encoder_of, padded
from serfit.config.schema import ModelParams
from serfit.corpus.preflight import SHORTEST_SECONDS
from serfit.labels import SAMPLE_RATE
from serfit.nn.encoders.base import EMBEDDING, Encoder, States
from serfit.nn.encoders.build import Provenance, build_encoder
from serfit.nn.encoders.folder import Normalisation
from serfit.nn.encoders.sizes import Sizes
from serfit.nn.encoders.source import Source
from serfit.nn.encoders.whisper import WhisperEncoder
from serfit.nn.frames import Layout, frame_count
from serfit.nn.model import EmotionModel

INNARDS = re.compile(
    r"conv_stride|conv_kernel|conv_dim|\bhf\.|feature_extractor|encoder\.layers\b|encoder\.config|do_stable_layer_norm"
)


def test_nobody_else_knows_how_an_encoder_is_built() -> None:
    source = Path(serfit.__file__).parent
    inside = {source / "nn/encoders", source / "inference/public"}  # the latter names tensors of others' checkpoints
    outside = [path for path in source.rglob("*.py") if inside.isdisjoint(path.parents)]
    assert len(outside) > 100
    assert [str(path) for path in outside if INNARDS.search(path.read_text())] == []


class Spectrogram(Encoder):
    """A family that begins with spectra: log powers, a strided convolution, feed-forward layers."""

    def __init__(self, **options: Any) -> None:
        hf = nn.Module()
        hf.config = SimpleNamespace(to_dict=dict)
        hf.conv, hf.layers = nn.Conv1d(9, 12, 3, 2), nn.ModuleList(nn.Linear(12, 12) for _ in range(2))
        super().__init__(hf, Sizes(12, 2, 12, 12, hop=320), 2, normalise=False, **options)

    shortest_input = 480
    architecture: dict[str, Any] = {"model_type": "spectrogram"}  # noqa: RUF012

    def frame_count(self, samples: Any) -> Any:
        return frame_count(samples // 160, (3,), (2,))

    def stage_modules(self, stage: int) -> dict[str, nn.Module]:
        hf = self.hf
        return [{}, {"conv": hf.conv}, {}, {"layers.0": hf.layers[0]}, {"layers.1": hf.layers[1]}][stage]

    def front_bytes(self, stage: int, seconds: float, word: int, *, checkpointing: bool) -> float:
        return 12.0 * word * 50.0 * seconds

    def traced(self, waveforms: Tensor, lengths: Tensor) -> States:
        raise NotImplementedError

    def _front(self, inputs: Tensor, layout: Layout, call: Any) -> tuple[Tensor, Layout]:
        spectra = inputs[:, : inputs.shape[1] // 160 * 160].view(len(inputs), -1, 160)[..., :9].square().log1p()
        hidden = call(lambda x: self.hf.conv(x.transpose(1, 2)).transpose(1, 2), spectra)
        counts = [self.frame_count(count) for count in layout.counts]
        return hidden, Layout.of(counts, hidden.shape[1], hidden.device)

    def _embed(self, frames: Tensor, layout: Layout, noise: Any, time_mask: Any) -> Tensor:
        return frames

    def _layer(self, stage: int, hidden: Tensor, layout: Layout, shared: Any, noise: Any) -> Tensor:
        return F.gelu(self.hf.layers[stage - EMBEDDING - 1](hidden))


@pytest.mark.parametrize("pooling", ["mean", "attentive_statistics"])
@pytest.mark.parametrize("family", [*FAMILIES, "spectrogram", "whisper"])
def test_every_stage_is_as_it_is_said_to_be(family: str, pooling: str, waveforms: list[Tensor]) -> None:
    torch.manual_seed(1)
    encoder: Encoder
    if family == "spectrogram":
        encoder = Spectrogram(keep_all=True)
    elif family == "whisper":
        encoder = WhisperEncoder(build_whisper(), keep_all=True, normalise=False)
    else:
        encoder = encoder_of(build_hf(family, "large"), keep_all=True)
    params = ModelParams.model_validate({"pooling": pooling, "freeze_layers": 1})
    encoder.freeze(params)
    model = EmotionModel(encoder, params, 2, Provenance(family, None, "")).eval()
    assert model.frozen_stages == EMBEDDING + 1
    waveforms = waveforms[:3]
    with torch.no_grad():
        batch, lengths = padded([encoder.prepare(one) for one in waveforms])
        expected = model(batch, lengths, 0)
        for stage in range(model.last_stage + 1):
            features = [
                model.prefix(encoder.prepare(one), stage) if stage else encoder.prepare(one) for one in waveforms
            ]
            assert [tuple(one.shape) for one in features] == [model.feature_shape(len(w), stage) for w in waveforms]
            rate = model.entries_per_second(stage)
            assert rate is None or abs(len(features[0]) - rate * len(waveforms[0]) / SAMPLE_RATE) <= 1
            torch.testing.assert_close(model(*padded(features), stage), expected, rtol=1e-4, atol=1e-5)
            cost = encoder.activations(stage, 2.0, half=False, checkpointing=False, gpu=False)
            assert (cost.kept > 0.0) and (cost.passing > 0.0) == (stage < encoder.last_stage)  # noqa: PT018
    names = [encoder.stage_name(stage) for stage in range(encoder.last_stage + 1)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_an_encoder_is_built_again_from_its_description(family: str, layout: str) -> None:
    first = encoder_of(build_hf(family, layout), keep_all=True)
    assert first.shortest_input <= (560 if family == "wav2vec2-bert" else SHORTEST_SECONDS * SAMPLE_RATE)
    source = Source("again", first.description(), "serfit.json", Normalisation(None, "layout"))
    with torch.device("meta"):
        again = build_encoder(source, ModelParams(), seed=1)
    assert (again.architecture, again.sizes, again.normalise) == (first.architecture, first.sizes, first.normalise)
    shapes = [{name: one.shape for name, one in encoder.state_dict().items()} for encoder in (first, again)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_settings_that_are_not_stated_are_those_of_transformers(family: str) -> None:
    from transformers import AutoConfig

    theirs = AutoConfig.for_model(family)
    known = type(encoder_of(build_hf(family, "base"), keep_all=False)).known
    for name, value in known.model_validate({"model_type": family}):
        stated = getattr(theirs, name, value)  # only WavLM has buckets, only HuBERT a choice of norms
        assert (tuple(stated) if isinstance(stated, list) else stated) == value, name
