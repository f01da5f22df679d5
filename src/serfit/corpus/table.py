"""Any corpus as a CSV file: columns are chosen by name, ratings lie on a declared scale, errors name the row."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path

from serfit.config.schema import TableColumns
from serfit.corpus.names import KINDS, known, spelled_twice, unknown_notes
from serfit.corpus.ratings import mean_rating
from serfit.corpus.rows import RowError, finite, numbered_rows, segment
from serfit.corpus.spelling import comparable, hint
from serfit.corpus.utterance import Corpus, Part, Utterance
from serfit.errors import UserError, below, counted, listed, nearest
from serfit.labels import DIMENSIONS, Dimension, LabelScale
from serfit.system.files import refuse_lfs_pointer

PARTS: Mapping[str, Part] = {
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "dev": "validation",
    "development": "validation",
    "test": "test",
    "test1": "test",
}
"""Spellings, in lower case, of the official parts."""

_GENDERS = {"f": "female", "female": "female", "m": "male", "male": "male"}
_FURTHER_TEST = re.compile(r"test[ _-]?([02-9]|\d\d+)")

Cells = Mapping[str, str]
"""One row: stripped cell by column name."""


def read_table(
    root: Path, table: TableColumns, dimensions: Sequence[Dimension], scales: Mapping[Dimension, LabelScale]
) -> Corpus:
    """Read a CSV file (UTF-8, with or without byte order mark; commas; header line).

    All cells are text, stripped of surrounding blanks: ids keep their leading zeros. A rating is the mean of the
    non-empty cells of its columns. `raters` is the number of those cells where a dimension has several columns, the
    smallest over the dimensions. Further test parts (Test2, Test3 ...) are left out and counted in a note.

    Args:
        root: folder that relative paths start from.
        table: the file and its columns.
        dimensions: the ratings to read.
        scales: the scale of each dimension; every single cell must lie on it.

    Returns:
        The corpus in the order of the file, named after the file.

    Raises:
        UserError: a file that can't be read, missing columns, or one message with all rows that can't be used.
    """
    if not root.is_dir():
        raise UserError(
            f"data.root is {root}, which {'is a file' if root.exists() else 'does not exist'}; "
            "it must be the folder that the paths of the corpus are relative to"
        )
    path = root / table.path.expanduser()
    refuse_lfs_pointer(path)
    exists = _file_finder()
    utterances: dict[str, Utterance] = {}
    numbers: dict[str, int] = {}
    left_out: Counter[str] = Counter()
    complaints: list[str] = []
    unknown: dict[str, list[str]] = {}
    missing: Path | None = None
    rows = 0
    header: Sequence[str] = ()
    wanted = partial(_check_columns, path, table, dimensions)
    for number, cells in numbered_rows(path, wanted, "data.table.path"):
        rows, header = rows + 1, list(cells)
        if table.part and _FURTHER_TEST.fullmatch(cells[table.part].lower()):
            left_out[cells[table.part]] += 1
            continue
        try:
            utterance = _utterance(cells, root, table, dimensions, scales, exists)
            if utterance.id in utterances:
                raise RowError(f"id {utterance.id} is in row {numbers[utterance.id]} already; ids must be unique")
        except RowError as complaint:
            complaints.append(f"row {number}: {complaint}")
            missing = missing or complaint.missing
        else:
            for kind, cell in _unknown(cells, table):
                unknown.setdefault(kind, []).append(cell)
            utterances[utterance.id] = utterance
            numbers[utterance.id] = number
    if complaints:
        raise UserError(_all_complaints(path, complaints, rows, "" if missing is None else hint(missing)))
    if not utterances:
        kept = f" beside {_counted(left_out)}" if left_out else ""
        raise UserError(f"{path} has no rows of utterances{kept}; give it a header line and one row per utterance")
    _check_spelling(path, utterances.values())
    notes = (*_notes(left_out), *_ignored(header, table, dimensions), *unknown_notes(unknown))
    return Corpus(path.name, tuple(utterances.values()), {name: scales[name] for name in dimensions}, notes)


def _check_spelling(path: Path, utterances: Iterable[Utterance]) -> None:
    if twice := spelled_twice(utterances):
        raise UserError(
            f"{path} has names that differ in case, blanks, leading zeros or invisible characters alone: "
            f"{listed(twice)}; spell each in one way"
        )


def _all_complaints(path: Path, complaints: Sequence[str], rows: int, question: str) -> str:
    return (
        f"{path}: {len(complaints)} of {rows} rows can't be used:\n{below(complaints)}\n"
        "correct or remove these rows, or correct data.table and data.scales (the header line is row 1)" + question
    )


def _counted(left_out: Counter[str]) -> str:
    return listed([f"{count} of part {name}" for name, count in sorted(left_out.items())], most=8)


def _notes(left_out: Counter[str]) -> tuple[str, ...]:
    if not left_out:
        return ()
    return (f"{counted(left_out.total(), 'row')} left out ({_counted(left_out)}): only test or test1 is tested on",)


def _ignored(header: Sequence[str], table: TableColumns, dimensions: Sequence[Dimension]) -> Iterator[str]:
    """What to say of ratings that the table has, or its settings name, and that aren't read."""
    used = {column for _, column in _named_columns(table, dimensions)}
    for name in DIMENSIONS:
        if name in dimensions:
            continue
        columns: str | list[str] = getattr(table, name) or []
        named = [columns] if isinstance(columns, str) else columns
        alike = {name, name[:3], name[0], f"emo{name[:3]}", f"{name}_mean", f"mean_{name}"}
        found = named or [column for column in header if comparable(column) in alike and column not in used]
        if found:
            yield f"column {listed(found)} seems to rate {name}, which data.dimensions leaves out"


