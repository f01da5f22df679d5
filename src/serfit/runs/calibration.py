"""calibration.json: the calibrations that a run carries, fitted to its validation.csv when it finishes.

Fitted to the numbers as they stand in validation.csv, so that anybody gets the same maps from that file; a run that
was finished before there was a calibration.json is used with what is fitted to it on the spot.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from serfit.errors import UserError
from serfit.labels import Dimension, LabelScale
from serfit.runs.directory import CALIBRATION, VALIDATION, Run
from serfit.runs.finished import read_predictions
from serfit.scores.calibration import KINDS, Calibration, Kind, fit, suffices
from serfit.system.records import Number, VersionedRecord, read_record, write_record

ABOUT = (
    "Monotone maps from predictions to ratings, both on [0, 1] of the scales below: straight lines through knots and "
    "values, and beyond the outermost knots a line with the slope. Not applied unless asked for."
)
"""What calibration.json says of itself."""

Scales = Mapping[Dimension, LabelScale]


class Calibrations(VersionedRecord):
    """calibration.json.

    Attributes:
        about: what the file is, for people.
        fitted_to: the file of predictions.
        scales: the corpus's, minimum and maximum.
        calibrations: by kind.
    """

    about: str
    fitted_to: str
    scales: dict[Dimension, tuple[Number, Number]]
    calibrations: dict[Kind, Calibration]


def keep_calibrations(run: Run, dimensions: Sequence[Dimension], scales: Scales) -> tuple[Calibration, ...]:
    """Fit a run's calibrations to the validation.csv that it has just written, and keep them in its directory.

    Returns:
        As `fit_to_validation`; where that is nothing, nothing is written.
    """
    fitted = fit_to_validation(run.directory, dimensions, scales)
    if fitted:
        write_record(run / CALIBRATION, _record(fitted, scales))
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
    remedy = f"move it away, and the maps are fitted to {VALIDATION} anew"
    found = read_record(Calibrations, path, remedy)
    read = tuple(one for kind in KINDS if (one := found.calibrations.get(kind)) is not None)
    expected = _record(read, {name: scales[name] for name in dimensions})
    if len(read) < len(KINDS) or found.model_copy(update={"about": ABOUT, "format": 0}) != expected:
        raise UserError(f"{path} isn't what a run on these scales writes there; {remedy}")
    for one in read:
        one.check(dimensions, str(path), remedy)
    return read


def _record(fitted: Sequence[Calibration], scales: Scales) -> Calibrations:
    return Calibrations(
        about=ABOUT,
        fitted_to=VALIDATION,
        scales={name: (scale.minimum, scale.maximum) for name, scale in scales.items()},
        calibrations={one.kind: one for one in fitted},
    )
