"""Finished runs of tiny networks, shared by all tests of their use."""

import io
import shutil
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


@pytest.fixture(scope="session")
def published(trained: TrainedRun, release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every command and every program of docs/publishing.md and docs/calibration.md was executed.

    The two runs there are of tiny encoders.
    """
    from documented import execute

    folder = tmp_path_factory.mktemp("published")
    (folder / "runs").mkdir()
    for fold in (1, 2):
        run = trained(data__split__fold=fold)
        shutil.copytree(run, folder / "runs" / f"ema_iemocap_finetune_fold{fold}_seed1_20260101-120000")
    speech = sorted(release.rglob("sentences/**/*.wav"))[:3]
    (folder / "speech").mkdir()
    for path in speech:
        shutil.copy(path, folder / "speech" / path.name)
    shutil.copy(speech[0], folder / "speech.wav")
    for page in ("publishing.md", "calibration.md"):
        (folder / "labels.csv").unlink(missing_ok=True)
        execute(page, folder)
    return folder
