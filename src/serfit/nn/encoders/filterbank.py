"""Kaldi's log-mel filterbank, as wav2vec2-BERT was trained on it: what transformers' SeamlessM4TFeatureExtractor gives.

Windows of 25 ms every 10 ms; from each its mean is taken and the past sample by 0.97, then it is faded in and out. All
of that and the Fourier transform are linear, so one matrix does it: no operator for spectra is needed, which a graph
wouldn't have. In float64, where windows with a large mean lose nothing.
"""

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from serfit.labels import SAMPLE_RATE
from serfit.nn.frames import frame_count

WINDOW, HOP = 400, 160
"""Samples of a window, and between the beginnings of two."""

_FFT = 512
_PREEMPHASIS = 0.97
_FULL_SCALE = 32_768.0
"""Kaldi's samples are 16-bit integers."""

_LEAST_POWER = 1.192092955078125e-07
_VARIANCE_FLOOR = 1e-7


def filterbank(waveforms: Tensor, lengths: Tensor, bands: int) -> Tensor:
    """Log-mel powers [B, M, bands] of waveforms, each band at zero mean and unit variance over an utterance's windows.

    Args:
        waveforms: [B, S]; what lies beyond a waveform's length has no effect.
        lengths: [B], samples of each, enough for two windows: the variance is that of a sample.
        bands: mel bands from 20 Hz on.

    Returns:
        In the waveforms' precision; beyond an utterance's own windows it is 0.
    """
    exact = waveforms.double()
    starts = torch.arange(0, waveforms.shape[1] - WINDOW + 1, HOP, device=exact.device)
    windows = exact[:, starts[:, None] + torch.arange(WINDOW, device=exact.device)]
    real, imaginary = (windows @ torch.from_numpy(_spectrum()).to(exact.device)).chunk(2, dim=-1)
    powers = (real.square() + imaginary.square()) @ torch.from_numpy(_mel_filters(bands)).to(exact.device)
    logs = powers.clamp(min=_LEAST_POWER).log()
    counts = frame_count(lengths, (WINDOW,), (HOP,))[:, None, None].to(exact.device)
    valid = torch.arange(logs.shape[1], device=exact.device)[:, None] < counts
    centred = torch.where(valid, logs - torch.where(valid, logs, 0.0).sum(1, keepdim=True) / counts, 0.0)
    variance = centred.square().sum(1, keepdim=True) / (counts - 1)
    return (centred / (variance + _VARIANCE_FLOOR).sqrt()).to(waveforms.dtype)


@cache
def _spectrum() -> NDArray[np.float64]:
    """From a window's samples to the real and imaginary parts of its spectrum, [400, 2 * 257]."""
    without_mean = np.eye(WINDOW) - 1.0 / WINDOW
    sharper = np.eye(WINDOW) - _PREEMPHASIS * np.eye(WINDOW, k=1)
    sharper[0, 0] = 1.0 - _PREEMPHASIS
    povey = np.hanning(WINDOW) ** 0.85
    waves = np.exp(2j * np.pi / _FFT * np.outer(np.arange(WINDOW), np.arange(_FFT // 2 + 1)))
    found: NDArray[np.float64] = (
        _FULL_SCALE * without_mean @ sharper @ (povey[:, None] * np.hstack([waves.real, waves.imag]))
    )
    return found


@cache
def _mel_filters(bands: int) -> NDArray[np.float64]:
    """Weights of frequencies in mel bands, [257, bands]."""
    from transformers.audio_utils import mel_filter_bank

    found: NDArray[np.float64] = mel_filter_bank(
        _FFT // 2 + 1, bands, 20.0, SAMPLE_RATE / 2, SAMPLE_RATE, mel_scale="kaldi", triangularize_in_mel_space=True
    )
    return found
