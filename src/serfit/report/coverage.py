"""What calibration changes, on the part it was fitted to and on the one where it counts; and which intervals hold.

Two intervals are tried. Half-widths from validation errors: split conformal prediction (Lei et al., "Distribution-free
predictive inference for regression", JASA 2018), sound where test utterances are like validation utterances; sessions
and speakers aren't, so what counts is the share measured on the test part. And mean +- 1.96 deviations over several
networks, which can be tried only with networks that were not trained on the utterance.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from serfit.errors import UserError, counted
from serfit.labels import DIMENSIONS, Dimension, LabelScale
from serfit.report.markdown import Rows, number
from serfit.runs.calibration import calibrations_of
from serfit.runs.directory import VALIDATION
from serfit.runs.experiments import concatenated
from serfit.runs.finished import FinishedRun, read_predictions
from serfit.scores.calibration import KINDS, LEAST_UTTERANCES, Calibration, Kind
from serfit.scores.metrics import DimensionScores, rating_slope, score_dimension
from serfit.scores.records import Predictions

LEVEL = 0.95
DEVIATIONS = 1.96

Part = Literal["validation", "test"]
Map = Literal["none", "affine", "isotonic"]

HOW_TO_READ = (
    "maps were fitted to the validation part of each run when it finished, and never saw its test part; test is where "
    "they count",
    "bias: mean of prediction minus rating; slope: of the line that gives ratings from predictions, 1 is calibrated",
    f"half-width: {LEVEL:.0%} of the validation errors are smaller; inside: share of test ratings that near",
    "a map with least squared error draws predictions towards the mean rating: RMSE falls, and CCC, which wants the "
    "ratings' spread as well, may fall too (docs/calibration.md)",
)


@dataclass(frozen=True, slots=True)
class Line:
    """One dimension in one part under one map.

    Attributes:
        dimension: which.
        part: validation or test.
        map: how predictions were calibrated; "none" as the networks give them.
        scores: over all runs' predictions of that part together.
        slope: of rating on prediction.
    """

    dimension: Dimension
    part: Part
    map: Map
    scores: DimensionScores
    slope: float | None


@dataclass(frozen=True, slots=True)
class Coverage:
    """Coverage of an interval of fixed width.

    Attributes:
        dimension: which.
        map: how predictions were calibrated.
        half_width: mean over the runs, on the corpus's scale.
        inside: share of test ratings within it, each by the width of its own run.
    """

    dimension: Dimension
    map: Map
    half_width: float
    inside: float


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Coverage of the interval of several networks, none of which was trained on the utterance.

    Attributes:
        dimension: which.
        map: how predictions were calibrated, each network's by its own map.
        deviation: root of the mean variance between the networks, on the corpus's scale.
        error: root mean squared error of their mean.
        inside: share of ratings within mean +- 1.96 deviations.
        utterances: how many.
        networks: fewest and most that were asked about one.
    """

    dimension: Dimension
    map: Map
    deviation: float
    error: float
    inside: float
    utterances: int
    networks: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything `serfit calibration` says of an experiment.

    Attributes:
        folds: how many folds the runs are of.
        lines: scores before and after.
        intervals: from validation errors; a dimension and map is left out where a run has too few to give one.
        disagreements: empty where no utterance was predicted by two networks that weren't trained on it.
        flat: dimensions that some run's map turns into a constant, since its predictions don't rise with the ratings.
    """

    folds: int
    lines: tuple[Line, ...]
    intervals: tuple[Coverage, ...]
    disagreements: tuple[Disagreement, ...]
    flat: tuple[Dimension, ...]


@dataclass(frozen=True, slots=True)
class Parts:
    """The two parts of a run under one map."""

    validation: Predictions
    test: Predictions


def examine(runs: Sequence[FinishedRun], scales: Mapping[Dimension, LabelScale]) -> Findings:
    """Apply the maps that every run of an experiment carries, and see what they do.

    Raises:
        UserError: a run wrote no predictions of its validation part, or they or its maps can't be used.
    """
    plain = [Parts(_validation(run), run.predictions) for run in runs]
    under: dict[Map, list[Parts]] = {"none": plain}
    carried = [_carried(run, scales) for run in runs]
    flat = {name for maps in carried for one in maps.values() for name, line in one.maps.items() if line.is_constant}
    for kind in KINDS:
        under[kind] = [_applied(maps[kind], parts, scales) for maps, parts in zip(carried, plain, strict=True)]
    dimensions = runs[0].dimensions
    return Findings(
        folds=len({run.fold for run in runs}),
        lines=tuple(line for name in dimensions for line in _lines(name, under)),
        intervals=tuple(
            found
            for name in dimensions
            for kind, parts in under.items()
            if (found := _interval(name, kind, parts)) is not None
        ),
        disagreements=tuple(
            sorted(
                (found for kind, parts in under.items() if len(runs) > 1 for found in _disagreements(kind, parts)),
                key=lambda found: dimensions.index(found.dimension),
            )
        ),
        flat=tuple(name for name in DIMENSIONS if name in flat),
    )


def score_rows(findings: Findings) -> Rows:
    """Scores before and after calibration as a table."""
    header = ["dimension", "part", "map", "CCC", "bias", "slope", "RMSE"]
    rows = []
    for line in findings.lines:
        scores = line.scores
        row = [line.dimension, line.part, line.map, number(scores.ccc), number(scores.bias, "+.3f")]
        rows.append([*row, number(line.slope, ".3f"), number(scores.rmse, ".3f")])
    return Rows(header, rows, left=3)


def interval_rows(findings: Findings) -> Rows | None:
    """Intervals from validation errors as a table; None where there is none."""
    header = ["dimension", "map", "half-width", "inside"]
    rows = [[one.dimension, one.map, f"{one.half_width:.3f}", f"{one.inside:.1%}"] for one in findings.intervals]
    return Rows(header, rows, left=2) if rows else None


def spread_rows(findings: Findings) -> Rows | None:
    """Tabulate how far networks differ, and whether that covers the ratings; None if it can't be tried."""
    header = ["dimension", "map", "networks apart", "error", "inside"]
    rows = [
        [one.dimension, one.map, f"{one.deviation:.3f}", f"{one.error:.3f}", f"{one.inside:.1%}"]
        for one in findings.disagreements
    ]
    return Rows(header, rows, left=2) if rows else None


