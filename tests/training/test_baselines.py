"""The hand-made baseline: its arithmetic, and the runs it writes."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from serfit.config.load import load_config
from serfit.config.schema import ExperimentConfig
from serfit.errors import UserError
from serfit.report.compare import compare, read_run, to_markdown
from serfit.runs import directory as runs
from serfit.system.counters import generator
from serfit.system.log import Log
from serfit.training.baselines import SUFFIX, SYSTEM, fit_ridge, run_baseline
from support import settings, small_release


def quiet() -> Log:
    return Log(Console(file=io.StringIO()))


def test_ridge_solves_its_normal_equations() -> None:
    random = generator("ridge")
    x, y = random.normal(3, 2, (50, 80)), random.normal(size=50)
    line, penalty = fit_ridge(x, y, x, y, [7.0])
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    weights = np.linalg.solve(z.T @ z + 7.0 * np.eye(80), z.T @ (y - y.mean()))
    assert penalty == 7.0
    np.testing.assert_allclose(line.weights, weights, atol=1e-10)
    np.testing.assert_allclose(line.predict(x), z @ weights + y.mean(), atol=1e-10)


def test_the_penalty_is_the_one_the_validation_part_likes_best() -> None:
    random = generator("penalty")
    x, new = random.normal(size=(2, 60, 40))
    truth = random.normal(size=40)
    y, wanted = (part @ truth + random.normal(0, 20, 60) for part in (x, new))
    penalties = [0.1, 10.0, 100.0, 10_000.0]
    _, chosen = fit_ridge(x, y, new, wanted, penalties)
    scores = {}
    for penalty in penalties:
        line, _ = fit_ridge(x, y, new, wanted, [penalty])
        values = line.predict(new)
        cov = np.cov(values, wanted, bias=True)
        scores[penalty] = 2 * cov[0, 1] / (cov[0, 0] + cov[1, 1] + (values.mean() - wanted.mean()) ** 2)
    assert chosen == max(scores, key=scores.__getitem__)


def test_undefined_and_constant_features_do_no_harm() -> None:
    random = generator("undefined")
    x, y = random.normal(size=(40, 3)), random.normal(size=40)
    odd = np.column_stack([x, np.full(40, np.nan), np.ones(40)])
    plain, _ = fit_ridge(x, y, x, y, [1.0])
    line, _ = fit_ridge(odd, y, odd, y, [1.0])
    np.testing.assert_allclose(line.predict(odd), plain.predict(x), atol=1e-10)
    odd[3, 0] = np.nan
    assert np.isfinite(line.predict(odd)).all()


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


def test_a_fold_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    root = small_release(tmp_path / "release", dialogues=1, turns=3)
    with pytest.raises(UserError, match="fold"):
        run_baseline(ExperimentConfig.model_validate(settings(root, tmp_path)), quiet(), fold=6)
    everything = ExperimentConfig.model_validate(settings(root, tmp_path, data__split__scheme="everything"))
    with pytest.raises(UserError, match="nothing to score"):
        run_baseline(everything, quiet())
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())
