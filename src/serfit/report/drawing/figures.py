"""The charts of a report, each from structured records alone."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from serfit.labels import Dimension
from serfit.report.answers import heading
from serfit.report.breakdown import GroupScore, TestPredictions
from serfit.report.drawing.svg import Chart, ticks
from serfit.report.evidence import Evidence, Pair
from serfit.runs.experiments import ExperimentResult
from serfit.scores.records import EpochRecord
from serfit.scores.reference import EXPECTED, FROZEN, Measure, measure, obstacle

CELLS = 36
"""Cells along either side of a density."""

_CLASSES: dict[Measure, str] = {"valence": "v", "arousal": "a", "dominance": "d", "average": "m"}
_RESIDUAL_BINS = 12
_LEAST_IN_BIN = 5

Floats = NDArray[np.float64]


def forest(experiments: Sequence[ExperimentResult], evidence: Evidence, name: Measure) -> str:
    """Mean test CCC over folds with its interval, one line per experiment, beside the scenario baseline."""
    rows = list(reversed([result for result in experiments if name in evidence.over_folds[result.label]]))
    labels = [_shortened(result.label) for result in rows]
    values = [evidence.over_folds[result.label][name] for result in rows]
    low = min([0.0, *(one.interval.low for one in values if one.interval)])
    chart = Chart(heading(name), (math.floor(low * 10) / 10, 1.0), (-0.6, len(rows) - 0.4), **_wide(labels, len(rows)))
    chart.x_axis("test CCC, mean over folds")
    chart.y_axis(marks=range(len(rows)), names=labels)
    if name in FROZEN.ccc and any(result.difference for result in rows):
        known = FROZEN.average if name == "average" else FROZEN.ccc[name]
        chart.line([(known, -0.6), (known, len(rows) - 0.4)], "reference", f"published result {known:.4f}")
    for row, (result, one) in enumerate(zip(rows, values, strict=True)):
        kind = _CLASSES[name]
        if one.interval is not None:
            chart.line([(one.interval.low, row), (one.interval.high, row)], f"{kind} bold")
        if one.value is not None:
            reach = "" if one.interval is None else f" [{one.interval.low:.3f}, {one.interval.high:.3f}]"
            chart.dot(one.value, row, kind, f"{result.label}: {one.value:.4f}{reach}", 5)
            chart.note(one.value, row + 0.22, f"{one.value:.3f}", "label", "middle")
        base = result.baseline.get(name)
        if base is not None and base.mean is not None:
            chart.line(
                [(base.mean, row - 0.25), (base.mean, row + 0.25)], "ideal", f"scenario baseline {base.mean:.4f}"
            )
    return str(chart)


def differences(pairs: Sequence[Pair], name: Measure) -> str:
    """Differences between experiments with their intervals."""
    rows = list(reversed([pair for pair in pairs if pair.measure == name and pair.difference.value is not None]))
    if not rows:
        return ""
    names = [f"{_shortened(pair.first)}\n− {_shortened(pair.second)}" for pair in rows]
    ends = [0.0]
    for pair in rows:
        ends += [pair.difference.value or 0.0]
        ends += [pair.difference.interval.low, pair.difference.interval.high] if pair.difference.interval else []
    margin = 0.05 * (max(ends) - min(ends) or 1.0)
    reach = (min(ends) - margin, max(ends) + margin)
    chart = Chart(f"{heading(name)}: difference", reach, (-0.6, len(rows) - 0.4), **_wide(names, len(rows)))
    chart.x_axis("difference in CCC; filled: significant")
    chart.y_axis(marks=range(len(rows)), names=names)
    chart.line([(0.0, -0.6), (0.0, len(rows) - 0.4)], "axis")
    for row, pair in enumerate(rows):
        value, interval = pair.difference.value or 0.0, pair.difference.interval
        if interval is not None:
            chart.line([(interval.low, row), (interval.high, row)], f"{_CLASSES[name]} bold")
        chart.dot(value, row, f"{_CLASSES[name]}{'' if pair.shown else ' open'}", f"{value:+.4f}", 5)
        chart.note(value, row + 0.22, f"{value:+.3f}", "label", "middle")
    return str(chart)


@dataclass(frozen=True, slots=True)
class Course:
    """The epochs of one run, finished or not.

    Attributes:
        fold: from 1.
        seed: of everything random.
        records: the epochs.
        best_epoch: the one with the best mean validation CCC; None where there is none yet.
        comparable: whether the expected range and the published result say something about it.
    """

    fold: int
    seed: int
    records: Sequence[EpochRecord]
    best_epoch: int | None
    comparable: bool


def curves(result: ExperimentResult, name: Dimension) -> str:
    """Validation CCC by epoch, one line per run and their mean; "" without epochs."""
    courses = [
        Course(
            run.fold, run.seed, run.records, run.scores.best_epoch, obstacle(FROZEN, run.corpus, run.utterances) is None
        )
        for run in result.runs
    ]
    return learning_curves(result.label, courses, name)


def learning_curves(label: str, courses: Sequence[Course], name: Dimension, *, training: bool = False) -> str:
    """Validation CCC by epoch, one line per run and their mean, a lone run's line drawn as the mean; "" without epochs.

    Args:
        label: of the experiment.
        courses: its runs.
        name: the dimension.
        training: lines of class `learnt` for the training CCC too.
    """
    runs = [run for run in courses if run.records]
    if not runs:
        return ""
    last = max(record.epoch for run in runs for record in run.records)
    lines = [[_score(measure(record.validation, name)) for record in run.records] for run in runs]
    low = min([0.0, *(value for line in lines for value in line if math.isfinite(value))])
    bottom = math.floor(low * 5) / 5 if low < -0.03 else 0.0
    chart = Chart(_titled(label, name), (0.5, last + 0.5), (bottom, 1.0), width=285, height=230)
    marks = [tick for tick in ticks(1, last) if tick == int(tick)] or [1.0]
    chart.x_axis("epoch", marks)
    chart.y_axis("CCC" if training else "validation CCC")
    comparable = all(run.comparable for run in runs)
    if comparable and name == "valence":
        for (first, end), (least, most) in EXPECTED:
            if first <= last:
                span = (first - 0.5, min(end, last) + 0.5)
                tip = f"expected in epochs {first} to {end}: {least:.2f} to {most:.2f}"
                chart.area([(x, least) for x in span], [(x, most) for x in span], "band", tip)
    if comparable and name in FROZEN.ccc:
        known = FROZEN.ccc[name]
        chart.line([(0.5, known), (last + 0.5, known)], "reference", f"published result {known:.4f}")
    kind, weight = _CLASSES[name], "thin" if len(runs) > 1 else "bold"
    for run, line in zip(runs, lines, strict=True):
        points = list(zip((record.epoch for record in run.records), line, strict=True))
        chart.line(points, f"{kind} {weight}", f"fold {run.fold}, seed {run.seed}")
        if training:
            learnt = [(record.epoch, _score(measure(record.train, name))) for record in run.records]
            chart.line(learnt, f"{kind} learnt", f"fold {run.fold}, seed {run.seed}: training")
        best = next((point for point in points if point[0] == run.best_epoch), None)
        if best is not None:
            chart.dot(*best, f"{kind} faint", f"fold {run.fold}, seed {run.seed}: best epoch {best[0]}", 2.5)
    shared = min(len(line) for line in lines)
    if len(lines) > 1:
        mean = np.mean([line[:shared] for line in lines], axis=0)
        chart.line([(epoch + 1.0, float(value)) for epoch, value in enumerate(mean)], f"{kind} bold", "mean")
    return str(chart)


def scatter(data: TestPredictions, name: Dimension, reach: tuple[float, float], label: str) -> str:
    """Where predictions (of all seeds) lie against ratings, as a density, with the mean rating per prediction."""
    seeds = len(data.values[name])
    targets, values = np.tile(data.targets[name], seeds), data.values[name].reshape(-1)
    low, high = reach
    chart = Chart(_titled(label, name), (low, high), (low, high), width=285, height=285)
    chart.x_axis("rating")
    chart.y_axis("prediction")
    chart.density(_counted(targets, values, (low, high), (low, high)))
    chart.line([(low, low), (high, high)], "ideal", "prediction = rating")
    points = [(float(np.mean(targets[rows])), middle) for middle, rows in _binned(values, low, high)]
    chart.line(points, f"{_CLASSES[name]} bold", "mean rating per prediction: on the diagonal where calibrated")
    return str(chart)


def residuals(data: TestPredictions, name: Dimension, title: str) -> str:
    """Prediction minus rating by rating: median, and the range of the middle 80 %."""
    seeds = len(data.values[name])
    targets, values = np.tile(data.targets[name], seeds), data.values[name].reshape(-1)
    low, high = common_span(targets)
    rows = [
        (middle, np.percentile(values[chosen] - targets[chosen], [10, 50, 90]))
        for middle, chosen in _binned(targets, low, high)
    ]
    if not rows:
        return ""
    reach = max(0.5, max(float(np.abs(three).max()) for _, three in rows))
    chart = Chart(title, (low, high), (-reach, reach), width=285, height=285)
    chart.x_axis("rating")
    chart.y_axis("prediction − rating")
    chart.line([(low, 0.0), (high, 0.0)], "ideal")
    lower, upper = ([(middle, float(three[index])) for middle, three in rows] for index in (0, 2))
    chart.area(lower, upper, f"{_CLASSES[name]} soft", "middle 80 %")
    chart.line([(middle, float(three[1])) for middle, three in rows], f"{_CLASSES[name]} bold", "median")
    return str(chart)


def errors(found: Mapping[str, Sequence[GroupScore]], grouping: str, name: Dimension) -> str:
    """Root mean squared error per group, experiments in their colours; "" where nothing is grouped so."""
    groups: dict[str, int] = {}
    for scores in found.values():
        groups |= {one.group: one.count for one in scores if one.grouping == grouping}
    if len(groups) < 2:
        return ""
    order = list(groups)
    largest = max(one.rmse.get(name, 0.0) for scores in found.values() for one in scores if one.grouping == grouping)
    names = [f"{_shortened(group, 13)}\nn={groups[group]:,}" for group in order]
    longest = max(len(line) for label in names for line in label.split("\n"))
    width = max(285, max(45, 7 * longest + 10) * len(order) + 58)
    chart = Chart(f"error by {grouping}: {name}", (-0.5, len(order) - 0.5), (0.0, 1.1 * largest), width, bottom=54)
    chart.x_axis(grouping, range(len(order)), names)
    chart.y_axis("RMSE")
    for index, (label, scores) in enumerate(found.items()):
        shift = 0.16 * (index - (len(found) - 1) / 2)
        for one in scores:
            if one.grouping == grouping and name in one.rmse:
                tip = f"{label}, {one.group}: RMSE {one.rmse[name]:.3f}, bias {one.bias[name]:+.3f}"
                chart.dot(order.index(one.group) + shift, one.rmse[name], f"e{index}", tip)
    return str(chart)


def circumplex(valence: Floats, arousal: Floats, reach: tuple[float, float], middle: float, title: str) -> str:
    """A density on the plane of valence and arousal, with a cross at the middle of the ratings."""
    chart = Chart(_shortened(title, 28), reach, reach, width=260, height=260)
    chart.x_axis("valence")
    chart.y_axis("arousal")
    chart.density(_counted(valence, arousal, reach, reach))
    chart.line([(middle, reach[0]), (middle, reach[1])], "axis")
    chart.line([(reach[0], middle), (reach[1], middle)], "axis")
    return str(chart)


def common_span(*values: Floats) -> tuple[float, float]:
    """Whole numbers around all of these."""
    every = np.concatenate([one.reshape(-1) for one in values])
    every = every[np.isfinite(every)]
    if not every.size:
        return 0.0, 1.0
    low, high = math.floor(float(every.min())), math.ceil(float(every.max()))
    return float(low), float(max(high, low + 1))


def _counted(x: Floats, y: Floats, across: tuple[float, float], up: tuple[float, float]) -> list[list[int]]:
    kept = np.isfinite(x) & np.isfinite(y)
    counts = np.histogram2d(x[kept], y[kept], bins=CELLS, range=[across, up])[0]
    return [[int(count) for count in column] for column in counts]


def _binned(values: Floats, low: float, high: float) -> list[tuple[float, NDArray[np.intp]]]:
    """Middles of bins with enough values, and the rows in them."""
    borders = np.linspace(low, high, _RESIDUAL_BINS + 1)
    found = []
    for begin, end in pairwise(borders.tolist()):
        last = end == borders[-1]
        rows = np.flatnonzero((values >= begin) & ((values <= end) if last else (values < end)))
        if len(rows) >= _LEAST_IN_BIN:
            found.append(((begin + end) / 2, rows))
    return found


def _score(value: float | None) -> float:
    return math.nan if value is None else value


def _titled(label: str, name: Dimension) -> str:
    """A heading that fits a narrow chart."""
    return f"{_shortened(label, 24)}: {name}"


def _shortened(text: str, most: int = 30) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _wide(labels: Sequence[str], rows: int) -> dict[str, int]:
    """Size of a chart with long names on its left."""
    longest = max((len(line) for label in labels for line in label.split("\n")), default=0)
    left = min(300, round(12 + 6.8 * longest))
    return {"left": left, "width": left + 225, "height": 76 + 38 * rows}
