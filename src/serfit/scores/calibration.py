"""Monotone maps from predictions to ratings, and how they are fitted: a straight line, or the best step function.

A map is a broken line on [0, 1]. `affine` is one straight line, least squares of rating on prediction; `isotonic` goes
through the block means of the best monotone step function. Sums are exact before they are rounded (`math.fsum`), so
the same numbers give the same map wherever they lie in memory.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from serfit.errors import UserError, counted
from serfit.labels import Dimension, LabelScale
from serfit.scores.records import Predictions
from serfit.system.records import Count, Number

Floats = NDArray[np.float64]
Kind = Literal["affine", "isotonic"]
KINDS: tuple[Kind, ...] = get_args(Kind)

LEAST_UTTERANCES = 2
"""Fewest validation utterances that anything is fitted to."""

CLOSEST = 0.01
"""Blocks of an isotonic map closer than this on [0, 1] become one: no map is steeper than single precision bears."""

TIE = 1e-9
"""Predictions, and means of ratings, closer than this on [0, 1] are equal: they differ by rounding alone."""


@dataclass(frozen=True, slots=True)
class MonotoneMap:
    """A broken line that never falls, on [0, 1] and beyond: nothing is clipped.

    Attributes:
        knots: predictions, increasing, at least one.
        values: what they become, never decreasing.
        slope: of the line before the first and after the last knot, not negative.
    """

    knots: tuple[Number, ...]
    values: tuple[Number, ...]
    slope: Number

    def __post_init__(self) -> None:
        knots, values = np.array(self.knots), np.array(self.values)
        if not len(knots) or knots.shape != values.shape or not np.isfinite([*knots, *values, self.slope]).all():
            raise ValueError("knots and values must be finite numbers, as many of one as of the other")
        if (np.diff(knots) <= 0.0).any() or (np.diff(values) < 0.0).any() or self.slope < 0.0:
            raise ValueError("the knots must increase, and the map mustn't fall")

    def __call__(self, unit: ArrayLike) -> Floats:
        """Predictions of any shape as calibrated ones."""
        x = np.asarray(unit, dtype=np.float64)
        beyond = np.minimum(x - self.knots[0], 0.0) + np.maximum(x - self.knots[-1], 0.0)
        mapped: Floats = np.interp(x, self.knots, self.values) + self.slope * beyond
        return mapped

    @property
    def is_constant(self) -> bool:
        """Whether everything becomes the same value: the predictions didn't rise with the ratings."""
        return self.slope == 0.0 and self.values[0] == self.values[-1]


@dataclass(frozen=True, slots=True)
class Calibration:
    """A map per dimension.

    Attributes:
        kind: how they were fitted.
        utterances: how many they were fitted to.
        maps: by dimension, on [0, 1].
    """

    kind: Kind
    utterances: Count
    maps: Mapping[Dimension, MonotoneMap]

    def __call__(self, unit: Floats, dimensions: Sequence[Dimension]) -> Floats:
        """Predictions [N, D] on [0, 1], columns named by dimension, as calibrated ones."""
        return np.stack([self.maps[name](unit[:, column]) for column, name in enumerate(dimensions)], axis=1)

    def of(self, predictions: Predictions, scales: Mapping[Dimension, LabelScale]) -> Predictions:
        """Predictions on the corpus's scale as calibrated ones."""
        columns = [
            scales[name].from_unit(self.maps[name](scales[name].to_unit(predictions.values[:, column])))
            for column, name in enumerate(predictions.dimensions)
        ]
        return replace(predictions, values=np.stack(columns, axis=1))

    def check(self, dimensions: Sequence[Dimension], where: str, remedy: str) -> None:
        """Raise UserError where there isn't a map of exactly these dimensions."""
        if set(self.maps) != set(dimensions):
            found = ", ".join(self.maps) or "nothing"
            raise UserError(f"{where} calibrates {found}, and the model predicts {', '.join(dimensions)}; {remedy}")


