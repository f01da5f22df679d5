"""Normalising a waveform: what transformers' feature extractor does, and never silence out of noise."""

import numpy as np
import pytest
import torch
from transformers import Wav2Vec2FeatureExtractor

from serfit.nn.encoders.base import normalised


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
