"""What has been labelled so far, on disk, so that a killed labelling goes on where it stopped.

    labels.csv.partial      what came since the beginning, piece by piece, each with its checksum
    labels.csv.made.json    once finished: from what the files were made, and their digests

The first is only appended to. Going on, everything behind the last piece that is whole is cut off and made again. When
the list is done, labels.csv and embeddings.npz appear, whole, then the second, and the partial file goes.

A piece is 12 bytes (checksum, length of the JSON, length of the vectors; little-endian), JSON, and pooled vectors,
float32, one per row. The first piece says from what the others are made.
"""

import hashlib
import json
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from serfit.errors import UserError
from serfit.inference.labelling.labelling import BEGINNING, Point
from serfit.inference.labelling.table import Cell, Format, encoded, header, line
from serfit.inference.labelling.vectors import Stretch, form_of, write_vectors
from serfit.inference.recogniser import Emotion
from serfit.system.files import WriteError, write_atomically, write_text

FORMAT = 3

_HEAD = struct.Struct("<III")


@dataclass(frozen=True, slots=True)
class Target:
    """The output files of a labelling.

    Attributes:
        table: labels as CSV or JSON lines.
        form: which of the two.
        embeddings: pooled vectors, in a file that says by its name how (see `serfit.inference.labelling.vectors`), or
            None.
    """

    table: Path
    form: Format
    embeddings: Path | None = None

    @property
    def made(self) -> Path:
        """Says from what the files were made."""
        return self.table.with_name(f"{self.table.name}.made.json")

    @property
    def partial(self) -> Path:
        """What has been labelled so far, until it is finished."""
        return self.table.with_name(f"{self.table.name}.partial")


@dataclass(frozen=True, slots=True)
class Made:
    """The description of a finished labelling.

    Attributes:
        fingerprint: of models, settings and inputs.
        rows: how many there are.
        errors: sentences of the recordings that couldn't be used.
    """

    fingerprint: str
    rows: int
    errors: tuple[str, ...]


def made_before(target: Target) -> Made | None:
    """What an earlier command wrote to the same target, or None where it isn't there or isn't finished.

    Raises:
        UserError: as `refuse_others`.
    """
    if target.partial.exists():
        return None
    found = refuse_others(target)
    return found if all(path is None or path.exists() for path in (target.table, target.embeddings)) else None


def refuse_others(target: Target) -> Made | None:
    """What the files of the target say of themselves, where they are there.

    Raises:
        UserError: a file stands there that no earlier labelling made, or that was changed since.
    """
    files = [path for path in (target.table, target.embeddings) if path is not None and path.exists()]
    try:
        known = json.loads(target.made.read_bytes())
        digests: Mapping[str, str] = known["sha256"]
        found = Made(str(known["fingerprint"]), int(known["rows"]), tuple(known["errors"]))
    except (OSError, ValueError, KeyError, TypeError):
        digests, found = {}, None
    for path in files:
        if path.is_dir():
            raise UserError(f"{path} is a folder; name a file")
        if digests.get(path.name) != _digest(path):
            raise UserError(
                f"{path} exists and isn't what an earlier `serfit predict` wrote there; name another file, or move it "
                "away: nothing is overwritten"
            )
    return found


class _Piece(NamedTuple):
    """A piece of a partial file: its JSON, its vectors, and the place behind it."""

    record: Any
    vectors: bytes
    end: int


