"""The quick rows of benchmarks/reliability; `run.py --short` runs them all, `--long` with more cases."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support import PATIENCE

ROOT = Path(__file__).parents[2]
ROWS = {"R2": 21, "R3": 12, "R4": 50, "R5": 15, "R7": 53, "R13": 3}
"""Least cases of each row."""


@pytest.mark.slow
def test_kills_full_disks_damage_hostile_files_and_lack_of_memory_lose_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks/reliability/run.py", *ROWS],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "TMPDIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    counts = {row: (int(held), int(tried)) for row, held, tried in re.findall(r"(R\d+) +(\d+) of (\d+)", done.stdout)}
    assert counts.keys() == ROWS.keys()
    for row, least in ROWS.items():
        held, tried = counts[row]
        assert held == tried >= least, done.stdout
