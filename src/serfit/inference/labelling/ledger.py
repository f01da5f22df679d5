"""What has been labelled so far, on disk, so that a killed labelling goes on where it stopped.

    labels.csv.partial        one line per row and one per point from which one can go on, each with its CRC-32
    embeddings.npz.partial    the pooled vectors of these rows, float32, nothing else
    labels.csv.made.json      once finished: from what the files were made, and their digests

The first two are only appended to. Going on, everything behind the last point that is whole is cut off and made again.
When the list is done, labels.csv and embeddings.npz appear, whole, then the third, and the partial files go.
"""

import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from serfit.errors import UserError
from serfit.inference.labelling.table import Cell, Format, encoded, header, line
from serfit.inference.labelling.vectors import Stretch, form_of, write_vectors
from serfit.system.files import WriteError, write_atomically, write_text

MADE = ".made.json"
PARTIAL = ".partial"
FORMAT = 2


@dataclass(frozen=True, slots=True)
class Target:
    """Where a labelling goes.

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
        return _beside(self.table, MADE)


@dataclass(frozen=True, slots=True)
class Made:
    """What a finished labelling says of itself.

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
    if _beside(target.table, PARTIAL).exists():
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


@dataclass(slots=True)
class Ledger:
    """An unfinished labelling; use as a context.

    Attributes:
        target: where it goes.
        fingerprint: of models, settings and inputs; what was made from others is begun anew.
        names: of the columns.
        width: length P of the embeddings.
        whole: go on only between recordings, never within one.
        done: items that are wholly labelled.
        rows: rows of these items, and of the next.
        within: rows of the next item, which isn't wholly labelled.
        reached: where the last row ends, in seconds.
        errors: sentences of the recordings that couldn't be used.
        anew: whether what lay there was made from others, and is gone.
    """

    target: Target
    fingerprint: str
    names: Sequence[str]
    width: int
    whole: bool = False
    done: int = 0
    rows: int = 0
    within: int = 0
    reached: float = 0.0
    errors: list[str] = field(default_factory=list)
    anew: bool = False
    _crc: int = 0
    _lines: IO[bytes] | None = None
    _vectors: IO[bytes] | None = None

    def __enter__(self) -> "Ledger":
        try:
            self._lines = _open(_beside(self.target.table, PARTIAL))
            if self.target.embeddings is not None:
                self._vectors = _open(_beside(self.target.embeddings, PARTIAL))
            self._go_on()
        except OSError as error:
            self._close()
            raise self._cant_write(error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def add(self, rows: Sequence[tuple[Sequence[Cell], NDArray[np.float32] | None]], done: int) -> None:
        """Append rows, each with its embedding, and the point up to which the list is done.

        Raises:
            WriteError: the disk is full or fails; the command can be repeated.
        """
        assert self._lines is not None, "a ledger is a context"
        nothing = np.full(self.width, np.nan, dtype=np.float32)
        vectors = b"".join((nothing if vector is None else vector).astype("<f4").tobytes() for _, vector in rows)
        self._crc = zlib.crc32(vectors, self._crc)
        self.errors += [str(cells[-1]) for cells, _ in rows if cells[-1]]
        self.rows += len(rows)
        try:
            if self._vectors is not None:
                self._vectors.write(vectors)
                self._vectors.flush()
            self._lines.write(b"".join(_checked({"row": list(cells)}) for cells, _ in rows))
            if done > self.done or (rows and not self.whole):
                self._lines.write(_checked({"done": done, "rows": self.rows, "vectors": self._crc}))
            self.done = done
            self._lines.flush()
        except OSError as error:
            raise self._cant_write(error) from error

    def finish(self, about: Mapping[str, Any]) -> None:
        """Write the finished files and remove the partial ones.

        Args:
            about: JSON on models and settings, for people.

        Raises:
            WriteError: the disk is full or fails; what was computed is kept.
        """
        self._close()
        table, embeddings = self.target.table, self.target.embeddings
        write_atomically(table, self._write_table)
        digests = {table.name: _digest(table)}
        if embeddings is not None:
            write_atomically(embeddings, self._write_embeddings)
            digests[embeddings.name] = _digest(embeddings)
        made = {"format": FORMAT, "fingerprint": self.fingerprint, "rows": self.rows, "errors": self.errors}
        told = made | {"sha256": digests} | dict(about)
        write_text(self.target.made, json.dumps(told, indent=2) + "\n")  # ASCII: file names may be no UTF-8
        for path in (table, embeddings):
            if path is not None:
                _beside(path, PARTIAL).unlink(missing_ok=True)

    def _go_on(self) -> None:
        """Read what is there, cut off what isn't whole, and begin anew where it was made from something else."""
        assert self._lines is not None, "opened before"
        kept, first = 0, True
        errors: list[str] = []
        cells: list[Any] = []
        rows = 0
        for record, end in _records(self._lines):
            if first:
                if record != self._beginning():
                    self.anew = True
                    break
                first, kept = False, end
            elif "row" in record:
                cells, rows = record["row"], rows + 1
                errors += [str(cells[-1])] if cells[-1] else []
            elif record.get("rows") == rows and self._whole_vectors(rows, int(record["vectors"])):
                self.within = self.within + rows - self.rows if record["done"] == self.done else 0
                self.reached = (cells[self.names.index("end")] if cells else None) or 0.0
                self.done, self.rows, self._crc, kept = int(record["done"]), rows, int(record["vectors"]), end
                self.errors[:] = errors
            else:
                break
        self._lines.seek(kept)
        self._lines.truncate()
        if first:
            self._lines.write(_checked(self._beginning()))
            self._lines.flush()
        if self._vectors is not None:
            self._vectors.seek(4 * self.width * self.rows)
            self._vectors.truncate()

    def _beginning(self) -> dict[str, Any]:
        with_vectors = self.width if self.target.embeddings is not None else None
        return {"format": FORMAT, "fingerprint": self.fingerprint, "names": list(self.names), "width": with_vectors}

    def _whole_vectors(self, rows: int, crc: int) -> bool:
        """Whether the first so many vectors are on disk as they were written; goes on from the last such point."""
        if self._vectors is None:
            return True
        self._vectors.seek(4 * self.width * self.rows)
        content = self._vectors.read(4 * self.width * (rows - self.rows))
        return len(content) == 4 * self.width * (rows - self.rows) and zlib.crc32(content, self._crc) == crc

    def _cells(self) -> Iterator[list[Cell]]:
        with _beside(self.target.table, PARTIAL).open("rb") as file:
            for record, _ in _records(file):
                if "row" in record:
                    yield record["row"]

    def _write_table(self, file: IO[bytes]) -> None:
        file.write(encoded(header(self.names, self.target.form)))
        for cells in self._cells():
            file.write(encoded(line(cells, self.names, self.target.form)))

    def _write_embeddings(self, file: IO[bytes]) -> None:
        assert self.target.embeddings is not None, "asked for"
        path, shape = _beside(self.target.embeddings, PARTIAL), (self.rows, self.width)
        vectors = np.memmap(path, dtype="<f4", mode="r", shape=shape) if all(shape) else np.empty(shape, dtype="<f4")
        write_vectors(file, form_of(self.target.embeddings), self._stretches(), vectors)

    def _stretches(self) -> Iterator[Stretch]:
        for cells in self._cells():
            named: dict[str, Any] = dict(zip(self.names, cells, strict=True))
            yield Stretch(named["file"], named.get("id"), named["start"], named["end"])

    def _close(self) -> None:
        for file in (self._lines, self._vectors):
            if file is not None:
                with suppress(OSError):
                    file.close()

    def _cant_write(self, error: OSError) -> WriteError:
        return WriteError(
            f"can't write {_beside(self.target.table, PARTIAL)}: {error.strerror or error}; make room, or see to the "
            "permissions of that folder, and repeat the command: it goes on where it stopped"
        )


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _open(path: Path) -> IO[bytes]:
    path.touch()
    return path.open("r+b")


def _checked(record: Mapping[str, Any]) -> bytes:
    """A record as a line with its checksum before it; ASCII, so that any file name comes back as it was."""
    text = json.dumps(record, allow_nan=False).encode("ascii")
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _records(file: IO[bytes]) -> Iterator[tuple[dict[str, Any], int]]:
    """Records from the beginning, each with the place behind it, up to the first that isn't whole."""
    file.seek(0)
    end = 0
    for text in file:
        end += len(text)
        if not text.endswith(b"\n") or text[:9] != b"%08x " % zlib.crc32(text[9:-1]):
            return
        yield json.loads(text[9:]), end


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror or error}; see to its permissions") from error
