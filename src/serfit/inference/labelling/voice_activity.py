"""Where somebody speaks: stretches of a recording that are loud enough, found from energy alone.

Levels are taken every 20 ms. A frame counts as voice when its level lies less than D below the loud end of the
recording (its 99th percentile), where D is the distance down to the quiet end (10th percentile) less 6 dB, but within
12 and 30 dB; anything under -60 dB of full scale is silence. Pauses shorter than 0.3 s are bridged, what then lasts
less than 0.1 s is dropped, 0.1 s is added on either side, and stretches over 20 s are cut where they are quietest.

This is no model of speech: music, traffic and applause are loud too, and a recording without contrast (steady noise)
counts as voice throughout. A soft speaker beside a loud one can be missed.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from serfit.inference.networks import Waveform
from serfit.labels import SAMPLE_RATE

FRAME = SAMPLE_RATE // 50
"""Samples of a frame: 20 ms."""

SILENCE = -60.0
"""Level, in dB of full scale, under which nothing counts as voice."""

LOUD, QUIET = 99.0, 10.0
"""Percentiles of the levels that stand for the loud and the quiet end of a recording."""

MARGIN, LEAST, MOST = 6.0, 12.0, 30.0
"""How many dB above the quiet end the threshold lies, and bounds of its distance from the loud end."""

BRIDGED, SHORTEST, ADDED, LONGEST = 0.3, 0.1, 0.1, 20.0
"""Seconds: pauses that are bridged, stretches that are dropped, what is added on either side, the longest stretch."""


def levels(blocks: Iterable[Waveform]) -> NDArray[np.float32]:
    """Level of every 20 ms in dB of full scale, [F]; the last frame may be shorter. A constant counts as silence.

    Args:
        blocks: consecutive samples in pieces of any size.
    """
    found = [np.empty(0, dtype=np.float32)]
    left = np.empty(0, dtype=np.float32)
    for block in blocks:
        samples = np.concatenate([left, block])
        whole = len(samples) // FRAME * FRAME
        found.append(_decibels(samples[:whole].reshape(-1, FRAME)))
        left = samples[whole:]
    if len(left):
        found.append(_decibels(left[None]))
    return np.concatenate(found)


def voiced(level: NDArray[np.float32]) -> list[tuple[float, float]]:
    """Stretches with voice as start and end in seconds, in order and apart from each other.

    Args:
        level: of every 20 ms, in dB of full scale.

    >>> voiced(np.repeat([-90.0, -20.0, -90.0], 50).astype(np.float32))
    [(0.9, 2.1)]
    """
    if len(level) == 0:
        return []
    loud, quiet = np.percentile(level, [LOUD, QUIET])
    threshold = max(SILENCE, loud - np.clip(loud - quiet - MARGIN, LEAST, MOST))
    runs = _bridged(_runs(level > threshold), round(BRIDGED * 50))
    added, least = round(ADDED * 50), round(SHORTEST * 50)
    kept = [(max(0, begin - added), min(len(level), end + added)) for begin, end in runs if end - begin >= least]
    cut = [part for begin, end in kept for part in _cut(level, begin, end, round(LONGEST * 50))]
    return [(begin / 50, end / 50) for begin, end in cut]


def stretches(blocks: Iterable[Waveform], spans: Sequence[tuple[float, float]]) -> Iterator[Waveform]:
    """The samples of stretches of a recording, read through once.

    Args:
        blocks: consecutive samples in pieces of any size.
        spans: start and end of each stretch in seconds; in order and apart. Ends behind the last sample mean that.
    """
    waiting = [(round(start * SAMPLE_RATE), round(end * SAMPLE_RATE)) for start, end in reversed(spans)]
    parts: list[Waveform] = []
    begin = 0
    for block in blocks:
        following = begin + len(block)
        while waiting and waiting[-1][0] < following:
            start, end = waiting[-1]
            parts.append(block[max(0, start - begin) : end - begin])
            if end > following:
                break
            waiting.pop()
            yield np.concatenate(parts)
            parts = []
        begin = following
    if parts:
        yield np.concatenate(parts)


def _decibels(frames: NDArray[np.float32]) -> NDArray[np.float32]:
    """Level of each row; variance, so that an offset of the sound card doesn't count."""
    power = np.maximum(frames.var(axis=1, dtype=np.float64), 1e-12)
    return np.asarray(10 * np.log10(power), dtype=np.float32)


def _runs(active: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First frame and the one after the last of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], active, [False]]).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _bridged(runs: Sequence[tuple[int, int]], pause: int) -> list[tuple[int, int]]:
    """The runs, those less than a pause apart as one."""
    whole: list[tuple[int, int]] = []
    for begin, end in runs:
        if whole and begin - whole[-1][1] < pause:
            whole[-1] = (whole[-1][0], end)
        else:
            whole.append((begin, end))
    return whole


def _cut(level: NDArray[np.float32], begin: int, end: int, most: int) -> list[tuple[int, int]]:
    """A run in parts of at most `most` frames, cut at the quietest frame between half of that and all of it."""
    parts = []
    while end - begin > most:
        half = begin + most // 2
        index = half + int(np.argmin(level[half : begin + most]))
        parts.append((begin, index))
        begin = index
    return [*parts, (begin, end)]
