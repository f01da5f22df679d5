"""The same audio in two places: equal files, overlapping stretches of a recording, copies in another format.

Equal files are found by their bytes and overlapping stretches by their times, without decoding. Copies of decoded
sound, also cut elsewhere, are found by anchors: windows of samples chosen by what is in them (winnowing, Schleimer,
Wilkerson and Aiken, 2003), so that recordings that share a stretch choose the same windows in it wherever they begin.
Sound that was changed (another level, a lossy format, another sampling rate) isn't found again.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serfit.corpus.audio import file_digest, read_audio
from serfit.corpus.folds import Split
from serfit.corpus.utterance import Part, Utterance
from serfit.errors import UserError, counted, listed
from serfit.labels import SAMPLE_RATE

THREADS = 8
"""Files looked at at the same time; the disk or the network is what one waits for."""

ROUNDING = 0.01
"""Seconds by which stretches of a recording may overlap because their times are rounded."""

WINDOW, REACH = 800, 4_000
"""Samples in an anchor (50 ms), and windows in a row of which one is an anchor: a shared stretch of 0.3 s has one."""

QUIET = 10.0
"""Root mean square, in steps of 16 bits, below which a window is silence and no anchor."""

EQUAL = 0.9
"""Share of the samples at the same place, but for digital silence, that must be equal in copies."""

_MOST_PAIRS = 1_000
_FACTOR, _MIXER = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93
_NONE = np.uint64(2**64 - 1)
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Anchors:
    """Windows of a waveform by which its sound is found again.

    Attributes:
        hashes: uint64 [N], of the samples in each window, in steps of 16 bits.
        places: int64 [N], where each begins, in samples.
    """

    hashes: NDArray[np.uint64]
    offsets: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Shared:
    """Two utterances with the same sound, for how many seconds, and how many would be all of it."""

    one: tuple[Part, Utterance]
    other: tuple[Part, Utterance]
    seconds: float
    whole: float

    @property
    def across(self) -> bool:
        """Whether they are in two parts."""
        return self.one[0] != self.other[0]

    @property
    def two_people(self) -> bool:
        """Whether they may be two people who speak at the same time: both known, and sharing less than half."""
        speakers = {self.one[1].speaker, self.other[1].speaker}
        return len(speakers) == 2 and None not in speakers and self.seconds <= self.whole / 2

    def __str__(self) -> str:
        names = [
            f"{utterance.id} ({part})" if self.across else utterance.id for part, utterance in (self.one, self.other)
        ]
        return f"{' = '.join(names)}, {self.seconds:.2f} s"


def check_copies(split: Split, seconds: Mapping[str, float], anchors: Mapping[str, Anchors]) -> list[str]:
    """Look for the same audio under several names: what is trained on and tested on flatters the test.

    Args:
        split: the parts.
        seconds: duration of every utterance by id.
        anchors: of every utterance by id, where audio was decoded; without, only equal files are compared.

    Returns:
        Warnings about the same audio twice within a part, and about people of two parts who speak at the same time.

    Raises:
        UserError: the same audio is in two parts.
    """
    spoken = [(part, utterance) for part, utterances in split.parts.items() for utterance in utterances]
    recordings: dict[str, list[tuple[Part, Utterance]]] = defaultdict(list)
    content = _content([utterance.path for _, utterance in spoken])
    for part, utterance in spoken:
        recordings[content[utterance.path]].append((part, utterance))
    leaks: list[_Shared] = []
    beside: list[_Shared] = []
    twice: list[_Shared] = []
    for shared in _all_shared(recordings, content, spoken, seconds, anchors):
        if shared.across:
            (beside if shared.two_people else leaks).append(shared)
        elif shared.seconds > shared.whole - ROUNDING:
            twice.append(shared)
        if len(leaks) >= _MOST_PAIRS:
            break
    if leaks:
        raise UserError(
            f"the same audio is in two parts of fold {split.fold}, so the test would flatter: "
            f"{listed([str(one) for one in leaks])}; keep what overlaps in one part (data.split.group), or remove one "
            "of each from the corpus"
        )
    warnings = []
    if twice:
        named = listed([str(one) for one in twice])
        warnings.append(f"warning: the same audio has several names ({counted(len(twice), 'pair')}): {named}")
    if beside:
        named = listed([str(one) for one in beside])
        warnings.append(
            "warning: utterances in two parts, by two speakers each, have some of their audio in common, so it is "
            f"trained on and tested on ({counted(len(beside), 'pair')}): {named}"
        )
    return warnings


def _all_shared(
    recordings: Mapping[str, Sequence[tuple[Part, Utterance]]],
    content: Mapping[Path, str],
    spoken: Sequence[tuple[Part, Utterance]],
    seconds: Mapping[str, float],
    anchors: Mapping[str, Anchors],
) -> Iterator[_Shared]:
    for stretches in recordings.values():
        yield from _overlapping(stretches, seconds)
    nothing = Anchors(np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64))
    for one, other, offset in matches([anchors.get(utterance.id, nothing) for _, utterance in spoken]):
        (_, first), (_, second) = spoken[one], spoken[other]
        if content[first.path] != content[second.path] and (length := _equal_seconds(first, second, offset)):
            # in a file of its own, what lies whole in another file isn't two people talking at the same time
            yield _Shared(spoken[one], spoken[other], length, min(seconds[first.id], seconds[second.id]))


def _overlapping(stretches: Sequence[tuple[Part, Utterance]], seconds: Mapping[str, float]) -> Iterator[_Shared]:
    """Pairs of stretches of one recording that share more than `ROUNDING`."""
    going: list[tuple[float, Part, Utterance]] = []
    for part, utterance in sorted(stretches, key=lambda one: one[1].start):
        length = seconds[utterance.id]
        end = utterance.start + length
        going = [one for one in going if one[0] - utterance.start > ROUNDING]
        for other_end, other_part, other in going:
            shared = min(end, other_end) - utterance.start
            if shared > ROUNDING:
                yield _Shared((other_part, other), (part, utterance), shared, max(length, seconds[other.id]))
        going.append((end, part, utterance))


# ---------------------------------------------------------------- decoded sound


def anchors_of(samples: NDArray[np.float32]) -> Anchors:
    """The anchors of a waveform [S] at 16 kHz.

    Of every `REACH` windows one after another the one with the least hash is chosen; windows of silence never.
    """
    steps = np.rint(samples * np.float32(32_768.0)).astype(np.int64)
    found = [
        _anchors(steps[begin : begin + _PIECE + REACH + WINDOW - 2], begin)
        for begin in range(0, max(1, len(steps) - WINDOW - REACH + 2), _PIECE)
    ]
    hashes, offsets = (np.concatenate(parts) for parts in zip(*found, strict=True))
    _, first = np.unique(offsets, return_index=True)  # neighbouring pieces may choose the same
    return Anchors(hashes[first], offsets[first])


def _anchors(steps: NDArray[np.int64], begin: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Hashes and places of a piece whose first sample is number `begin`."""
    if len(steps) < WINDOW:
        return np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64)
    hashes = _hashes(steps)
    least = np.unique(_sliding_least(hashes, min(REACH, len(hashes))))
    least = least[least != _NONE]
    place = np.searchsorted(least, hashes)
    chosen = np.flatnonzero(np.append(least, _NONE)[place] == hashes)
    chosen = chosen[hashes[chosen] != _NONE]
    return hashes[chosen], chosen + begin


