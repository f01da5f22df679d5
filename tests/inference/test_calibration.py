"""Calibration: the best monotone maps by second derivations, off unless asked, counted where it counts."""

import io
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import serfit
from serfit import runs
from serfit.cli import main
from serfit.errors import UserError
from serfit.inference.bundle import DESCRIPTION, write_bundle
from serfit.inference.calibration import (
    CLOSEST,
    Calibration,
    MonotoneMap,
    affine,
    fit,
    isotonic,
    pool_adjacent_violators,
)
from serfit.inference.coverage import examine, half_width, sentences, spread_rows
from serfit.inference.graph import MonotoneGraph
from serfit.inference.source import calibrated_members, open_members
from serfit.labels import LabelScale
from serfit.metrics import rating_slope, score_dimension
from serfit.records import Predictions
from serfit.report.finished import read_predictions, read_run

WAVEFORMS = [np.random.default_rng(7).standard_normal(size).astype(np.float32) for size in (3_000, 12_345, 800)]
numbers = st.floats(0.0, 1.0, width=32)


@given(st.lists(st.tuples(numbers, st.floats(0.125, 4.0)), min_size=1, max_size=12))
def test_pooled_violators_are_the_best_monotone_approximation(points: list[tuple[float, float]]) -> None:
    values, weights = (np.array(column, dtype=np.float64) for column in zip(*points, strict=True))
    fitted = np.empty(len(values))
    for block in pool_adjacent_violators(values, weights):
        fitted[block] = (values[block] @ weights[block]) / weights[block].sum()

    def mean(first: int, last: int) -> float:
        part = slice(first, last + 1)
        return float(values[part] @ weights[part] / weights[part].sum())

    count = len(values)
    minimax = [max(min(mean(i, k) for k in range(at, count)) for i in range(at + 1)) for at in range(count)]
    np.testing.assert_allclose(fitted, minimax, atol=1e-9)


def points(seed: int, count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    predictions = random.uniform(0.2, 0.8, count).round(2)
    return predictions, 0.3 + 0.5 * predictions**2 + 0.1 * random.standard_normal(count)


@pytest.mark.parametrize("seed", range(5))
def test_the_straight_line_is_that_of_least_squares(seed: int) -> None:
    predictions, ratings = points(seed)
    line = affine(predictions, ratings)
    slope, intercept = np.polyfit(predictions, ratings, 1)
    np.testing.assert_allclose(line([0.0, 0.5, 1.3]), [intercept, intercept + 0.5 * slope, intercept + 1.3 * slope])
    assert rating_slope(ratings, line(predictions)) == pytest.approx(1.0)
    assert affine(predictions, -ratings).is_constant
    assert affine(np.full(9, 0.5), ratings[:9])([0.0, 0.5]) == pytest.approx([ratings[:9].mean()] * 2)


@pytest.mark.parametrize("seed", range(5))
def test_the_isotonic_map_goes_through_the_block_means(seed: int) -> None:
    predictions, ratings = points(seed)
    curve = isotonic(predictions, ratings)
    assert (np.diff(curve.knots) >= CLOSEST).all()
    assert curve.slope == affine(predictions, ratings).slope
    grid = np.linspace(-1.0, 2.0, 2001)
    assert (np.diff(curve(grid)) >= 0.0).all()
    assert np.abs(np.diff(curve(grid))).max() < 0.2  # nothing jumps
    error = [np.square(mapped - ratings).mean() for mapped in (predictions, curve(predictions))]
    assert error[1] < error[0]
    constant = isotonic(predictions, -ratings)
    assert np.ptp(constant.values) < 0.05
    assert constant.slope == 0.0
    assert isotonic(np.array([0.3, 0.3]), np.array([0.2, 0.6]))([0.0, 1.0]) == pytest.approx([0.4, 0.4])


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=8),
    st.lists(st.floats(0.0, 0.3), min_size=8, max_size=8),
    st.floats(0.0, 3.0),
)
@settings(max_examples=50)
def test_the_graph_of_a_map_is_the_map(steps: list[int], rises: list[float], slope: float) -> None:
    knots = tuple(float(knot) for knot in 0.01 * np.cumsum(steps))
    line = MonotoneMap(knots, tuple(np.cumsum(rises[: len(knots)]).tolist()), slope)
    grid = np.linspace(-0.5, 3.5, 301)
    found = MonotoneGraph(line)(torch.from_numpy(grid).float())
    np.testing.assert_allclose(found.numpy(), line(grid), atol=1e-4)


