"""Normalising a waveform: what transformers' feature extractor does, and never silence out of noise."""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import soundfile
import torch
from transformers import Wav2Vec2FeatureExtractor

from serfit.config.schema import FeatureSettings, ModelParams
from serfit.corpus.utterance import Utterance
from serfit.errors import UserError
from serfit.nn.encoders.base import normalised
from serfit.nn.model import EmotionModel, build_model
from serfit.system.precision import Precision
from serfit.training.features import Features, features_at


def test_normalising_is_that_of_transformers() -> None:
    waveform = 0.3 * np.random.default_rng(1).standard_normal(5_000).astype(np.float32) + 0.1
    extractor = Wav2Vec2FeatureExtractor(do_normalize=True)
    theirs = extractor(waveform, sampling_rate=16_000, return_tensors="pt").input_values[0]
    torch.testing.assert_close(normalised(torch.from_numpy(waveform)), theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("sample", [3e38, float("inf"), float("nan")])
def test_samples_too_large_to_be_normalised_do_not_become_silence(sample: float) -> None:
    waveform = torch.randn(1_000)
    waveform[10] = sample
    assert normalised(waveform).isnan().any()


def test_silence_stays_silence() -> None:
    assert torch.equal(normalised(torch.zeros(500)), torch.zeros(500))


@pytest.mark.parametrize(
    ("loudest", "cause"),
    [(0.5, r"reach 0\.5, as sound may, and the weights are finite"), (12_000, r"reach 1\.2e\+04, and sound lies")],
)
def test_an_output_that_is_not_finite_is_blamed_on_the_recording_only_for_its_own_samples(
    loudest: float, cause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Normalised to unit variance, quiet speech with a click has samples far beyond 1 too."""
    samples = np.full(4_000, 1e-4)
    samples[::2] *= -1
    samples[100] = loudest
    soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
    model = build_model(ModelParams(speech_encoder="random:tiny", freeze_speech_encoder=True), 2, 1)
    assert model.encoder.normalise
    monkeypatch.setattr(EmotionModel, "prefix", lambda *_: torch.full((3, 64), float("nan")))
    with pytest.raises(UserError, match=rf"utterance u: .*a\.wav isn't finite: its samples {cause}"):
        Features(model, model.frozen_stages, Precision(), None)(Utterance("u", tmp_path / "a.wav", {}))


HALF = Precision("bf16", "cpu", "bf16")
ONLY_TRAINED = Precision("bf16", "cpu", "fp32")


@pytest.mark.parametrize("pooling", ["mean", "attentive_statistics"])
def test_features_in_bf16_are_near_those_in_float32_and_never_mistaken_for_them(
    pooling: Literal["mean", "attentive_statistics"], tmp_path: Path
) -> None:
    """All stages that are ever kept, statistics of layers among them."""
    soundfile.write(tmp_path / "a.wav", 0.1 * np.random.default_rng(1).standard_normal(8_000), 16_000)
    spoken = Utterance("u", tmp_path / "a.wav", {})
    params = ModelParams(speech_encoder="random:tiny", freeze_speech_encoder=True, pooling=pooling)
    model, store = build_model(params, 2, 1), FeatureSettings(store=tmp_path / "store")
    for stage in (1, model.encoder.last_stage, model.last_stage, model.statistics_stage):
        exact, half, trained = (features_at(model, stage, store, one) for one in (Precision(), HALF, ONLY_TRAINED))
        alone = features_at(model, stage, FeatureSettings(store=None), HALF)
        assert exact.store is not None
        assert half.store is not None
        assert trained.store is not None
        assert half.store.folder != exact.store.folder == trained.store.folder
        assert half(spoken).dtype == torch.float32
        assert torch.equal(half(spoken), alone(spoken))
        assert torch.equal(exact(spoken), trained(spoken))
        error = (half(spoken) - exact(spoken)).norm() / exact(spoken).norm()
        assert 1e-5 < error < 2e-2
        assert (exact.frozen_precision, half.frozen_precision, trained.frozen_precision) == (None, "bf16", None)