def fit(kind: Kind, predictions: Predictions, scales: Mapping[Dimension, LabelScale], where: str) -> Calibration:
    """The maps that suit some predictions beside their ratings.

    Args:
        kind: how to fit them.
        predictions: of a validation part, on the corpus's scale.
        scales: the corpus's.
        where: the file they are from, for the message.

    Raises:
        UserError: there are fewer than `LEAST_UTTERANCES`, or a number isn't finite.
    """
    count = len(predictions.ids)
    if not suffices(predictions):
        raise UserError(
            f"{where} has {counted(count, 'utterance')}, and a calibration needs at least {LEAST_UTTERANCES} with "
            "finite numbers; use the model without --calibrate"
        )
    fitted = affine if kind == "affine" else isotonic
    maps = {
        name: fitted(
            scales[name].to_unit(predictions.values[:, column]), scales[name].to_unit(predictions.targets[:, column])
        )
        for column, name in enumerate(predictions.dimensions)
    }
    return Calibration(kind, count, maps)


def suffices(predictions: Predictions) -> bool:
    """Whether a map can be fitted to some predictions: there are `LEAST_UTTERANCES`, and all numbers are finite."""
    finite = np.isfinite([predictions.values, predictions.targets]).all()
    return len(predictions.ids) >= LEAST_UTTERANCES and bool(finite)


def affine(predictions: Floats, ratings: Floats) -> MonotoneMap:
    """The straight line through [N] points that gives the rating with the least squared error and doesn't fall.

    Where ratings fall as predictions rise, or these are all equal, that is the constant at the mean rating.

    >>> affine(np.array([0.0, 0.5, 1.0]), np.array([0.25, 0.5, 0.75]))([0.0, 2.0]).tolist()
    [0.25, 1.25]
    """
    centre, height = (math.fsum(row) / len(row) for row in (predictions, ratings))
    x, y = predictions - centre, ratings - height
    slope = max(math.fsum(x * y) / math.fsum(x * x), 0.0) if np.ptp(predictions) > TIE else 0.0
    return MonotoneMap((centre,), (height,), slope)


def isotonic(predictions: Floats, ratings: Floats) -> MonotoneMap:
    """Straight lines between the block means of the monotone step function with the least squared error.

    Blocks closer than `CLOSEST` become one. Beyond the outermost means the slope of `affine` goes on.

    >>> isotonic(np.array([0.0, 0.25, 0.5, 1.0]), np.array([0.0, 0.75, 0.25, 1.0]))([0.0, 0.375, 1.0]).tolist()
    [0.0, 0.5, 1.0]
    """
    order = np.argsort(predictions, kind="stable")
    starts = np.flatnonzero(np.diff(predictions[order], prepend=-np.inf) > TIE)
    at, counts = predictions[order][starts], np.diff(starts, append=len(order))
    means = np.array([math.fsum(group) / len(group) for group in np.split(ratings[order], starts[1:])])
    knots: list[float] = []
    values: list[float] = []
    weights: list[float] = []
    for block in pool_adjacent_violators(means, counts.astype(np.float64)):
        weight = float(counts[block].sum())
        knot, value = (math.fsum(row[block] * counts[block]) / weight for row in (at, means))
        while knots and knot - knots[-1] < CLOSEST + TIE:
            before = weights.pop()
            knot = (knots.pop() * before + knot * weight) / (before + weight)
            value = (values.pop() * before + value * weight) / (before + weight)
            weight += before
        knots.append(knot)
        values.append(value)
        weights.append(weight)
    return MonotoneMap(tuple(knots), tuple(values), affine(predictions, ratings).slope)


def pool_adjacent_violators(values: Floats, weights: Floats) -> list[slice]:
    """The blocks on which the best non-decreasing approximation of [N] weighted values is constant.

    Ayer et al., "An empirical distribution function for sampling with incomplete information", Annals of Mathematical
    Statistics 26 (1955). On each block the approximation is the weighted mean. Neighbours of equal means share a block,
    also where rounding (`TIE`) tells them apart.

    >>> pool_adjacent_violators(np.array([1.0, 3.0, 2.0, 4.0]), np.ones(4))
    [slice(0, 1, None), slice(1, 3, None), slice(3, 4, None)]
    """
    blocks: list[tuple[int, float, float]] = []  # start, weight, mean
    for index, (value, weight) in enumerate(zip(values.tolist(), weights.tolist(), strict=True)):
        start = index
        while blocks and blocks[-1][2] >= value - TIE:
            start, before, mean = blocks.pop()
            value = (mean * before + value * weight) / (before + weight)
            weight += before
        blocks.append((start, weight, value))
    ends = [start for start, _, _ in blocks[1:]] + [len(values)]
    return [slice(start, end) for (start, _, _), end in zip(blocks, ends, strict=True)]
