"""Where test utterances are well predicted and where not: scores per group with counts, miscalibration, the worst."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from serfit.labels import DIMENSIONS, Dimension
from serfit.runs.directory import SECONDS
from serfit.runs.experiments import ExperimentResult, complete_seeds
from serfit.scores.metrics import COLLAPSED, Correlation, ccc, correlations, rating_slope

GROUPINGS = ("speaker", "session", "gender", "duration", "emotion", "style")
"""By what test utterances are grouped, in this order."""

BINS = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Borders of the duration bins in seconds."""

LEAST = 20
"""Fewest utterances of which a CCC is shown; of fewer it says more about chance than about the system."""


Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TestPredictions:
    """All test predictions of an experiment, one row per utterance.

    Attributes:
        ids: [N].
        described: column of predictions.csv to [N] values; "duration" holds bins, "seconds" lengths as text.
        targets: dimension to [N] ratings.
        values: dimension to [S, N] predictions of each seed.
    """

    ids: tuple[str, ...]
    described: Mapping[str, tuple[str, ...]]
    targets: Mapping[Dimension, Floats]
    values: Mapping[Dimension, Floats]


@dataclass(frozen=True, slots=True)
class GroupScore:
    """Scores of one group of test utterances, means over the seeds.

    Attributes:
        grouping: one of `GROUPINGS`.
        group: the speaker, the session ...
        count: number of utterances.
        ccc: per dimension; None where undefined or of fewer than `LEAST` utterances.
        rmse: root mean squared error per dimension, on the corpus's scale.
        bias: mean of prediction minus rating per dimension.
    """

    grouping: str
    group: str
    count: int
    ccc: Mapping[Dimension, float | None]
    rmse: Mapping[Dimension, float]
    bias: Mapping[Dimension, float]


@dataclass(frozen=True, slots=True)
class Miscalibration:
    """Miscalibration of predictions on the scale, means over the seeds.

    Attributes:
        bias: mean of prediction minus rating.
        slope: of the straight line that gives the rating from the prediction; 1 is calibrated, less is overconfident.
        spread: deviation of the predictions over that of the ratings.
        collapsed: whether the spread is below `COLLAPSED`.
    """

    bias: float
    slope: float | None
    spread: float | None
    collapsed: bool


def predicted(result: ExperimentResult) -> TestPredictions:
    """The test predictions of the seeds that have all folds (`experiments.complete_seeds`), folds one after another.

    Seeds that were tested on other utterances than the first are left out.
    """
    seeds = complete_seeds(result.runs)
    ids = [[(run.fold, name) for run in runs for name in run.predictions.ids] for runs in seeds]
    alike = [runs for runs, names in zip(seeds, ids, strict=True) if names == ids[0]]
    first = alike[0]
    described = {key: tuple(value for run in first for value in run.described[key]) for key in first[0].described}
    described["duration"] = tuple(duration_bin(text) for text in described[SECONDS])

    def column(name: Dimension, runs: Sequence[int], part: str) -> Floats:
        index = result.dimensions.index(name)
        return np.array(
            [np.concatenate([getattr(run.predictions, part)[:, index] for run in alike[seed]]) for seed in runs]
        )

    return TestPredictions(
        ids=tuple(name for _, name in ids[0]),
        described=described,
        targets={name: column(name, [0], "targets")[0] for name in result.dimensions},
        values={name: column(name, range(len(alike)), "values") for name in result.dimensions},
    )


def duration_bin(seconds: str) -> str:
    """The bin of a length given as text; "" where unknown.

    >>> duration_bin("0.7"), duration_bin("3.5"), duration_bin("20"), duration_bin("")
    ('under 1 s', '2 to 4 s', '16 s and more', '')
    """
    if not seconds:
        return ""
    length = float(seconds)
    above = [border for border in BINS if length >= border]
    below = [border for border in BINS if length < border]
    if not above:
        return f"under {BINS[0]:g} s"
    return f"{above[-1]:g} to {below[0]:g} s" if below else f"{BINS[-1]:g} s and more"


