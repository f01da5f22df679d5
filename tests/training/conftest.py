"""A tiny training, begun or gone on with."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from serfit.config.schema import ExperimentConfig
from serfit.system.log import Log
from serfit.training.experiment import run_experiment
from support import settings


@pytest.fixture
def run(release: Path, tmp_path: Path) -> Callable[..., Path]:
    """A function that trains with some changed settings, or goes on in a directory; returns the run directory."""

    def runner(directory: Path | None = None, resume: bool = False, **changes: Any) -> Path:
        config = ExperimentConfig.model_validate(settings(release, tmp_path, **changes))
        return run_experiment(config, Log(Console(file=io.StringIO())), directory=directory, resume=resume)

    return runner
