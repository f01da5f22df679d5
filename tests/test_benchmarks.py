"""Benchmarks aren't run here, but each still starts: what they import from serfit is there."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
PROGRAMS = sorted(path for path in BENCHMARKS.rglob("*.py") if "ArgumentParser" in path.read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.relative_to(BENCHMARKS).as_posix())
def test_a_benchmark_says_how_it_is_used(path: Path) -> None:
    shown = subprocess.run([sys.executable, path, "--help"], capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert "usage:" in shown.stdout
