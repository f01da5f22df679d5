"""Log-mel filterbanks: those of transformers' extractor, whatever the batch and whatever lies behind an utterance."""

import numpy as np
import pytest
import torch
from torch import Tensor

from nn.small import padded
from serfit.nn.encoders.filterbank import filterbank


def speech(samples: int, seed: int = 0, level: float = 0.1, offset: float = 0.0) -> Tensor:
    return level * torch.randn(samples, generator=torch.Generator().manual_seed(seed)) + offset


def own(waveform: Tensor) -> Tensor:
    return filterbank(waveform[None], torch.tensor([len(waveform)]), 80)[0]


@pytest.mark.parametrize("samples", [560, 719, 720, 4_321, 16_000, 48_123])
@pytest.mark.parametrize(("level", "offset"), [(0.1, 0.0), (1.0, 0.3), (1e-3, 0.5)])
def test_it_is_that_of_transformers(samples: int, level: float, offset: float) -> None:
    from transformers import SeamlessM4TFeatureExtractor

    waveform = speech(samples, samples, level, offset)
    made = SeamlessM4TFeatureExtractor()(waveform.numpy(), sampling_rate=16_000, return_tensors="pt")
    frames = int(made["attention_mask"].sum())
    mine = own(waveform)
    assert frames == len(mine) // 2
    found = mine[: 2 * frames].reshape(frames, 160)
    atol = 3e-5 if samples > 720 else 1e-3  # theirs divide rounded logarithms by what two or three windows vary
    torch.testing.assert_close(found, made["input_features"][0, :frames], rtol=0, atol=atol)


def test_it_is_what_the_formula_says() -> None:
    """Window by window in float64, by numpy's Fourier transform."""
    from transformers.audio_utils import mel_filter_bank

    waveform = speech(2_000, 3, offset=0.2).double()
    filters = mel_filter_bank(257, 80, 20.0, 8_000.0, 16_000, mel_scale="kaldi", triangularize_in_mel_space=True)
    logs = []
    for start in range(0, 2_000 - 399, 160):
        window = 32_768.0 * waveform[start : start + 400].numpy()
        window = window - window.mean()
        window = window - 0.97 * np.concatenate([window[:1], window[:-1]])
        power = np.abs(np.fft.rfft(window * np.hanning(400) ** 0.85, 512)) ** 2
        logs.append(np.log(np.maximum(power @ filters, 2.0**-23)))
    expected = np.array(logs)
    expected = (expected - expected.mean(0)) / np.sqrt(expected.var(0, ddof=1) + 1e-7)
    np.testing.assert_allclose(own(waveform).numpy(), expected, rtol=0, atol=1e-9)


def test_a_batch_is_its_utterances_whatever_is_in_the_padding() -> None:
    waveforms = [speech(samples, samples) for samples in (9_000, 560, 4_321)]
    batch, lengths = padded(waveforms)
    rubbish = torch.where(
        torch.arange(batch.shape[1] + 99) < lengths[:, None], torch.nn.functional.pad(batch, (0, 99)), torch.nan
    )
    found = filterbank(rubbish, lengths, 80)
    for row, waveform in zip(found, waveforms, strict=True):
        alone = own(waveform)
        torch.testing.assert_close(row[: len(alone)], alone, rtol=1e-6, atol=1e-6)
        assert not row[len(alone) :].any()


def test_level_and_mean_have_no_effect_and_silence_is_finite() -> None:
    waveform = speech(8_000)
    torch.testing.assert_close(own(5.0 * waveform), own(waveform), rtol=0, atol=1e-5)
    torch.testing.assert_close(own(waveform + 0.4), own(waveform), rtol=0, atol=2e-2)  # float32 rounds the waveform
    assert own(torch.zeros(8_000)).abs().max() < 1e-6
