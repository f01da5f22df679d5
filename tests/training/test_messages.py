"""What a training says about itself at its end."""

import csv
import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from serfit.config.schema import ExperimentConfig
from serfit.report.compare import read_run
from serfit.report.diagnosis.diagnose import diagnose
from serfit.runs import directory as runs
from serfit.runs.live import Reader
from serfit.system.log import Log
from serfit.system.precision import Precision
from serfit.training.batches import Example
from serfit.training.executor import Executor
from serfit.training.experiment import run_experiment
from serfit.training.material import prepare
from serfit.training.messages import greet
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
        assert log.index(" 4/4 ") < log.index("collapsed: the outputs") < log.index("saved: ")


def test_a_runs_log_is_short_dated_once_and_fits_a_terminal(trained: Callable[..., Path]) -> None:
    """At most fifteen lines and one per epoch; what is off stays unsaid, notes on the corpus are cut short."""
    directory = trained()
    lines = (directory / runs.TRAIN_LOG).read_text().splitlines()
    epochs = len((directory / runs.METRICS).read_text().splitlines())
    assert len(lines) <= 15 + epochs, "\n".join(lines)
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d serfit \S+: tiny, fold 1 of 5, seed 1, fp32 on ", lines[0])
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in lines[1:])
    assert all(len(line) <= 120 for line in lines if "/trained" not in line), "\n".join(lines)
    assert "1 threads" not in lines[0]
    notes = json.loads((directory / runs.ENVIRONMENT).read_text())["corpus"]["notes"]
    assert any(len(note) > 200 for note in notes)  # whole in the record
    assert "calibration" not in "".join(lines)
    assert lines[-1].split()[1:3] == ["saved:", str(directory)]


def test_many_notes_on_a_corpus_are_counted(trained: Callable[..., Path]) -> None:
    (history,) = Reader().read([trained()])
    material = prepare(history.config)
    many = replace(material, corpus=replace(material.corpus, notes=tuple(f"note {number}" for number in range(40))))
    shown = io.StringIO()
    greet(Log(Console(file=shown)), history.config, many, "device: CPU", Precision())
    assert "note 4\n" in shown.getvalue()
    assert "note 5\n" not in shown.getvalue()
    assert "and 35 more notes on the corpus: see environment.json" in shown.getvalue()


def test_how_dimensions_go_together_is_recorded_and_diagnosed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """scores.json against predictions.csv and validation.csv; older runs without it are read as before."""

    def predict(self: Executor, examples: Sequence[Example]) -> torch.Tensor:
        axis = torch.tensor([example.inputs.sum().sin() for example in examples])
        return torch.stack([axis, axis + 1e-6 * torch.arange(len(axis))], dim=1)

    monkeypatch.setattr(Executor, "predict", predict)
    corpus = small_release(tmp_path / "iemocap", dialogues=2, turns=8)
    directory = run_experiment(
        ExperimentConfig.model_validate(settings(corpus, tmp_path, train__epochs=1)), Log(Console(file=io.StringIO()))
    )
    scores = json.loads((directory / runs.SCORES).read_text())
    for part, name in (("validation", runs.VALIDATION), ("test", runs.PREDICTIONS)):
        (pair,) = scores["correlations"][part]
        rows = list(csv.DictReader((directory / name).open()))
        v, a = ([float(row[one]) for row in rows] for one in ("valence", "arousal"))
        assert (pair["first"], pair["second"], pair["count"]) == ("valence", "arousal", len(rows))
        assert pair["rated"] == pytest.approx(np.corrcoef(v, a)[0, 1])
        assert pair["predicted"] > 0.999
    assert "one axis: predictions of valence and arousal correlate" in (directory / runs.TRAIN_LOG).read_text()
    (history,) = Reader().read([directory])
    assert [finding.kind for finding in diagnose(history)] == ["one axis"]
    before = read_run(directory).scores.test
    (directory / runs.SCORES).write_text(json.dumps({k: v for k, v in scores.items() if k != "correlations"}))
    (history,) = Reader().read([directory])
    assert diagnose(history) == ()
    assert read_run(directory).scores.test == before