def _check_columns(path: Path, table: TableColumns, dimensions: Sequence[Dimension], header: Sequence[str]) -> None:
    complaints = []
    for key, name in _named_columns(table, dimensions):
        close = nearest(name, header)
        if header.count(name) > 1:
            complaints.append(f'data.table.{key} names column "{name}", which {header.count(name)} columns have')
        elif name not in header:
            hint = f'; did you mean "{close}"?' if close else ""
            complaints.append(f'data.table.{key} names column "{name}", which is missing{hint}')
    if complaints:
        separators = "; is it separated by something else than commas?" if len(header) == 1 else ""
        raise UserError(
            f"{path} doesn't have the columns that are asked for:\n"
            f"{below(complaints)}\nits columns are {listed(header, most=30) or 'none'}{separators}"
        )


def _named_columns(table: TableColumns, dimensions: Sequence[Dimension]) -> list[tuple[str, str]]:
    """(key of data.table, column) of everything that will be read."""
    single = [key for key in TableColumns.model_fields if key not in ("path", *DIMENSIONS)]
    named = [(key, getattr(table, key)) for key in single if getattr(table, key) is not None]
    return named + [(dimension, column) for dimension in dimensions for column in _rating_columns(table, dimension)]


def _rating_columns(table: TableColumns, dimension: Dimension) -> list[str]:
    columns: str | list[str] | None = getattr(table, dimension)
    assert columns, f"data.table names no column for {dimension}"
    return [columns] if isinstance(columns, str) else columns


