"""The rows of a CSV file, numbered as a spreadsheet does: the header line is row 1."""

import csv
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from serfit.errors import UserError, counted
from serfit.system.files import open_text


class RowError(Exception):
    """An error in a row, with the missing audio file if that is the error."""

    missing: Path | None = None


def numbered_rows(
    path: Path, check: Callable[[Sequence[str]], None], name: str = ""
) -> Iterator[tuple[int, dict[str, str]]]:
    """Number and cells, without the space around them, of every row that isn't blank.

    Args:
        path: the file: UTF-8 with or without byte order mark, commas, header line.
        check: refuses a header line that lacks what is needed.
        name: the key that names the file, for messages.

    Raises:
        UserError: the file can't be read, isn't CSV, or a row has more or fewer cells than the header line.
    """
    try:
        with open_text(path) as file:
            reader = csv.reader(file, strict=True)
            header = [cell.strip() for cell in next(reader, [])]
            check(header)
            for number, row in enumerate(reader, start=2):
                cells = [cell.strip() for cell in row]
                if not any(cells):
                    continue
                if len(cells) != len(header):
                    raise UserError(
                        f"{path} row {number} has {counted(len(cells), 'cell')} and the header line has {len(header)}; "
                        "they must agree (text with a comma in it needs double quotes)"
                    )
                yield number, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise UserError(f"{path} line {reader.line_num} isn't valid CSV ({error}); check its double quotes") from error
    except OSError as error:
        key = f"{name}: " if name else ""
        raise UserError(f"{key}can't read {path}: {error.strerror or error}; it must be a CSV file") from error
    except UnicodeDecodeError as error:
        wrong = error.object[error.start]
        raise UserError(f"{path} isn't UTF-8 text: byte 0x{wrong:02x} makes no sense; save it as UTF-8") from error


def segment(cells: Mapping[str, str], start: str | None, end: str | None) -> tuple[float | None, float | None]:
    """Return start and end of a row's audio in seconds; None if a cell is empty or there is no such column.

    Raises:
        RowError: they can't be.
    """
    begin, stop = _seconds(cells, start), _seconds(cells, end)
    if stop is not None and (begin or 0.0) >= stop:
        raise RowError(f"start {begin or 0.0:g} s isn't before end {stop:g} s")
    return begin, stop


def _seconds(cells: Mapping[str, str], column: str | None) -> float | None:
    cell = cells.get(column or "", "")
    if not cell:
        return None
    value = finite(cell)
    if value is None or value < 0.0:
        raise RowError(f'column "{column}" is "{cell}"; it must be seconds, 0 or more, like 12.5, or empty')
    return value


def finite(cell: str) -> float | None:
    """The number in a cell; None for other text, infinities and not-a-number."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula."""


def inert(cell: str) -> str:
    """Text for a cell that a spreadsheet shows and doesn't execute: what begins like a formula gets an apostrophe.

    Numbers stay as they are.

    >>> inert("=1+1"), inert("-0.5"), inert("speaker 1")
    ("'=1+1", '-0.5', 'speaker 1')
    """
    if not cell.startswith(_FORMULA):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def inert_path(path: str) -> str:
    """The same for a path, which stays one: a relative one gets "./" before it."""
    return f"./{path}" if path.startswith(_FORMULA) else path