def breakdown(data: TestPredictions) -> list[GroupScore]:
    """Scores per group, groupings in their order, groups by name (durations by length); unknown ones are left out."""
    found = []
    for grouping in GROUPINGS:
        members: dict[str, list[int]] = defaultdict(list)
        for index, group in enumerate(data.described[grouping]):
            if group:
                members[group].append(index)
        for group in sorted(members, key=_order(grouping)):
            rows = np.array(members[group])
            found.append(_group_score(data, grouping, group, rows))
    return found


def miscalibration(data: TestPredictions) -> dict[Dimension, Miscalibration]:
    """Bias, slope and spread per dimension, over all test utterances."""
    found = {}
    for name, targets in data.targets.items():
        deviation = float(targets.std())
        slopes, spreads = [], []
        for values in data.values[name]:
            slopes.append(rating_slope(targets, values))
            spreads.append(float(values.std()) / deviation if deviation > 0.0 else None)
        bias = fmean(float((values - targets).mean()) for values in data.values[name])
        spread = _mean(spreads)
        found[name] = Miscalibration(bias, _mean(slopes), spread, spread is not None and spread < COLLAPSED)
    return found


def together(data: TestPredictions) -> list[Correlation]:
    """Correlate every two dimensions over all test utterances: predictions (mean over seeds) and ratings."""
    names = list(data.targets)
    found = []
    for seed in range(len(data.values[names[0]])):
        values = np.stack([data.values[name][seed] for name in names], axis=1)
        found.append(correlations(np.stack(list(data.targets.values()), axis=1), values, names))
    return [replace(pair[0], predicted=_mean([one.predicted for one in pair])) for pair in zip(*found, strict=True)]


def worst(data: TestPredictions, most: int) -> list[tuple[int, Dimension, float]]:
    """Rows whose prediction (mean over seeds) is furthest from the rating, in units of that rating's deviation.

    Returns:
        Row, the dimension it fails in, and prediction minus rating on the corpus's scale; the worst first, each
        utterance once.
    """
    errors: list[tuple[float, int, Dimension, float]] = []
    for name, targets in data.targets.items():
        error = data.values[name].mean(axis=0) - targets
        unit = float(targets.std()) or 1.0
        errors += [(-abs(float(e)) / unit, row, name, float(e)) for row, e in enumerate(error) if np.isfinite(e)]
    chosen: dict[int, tuple[int, Dimension, float]] = {}
    errors.sort(key=lambda one: (one[0], data.ids[one[1]], DIMENSIONS.index(one[2])))
    for _, row, name, difference in errors:
        if len(chosen) == most:
            break
        chosen.setdefault(row, (row, name, difference))
    return list(chosen.values())


def _group_score(data: TestPredictions, grouping: str, group: str, rows: NDArray[np.intp]) -> GroupScore:
    scores: dict[Dimension, float | None] = {}
    rmse: dict[Dimension, float] = {}
    bias: dict[Dimension, float] = {}
    for name, targets in data.targets.items():
        chosen, values = targets[rows], data.values[name][:, rows]
        scores[name] = _mean([ccc(chosen, one) for one in values]) if len(rows) >= LEAST else None
        rmse[name] = fmean(float(np.sqrt(((one - chosen) ** 2).mean())) for one in values)
        bias[name] = fmean(float((one - chosen).mean()) for one in values)
    return GroupScore(grouping, group, len(rows), scores, rmse, bias)


def _order(grouping: str) -> Callable[[str], tuple[float, str]]:
    """Durations by their length, everything else by name."""

    def key(group: str) -> tuple[float, str]:
        if grouping != "duration":
            return 0.0, group
        return (-1.0 if group.startswith("under") else float(group.split()[0])), group

    return key


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return fmean(defined) if defined and len(defined) == len(values) else None
