"""Hand-made acoustic features of an utterance: statistics of log-mel bands, pitch, energy and time. numpy only.

The definitions are written out below; they follow no published feature set. They say how far one gets without any
pretrained encoder.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from serfit.labels import SAMPLE_RATE

BANDS = 40
"""Triangular mel bands from 20 Hz to 8 kHz."""

HOP = 160
"""Samples between frames: 10 ms."""

SPECTRUM_FRAME, PITCH_FRAME = 400, 800
"""Samples in a frame: 25 ms for spectra, 50 ms for pitch, which holds three periods of 60 Hz."""

LOWEST_PITCH, HIGHEST_PITCH = 60.0, 400.0
"""Range of the fundamental frequency in Hz."""

VOICED = 0.5
"""Normalised autocorrelation from which a frame counts as voiced."""

_FLOOR = 1e-10
_STATISTICS = ("mean", "deviation", "p10", "p50", "p90", "movement")
_OCTAVE_COST = 0.02

Floats = NDArray[np.float64]


def feature_names() -> tuple[str, ...]:
    """Names of what `acoustic_features` returns, in order."""
    tracks = [f"mel{band:02d}" for band in range(BANDS)] + ["energy", "pitch"]
    statistics = [f"{track} {statistic}" for track in tracks for statistic in _STATISTICS]
    return (*statistics, "energy slope", "pitch slope", "voiced share", "voiced stretches per second", "log seconds")


def acoustic_features(samples: NDArray[np.float32]) -> Floats:
    """Features of a waveform.

    Args:
        samples: [S] at 16 kHz, S >= 1; shorter than 50 ms is padded with silence.

    Returns:
        [F], see `feature_names`. Levels in decibels, pitch in octaves above 60 Hz, slopes per second; NaN where nothing
        is voiced.
    """
    padded = np.pad(samples.astype(np.float64), (0, max(0, PITCH_FRAME - len(samples))))
    spectra = np.abs(np.fft.rfft(_frames(padded, SPECTRUM_FRAME) * np.hanning(SPECTRUM_FRAME), 512)) ** 2
    mel = 10.0 * np.log10(spectra @ _mel_bank().T + _FLOOR)
    energy = 10.0 * np.log10((_frames(padded, SPECTRUM_FRAME) ** 2).mean(axis=1) + _FLOOR)
    pitch, voiced = _pitch(padded)
    seconds = len(samples) / SAMPLE_RATE
    stretches = int((np.diff(voiced.astype(int), prepend=0) == 1).sum())
    tracks = [*mel.T, energy, pitch[voiced]]
    return np.array(
        [
            *(value for track in tracks for value in _statistics(track)),
            _slope(np.arange(len(energy)), energy),
            _slope(np.flatnonzero(voiced), pitch[voiced]),
            voiced.mean(),
            stretches / seconds,
            np.log(seconds),
        ]
    )


def _frames(samples: Floats, length: int) -> Floats:
    """[T, length] frames every 10 ms."""
    return np.lib.stride_tricks.sliding_window_view(samples, length)[::HOP]


def _mel_bank() -> Floats:
    """[BANDS, 257] triangles on the mel scale m = 2595 log10(1 + f / 700)."""
    lowest, highest = (2595.0 * np.log10(1.0 + hertz / 700.0) for hertz in (20.0, 8000.0))
    edges = np.linspace(lowest, highest, BANDS + 2)
    hertz = 700.0 * (10.0 ** (edges / 2595.0) - 1.0)
    bins = np.linspace(0.0, SAMPLE_RATE / 2, 257)
    rising = (bins - hertz[:-2, None]) / (hertz[1:-1] - hertz[:-2])[:, None]
    falling = (hertz[2:, None] - bins) / (hertz[2:] - hertz[1:-1])[:, None]
    return np.asarray(np.maximum(0.0, np.minimum(rising, falling)), dtype=np.float64)


def _pitch(samples: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Octaves above 60 Hz per frame, and which frames are voiced.

    The highest peak of the autocorrelation of the windowed frame over that of the window, as in Boersma, "Accurate
    short-term analysis of the fundamental frequency", 1993, longer lags at a small cost.
    """
    window = np.hanning(PITCH_FRAME)
    frames = _frames(samples, PITCH_FRAME)
    frames = (frames - frames.mean(axis=1, keepdims=True)) * window
    shortest, longest = int(SAMPLE_RATE / HIGHEST_PITCH), int(SAMPLE_RATE / LOWEST_PITCH)
    own = np.fft.irfft(np.abs(np.fft.rfft(window, 2048)) ** 2)[: longest + 1]
    correlation = np.fft.irfft(np.abs(np.fft.rfft(frames, 2048, axis=1)) ** 2, axis=1)[:, : longest + 1]
    with np.errstate(invalid="ignore", divide="ignore"):
        normal = np.nan_to_num(correlation / correlation[:, :1]) / (own / own[0])
    lags = np.arange(shortest, longest + 1)
    candidates = normal[:, shortest:]
    chosen = (candidates - _OCTAVE_COST * np.log2(lags / shortest)).argmax(axis=1)
    strength = candidates[np.arange(len(chosen)), chosen]
    loud = correlation[:, 0] > 1e-4 * correlation[:, 0].max()
    return np.log2(SAMPLE_RATE / lags[chosen] / LOWEST_PITCH), (strength > VOICED) & loud


def _statistics(track: Floats) -> Sequence[float]:
    """See `_STATISTICS`; movement is the mean absolute change between frames."""
    if len(track) == 0:
        return [np.nan] * len(_STATISTICS)
    low, middle, high = np.percentile(track, [10, 50, 90])
    movement = np.abs(np.diff(track)).mean() if len(track) > 1 else 0.0
    return [track.mean(), track.std(), low, middle, high, movement]


def _slope(frames: NDArray[np.intp], track: Floats) -> float:
    """Change per second of the straight line through a track; NaN where nothing is voiced."""
    if len(track) == 0:
        return float("nan")
    time = (frames - frames.mean()) * HOP / SAMPLE_RATE
    spread = float(time @ time)
    return float(time @ (track - track.mean())) / spread if spread > 0.0 else 0.0
