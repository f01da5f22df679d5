"""Finished runs of tiny networks, shared by all tests of their use."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from serfit.config.schema import ExperimentConfig
from serfit.experiment import run_experiment
from serfit.log import Log
from support import settings, small_release

TrainedRun = Callable[..., Path]


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_release(tmp_path_factory.mktemp("iemocap"))


@pytest.fixture(scope="session")
def trained(release: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """A function that trains a tiny run with some changed settings, once per set of them."""
    folder = tmp_path_factory.mktemp("trained")
    made: dict[str, Path] = {}

    def train(**changes: Any) -> Path:
        key = repr(sorted(changes.items()))
        if key not in made:
            config = ExperimentConfig.model_validate(settings(release, folder, **changes))
            made[key] = run_experiment(config, Log(Console(file=io.StringIO())))
        return made[key]

    return train
