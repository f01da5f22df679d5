"""One labelling from what was asked to the finished files: the story of `serfit predict`."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from serfit import __version__
from serfit.corpus.audio import audio_duration
from serfit.errors import UserError, counted
from serfit.inference.labelling.inputs import Item, Listing
from serfit.inference.labelling.labelling import BEGINNING, Cutting, Piece, Point, Whole, check_cutting, label
from serfit.inference.labelling.ledger import Ledger, Target, made_before, refuse_others
from serfit.inference.labelling.table import Columns, Format, header, line
from serfit.inference.pictures import circumplex_picture, time_picture
from serfit.inference.png import circumplex_print, time_print
from serfit.inference.recogniser import Emotion, Estimates, Recogniser
from serfit.inference.windows import Curve
from serfit.system.files import write_bytes, write_text
from serfit.system.interrupt import StopRequest
from serfit.system.lease import Holder
from serfit.system.lock import take
from serfit.system.log import Log

MODEL_FILES = (
    *("*.safetensors", "*.onnx", "*.data", "*.yaml", "serfit.json", "config.json"),
    *("calibration.json", "validation.csv"),  # the second for runs that lack the first
)
"""Files of a run or a bundle that decide what it says."""

_NO_VECTOR = np.empty(0, dtype=np.float32)

LONGEST_STEM = 160
"""Most bytes of a recording's name in the name of its pictures; file systems allow 255 in all."""


@dataclass(frozen=True, slots=True)
class Request:
    """A labelling as requested: recordings, model and settings.

    Attributes:
        models: runs, folders of runs, bundles, names on the hub.
        listing: the recordings.
        cutting: how they are cut.
        options: further settings that change the numbers.
        pictures: a folder for pictures of curves, or None.
    """

    models: tuple[str, ...]
    listing: Listing
    cutting: Cutting
    options: Mapping[str, str]
    pictures: Path | None = None

    def about(self) -> dict[str, Any]:
        """Models and settings, for people."""
        cutting = {"kind": type(self.cutting).__name__.lower(), **asdict(self.cutting)}
        return {"serfit": __version__, "models": list(self.models), "cutting": cutting, "options": dict(self.options)}

    def fingerprint(self) -> str:
        """Changes with everything that the labels depend on: models and recordings by size and time of last change."""
        told = {
            **self.about(),
            "weights": [_identity(Path(model).expanduser()) for model in self.models],
            "items": [item.identity() for item in self.listing.items],
            "pictures": None if self.pictures is None else str(self.pictures),
        }
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def label_to_file(request: Request, target: Target, load: Callable[[], Recogniser], log: Log) -> tuple[str, ...]:
    """Label everything into files, going on where an earlier command stopped.

    Args:
        request: what is asked.
        target: where the labels go.
        load: opens the models; not called where the files are there already and nothing has changed.
        log: says what happens.

    Returns:
        Sentences of the recordings that couldn't be used.

    Raises:
        UserError: the target can't be written, is another's, or a model can't be used.
        serfit.system.interrupt.Interrupted: a stop was asked for; what was done is kept.
    """
    _check_folder(target)
    made, fingerprint = made_before(target), request.fingerprint()
    if made is not None and made.fingerprint == fingerprint:
        labelled = counted(made.rows, "row")
        log.say(f"{target.table} is there already, with {labelled}; nothing has changed, nothing was computed")
        return made.errors
    with _locks(target):
        recogniser = load()
        check_cutting(recogniser, request.cutting)
        for note in recogniser.notes:
            log.say(note)
        items = request.listing.items
        columns = columns_of(recogniser, items)
        width = sum(network.about.embedding_width for network in recogniser.networks)
        ledger = Ledger(target, fingerprint, columns.names, width, whole=request.pictures is not None)
        ledger.go_on()
        begin = ledger.point
        if begin.done < len(items):
            refuse_others(target)
        if ledger.anew:
            log.say("an unfinished labelling lay there, by another model, setting, list or version; it is begun anew")
        if ledger.rows:
            inside = f", and the next up to {begin.reached:g} s" if begin.rows else ""
            log.say(f"going on: {begin.done} of {len(items)} recordings were labelled before{inside}")
        with StopRequest("; what was labelled is kept: repeat the command to go on") as stop:
            for piece in _shown(_pieces(request, recogniser, begin), request, begin, log):
                ledger.add([(columns.cells(row, items[row.item]), row.emotion) for row in piece.rows], piece.done)
                stop.check()
        ledger.finish(request.about())
        log.say(f"written: {target.table} with {counted(ledger.rows, 'row')}")
        return tuple(ledger.errors)


def label_to_lines(
    request: Request, form: Format, recogniser: Recogniser, write: Callable[[str], object], log: Log
) -> tuple[str, ...]:
    """Label everything and hand each line over as soon as it is known; returns sentences as `label_to_file`."""
    check_cutting(recogniser, request.cutting)
    for note in recogniser.notes:
        log.say(note)
    items = request.listing.items
    columns, errors = columns_of(recogniser, items), []
    write(header(columns.names, form))
    for piece in _shown(_pieces(request, recogniser, BEGINNING), request, BEGINNING, log):
        errors += [row.error for row in piece.rows if row.error]
        for row in piece.rows:
            write(line(columns.cells(row, items[row.item]), columns.names, form))
    return tuple(errors)


