"""calibration.json: the calibrations that a run carries, fitted to its validation.csv when it finishes.

Fitted to the numbers as they stand in validation.csv, so that anybody gets the same maps from that file; a run that
was finished before there was a calibration.json is used with what is fitted to it on the spot.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from serfit.errors import UserError, error_line
from serfit.labels import Dimension, LabelScale
from serfit.runs.directory import CALIBRATION, VALIDATION, Run
from serfit.runs.finished import read_predictions
from serfit.scores.calibration import KINDS, Calibration, fit, suffices

FORMAT = 1

ABOUT = (
    "Monotone maps from predictions to ratings, both on [0, 1] of the scales below: straight lines through knots and "
    "values, and beyond the outermost knots a line with the slope. Not applied unless asked for."
)
"""What calibration.json says of itself."""

Scales = Mapping[Dimension, LabelScale]


def keep_calibrations(run: Run, dimensions: Sequence[Dimension], scales: Scales) -> tuple[Calibration, ...]:
    """Fit a run's calibrations to the validation.csv that it has just written, and keep them in its directory.

    Returns:
        As `fit_to_validation`; where that is nothing, nothing is written.
    """
    fitted = fit_to_validation(run.directory, dimensions, scales)
    if fitted:
        run.keep({CALIBRATION: json.dumps(_plain(fitted, scales), indent=2, allow_nan=False) + "\n"})
    return fitted


def fit_to_validation(directory: Path, dimensions: Sequence[Dimension], scales: Scales) -> tuple[Calibration, ...]:
    """One calibration of each kind, fitted to validation.csv in a run directory.

    Returns:
        In the order of `KINDS`; nothing where that file is missing (a run trained on everything writes none), is about
        other dimensions, or holds too few utterances.

    Raises:
        UserError: the file is damaged.
    """
    path = directory / VALIDATION
    if not path.is_file():
        return ()
    validation, _ = read_predictions(path)
    if validation.dimensions != tuple(dimensions) or not suffices(validation):
        return ()
    return tuple(fit(kind, validation, scales, str(path)) for kind in KINDS)


def calibrations_of(directory: Path, dimensions: Sequence[Dimension], scales: Scales) -> tuple[Calibration, ...]:
    """The calibrations that a finished run carries; of one that has no calibration.json, what is fitted on the spot.

    Args:
        directory: of the run.
        dimensions: that the run predicts.
        scales: the corpus's, of each of them.

    Returns:
        As `fit_to_validation`.

    Raises:
        UserError: calibration.json isn't what a run of these dimensions and scales writes; validation.csv is damaged.
    """
    path = directory / CALIBRATION
    if not path.exists():
        return fit_to_validation(directory, dimensions, scales)
    try:
        data = json.loads(path.read_bytes())
        if isinstance(data["format"], int) and data["format"] > FORMAT:
            raise ValueError(f"its format is {data['format']}, and this serfit reads {FORMAT}: update serfit")
        read = tuple(Calibration.from_json(data["calibrations"][kind], dimensions) for kind in KINDS)
        if data != {**_plain(read, {name: scales[name] for name in dimensions}), "about": str(data["about"])}:
            raise ValueError("it has other keys, or scales other than the corpus's")
    except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        raise UserError(
            f"{path} isn't what a run writes there ({type(error).__name__}: {error_line(error)}); move it away, "
            f"and the maps are fitted to {VALIDATION} anew"
        ) from error
    return read


def _plain(fitted: Sequence[Calibration], scales: Scales) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "about": ABOUT,
        "fitted_to": VALIDATION,
        "scales": {name: [scale.minimum, scale.maximum] for name, scale in scales.items()},
        "calibrations": {one.kind: one.to_json() for one in fitted},
    }
