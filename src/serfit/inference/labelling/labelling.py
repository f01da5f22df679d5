"""Labelling many recordings: decoded ahead, heard in batches of like length, handed over in the order of the list.

`label` is a generator of pieces. A piece brings rows; between two pieces with rows the list is done up to `done`, and
the rows since then are of the next recording. Labelling from there on gives the same rows, bit for bit on the same
machine: batches never reach across that point. A recording that can't be used becomes a row with a sentence; nothing
else is disturbed.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice

from serfit.corpus.audio import audio_blocks, audio_duration, read_audio
from serfit.corpus.level import level_doubt
from serfit.errors import UserError
from serfit.inference.labelling.inputs import Item
from serfit.inference.labelling.voice_activity import LONGEST, SHORTEST, SILENCE, levels, stretches, voiced
from serfit.inference.networks import Waveform
from serfit.inference.recogniser import Emotion, Estimates, Recogniser, emotions
from serfit.inference.windows import window_samples, windows
from serfit.labels import SAMPLE_RATE
from serfit.nn.passes import plan_passes

POOL_SECONDS, POOL_ITEMS = 960.0, 512
"""Most speech, and most recordings, that are decoded and sorted by length together."""

BATCH_SECONDS = 240.0
"""Padded seconds that are heard between two signs of progress."""

AHEAD = 16
"""Recordings that are decoded before they are needed."""


@dataclass(frozen=True, slots=True)
class Whole:
    """Each recording is one utterance."""


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows that glide over each recording; see `serfit.inference.windows`."""

    window: float
    hop: float


@dataclass(frozen=True, slots=True)
class Voiced:
    """Each stretch with voice is one utterance; see `serfit.inference.labelling.voice_activity`."""


Cutting = Whole | Windows | Voiced
"""Ways to cut recordings into what is analysed at a time."""


@dataclass(frozen=True, slots=True)
class Row:
    """The labels of one stretch of a recording.

    Attributes:
        item: place of the recording in the list.
        start: where the stretch begins, in seconds.
        end: where it ends; None where that isn't known.
        emotion: what was recognised; None where there is an error.
        note: what is strange about the sound, though there are values: silence, samples far beyond 1; said of whole
            recordings alone.
        error: why there are no values, in one sentence.
    """

    item: int
    start: float
    end: float | None
    emotion: Emotion | None = None
    note: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows and progress since the last piece.

    Attributes:
        rows: new rows.
        done: how many items, from the first of the list, have all their rows.
        heard: items heard so far; runs ahead of `done` within a pool.
        seconds: of audio that were heard for this piece.
    """

    rows: tuple[Row, ...]
    done: int
    heard: int
    seconds: float


def check_cutting(recogniser: Recogniser, cutting: Cutting) -> None:
    """Raise UserError where the model can't hear what it would be given."""
    if isinstance(cutting, Windows):
        window_samples(recogniser, cutting.window, cutting.hop)


@dataclass(frozen=True, slots=True)
class Point:
    """The progress of a labelling: totals of all pieces so far.

    Attributes:
        done: as that piece says.
        rows: that item `done` has already.
        reached: where the last of these rows ends, in seconds; counts only where there are some.
    """

    done: int = 0
    rows: int = 0
    reached: float = 0.0


BEGINNING = Point()


def label(recogniser: Recogniser, items: Sequence[Item], cutting: Cutting, begin: Point = BEGINNING) -> Iterator[Piece]:
    """Label a list from a point on.

    Memory stays the same however long the list and, but for `Whole`, however long the recordings are (levels for
    finding voice take 200 bytes a second).
    """
    match cutting:
        case Whole():
            return _utterances(recogniser, items, begin.done)
        case Windows():
            return _each(items, begin, lambda index, skip: _windows(recogniser, index, items[index], cutting, skip))
        case Voiced():
            return _each(items, begin, lambda index, skip: _stretches(recogniser, index, items[index], skip))


# ------------------------------------------------------------------------------------------------ whole recordings


def _utterances(recogniser: Recogniser, items: Sequence[Item], begin: int) -> Iterator[Piece]:
    pool: list[Waveform | UserError] = []
    seconds, done = 0.0, begin
    for heard in _decoded_ahead(recogniser, items[begin:]):
        pool.append(heard)
        seconds += 0.0 if isinstance(heard, UserError) else len(heard) / SAMPLE_RATE
        if len(pool) >= POOL_ITEMS or seconds >= POOL_SECONDS:
            yield from _pool(recogniser, items, pool, done)
            done += len(pool)
            pool, seconds = [], 0.0
    if pool:
        yield from _pool(recogniser, items, pool, done)


def _decoded_ahead(recogniser: Recogniser, items: Sequence[Item]) -> Iterator[Waveform | UserError]:
    """The waveform of each item in order, or why there is none."""

    def decoded(item: Item) -> Waveform | UserError:
        try:
            recogniser.check_length(item.name, audio_duration(item.path, item.start, item.end))
            waveform = read_audio(item.path, item.start, item.end)
            recogniser.check_length(item.name, len(waveform) / SAMPLE_RATE)
        except UserError as error:
            return error
        return waveform

    waiting: deque[Future[Waveform | UserError]] = deque()
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as threads:
        todo = iter(items)
        try:
            waiting.extend(threads.submit(decoded, item) for item in islice(todo, AHEAD))
            while waiting:
                heard = waiting.popleft().result()
                waiting.extend(threads.submit(decoded, item) for item in islice(todo, 1))
                yield heard
        finally:
            threads.shutdown(wait=False, cancel_futures=True)


