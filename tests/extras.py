"""Tests that need an extra of the package skip without it, and the last lines of a test run say which and how many.

pytestmark = pytest.mark.extra("serve")          # or on one test
parquet = need("parquet", "pyarrow.parquet")     # at a module's top, where a mark would come too late
"""

import importlib
import re
import tomllib
from collections import Counter
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pytest

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
REASON = "needs the extra "
ALL = "uv run --all-extras pytest"


@cache
def installed(extra: str) -> bool:
    """Whether every package of an extra is there."""
    extras = tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"]
    assert extra in extras, f"pyproject.toml has no extra {extra}"
    try:
        for requirement in extras[extra]:
            distribution(re.split(r"[^\w.-]", requirement, maxsplit=1)[0])
    except PackageNotFoundError:
        return False
    return True


def need(extra: str, module: str | None = None) -> Any:
    """Skip the test, or the whole module that is being collected, where an extra is missing; return its module."""
    if not installed(extra):
        pytest.skip(REASON + extra, allow_module_level=True)
    return module and importlib.import_module(module)


def summary(skipped: Iterable[pytest.TestReport | pytest.CollectReport]) -> list[str]:
    """What was skipped for want of extras, and the command that runs everything; no lines where nothing was."""
    counts = Counter[str]()
    for report in skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if REASON in reason:
            counts[reason.split(REASON)[1]] += 1
    if not counts:
        return []
    named = ", ".join(f"{extra} ({count})" for extra, count in sorted(counts.items()))
    return [f"skipped tests or test modules, by the extra that they need: {named}", f"to run all tests: {ALL}"]
