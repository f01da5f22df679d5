from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from report.written import Written
from report.written import write_run as write_run_into


@pytest.fixture
def write_run(tmp_path: Path) -> Callable[..., Written]:
    """A function that writes a finished run into tmp_path/runs, each a second later than the one before."""
    seconds = count(1)

    def write(*arguments: Any, **options: Any) -> Written:
        return write_run_into(tmp_path / "runs", next(seconds), *arguments, **options)

    return write