def _pool(
    recogniser: Recogniser, items: Sequence[Item], pool: Sequence[Waveform | UserError], begin: int
) -> Iterator[Piece]:
    """Label items `begin` and following; their rows come together at the end."""
    rows = {
        index: Row(index, items[index].start, items[index].end, error=str(heard))
        for index, heard in enumerate(pool, start=begin)
        if isinstance(heard, UserError)
    }
    sound = {index: heard for index, heard in enumerate(pool, start=begin) if not isinstance(heard, UserError)}
    indices = list(sound)
    heard_items = begin + len(rows)
    most = round(BATCH_SECONDS * SAMPLE_RATE)
    for batch in plan_passes([len(sound[index]) for index in indices], most, overhead=most):
        chosen = [indices[number] for number in batch]
        spans = [(items[index].start, items[index].start + len(sound[index]) / SAMPLE_RATE) for index in chosen]
        names = [items[index].name for index in chosen]
        for row in _rows(recogniser, chosen, names, spans, [sound[index] for index in chosen]):
            rows[row.item] = row if row.error else replace(row, note=_note(items[row.item], sound[row.item]))
        heard_items += len(chosen)
        yield Piece((), begin, heard_items, sum(end - start for start, end in spans))
    yield Piece(tuple(rows[index] for index in sorted(rows)), begin + len(pool), begin + len(pool), 0.0)


def _note(item: Item, waveform: Waveform) -> str:
    try:
        return level_doubt(waveform, item.path, item.start, item.end) or ""
    except UserError as error:  # the file has changed since it was read
        return str(error)


def _rows(
    recogniser: Recogniser,
    indices: Sequence[int],
    names: Sequence[str],
    spans: Sequence[tuple[float, float]],
    waveforms: Sequence[Waveform],
) -> list[Row]:
    """A row per waveform; where something is wrong with one of them, each is asked about alone."""
    try:
        return _heard(indices, spans, recogniser.estimate(waveforms, names))
    except UserError as error:
        if len(waveforms) == 1:
            return [Row(indices[0], *spans[0], error=str(error))]
        return [
            row
            for index, name, span, waveform in zip(indices, names, spans, waveforms, strict=True)
            for row in _rows(recogniser, [index], [name], [span], [waveform])
        ]


def _heard(indices: Sequence[int], spans: Sequence[tuple[float, float]], estimates: Estimates) -> list[Row]:
    """Estimates of N stretches one by one, with the place of the recording that each belongs to."""
    named = zip(indices, emotions(estimates, spans), strict=True)
    return [Row(index, emotion.start, emotion.end, emotion) for index, emotion in named]


# ------------------------------------------------------------------------------------------------ parts of recordings


def _each(items: Sequence[Item], begin: Point, parts: Callable[[int, int], Iterator[list[Row]]]) -> Iterator[Piece]:
    """Label recordings one after another, each in parts; what is wrong on the way ends that recording alone.

    `parts` takes an item's place, and how many of its rows to leave out.
    """
    for index in range(begin.done, len(items)):
        skip = begin.rows if index == begin.done else 0
        reached = begin.reached if skip else items[index].start
        trouble: tuple[Row, ...] = ()
        try:
            for rows in parts(index, skip):
                before, reached = reached, rows[-1].end or reached
                yield Piece(tuple(rows), index, index, reached - before)
        except UserError as error:
            trouble = (Row(index, reached, None, error=str(error)),)
        yield Piece(trouble, index + 1, index + 1, 0.0)


def _windows(recogniser: Recogniser, index: int, item: Item, cutting: Windows, skip: int) -> Iterator[list[Row]]:
    window, hop = cutting.window, cutting.hop
    for piece in windows(recogniser, item.path, window=window, hop=hop, start=item.start, end=item.end, skip=skip):
        spans = list(zip(piece.starts.tolist(), piece.ends.tolist(), strict=True))
        yield _heard([index] * len(piece), spans, piece.estimates)


def _stretches(recogniser: Recogniser, index: int, item: Item, skip: int) -> Iterator[list[Row]]:
    spans = voiced(levels(audio_blocks(item.path, item.start, item.end)))
    if not spans:
        raise UserError(
            f"no voice was found in {item.name}: no stretch of {SHORTEST:g} s or more in it is louder than "
            f"{SILENCE:g} dB of full scale; leave it out, or label it without --segments"
        )
    sounds = zip(spans, stretches(audio_blocks(item.path, item.start, item.end), spans), strict=True)
    left = islice(sounds, skip, None)
    while batch := list(islice(left, round(BATCH_SECONDS / LONGEST))):
        heard = [waveform for _, waveform in batch]
        begins = [item.start + start for (start, _), _ in batch]
        ends = [begin + len(waveform) / SAMPLE_RATE for begin, waveform in zip(begins, heard, strict=True)]
        names = [f"{item.file} from {begin:.2f} s to {end:.2f} s" for begin, end in zip(begins, ends, strict=True)]
        yield _rows(recogniser, [index] * len(batch), names, list(zip(begins, ends, strict=True)), heard)
