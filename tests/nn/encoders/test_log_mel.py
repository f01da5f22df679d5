"""Log-mel spectra against transformers' own extractor, a float64 loop, and each waveform alone."""

import numpy as np
import pytest
import torch
from torch import Tensor

from nn.small import padded
from serfit.nn.encoders.log_mel import HOP, SHORTEST, WINDOW, log_mel, mel_filters
from serfit.nn.frames import valid_mask

LENGTHS = (SHORTEST, 319, 320, 8_000, 8_079, 16_160)


@pytest.fixture
def sounds() -> list[Tensor]:
    """Noise below a tone that grows, at levels five decades apart, of lengths with odd and even numbers of spectra."""
    random = torch.Generator().manual_seed(2)
    found = []
    for index, length in enumerate(LENGTHS):
        time = torch.arange(length) / 16_000
        tone = time * torch.sin(2 * torch.pi * 440 * time)
        found.append(10.0**-index * (tone + 1e-3 * torch.randn(length, generator=random)))
    return found


@pytest.mark.parametrize("bands", [80, 128])
def test_spectra_are_those_of_transformers(bands: int, sounds: list[Tensor]) -> None:
    from transformers import WhisperFeatureExtractor

    extractor = WhisperFeatureExtractor(bands)
    for sound in sounds:
        expected = extractor(
            sound.numpy(), sampling_rate=16_000, padding="do_not_pad", truncation=False, return_tensors="pt"
        )
        (found,) = log_mel(sound[None], torch.tensor([len(sound)]), bands)
        torch.testing.assert_close(found.T, expected.input_features[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("graph", [False, True], ids=["transform", "products"])
def test_spectra_are_what_their_definition_says(graph: bool, sounds: list[Tensor]) -> None:
    filters = mel_filters(80).double().numpy()
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    for sound in sounds:
        wide = np.pad(sound.double().numpy(), WINDOW // 2, mode="reflect")
        rows = [wide[first : first + WINDOW] * hann for first in range(0, len(sound) // HOP * HOP, HOP)]
        levels = np.log10(np.maximum(np.abs(np.fft.rfft(rows)) ** 2 @ filters, 1e-10))
        expected = (np.maximum(levels, levels.max() - 8.0) + 4.0) / 4.0
        (found,) = log_mel(sound[None].double(), torch.tensor([len(sound)]), 80, graph=graph)
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-9)


@pytest.mark.parametrize("graph", [False, True], ids=["transform", "products"])
def test_a_batch_is_its_waveforms(graph: bool, sounds: list[Tensor]) -> None:
    batch, lengths = padded(sounds)
    rubbish = torch.where(valid_mask(lengths, batch.shape[1]), batch, torch.nan)
    found = log_mel(rubbish, lengths, 80, graph=graph)
    for row, sound in zip(found, sounds, strict=True):
        (alone,) = log_mel(sound[None], torch.tensor([len(sound)]), 80, graph=graph)
        torch.testing.assert_close(row[: len(alone)], alone, rtol=1e-5, atol=1e-5)
        assert (row[len(alone) :] == 0.0).all()


def test_spectra_are_computed_in_full_precision(sounds: list[Tensor]) -> None:
    batch, lengths = padded(sounds)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = log_mel(batch, lengths, 80)
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, log_mel(batch, lengths, 80))


def test_silence_is_finite() -> None:
    assert log_mel(torch.zeros(1, 4_000), torch.tensor([4_000]), 80).isfinite().all()


def test_filters_that_a_trace_asks_for_first_are_real_afterwards() -> None:
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode():
        mel_filters(17)
    assert type(mel_filters(17)) is Tensor