def _hashes(steps: NDArray[np.int64]) -> NDArray[np.uint64]:
    """A hash of every window that doesn't depend on where the window lies; `_NONE` for silence.

    The polynomial of the window's samples modulo 2**64, from prefix sums P: sum x[i+j] r**j = r**-i (P[i+W] - P[i]).
    """
    powers, inverse = (
        np.multiply.accumulate(np.full(len(steps), base, dtype=np.uint64))
        for base in (_FACTOR, pow(_FACTOR, -1, 2**64))
    )
    sums = np.concatenate((np.zeros(1, dtype=np.uint64), np.cumsum(steps.view(np.uint64) * powers)))
    hashes = (sums[WINDOW:] - sums[:-WINDOW]) * inverse[: len(steps) - WINDOW + 1]
    hashes ^= hashes >> np.uint64(31)
    hashes *= np.uint64(_MIXER)
    hashes ^= hashes >> np.uint64(29)
    energy = np.concatenate(([0], np.cumsum(steps * steps)))
    hashes[energy[WINDOW:] - energy[:-WINDOW] < WINDOW * QUIET**2] = _NONE
    return hashes


def _sliding_least(values: NDArray[np.uint64], width: int) -> NDArray[np.uint64]:
    """The least of every `width` values in a row, by least ones from both sides of blocks (van Herk)."""
    blocks = np.pad(values, (0, -len(values) % width), constant_values=_NONE).reshape(-1, width)
    from_left = np.minimum.accumulate(blocks, axis=1).ravel()
    from_right = np.minimum.accumulate(blocks[:, ::-1], axis=1)[:, ::-1].ravel()
    count = len(values) - width + 1
    return np.minimum(from_right[:count], from_left[width - 1 :][:count])


