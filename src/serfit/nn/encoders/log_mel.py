"""Whisper's log-mel spectrogram of a padded batch of waveforms, each as if it were alone.

Radford et al., "Robust speech recognition via large-scale weak supervision", 2022, section 2.2: Hann windows of 25 ms
every 10 ms, Slaney's mel bands, logarithms clamped to 8 decades below the largest of the utterance.
"""

import math
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from serfit.labels import SAMPLE_RATE
from serfit.nn.frames import valid_mask

WINDOW, HOP = 400, 160
"""Samples of an analysis window, and from one to the next."""

_HALF = WINDOW // 2

SHORTEST = _HALF + 1
"""Fewest samples: the first and last window reach half a window beyond the sound, where it is mirrored."""

_SMALLEST_POWER = 1e-10
_DECADES = 8.0


def log_mel(waveforms: Tensor, lengths: Tensor, bands: int, *, graph: bool = False) -> Tensor:
    """The log-mel spectrogram [B, M, bands] with M = S // 160; 0 from frame lengths[b] // 160 on.

    The values are those of transformers' `WhisperFeatureExtractor` for each waveform alone, not padded to 30 s.

    Args:
        waveforms: [B, S]; what lies beyond a waveform's length is never looked at.
        lengths: [B], samples of each, at least `SHORTEST`.
        bands: number of mel bands.
        graph: compute the Fourier transform as a matrix product, which ONNX runtimes have everywhere.
    """
    frames = waveforms.shape[1] // HOP
    with torch.autocast(waveforms.device.type, enabled=False):
        windows = _mirrored(waveforms, lengths).unfold(1, WINDOW, HOP)[:, :frames] * _hann(waveforms)
        power = _power_by_products(windows) if graph else torch.view_as_real(torch.fft.rfft(windows)).square().sum(-1)
        levels = (power @ mel_filters(bands).to(power)).clamp(min=_SMALLEST_POWER).log10()
        valid = valid_mask(lengths // HOP, frames)[..., None]
        largest = torch.where(valid, levels, math.log10(_SMALLEST_POWER)).amax((1, 2), keepdim=True)
        return torch.where(valid, (torch.maximum(levels, largest - _DECADES) + 4.0) / 4.0, 0.0)


def mel_filters(bands: int) -> Tensor:
    """Weights [201, bands] of frequencies in mel bands, each of unit area (Slaney, "Auditory Toolbox", 1998)."""
    return torch.from_numpy(_filters(bands))


@cache
def _filters(bands: int) -> NDArray[np.float64]:
    """Those weights as an array: a tensor that is made while a graph is traced is none that could be kept."""
    from transformers.audio_utils import mel_filter_bank

    found: NDArray[np.float64] = mel_filter_bank(
        1 + _HALF, bands, 0.0, SAMPLE_RATE / 2, SAMPLE_RATE, norm="slaney", mel_scale="slaney"
    )
    return found


def _mirrored(waveforms: Tensor, lengths: Tensor) -> Tensor:
    """Waveforms [B, S] with half a window of themselves mirrored at either end, the end being each one's own.

    An end is written with one scatter for all rows: where it lies differs from row to row.
    """
    offsets = torch.arange(_HALF, device=waveforms.device)
    ends = lengths.to(waveforms.device)[:, None]
    tail = waveforms.gather(1, ends - 2 - offsets)
    widened = torch.cat([waveforms[:, 1 : _HALF + 1].flip(1), waveforms, torch.zeros_like(tail)], dim=1)
    return widened.scatter(1, _HALF + ends + offsets, tail)


def _hann(like: Tensor) -> Tensor:
    return torch.hann_window(WINDOW, dtype=like.dtype, device=like.device)


def _power_by_products(windows: Tensor) -> Tensor:
    """Power spectra [..., 201] of windows [..., 400]."""
    turns = torch.arange(WINDOW, dtype=torch.float64)[:, None] * torch.arange(1 + _HALF, dtype=torch.float64)
    angles = 2.0 * math.pi / WINDOW * (turns % WINDOW)
    real, imaginary = (windows @ wave.to(windows) for wave in (angles.cos(), angles.sin()))
    return real.square() + imaginary.square()
