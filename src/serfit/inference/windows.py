"""Emotion through time: the same network on windows that glide over a recording of any length.

A window begins every hop. The last one ends where the audio ends, so that nothing at the end is dropped; it may begin
off the grid of hops. Audio shorter than one window is one window. What is held is one batch of windows and the last
seconds decoded, so a recording of hours takes no more memory than one of minutes.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serfit.corpus.audio import audio_blocks
from serfit.errors import UserError
from serfit.inference.networks import Waveform
from serfit.inference.recogniser import LONGEST, Estimates, Recogniser, Sound, name_of, waveform_of
from serfit.labels import SAMPLE_RATE

WINDOW, HOP = 3.0, 0.5
"""Seconds of speech that are heard at a time, and from one beginning to the next, unless asked otherwise."""

AT_ONCE = 240.0
"""Seconds of windows that are heard in one batch."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Emotion through time.

    Attributes:
        starts: [W] float64, where each window begins, in seconds.
        ends: [W] float64, where each ends.
        estimates: what was recognised in the W windows.
    """

    starts: NDArray[np.float64]
    ends: NDArray[np.float64]
    estimates: Estimates

    def __len__(self) -> int:
        """W, the number of windows."""
        return len(self.starts)

    @property
    def centres(self) -> NDArray[np.float64]:
        """[W], the middle of each window, in seconds."""
        return (self.starts + self.ends) / 2


def curve(
    recogniser: Recogniser, sound: Sound, *, rate: int | None = None, window: float = WINDOW, hop: float = HOP
) -> Curve:
    """Emotion through time in a file or an array.

    Args:
        recogniser: the model.
        sound: a file, or samples [S] or [S, C].
        rate: of samples, in Hz; required for arrays, unused for files.
        window: seconds of speech heard at a time.
        hop: seconds from the beginning of one window to that of the next.

    >>> import serfit
    >>> through_time = curve(serfit.load("mine"), "speech.wav", window=3.0, hop=0.75)
    >>> through_time.starts.tolist(), through_time.ends.tolist(), through_time.estimates.values.shape
    ([0.0, 0.75, 1.0], [3.0, 3.75, 4.0], (3, 2))

    Raises:
        UserError: audio that can't be read or is too short; windows that the model can't hear or that leave gaps.
    """
    return joined(list(windows(recogniser, sound, rate=rate, window=window, hop=hop)))


def windows(
    recogniser: Recogniser,
    sound: Sound,
    *,
    rate: int | None = None,
    window: float = WINDOW,
    hop: float = HOP,
    start: float = 0.0,
    end: float | None = None,
    skip: int = 0,
) -> Iterator[Curve]:
    """The same curve piece by piece, in constant memory where the sound is a file.

    Args:
        recogniser: the model.
        sound: a file, or samples [S] or [S, C].
        rate: of samples, in Hz; required for arrays, unused for files.
        window: seconds of speech heard at a time.
        hop: seconds from the beginning of one window to that of the next.
        start: where to begin, in seconds; the times of the windows count from the beginning of the sound all the same.
        end: where to end, in seconds; None for the end.
        skip: how many windows to leave out, from the first; after a whole number of pieces the others are the same,
            bit for bit. The sound before is decoded all the same.

    Raises:
        UserError: as `curve`; damage found on the way comes after the pieces before it.
    """
    length, step = window_samples(recogniser, window, hop)
    if isinstance(sound, str | Path):
        blocks = audio_blocks(Path(sound).expanduser(), start, end)
    else:
        blocks = iter([waveform_of(sound, rate, start, end)])
    name, indices = name_of(sound), islice(cut(blocks, length, step), skip, None)
    while batch := list(islice(indices, max(1, int(AT_ONCE * SAMPLE_RATE) // length))):
        starts = np.array([index for index, _ in batch]) / SAMPLE_RATE
        ends = np.array([index + len(waveform) for index, waveform in batch]) / SAMPLE_RATE
        estimates = recogniser.estimate([waveform for _, waveform in batch], [name] * len(batch))
        yield Curve(start + starts, start + ends, estimates)


def window_samples(recogniser: Recogniser, window: float, hop: float) -> tuple[int, int]:
    """Window and hop in samples.

    Raises:
        UserError: they aren't finite, the model can't hear so little or so much, or the hop leaves gaps.
    """
    if not (math.isfinite(window) and recogniser.shortest <= window <= LONGEST):
        raise UserError(
            f"a window of {window:g} s isn't possible; it must last {recogniser.shortest:g} to {LONGEST:g} s, "
            f"for example {WINDOW:g}"
        )
    if not (math.isfinite(hop) and 0.001 <= hop <= window):
        raise UserError(
            f"a hop of {hop:g} s doesn't go with windows of {window:g} s; it must be at least 0.001 s, and at most the "
            f"window, so that nothing falls between two of them, for example {min(HOP, window):g}"
        )
    return round(window * SAMPLE_RATE), round(hop * SAMPLE_RATE)


def cut(blocks: Iterable[Waveform], length: int, step: int) -> Iterator[tuple[int, Waveform]]:
    """Windows as first sample and samples, each as soon as its last sample has come.

    Args:
        blocks: consecutive samples in pieces of any size; read only as far as the next window needs.
        length: samples of a window.
        step: samples from one to the next, at most `length`.

    >>> sound = np.arange(10, dtype=np.float32)
    >>> [(place, len(window)) for place, window in cut([sound[:7], sound[7:]], 4, 3)]
    [(0, 4), (3, 4), (6, 4)]
    >>> [(place, len(window)) for place, window in cut([sound], 4, 4)]
    [(0, 4), (4, 4), (6, 4)]
    >>> [(place, len(window)) for place, window in cut([sound], 99, 4)]
    [(0, 10)]
    """
    held = np.empty(0, dtype=np.float32)  # the samples from `begin` on
    begin = following = covered = 0
    for block in blocks:
        held = np.concatenate([held, block])
        total = begin + len(held)
        while following + length <= total:
            covered = following + length
            yield following, held[following - begin : covered - begin].copy()
            following += step
        kept = max(begin, min(following, total - length))
        held, begin = held[kept - begin :], kept
    total = begin + len(held)
    if total > covered:
        last = max(0, total - length)
        yield last, held[last - begin :].copy()


def joined(pieces: Sequence[Curve]) -> Curve:
    """One curve of consecutive pieces, at least one."""
    parts = [piece.estimates for piece in pieces]
    spreads = [part.spread for part in parts if part.spread is not None]
    return Curve(
        starts=np.concatenate([piece.starts for piece in pieces]),
        ends=np.concatenate([piece.ends for piece in pieces]),
        estimates=Estimates(
            dimensions=parts[0].dimensions,
            unit=np.concatenate([part.unit for part in parts]),
            values=np.concatenate([part.values for part in parts]),
            spread=np.concatenate(spreads) if spreads else None,
            embeddings=np.concatenate([part.embeddings for part in parts]),
        ),
    )
