"""What the level of a recording says: silence, channels that cancel each other, samples that are no fractions of 1."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serfit.corpus.audio import loudness

SILENCE = 2.0**-14
"""Largest distance between the samples of digital silence: two steps of 16 bits, as dither has them."""

CANCELLED = 0.01
"""Share of a channel's range below which that of the mean counts as what is left of channels that cancel each other.

Their mean is 40 dB below them. Without cancelling it is 6 dB below one of two channels if the other is silent, and
18 dB below one of eight.
"""

SILENT = ("silent", "silent or nearly so as mono, for the channels cancel each other; take one of them")
"""What is said of silence: of all channels, and of their mean."""

LOUD = 8.0
"""Peak from which samples, floats within 1 by convention, are taken for something else: 18 dB above full scale."""

TOO_LOUD = f"samples reach {LOUD:g} and more where sound lies within 1; divide integers by 32768"


def level_doubt(samples: NDArray[np.float32], path: Path, start: float = 0.0, end: float | None = None) -> str | None:
    """Check the level of a waveform: `SILENT`, `TOO_LOUD`, or None if it is plausible.

    Args:
        samples: [S] as `serfit.corpus.audio.read_audio` gives them, S >= 1.
        path: the file that they are from, which is read again where they are silent or quiet.
        start: where they begin in it, in seconds.
        end: where they end, None for its end.

    Raises:
        UserError: as `read_audio`.
    """
    least, most = float(samples.min()), float(samples.max())
    if most - least <= 2.0 * CANCELLED:  # the range of samples within 1 whose channels cancel each other is no larger
        return glance(path, start, end)
    return TOO_LOUD if max(-least, most) >= LOUD else None


def glance(path: Path, start: float = 0.0, end: float | None = None) -> str | None:
    """Check the level of a file or segment as far as its first sound, without decoding the rest.

    Returns:
        One of `SILENT`, which is certain; `TOO_LOUD` where the first sound is, for a distance of twice the peak can't
        come from a smaller one; else None.

    Raises:
        UserError: as `serfit.corpus.audio.read_audio`, as far as it was read.
    """
    mono, loudest = loudness(path, start, end, enough=SILENCE, share=CANCELLED)
    if mono <= SILENCE or mono < CANCELLED * loudest:
        return SILENT[loudest > SILENCE]
    return TOO_LOUD if mono >= 2.0 * LOUD else None
