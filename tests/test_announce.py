"""What a training says about itself at its end."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from serfit import runs
from serfit.config.schema import ExperimentConfig
from serfit.experiment import run_experiment
from serfit.log import Log
from support import settings, small_release

SATURATED = {
    "model__params__output": "sigmoid",
    "train__epochs": 4,
    "train__schedule": {"warmup": 0.0},
    "train__optimizer": {"lr": 10.0, "encoder_lr": 1.0},
}


@pytest.mark.parametrize(("changes", "said"), [({}, False), (SATURATED, True)], ids=["plain", "saturated"])
def test_findings_are_said_after_the_last_epoch(tmp_path: Path, changes: dict[str, object], said: bool) -> None:
    config = ExperimentConfig.model_validate(settings(small_release(tmp_path / "iemocap"), tmp_path, **changes))
    directory = run_experiment(config, Log(Console(file=io.StringIO())))
    log = (directory / runs.TRAIN_LOG).read_text()
    assert ("collapsed: the outputs hardly vary" in log) == said
    if said:
        assert "train.optimizer.encoder_lr=0.1" in log
        assert log.index("epoch 4/4") < log.index("collapsed: the outputs") < log.index("run directory:")
