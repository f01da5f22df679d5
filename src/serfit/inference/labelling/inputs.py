"""What is to be labelled: files, folders, globs and manifests as one list, in the order they were named."""

import glob
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from serfit.corpus.rows import RowError, numbered_rows, segment
from serfit.corpus.spelling import hint
from serfit.errors import UserError, below, counted, listed

SUFFIXES = frozenset(
    {".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".snd"}
    | {".caf", ".sph", ".nist", ".w64", ".rf64", ".voc"}
)
"""What audio files in a folder end in, in lower case. Files named one by one are read by content, whatever they are."""

COLUMNS = ("file", "start", "end", "id")
"""Columns of a manifest; all but the first may be missing."""

_MODEL_MARKS = ("best.safetensors", "serfit.json")


@dataclass(frozen=True, slots=True)
class Item:
    """One recording, or a stretch of it, to be labelled.

    Attributes:
        file: its name as the user gave it.
        path: where it is.
        start: where to begin, in seconds.
        end: where to end, in seconds; None for the end of the file.
        id: what a manifest calls it; "" elsewhere.
    """

    file: str
    path: Path
    start: float = 0.0
    end: float | None = None
    id: str = ""

    @property
    def name(self) -> str:
        """What to call it in a sentence."""
        if self.start == 0.0 and self.end is None:
            return self.file
        return f"{self.file} from {self.start:g} s to {'the end' if self.end is None else f'{self.end:g} s'}"

    def identity(self) -> list[object]:
        """JSON that changes when the recording or the stretch does: size and time of last change, not the content."""
        try:
            status = self.path.stat()
        except OSError:
            return [self.file, self.start, self.end, self.id, None, None]
        return [self.file, self.start, self.end, self.id, status.st_size, status.st_mtime_ns]


@dataclass(frozen=True, slots=True)
class Listing:
    """Everything to be labelled.

    Attributes:
        items: at least one, in the order of the arguments; folders and globs in alphabetical order.
        notes: what was left out, in sentences.
    """

    items: tuple[Item, ...]
    notes: tuple[str, ...]


def list_items(arguments: Sequence[str]) -> Listing:
    """Everything that the arguments name; a file named twice counts once.

    Args:
        arguments: audio files of any name, folders (searched through, for `SUFFIXES`; linked folders, too), globs, and
            manifests (.csv).

    Raises:
        UserError: something doesn't exist or a manifest has rows that can't be; or there is no audio.
    """
    items: dict[tuple[str, int], Item] = {}
    others: Counter[str] = Counter()
    twice, notes = 0, []
    for argument in arguments:
        for path in _matched(argument):
            _refuse_model(path)
            if path.is_dir():
                audio, rest = _in_folder(path)
                others += rest
                found = [Item(str(file), file) for file in audio]
            elif path.suffix.lower() == ".csv":
                rows, said = read_manifest(path)
                notes += said
                items |= {(str(path.absolute()), row): item for row, item in enumerate(rows, start=1)}
                continue
            else:
                found = [Item(str(path), path)]
            for item in found:
                key = (os.path.abspath(item.path), 0)
                twice += key in items
                items.setdefault(key, item)
    if not items:
        raise UserError(
            f"there is no audio in {listed(list(arguments))}; folders are searched for {', '.join(sorted(SUFFIXES))}, "
            "so name files of other kinds one by one or by a glob"
        )
    if twice:
        notes.append(f"{counted(twice, 'file')} named twice, counted once")
    if others:
        endings = listed([ending for ending, _ in others.most_common()], most=5)
        notes.append(f"{counted(others.total(), 'file')} in the folders left out by ending: {endings}")
    return Listing(tuple(items.values()), tuple(notes))


def read_manifest(path: Path) -> tuple[list[Item], list[str]]:
    """The rows of a CSV file with columns file[, start, end, id] (UTF-8, header line), and what to say about it.

    Files are relative to the manifest; times are in seconds and may be empty.

    Raises:
        UserError: it can't be read, or one message with all rows that can't be.
    """
    items, complaints, notes = [], [], []
    for number, cells in numbered_rows(path, partial(_check_header, path)):
        try:
            items.append(_item(path, cells))
        except RowError as complaint:
            complaints.append(f"row {number}: {complaint}")
        unused = sorted(set(cells) - set(COLUMNS))
    if complaints:
        raise UserError(
            f"{path}: {len(complaints)} of {len(complaints) + len(items)} rows can't be used:\n{below(complaints)}\n"
            "correct or remove them (the header line is row 1)"
        )
    if not items:
        raise UserError(f"{path} has no rows; give it a header line ({','.join(COLUMNS)}) and one row per recording")
    if unused:
        notes.append(f"{path}: columns {listed(unused, most=10)} aren't used")
    return items, notes


def _item(manifest: Path, cells: dict[str, str]) -> Item:
    """One row. Raises RowError with what is wrong."""
    file = cells["file"]
    if not file:
        raise RowError("the file is empty")
    if "\0" in file:
        raise RowError("the file has a zero byte in its name")
    start, end = segment(cells, "start", "end")
    path = Path(file).expanduser()
    if not path.is_absolute() and ".." in path.parts:
        raise RowError(f"the file {file} leads out of the manifest's folder; give it as an absolute path")
    return Item(file, manifest.parent / path, start or 0.0, end, cells.get("id", ""))


def _check_header(path: Path, header: Sequence[str]) -> None:
    if "file" not in header or len(set(header)) < len(header):
        raise UserError(
            f"{path} is no manifest: its columns are {listed(header, most=20) or 'none'}; one must be file, "
            f"others may be {', '.join(COLUMNS[1:])}, and none may stand twice"
        )


def _matched(argument: str) -> list[Path]:
    """The path itself where it exists, else what it matches as a glob."""
    path = Path(argument).expanduser()
    if os.path.lexists(path):
        return [path]
    if glob.has_magic(argument):
        found = sorted(glob.glob(str(path), recursive=True))
        if found:
            return [Path(one) for one in found]
        raise UserError(f"nothing matches {argument}; check the pattern (** goes into folders)")
    raise UserError(f"there is no {argument}; name audio files, folders, globs or a manifest (.csv){hint(path)}")


def _refuse_model(path: Path) -> None:
    """Raise UserError for a model where a recording is expected."""
    if path.suffix.lower() == ".onnx" or any((path / name).is_file() for name in _MODEL_MARKS):
        raise UserError(f"{path} is a model and no recording; to ask several models at once, name it by --model {path}")


def _in_folder(folder: Path) -> tuple[list[Path], Counter[str]]:
    """Audio files in a folder and below, in alphabetical order, and endings of the others; hidden files don't count.

    Links to folders are followed; a folder that is reached twice, or within itself, counts once.
    """

    def unreadable(error: OSError) -> None:
        raise UserError(f"can't look into {error.filename}: {error.strerror}; check its permissions") from error

    audio: list[Path] = []
    others: Counter[str] = Counter()
    seen: set[str] = set()
    for parent, folders, names in os.walk(folder, onerror=unreadable, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.startswith("."):
                continue
            ending = os.path.splitext(name)[1].lower()
            if ending in SUFFIXES:
                audio.append(Path(parent, name))
            else:
                others[ending or "none"] += 1
    return audio, others
