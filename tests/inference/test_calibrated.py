"""Calibrated networks: off unless asked, the same from a run, a bundle and a graph."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import serfit
from serfit.errors import UserError
from serfit.inference.bundle import DESCRIPTION, write_bundle
from serfit.inference.publish.graph import MonotoneGraph
from serfit.inference.source import calibrated_members, open_members
from serfit.labels import LabelScale
from serfit.runs import directory as runs
from serfit.runs.finished import read_predictions
from serfit.scores.calibration import Calibration, MonotoneMap, fit
from serfit.system import records

WAVEFORMS = [np.random.default_rng(7).standard_normal(size).astype(np.float32) for size in (3_000, 12_345, 800)]


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


def test_nothing_is_calibrated_unless_asked(trained: Callable[..., Path], tmp_path: Path) -> None:
    run = trained()
    plain = serfit.load(run).estimate(WAVEFORMS)
    validation, _ = read_predictions(run / runs.VALIDATION)
    scales = {name: LabelScale(1.0, 5.0) for name in validation.dimensions}
    for kind in ("affine", "isotonic"):
        model = serfit.load(run, calibrate=kind)
        said = model.estimate(WAVEFORMS)
        again = records.from_plain(Calibration, records.plain(fit(kind, validation, scales, "")), "", "")
        np.testing.assert_allclose(said.unit, again(plain.unit, plain.dimensions), atol=1e-9)
        np.testing.assert_array_equal(said.embeddings, plain.embeddings)
        assert model.about.origin.calibration.kind == kind
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
    for name in (runs.VALIDATION, runs.CALIBRATION):
        (run / name).unlink()
    assert serfit.load(run).estimate(WAVEFORMS).values.shape == (3, 2)
    with pytest.raises(UserError, match=r"has no affine calibration: its run wrote no predictions of the validation"):
        serfit.load(run, calibrate="affine")
    (run / runs.VALIDATION).write_text("id,valence\n")
    with pytest.raises(UserError, match=r"validation\.csv can't be read as predictions"):
        serfit.load(run)
    write_bundle(tmp_path / "bundle", open_members(trained()))
    data = json.loads((tmp_path / "bundle" / DESCRIPTION).read_text())
    data["members"][0]["calibration"]["affine"]["maps"]["valence"]["slope"] = -1.0
    (tmp_path / "bundle" / DESCRIPTION).write_text(json.dumps(data))
    with pytest.raises(UserError, match=r"serfit\.json, calibration: affine\.maps\.valence.*; export the run again"):
        serfit.load(tmp_path / "bundle", calibrate="affine")