def sentences(findings: Findings) -> list[str]:
    """Return the notes that go with the tables."""
    said = list(HOW_TO_READ)
    if not findings.intervals:
        said.append(f"no half-width: for {LEVEL:.0%} a run needs at least {_fewest()} validation utterances")
    for name in findings.flat:
        said.append(
            f"warning: the map of {name} is a constant in some run: its predictions don't rise with the ratings of "
            "the validation part, and no calibration can mend that"
        )
    if findings.disagreements:
        one = findings.disagreements[0]
        fewest, most = one.networks
        count = str(fewest) if fewest == most else f"{fewest} to {most}"
        said.append(
            f"networks apart: {counted(one.utterances, 'utterance')}, each predicted by {count} networks not trained "
            "on it, and their deviation; error: of their mean; inside: share of ratings within mean ± "
            f"{DEVIATIONS} deviations"
        )
        said.append(
            "some of these networks chose their epoch and map by the utterance (it was in their validation part); few "
            "networks give a rough deviation; what the spread of networks leaves out is the raters' own disagreement"
        )
    if findings.folds > 1:
        said.append(
            "not to be had: the interval of the networks of all folds together, since a network of one fold may have "
            "been trained on the test part of another; it needs speech that none of them was trained on"
        )
    return said


def half_width(errors: NDArray[np.float64], level: float = LEVEL) -> float | None:
    """The smallest distance that a share `level` of [N] errors, and one yet to come, don't exceed; None if N is small.

    The ceil((N + 1) level)-th smallest absolute error, as in split conformal prediction.

    >>> half_width(np.arange(1.0, 20.0)), half_width(np.arange(1.0, 19.0))
    (19.0, None)
    """
    rank = math.ceil((len(errors) + 1) * level - 1e-9)
    return float(np.sort(np.abs(errors))[rank - 1]) if rank <= len(errors) else None


