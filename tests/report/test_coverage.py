"""What calibration changes is counted where it counts."""

import io
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from serfit.cli import main
from serfit.errors import UserError
from serfit.labels import LabelScale
from serfit.report.coverage import examine, half_width, sentences, spread_rows
from serfit.runs import directory as runs
from serfit.runs.finished import read_run
from serfit.scores.metrics import score_dimension
from serfit.scores.records import Predictions


def test_a_half_width_holds_the_share_it_promises() -> None:
    random = np.random.default_rng(3)
    errors = random.standard_normal((400, 100))
    widths = [half_width(row) for row in errors]
    inside = np.mean([np.abs(random.standard_normal(200)) <= width for width in widths])
    assert inside == pytest.approx(np.ceil(101 * 0.95) / 101, abs=0.006)


def part(fold: int, network: int, count: int = 400) -> Predictions:
    """Ratings of a fold's utterances, and predictions that are too low, too narrow and differ between networks."""
    ratings = np.random.default_rng(fold).uniform(1.0, 5.0, (count, 2))
    noise = np.random.default_rng([fold, network]).standard_normal((count, 2))
    ids = tuple(f"{fold}-{number}" for number in range(count))
    return Predictions(ids, ("valence", "arousal"), ratings, 2.0 + 0.25 * (ratings - 3.0) + 0.1 * noise)


def test_what_calibration_changes_is_counted_on_both_parts(trained: Callable[..., Path], tmp_path: Path) -> None:
    """Five folds whose predictions are known functions of the ratings; every utterance is heard by two networks."""
    found = []
    finished = read_run(trained())
    for fold in (1, 2, 3, 4, 5):
        directory = tmp_path / str(fold)
        directory.mkdir()
        validation = part(fold % 5 + 1, fold)
        pairs = np.stack([validation.targets, validation.values], axis=2).reshape(len(validation.ids), 4).tolist()
        rows = [f"{name},{','.join(map(str, row))}" for name, row in zip(validation.ids, pairs, strict=True)]
        header = "id,valence,valence_predicted,arousal,arousal_predicted"
        (directory / runs.VALIDATION).write_text("\n".join([header, *rows]) + "\n")
        which = finished.which.model_copy(update={"fold": fold})
        found.append(replace(finished, directory=directory, which=which, predictions=part(fold, fold)))
    findings = examine(found, {name: LabelScale(1.0, 5.0) for name in finished.dimensions})
    lines = {(line.dimension, line.part, line.map): line for line in findings.lines}
    together = [np.concatenate([getattr(run.predictions, one)[:, 0] for run in found]) for one in ("targets", "values")]
    assert lines["valence", "test", "none"].scores == score_dimension(*together)
    for name in ("valence", "arousal"):
        before, after = (lines[name, "test", kind] for kind in ("none", "affine"))
        assert before.scores.bias == pytest.approx(-1.0, abs=0.05)
        assert after.scores.bias == pytest.approx(0.0, abs=0.05)
        assert after.slope == pytest.approx(1.0, abs=0.05)
        assert lines[name, "validation", "affine"].scores.bias == pytest.approx(0.0, abs=1e-9)
        assert lines[name, "validation", "affine"].slope == pytest.approx(1.0, abs=1e-2)
    for one in findings.intervals:
        assert one.inside == pytest.approx(0.95, abs=0.02)
    maps = ["none", "affine", "isotonic"]
    assert [(one.dimension, one.map) for one in findings.disagreements] == [
        (name, kind) for name in ("valence", "arousal") for kind in maps
    ]
    for one in findings.disagreements:
        assert (one.utterances, one.networks) == (2000, (2, 2))
        if one.map == "none":
            assert one.deviation == pytest.approx(0.1, rel=0.1)
            assert one.inside < 0.2  # networks agree with each other, and not with the ratings
        else:  # each network is right up to its noise: a ratio of two normal deviates, 2 / pi * atan(1.96 * sqrt(2))
            assert one.inside == pytest.approx(0.78, abs=0.06)
    assert len(spread_rows(findings).rows) == 6
    assert any("not to be had" in said for said in sentences(findings))
    assert findings.flat == ()


def test_a_run_that_nothing_can_be_counted_of_is_a_sentence(trained: Callable[..., Path], tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained(), tmp_path / "run"))
    finished, scales = read_run(run), dict.fromkeys(("valence", "arousal"), LabelScale(1.0, 5.0))
    (run / runs.CALIBRATION).unlink()
    lines = (run / runs.VALIDATION).read_text().splitlines()
    (run / runs.VALIDATION).write_text("\n".join(lines[:2]) + "\n")
    with pytest.raises(UserError, match=r"validation\.csv is too little for a calibration, which needs at least 2"):
        examine([finished], scales)
    (run / runs.VALIDATION).unlink()
    with pytest.raises(UserError, match=r"wrote no validation\.csv"):
        examine([finished], scales)


def test_a_terminal_that_knows_only_ascii_gets_all_of_it(
    trained: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="ascii", write_through=True))
    with pytest.raises(SystemExit) as left:
        main(["calibration", str(trained()), str(trained(data__split__fold=2))])
    assert not left.value.code
    assert b"within mean ? 1.96 deviations" in shown.getvalue()


def test_the_verb_prints_what_it_found(trained: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    run = trained()
    with pytest.raises(SystemExit) as left:
        main(["calibration", str(run)])
    assert not left.value.code
    shown = " ".join(capsys.readouterr().out.split())
    scores = read_run(run).scores.test.dimensions["valence"]
    assert f"valence test none {scores.ccc:.4f} {scores.bias:+.3f}" in shown
    assert "for 95% a run needs at least 19 validation utterances" in shown
    with pytest.raises(SystemExit) as left:
        main(["calibration", str(run / "nowhere")])
    assert left.value.code == 2