def _utterance(
    cells: Cells,
    root: Path,
    table: TableColumns,
    dimensions: Sequence[Dimension],
    scales: Mapping[Dimension, LabelScale],
    exists: Callable[[Path], bool],
) -> Utterance:
    audio = cells[table.audio]
    path = _audio_path(audio, root, table.audio, exists)
    start, end = segment(cells, table.start, table.end)
    ratings = {name: _ratings(cells, _rating_columns(table, name), name, scales[name]) for name in dimensions}
    several = [len(ratings[name]) for name in dimensions if len(_rating_columns(table, name)) > 1]
    return Utterance(
        id=_id(cells, table, start, end),
        path=path,
        ratings={name: mean_rating(values) for name, values in ratings.items()},
        start=start or 0.0,
        end=end,
        duration=None if end is None else end - (start or 0.0),
        speaker=_known(cells, table.speaker),
        session=_known(cells, table.session),
        dialogue=_known(cells, table.dialogue),
        part=_part(cells[table.part]) if table.part else None,
        gender=_GENDERS.get(cells[table.gender].lower()) if table.gender else None,
        emotion=(cells[table.emotion] or None) if table.emotion else None,
        transcript=(cells[table.transcript] or None) if table.transcript else None,
        raters=min(several) if several else None,
        single_ratings={
            name: tuple(values) for name, values in ratings.items() if len(_rating_columns(table, name)) > 1
        },
    )


def _id(cells: Cells, table: TableColumns, start: float | None, end: float | None) -> str:
    """The id column, or the audio path with the segment's ends."""
    if table.id is not None:
        if not cells[table.id]:
            raise RowError(f'the id (column "{table.id}") is empty')
        return cells[table.id]
    if start is None and end is None:
        return cells[table.audio]
    return f"{cells[table.audio]}:{start or 0.0}-{'' if end is None else end}"


def _audio_path(audio: str, root: Path, column: str, exists: Callable[[Path], bool]) -> Path:
    if not audio:
        raise RowError(f'the audio file (column "{column}") is empty')
    path = root / audio
    if os.path.normpath(audio).split(os.sep)[0] == os.pardir:
        raise RowError(f'audio file "{audio}" leads out of data.root; move it there, or give an absolute path')
    if not exists(path):
        absolute = " (an absolute path, so data.root isn't put before it)" if Path(audio).is_absolute() else ""
        complaint = RowError(f"audio file {path} doesn't exist{absolute}")
        complaint.missing = path
        raise complaint
    return path


def _file_finder() -> Callable[[Path], bool]:
    """A function that tells whether a file exists, with one listing per folder instead of one look per file."""

    @cache
    def names(folder: str) -> frozenset[str]:
        try:
            return frozenset(os.listdir(folder))
        except OSError:
            return frozenset()

    def exists(path: Path) -> bool:
        folder, name = os.path.split(path)
        try:
            return name in names(folder) or path.is_file()  # the latter where names are equal in another spelling
        except (OSError, ValueError):  # a name too long, or one that can't be a name
            return False

    return exists


def _ratings(cells: Cells, columns: Sequence[str], dimension: Dimension, scale: LabelScale) -> list[float]:
    """Return the ratings in a row, at least one."""
    given = [(column, cells[column]) for column in columns if cells[column]]
    if not given:
        raise RowError(f"{dimension} is empty (column {listed(columns)}); an utterance needs a rating")
    values = []
    for column, cell in given:
        value = finite(cell)
        if value is None:
            raise RowError(f'{dimension} is "{cell}" (column {column}); a rating must be a number like 3.5, or empty')
        if not scale.contains(value):
            raise RowError(
                f"{dimension} is {cell} (column {column}), off the declared scale; "
                f"data.scales.{dimension} says {scale.minimum:g} to {scale.maximum:g}"
            )
        values.append(value)
    return values


def _known(cells: Cells, column: str | None) -> str | None:
    return None if column is None else known(cells[column])


def _unknown(cells: Cells, table: TableColumns) -> list[tuple[str, str]]:
    """Kind and spelling of what isn't empty but means that nobody knows."""
    named = [(kind, cells[column]) for kind in KINDS if (column := getattr(table, kind)) is not None]
    return [(kind, cell) for kind, cell in named if cell and known(cell) is None]


def _part(cell: str) -> Part:
    part = PARTS.get(cell.lower())
    if part is None:
        close = nearest(cell.lower(), PARTS)
        hint = f'; did you mean "{close}"?' if close else ""
        raise RowError(f'part is "{cell}"; it must be one of {", ".join(PARTS)}{hint}')
    return part