def columns_of(recogniser: Recogniser, items: Sequence[Item]) -> Columns:
    """The columns of the table for each stretch."""
    return Columns(recogniser.dimensions, any(item.id for item in items), recogniser.members > 1)


def _pieces(request: Request, recogniser: Recogniser, begin: Point) -> Iterator[Piece]:
    pieces = label(recogniser, request.listing.items, request.cutting, begin)
    if request.pictures is None:
        return pieces
    return _drawn(pieces, request.pictures, request.listing.items, recogniser)


def _drawn(pieces: Iterable[Piece], folder: Path, items: Sequence[Item], recogniser: Recogniser) -> Iterator[Piece]:
    """The pieces, with pictures of every recording written before the piece that ends it is handed over."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"can't make the folder {folder}: {error.strerror or error}; choose one that you may write to"
        ) from error
    both = {"valence", "arousal"} <= set(recogniser.dimensions)
    rows: list[tuple[int, Emotion]] = []
    for piece in pieces:
        for row in piece.rows:
            if rows and rows[0][0] != row.item:
                rows = []
            if row.emotion is not None:  # without its vector: those of hours would take room
                rows.append((row.item, replace(row.emotion, embedding=_NO_VECTOR)))
        if rows and piece.done > rows[0][0]:
            index, curve = rows[0][0], _curve([emotion for _, emotion in rows], recogniser)
            stem = f"{index + 1:05d}_{_shortened(items[index].path.stem)}"
            write_text(folder / f"{stem}_time.svg", time_picture(curve, recogniser.scales))
            write_bytes(folder / f"{stem}_time.png", time_print(curve, recogniser.scales))
            if both:
                write_text(folder / f"{stem}_circumplex.svg", circumplex_picture(curve, recogniser.scales))
                write_bytes(folder / f"{stem}_circumplex.png", circumplex_print(curve, recogniser.scales))
            rows = []
        yield piece


def _shortened(name: str) -> str:
    """The beginning of a name, so that with a number and an ending it still is a file's name anywhere."""
    while len(os.fsencode(name)) > LONGEST_STEM:
        name = name[:-1]
    return name


def _curve(emotions: Sequence[Emotion], recogniser: Recogniser) -> Curve:
    """The curve of one recording, without vectors."""
    unit, values, spread = (
        np.array([list(getattr(emotion, kind).values()) for emotion in emotions])
        for kind in ("unit", "values", "spread")
    )
    vectors = np.empty((len(emotions), 0), dtype=np.float32)
    return Curve(
        starts=np.array([emotion.start for emotion in emotions]),
        ends=np.array([emotion.end for emotion in emotions]),
        estimates=Estimates(recogniser.dimensions, unit, values, spread if spread.size else None, vectors),
    )


def _shown(pieces: Iterable[Piece], request: Request, begin: Point, log: Log) -> Iterator[Piece]:
    """The pieces, with progress and speed shown: by recordings, or by seconds where each is heard in parts."""
    items = request.listing.items
    by_item = isinstance(request.cutting, Whole)
    total = len(items) if by_item else max(1, round(sum(map(_duration, items))))
    base = 0.0 if by_item else sum(map(_duration, items[: begin.done]))
    base += begin.reached - items[begin.done].start if begin.rows else 0.0
    heard, began = 0.0, time.monotonic()
    for piece in pieces:
        heard += piece.seconds
        done = piece.heard if by_item else min(total, round(base + heard))
        speed = heard / max(1e-9, time.monotonic() - began)
        log.advance("labelled" if by_item else "seconds analysed", done, total, f"{speed:.1f} x real time")
        yield piece
    log.settle()


def _duration(item: Item) -> float:
    try:
        return audio_duration(item.path, item.start, item.end)
    except UserError:
        return 0.0


@contextmanager
def _locks(target: Target) -> Iterator[None]:
    """Be the only process that writes the target's files. Raises UserError naming the one that does."""
    with ExitStack() as held:
        for path in (target.table, target.embeddings):
            if path is None:
                continue
            try:
                lock = take(path.with_name(f".{path.name}.lock"))
            except OSError as error:
                raise UserError(
                    f"can't write into {path.parent}: {error.strerror or error}; name a file in a folder that you may "
                    "write to"
                ) from error
            if isinstance(lock, Holder):
                raise UserError(f"{path} is being written by {lock}; wait for it, or name another file")
            held.enter_context(lock)
        yield


def _check_folder(target: Target) -> None:
    for path in (target.table, target.embeddings):
        if path is not None and not path.parent.is_dir():
            raise UserError(f"there is no folder {path.parent} for {path.name}; make it, or name another")


def _identity(model: Path) -> list[list[object]]:
    """Names, sizes and times of last change of the files that make a model; empty for a name on the hub."""
    folder, patterns = (model.parent, (f"{model.stem}*",)) if model.is_file() else (model, MODEL_FILES)
    names = {file.relative_to(folder) for pattern in patterns for file in folder.rglob(pattern)}
    told: list[list[object]] = []
    for name in sorted(name for name in names if "checkpoints" not in name.parts):
        status = (folder / name).stat()
        told.append([str(name), status.st_size, status.st_mtime_ns])
    return told
