"""Reading a comparison back from its Markdown."""

from serfit.report.comparison import Comparison
from serfit.report.tables import to_markdown


def rows(comparison: Comparison, heading: str) -> list[list[str]]:
    """Cells of the first Markdown table after a heading, without its header."""
    lines = to_markdown(comparison).splitlines()
    rest = lines[lines.index(heading) + 1 :]
    start = next(index for index, line in enumerate(rest) if line.startswith("| "))
    end = next(index for index, line in enumerate(rest[start:], start) if not line.startswith("| "))
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in rest[start + 2 : end]]
