"""The pieces of Markdown documents."""

from collections.abc import Iterable, Sequence

UNDEFINED = "n/a"
"""Stands for a value that isn't defined or can't be had."""

ABSENT = "-"
"""Stands for a dimension that an experiment doesn't predict."""


def number(value: float | None, form: str = ".4f") -> str:
    """A number in some format, or that it is undefined."""
    return UNDEFINED if value is None else format(value, form)


def bullets(lines: Iterable[str]) -> str:
    """A list."""
    return "\n".join(f"- {line}" for line in lines)


def escaped(text: str) -> str:
    """Text that can't end a Markdown cell."""
    return text.replace("|", "\\|")


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int) -> str:
    """A Markdown table; all but the first `left` columns are aligned to the right."""
    rule = ["---" if column < left else "---:" for column in range(len(header))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))
