"""Labels as text: which columns a table has, and its rows as CSV or JSON lines."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from serfit.corpus.rows import inert, inert_path
from serfit.inference.labelling.inputs import Item
from serfit.inference.labelling.labelling import Row
from serfit.labels import Dimension
from serfit.system.files import is_utf8

Format = Literal["csv", "jsonl"]
Cell = str | float | None

DECIMALS = 6
"""Decimals of every number; a sample lasts 0.0000625 s."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a table of labels.

    Attributes:
        dimensions: what is predicted.
        ids: whether there is a column with ids.
        spreads: whether several networks were asked.
    """

    dimensions: tuple[Dimension, ...]
    ids: bool
    spreads: bool

    @property
    def names(self) -> tuple[str, ...]:
        """The header line."""
        return (
            "file",
            *(("id",) if self.ids else ()),
            "start",
            "end",
            *self.dimensions,
            *(f"{name}_unit" for name in self.dimensions),
            *(f"{name}_spread" for name in self.dimensions if self.spreads),
            "note",
            "error",
        )

    def cells(self, row: Row, item: Item) -> list[Cell]:
        """One row; numbers that there aren't are None."""
        kinds = ("values", "unit", "spread") if self.spreads else ("values", "unit")
        numbers = [
            None if row.emotion is None else getattr(row.emotion, kind)[name]
            for kind in kinds
            for name in self.dimensions
        ]
        return [
            item.file,
            *([item.id] if self.ids else []),
            *(None if number is None else round(number, DECIMALS) for number in (row.start, row.end, *numbers)),
            row.note,
            row.error,
        ]


def header(names: Sequence[str], form: Format) -> str:
    """The header before the rows."""
    return _csv(names) if form == "csv" else ""


def line(cells: Sequence[Cell], names: Sequence[str], form: Format) -> str:
    """One row as a line."""
    if form == "csv":
        return _csv([_inert(cell, name) for name, cell in zip(names, cells, strict=True)])
    named: Mapping[str, Cell] = dict(zip(names, cells, strict=True))
    text = json.dumps(named, ensure_ascii=False, allow_nan=False)
    return (text if is_utf8(text) else json.dumps(named, allow_nan=False)) + "\n"


def encoded(text: str) -> bytes:
    """UTF-8, with the bytes of file names that aren't UTF-8 as they are (JSON escapes them as Python's os.fsdecode)."""
    return text.encode("utf-8", "surrogateescape")


def _inert(cell: Cell, name: str) -> str | float:
    if cell is None:
        return ""
    if not isinstance(cell, str):
        return cell
    return inert_path(cell) if name == "file" else inert(cell)


def _csv(cells: Sequence[Cell]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()
