"""The pieces of Markdown documents."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from serfit.errors import visible

UNDEFINED = "n/a"
"""Stands for a value that isn't defined or can't be had."""

ABSENT = "-"
"""Stands for a dimension that an experiment doesn't predict."""


@dataclass(frozen=True, slots=True)
class Rows:
    """A table: names of the columns, and rows of text; the first `left` columns are aligned to the left."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1


def number(value: float | None, form: str = ".4f") -> str:
    """A number in some format, or that it is undefined."""
    return UNDEFINED if value is None else format(value, form)


def bullets(lines: Iterable[str]) -> str:
    """A list of plain text."""
    return "\n".join(f"- {escaped(line)}" for line in lines)


def escaped(text: str) -> str:
    r"""Plain text as Markdown that shows it: names may hold HTML, links and the ends of cells.

    >>> escaped("<img src=x> [a](b) | `c`")
    '&lt;img src=x&gt; \\[a\\](b) \\| \\`c\\`'
    """
    plain = " ".join(visible(text).replace("\\", "\\\\").split("\n"))
    return _MARKUP.sub(r"\\\g<0>", escape(plain, quote=False))


_MARKUP = re.compile(r"[`*|\[\]]")
"""What begins code, emphasis, a link or another cell; an underscore within a word doesn't."""


def code(name: str) -> str:
    r"""A name as code, or as plain text where it holds anything that could end the code or the cell.

    >>> code("a_fold1"), code("a`<b>")
    ('`a_fold1`', 'a\\`&lt;b&gt;')
    """
    return f"`{name}`" if re.fullmatch(r"[\w.+-]+", name) else escaped(name)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int) -> str:
    """A Markdown table; all but the first `left` columns are aligned to the right."""
    rule = ["---" if column < left else "---:" for column in range(len(header))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))


def as_markdown(table: Rows) -> str:
    """A table whose cells are plain text."""
    header, *rows = ([escaped(cell) for cell in row] for row in (table.header, *table.rows))
    return markdown_table(header, rows, table.left)