@dataclass(slots=True)
class Ledger:
    """An unfinished labelling, which `go_on` finds on disk.

    Attributes:
        target: where it goes.
        fingerprint: of models, settings and inputs; what was made from others is begun anew.
        names: of the columns.
        width: length P of the embeddings.
        whole: go on only between recordings, never within one.
        point: how far the list is labelled.
        rows: how many there are.
        errors: sentences of the recordings that couldn't be used.
        anew: whether what lay there was made from others, and is gone.
    """

    target: Target
    fingerprint: str
    names: Sequence[str]
    width: int
    whole: bool = False
    point: Point = BEGINNING
    rows: int = 0
    errors: list[str] = field(default_factory=list)
    anew: bool = False

    def go_on(self) -> None:
        """Read what is there, cut off what isn't whole, and begin anew where it was made from something else.

        With `whole`, pieces count up to the last that ends a recording: pictures need all rows of one at once.

        Raises:
            WriteError: the disk is full or fails, or the folder can't be written.
        """
        beginning = {"format": FORMAT, "fingerprint": self.fingerprint, "names": list(self.names), "width": self.width}
        beginning["vectors"] = self.target.embeddings is not None
        pieces = self._pieces()
        first = next(pieces, None)
        if first is None or first.record != beginning:
            with self._open("ab") as file:
                self.anew = file.tell() > 0
                file.truncate(0)
            self._append(beginning)
            return
        kept, rows, errors, known = first.end, 0, list[str](), 0
        for piece in pieces:
            cells, done = piece.record["rows"], piece.record["done"]
            rows += len(cells)
            errors += _errors(cells)
            # One may go on behind any piece, or, where recordings count as a whole, only behind one that ends a
            # recording: what came after the last such piece is made again.
            if done > self.point.done or not self.whole:
                within = 0 if done > self.point.done else self.point.rows + len(cells)
                reached = cells[-1][self.names.index("end")] if within else 0.0
                self.point, self.rows, known, kept = Point(done, within, reached), rows, len(errors), piece.end
        self.errors = errors[:known]
        with self._open("ab") as file:
            file.truncate(kept)

    def add(self, rows: Sequence[tuple[Sequence[Cell], Emotion | None]], done: int) -> None:
        """Append rows, each with what was recognised, and the point up to which the list is done.

        Raises:
            WriteError: the disk is full or fails; the command can be repeated.
        """
        if not rows and done == self.point.done:  # a sign of progress alone
            return
        nothing, vectors = np.full(self.width, np.nan, dtype=np.float32), b""
        if self.target.embeddings is not None:
            found = (nothing if emotion is None else emotion.embedding for _, emotion in rows)
            vectors = b"".join(vector.astype("<f4").tobytes() for vector in found)
        self._append({"done": done, "rows": [list(cells) for cells, _ in rows]}, vectors)
        self.errors += _errors(cells for cells, _ in rows)
        self.rows, self.point = self.rows + len(rows), Point(done)

    def finish(self, about: Mapping[str, Any]) -> None:
        """Write the finished files and remove the partial one.

        Args:
            about: JSON on models and settings, for people.

        Raises:
            WriteError: the disk is full or fails; what was computed is kept.
        """
        table, embeddings, shape = self.target.table, self.target.embeddings, (self.rows, self.width)
        write_atomically(table, self._write_table)
        digests = {table.name: _digest(table)}
        if embeddings is not None:
            form = form_of(embeddings)
            write_atomically(embeddings, lambda file: write_vectors(file, form, self._stretches(), shape))
            digests[embeddings.name] = _digest(embeddings)
        made = {"format": FORMAT, "fingerprint": self.fingerprint, "rows": self.rows, "errors": self.errors}
        told = made | {"sha256": digests} | dict(about)
        write_text(self.target.made, json.dumps(told, indent=2) + "\n")  # ASCII: file names may be no UTF-8
        self.target.partial.unlink(missing_ok=True)

    def _write_table(self, file: IO[bytes]) -> None:
        file.write(encoded(header(self.names, self.target.form)))
        for cells, _ in self._written():
            file.write(encoded(line(cells, self.names, self.target.form)))

    def _stretches(self) -> Iterator[Stretch]:
        for cells, vector in self._written():
            named: dict[str, Any] = dict(zip(self.names, cells, strict=True))
            found = np.frombuffer(vector, dtype="<f4")
            yield Stretch(named["file"], named.get("id"), named["start"], named["end"], found)

    def _written(self) -> Iterator[tuple[list[Cell], bytes]]:
        """Every row, with its vector where vectors are wanted."""
        size = 4 * self.width
        for piece in islice(self._pieces(), 1, None):
            for index, cells in enumerate(piece.record["rows"]):
                yield cells, piece.vectors[size * index : size * (index + 1)]

    def _pieces(self) -> Iterator[_Piece]:
        """Pieces from the beginning up to the first that isn't whole."""
        if not self.target.partial.exists():
            return
        with self._open("rb") as file:
            end = 0
            while len(head := file.read(_HEAD.size)) == _HEAD.size:
                checksum, length, size = _HEAD.unpack(head)
                text, vectors = file.read(length), file.read(size)
                if _checksum(text, vectors) != checksum:
                    return
                end += _HEAD.size + length + size
                yield _Piece(json.loads(text), vectors, end)

    def _append(self, record: Mapping[str, Any], vectors: bytes = b"") -> None:
        text = json.dumps(record, allow_nan=False).encode("ascii")  # so that any file name comes back as it was
        with self._open("ab") as file:
            file.write(_HEAD.pack(_checksum(text, vectors), len(text), len(vectors)) + text + vectors)

    @contextmanager
    def _open(self, mode: str) -> Iterator[IO[bytes]]:
        """The partial file. Raises WriteError where something goes wrong with it."""
        try:
            with self.target.partial.open(mode) as file:
                yield file
        except OSError as error:
            raise WriteError(
                f"can't write {self.target.partial}: {error.strerror or error}; make room, or see to the permissions "
                "of that folder, and repeat the command: it goes on where it stopped"
            ) from error


def _checksum(text: bytes, vectors: bytes) -> int:
    """CRC-32 of both, begun with 1: a stretch of zeros, as a power cut leaves it, would fit one begun with 0."""
    return zlib.crc32(vectors, zlib.crc32(text, 1))


def _errors(rows: Iterable[Sequence[Cell]]) -> list[str]:
    return [str(cells[-1]) for cells in rows if cells[-1]]


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror or error}; see to its permissions") from error