def _fewest() -> int:
    """Fewest errors that give a half-width at `LEVEL`."""
    return next(count for count in range(1, 1000) if half_width(np.ones(count)) is not None)


def _validation(run: FinishedRun) -> Predictions:
    path = run.directory / VALIDATION
    if not path.is_file():
        raise UserError(
            f"{run.directory} wrote no {VALIDATION}, which calibration is fitted to; train it again with this serfit"
        )
    found, _ = read_predictions(path)
    if found.dimensions != run.dimensions:
        raise UserError(f"{path} is about {', '.join(found.dimensions)}, not {', '.join(run.dimensions)}; move it away")
    return found


def _carried(run: FinishedRun, scales: Mapping[Dimension, LabelScale]) -> dict[Kind, Calibration]:
    found = calibrations_of(run.directory, run.dimensions, scales)
    if not found:
        raise UserError(
            f"{run.directory / VALIDATION} is too little for a calibration, which needs at least {LEAST_UTTERANCES} "
            "utterances with finite numbers; name other runs, or train with a larger validation part"
        )
    return {one.kind: one for one in found}


def _applied(calibration: Calibration, parts: Parts, scales: Mapping[Dimension, LabelScale]) -> Parts:
    return Parts(calibration.of(parts.validation, scales), calibration.of(parts.test, scales))


def _lines(name: Dimension, under: Mapping[Map, Sequence[Parts]]) -> list[Line]:
    found = []
    parts: tuple[Part, ...] = ("validation", "test")
    for part in parts:
        for kind, runs in under.items():
            together = concatenated([getattr(one, part) for one in runs])
            column = together.dimensions.index(name)
            ratings, values = together.targets[:, column], together.values[:, column]
            found.append(Line(name, part, kind, score_dimension(ratings, values), rating_slope(ratings, values)))
    return found


def _interval(name: Dimension, kind: Map, runs: Sequence[Parts]) -> Coverage | None:
    widths, inside = [], []
    for parts in runs:
        column = parts.test.dimensions.index(name)
        width = half_width((parts.validation.values - parts.validation.targets)[:, column])
        if width is None:
            return None
        widths.append(width)
        inside.append(np.abs(parts.test.values - parts.test.targets)[:, column] <= width)
    return Coverage(name, kind, float(np.mean(widths)), float(np.concatenate(inside).mean()))


def _disagreements(kind: Map, runs: Sequence[Parts]) -> tuple[Disagreement, ...]:
    """Return the predictions of networks not trained on an utterance, wherever there are two."""
    said: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
    ratings: dict[str, NDArray[np.float64]] = {}
    for parts in runs:
        for part in (parts.validation, parts.test):
            for name, target, value in zip(part.ids, part.targets, part.values, strict=True):
                said[name].append(value)
                ratings[name] = target
    several = {name: np.stack(values) for name, values in said.items() if len(values) > 1}
    if not several:
        return ()
    means = np.stack([values.mean(axis=0) for values in several.values()])
    variances = np.stack([values.var(axis=0, ddof=1) for values in several.values()])
    errors = means - np.stack([ratings[name] for name in several])
    counts = [len(values) for values in several.values()]
    return tuple(
        Disagreement(
            dimension=name,
            map=kind,
            deviation=float(np.sqrt(variances[:, column].mean())),
            error=float(np.sqrt((errors[:, column] ** 2).mean())),
            inside=float((np.abs(errors[:, column]) <= DEVIATIONS * np.sqrt(variances[:, column])).mean()),
            utterances=len(several),
            networks=(min(counts), max(counts)),
        )
        for column, name in enumerate(runs[0].test.dimensions)
    )