def matches(anchors: Sequence[Anchors]) -> Iterator[tuple[int, int, int]]:
    """Pairs (one, other, offset) of waveforms that seem to share their sound: one[offset + k] = other[k].

    Half of the anchors that either has in the shared stretch must be the other's too: a signal tone at the beginning of
    all recordings is no copy. Of several that share a window, neighbours in the list are compared.
    """
    if not anchors:
        return
    hashes = np.concatenate([one.hashes for one in anchors])
    offsets = np.concatenate([one.offsets for one in anchors])
    owners = np.repeat(np.arange(len(anchors)), [len(one.hashes) for one in anchors])
    order = np.lexsort((offsets, owners, hashes))
    hashes, offsets, owners = hashes[order], offsets[order], owners[order]
    same = np.flatnonzero((hashes[1:] == hashes[:-1]) & (owners[1:] != owners[:-1]))
    pairs = np.stack([owners[same], owners[same + 1], offsets[same] - offsets[same + 1]], axis=1)
    found, votes = np.unique(pairs, axis=0, return_counts=True)
    for (one, other, offset), count in zip(found.tolist(), votes.tolist(), strict=True):
        first, second = anchors[one], anchors[other]
        ends = min(first.offsets[-1], second.offsets[-1] + offset)
        begins = max(first.offsets[0], second.offsets[0] + offset)
        expected = min(_between(first.offsets, begins, ends), _between(second.offsets + offset, begins, ends))
        if 2 * count >= expected:
            yield one, other, offset


def _between(offsets: NDArray[np.int64], first: int, last: int) -> int:
    return int(((offsets >= first) & (offsets <= last)).sum())


def _equal_seconds(one: Utterance, other: Utterance, offset: int) -> float:
    """Seconds for which one[offset + k] = other[k], from the audio itself; 0 where it isn't so."""
    first, second = (read_audio(spoken.path, spoken.start, spoken.end) for spoken in (one, other))
    first, second = first[max(0, offset) :], second[max(0, -offset) :]
    length = min(len(first), len(second))
    first, second = first[:length], second[:length]
    heard = (first != 0) | (second != 0)
    if not heard.any() or (first == second)[heard].mean() < EQUAL:
        return 0.0
    return length / SAMPLE_RATE


# ---------------------------------------------------------------- equal files


def _content(paths: Iterable[Path]) -> dict[Path, str]:
    """A name for each file's content; equal for files that are equal byte by byte."""
    unique = list(dict.fromkeys(paths))
    with ThreadPoolExecutor(THREADS) as pool:
        samples = list(pool.map(_sample, unique))
        alike: dict[tuple[int, bytes], list[Path]] = defaultdict(list)
        for path, sample in zip(unique, samples, strict=True):
            alike[sample].append(path)
        suspects = [path for group in alike.values() if len(group) > 1 for path in group]
        digests = dict(zip(suspects, pool.map(file_digest, suspects), strict=True))
    return {path: digests.get(path, f"only {path}") for path in unique}


def _sample(path: Path) -> tuple[int, bytes]:
    """Size and some bytes from the middle of a file."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(size // 2)
            return size, file.read(1024)
    except OSError as error:
        raise UserError(
            f"can't read the audio file {path}: {error.strerror or error}; check its permissions"
        ) from error
