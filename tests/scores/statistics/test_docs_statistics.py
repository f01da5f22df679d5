"""docs/statistics.md: its tables hold every world that the benchmark simulates, its words the numbers of the tables."""

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[3]
PAGE = REPOSITORY / "docs" / "statistics.md"


@pytest.fixture(scope="module")
def benchmark() -> dict[str, Any]:
    return runpy.run_path(str(REPOSITORY / "benchmarks" / "statistics" / "coverage.py"))


def table(first: str, section: str = "How often the intervals are right") -> list[list[str]]:
    """The rows of a table by the heading of its first column."""
    text = PAGE.read_text().partition(f"\n## {section}\n")[2]
    rows = text.partition(f"\n| {first} |")[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def percent(rows: list[list[str]], *columns: int) -> list[float]:
    return [float(row[column].partition("%")[0]) for row in rows for column in columns if row[column]]


def test_every_simulated_world_is_in_the_tables(benchmark: dict[str, Any]) -> None:
    told = table("simulated world") + table("simulated world", "Where they are not")
    assert [row[0] for row in told] == list(benchmark["WORLDS"])
    assert [(int(folds), int(speakers)) for folds, speakers, *_ in table("folds")] == list(benchmark["FEW"])


def test_worlds_with_fold_effects_are_uneven_small_and_without_skill_too(benchmark: dict[str, Any]) -> None:
    differing = [(design, system) for design, system in benchmark["WORLDS"].values() if system.slope_by_fold > 0]
    assert any(design.uneven for design, _ in differing)
    assert any(design.dialogues <= 3 for design, _ in differing)
    assert any(design.sessions <= 3 for design, _ in differing)
    assert any(system.slope == 0 for _, system in differing)


def test_the_words_below_the_table_are_its_numbers() -> None:
    rows = table("simulated world")
    words = " ".join(PAGE.read_text().split())
    ends = [f"{end:.1f}" for column in (1, 2) for end in (min(percent(rows, column)), max(percent(rows, column)))]
    claimed = r"covered ([\d.]+) to ([\d.]+)% of the true values for the mean over folds, ([\d.]+) to ([\d.]+)% for the"
    assert re.findall(claimed, words) == [tuple(ends)]
    level = percent(rows, 3, 4)
    assert f"a difference between equal systems in {min(level):.1f} to {max(level):.1f}%" in words
    assert f"covers as little as {min(percent(rows, 6)):.1f}% if they differ" in words
