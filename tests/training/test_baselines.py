"""The hand-made baseline: its arithmetic, and the runs it writes."""

import io
import json
from pathlib import Path

from rich.console import Console

from serfit.config.load import load_config
from serfit.config.schema import ExperimentConfig
from serfit.report.compare import compare, read_run, to_markdown
from serfit.runs import directory as runs
from serfit.system.log import Log
from serfit.training.baselines import SUFFIX, SYSTEM, run_baseline
from support import settings, small_release


def quiet() -> Log:
    return Log(Console(file=io.StringIO()))


def test_every_fold_becomes_a_finished_run_that_compare_lists(tmp_path: Path) -> None:
    root = small_release(tmp_path / "release", dialogues=2, turns=8)
    config = ExperimentConfig.model_validate(settings(root, tmp_path))
    written = run_baseline(config, quiet())
    assert [read_run(directory).fold for directory in written] == [1, 2, 3, 4, 5]
    again = run_baseline(config, quiet(), fold=3)
    first, second = (directory / runs.PREDICTIONS for directory in (written[2], again[0]))
    assert first.read_bytes() == second.read_bytes()
    assert first.read_text().splitlines()[1].split(",")[8] != ""  # seconds
    plain = json.loads((written[0] / runs.CONFIG).read_text())
    assert set(plain) == {"experiment", "data"}
    assert "loader" not in plain["data"]
    load_config(written[0] / runs.CONFIG)
    environment = json.loads((written[0] / runs.ENVIRONMENT).read_text())
    assert environment["system"] == SYSTEM
    labels = runs.read_labels(written[0])
    assert labels is not None
    assert len(labels.cuts) == 5 * 2 * 8
    assert environment["corpus"]["labels"] == labels.digests()
    assert all(read_run(directory).labels == labels.digests() for directory in written)
    comparison = compare(tmp_path / "runs")
    (result,) = comparison.experiments
    assert result.label == f"tiny_{SUFFIX}"
    assert result.missing == ()
    assert result.test["average"].mean is not None
    assert result.test["average"].mean > 0.5  # pitch follows arousal and brightness valence in these tones
    text = to_markdown(comparison)
    assert SYSTEM in text
    assert "0 of 0" not in text