@pytest.mark.parametrize(
    ("knots", "values", "slope"),
    [((), (), 1.0), ((0.1,), (0.1, 0.2), 1.0), ((0.2, 0.1), (0.1, 0.2), 1.0), ((0.1, 0.2), (0.2, 0.1), 1.0),
     ((0.1,), (0.1,), -1.0), ((0.1,), (float("nan"),), 1.0)],
)  # fmt: skip
def test_what_is_no_monotone_map_is_refused(knots: tuple[float], values: tuple[float], slope: float) -> None:
    with pytest.raises(ValueError, match="knots"):
        MonotoneMap(knots, values, slope)
    maps = {"arousal": {"knots": list(knots), "values": list(values), "slope": slope}}
    with pytest.raises(UserError, match=r"x\.json holds a calibration that can't be used"):
        Calibration.from_json({"kind": "affine", "utterances": 3, "maps": maps}, ("arousal",), "x.json")


def test_nothing_is_calibrated_unless_asked(trained: Callable[..., Path], tmp_path: Path) -> None:
    run = trained()
    plain = serfit.load(run).estimate(WAVEFORMS)
    validation, _ = read_predictions(run / runs.VALIDATION)
    scales = {name: LabelScale(1.0, 5.0) for name in validation.dimensions}
    for kind in ("affine", "isotonic"):
        model = serfit.load(run, calibrate=kind)
        said = model.estimate(WAVEFORMS)
        again = Calibration.from_json(
            json.loads(json.dumps(fit(kind, validation, scales, "").to_json())), validation.dimensions, ""
        )
        np.testing.assert_allclose(said.unit, again(plain.unit, plain.dimensions), atol=1e-9)
        np.testing.assert_array_equal(said.embeddings, plain.embeddings)
        assert model.about.origin["calibration"]["kind"] == kind
        assert np.abs(said.values - plain.values).max() > 1e-3
        members, applied = calibrated_members([run], kind)
        assert applied == kind
        write_bundle(tmp_path / kind, members)
        np.testing.assert_array_equal(serfit.load(tmp_path / kind).estimate(WAVEFORMS).values, said.values)
        undone = serfit.load(tmp_path / kind, calibrate="none")
        np.testing.assert_array_equal(undone.estimate(WAVEFORMS).values, plain.values)
    write_bundle(tmp_path / "plain", open_members(run))
    np.testing.assert_array_equal(serfit.load(tmp_path / "plain").estimate(WAVEFORMS).values, plain.values)
    asked = serfit.load(tmp_path / "plain", calibrate="affine").estimate(WAVEFORMS)
    np.testing.assert_array_equal(asked.values, serfit.load(tmp_path / "affine").estimate(WAVEFORMS).values)
    with pytest.raises(UserError, match="apply different calibrations"):
        calibrated_members([tmp_path / "plain", tmp_path / "affine"], None)


def test_the_mean_of_an_ensemble_is_taken_after_each_ones_map(trained: Callable[..., Path]) -> None:
    folds = [trained(data__split__fold=fold) for fold in (1, 2)]
    each = [serfit.load(run, calibrate="affine").estimate(WAVEFORMS).values for run in folds]
    both = serfit.load(*folds, calibrate="affine").estimate(WAVEFORMS)
    np.testing.assert_allclose(both.values, np.mean(each, axis=0), atol=1e-9)


def test_a_calibration_that_isnt_there_is_a_sentence(trained: Callable[..., Path], tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained(), tmp_path / "run"))
    with pytest.raises(UserError, match="no calibration called cubic; choose affine, isotonic or none"):
        serfit.load(run, calibrate="cubic")  # type: ignore[arg-type]
    (run / runs.VALIDATION).unlink()
    assert serfit.load(run).estimate(WAVEFORMS).values.shape == (3, 2)
    with pytest.raises(UserError, match=r"has no affine calibration: its run wrote no predictions of the validation"):
        serfit.load(run, calibrate="affine")
    with pytest.raises(UserError, match=r"wrote no validation\.csv"):
        examine([read_run(run)], {})
    (run / runs.VALIDATION).write_text("id,valence\n")
    with pytest.raises(UserError, match=r"validation\.csv can't be read as predictions"):
        serfit.load(run)
    write_bundle(tmp_path / "bundle", open_members(trained()))
    data = json.loads((tmp_path / "bundle" / DESCRIPTION).read_text())
    data["members"][0]["calibration"]["affine"]["maps"]["valence"]["slope"] = -1.0
    (tmp_path / "bundle" / DESCRIPTION).write_text(json.dumps(data))
    with pytest.raises(UserError, match="calibration that can't be used"):
        serfit.load(tmp_path / "bundle", calibrate="affine")


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
        settings = {**finished.settings, "data.split.fold": fold}
        found.append(replace(finished, directory=directory, settings=settings, predictions=part(fold, fold)))
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
    scores = read_run(run).test.dimensions["valence"]
    assert f"valence test none {scores.ccc:.4f} {scores.bias:+.3f}" in shown
    assert "for 95% a run needs at least 19 validation utterances" in shown
    with pytest.raises(SystemExit) as left:
        main(["calibration", str(run / "nowhere")])
    assert left.value.code == 2
