"""The rows of a CSV file, numbered as a spreadsheet does: the header line is row 1."""

import csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

from serfit.errors import UserError, counted


def numbered_rows(
    path: Path, file: TextIO, check: Callable[[Sequence[str]], None]
) -> Iterator[tuple[int, dict[str, str]]]:
    """Number and cells, without the space around them, of every row that isn't blank.

    Args:
        path: the file's name, for messages.
        file: the open file, read with newline="".
        check: refuses a header line that lacks what is needed.

    Raises:
        UserError: the text isn't CSV, or a row has more or fewer cells than the header line.
    """
    reader = csv.reader(file, strict=True)
    try:
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
