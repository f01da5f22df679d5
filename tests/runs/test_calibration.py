"""A run carries its calibrations: fitted once, read strictly, used as they are."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import serfit
from serfit.errors import UserError
from serfit.labels import LabelScale
from serfit.runs import directory as runs
from serfit.runs.calibration import calibrations_of
from serfit.runs.finished import read_predictions
from serfit.scores.calibration import KINDS, fit

NAMES = ("valence", "arousal")
SCALES = dict.fromkeys(NAMES, LabelScale(1.0, 5.0))


@pytest.fixture
def finished(trained: Callable[..., Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained(), tmp_path / "run"))


def change(run: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads((run / runs.CALIBRATION).read_text())
    edit(data)
    (run / runs.CALIBRATION).write_text(json.dumps(data))


def test_a_run_carries_what_its_validation_csv_gives(finished: Path) -> None:
    validation, _ = read_predictions(finished / runs.VALIDATION)
    fitted = tuple(fit(kind, validation, SCALES, "") for kind in KINDS)
    assert calibrations_of(finished, NAMES, SCALES) == fitted
    (finished / runs.CALIBRATION).unlink()
    assert calibrations_of(finished, NAMES, SCALES) == fitted, "a run from before there was the file"


def test_the_maps_that_a_run_carries_are_used_and_not_fitted_again(finished: Path) -> None:
    change(
        finished, lambda data: data["calibrations"]["affine"]["maps"]["valence"].update(knots=[0], values=[2], slope=0)
    )
    (finished / runs.VALIDATION).unlink()
    sound = np.random.default_rng(1).standard_normal(8_000).astype(np.float32)
    assert serfit.load(finished, calibrate="affine").predict(sound, rate=16_000).values["valence"] == pytest.approx(9.0)
    assert serfit.load(finished).predict(sound, rate=16_000).values["valence"] < 6.0, "off unless asked"


@pytest.mark.parametrize(
    "edit",
    [
        lambda data: data.pop("scales"),
        lambda data: data.update(about=3),
        lambda data: data.update(fitted_to="predictions.csv"),
        lambda data: data["scales"].update(valence=[1, 7]),
        lambda data: data["scales"].update(dominance=[1, 5]),
        lambda data: data["calibrations"].pop("isotonic"),
        lambda data: data["calibrations"].update(cubic={}),
        lambda data: data["calibrations"]["affine"].update(kind="isotonic"),
        lambda data: data["calibrations"]["affine"]["maps"].pop("arousal"),
        lambda data: data["calibrations"]["affine"]["maps"]["arousal"].update(slope=-1),
    ],
)
def test_a_record_that_was_changed_is_a_sentence(finished: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    change(finished, edit)
    with pytest.raises(UserError, match=r"calibration\.json.*; move it away"):
        calibrations_of(finished, NAMES, SCALES)


def test_what_is_no_record_is_a_sentence(finished: Path) -> None:
    change(finished, lambda data: data.update(format=2))
    with pytest.raises(UserError, match=r"calibration\.json: format is 2 \(this serfit reads up to 1: update serfit\)"):
        calibrations_of(finished, NAMES, SCALES)
    for text in (b"", b"[]", b"\xff", b"[" * 100_000):
        (finished / runs.CALIBRATION).write_bytes(text)
        with pytest.raises(
            UserError, match=r"calibration\.json: it isn't JSON .*; move it away|calibration\.json: it is \[\]"
        ):
            serfit.load(finished)
