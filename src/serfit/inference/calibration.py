"""Calibration: a monotone map per dimension from what a network says to what raters say, fitted to its validation part.

A map is a broken line on [0, 1]. `affine` is one straight line, least squares of rating on prediction; `isotonic` goes
through the block means of the best monotone step function. Both are fitted to validation.csv of a run, which its
network never trained on (it did choose the epoch), and never touch its test part. Nothing is calibrated unless asked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from serfit.errors import UserError
from serfit.labels import Dimension, LabelScale
from serfit.records import Predictions

if TYPE_CHECKING:
    from serfit.inference.about import About
    from serfit.inference.networks import Network, Outputs, Waveform

Floats = NDArray[np.float64]
Kind = Literal["affine", "isotonic"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Choice = Kind | Literal["none"] | None
"""What a user asks for; None takes a model as it was exported, and a run as it is."""

LEAST_UTTERANCES = 2
"""Fewest validation utterances that anything is fitted to."""

CLOSEST = 0.01
"""Blocks of an isotonic map closer than this on [0, 1] become one: no map is steeper than single precision bears."""


@dataclass(frozen=True, slots=True)
class MonotoneMap:
    """A broken line that never falls, on [0, 1] and beyond: nothing is clipped.

    Attributes:
        knots: predictions, increasing, at least one.
        values: what they become, never decreasing.
        slope: of the line before the first and after the last knot, not negative.
    """

    knots: tuple[float, ...]
    values: tuple[float, ...]
    slope: float

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
        maps: by dimension, on [0, 1].
        utterances: how many they were fitted to.
    """

    kind: Kind
    maps: Mapping[Dimension, MonotoneMap]
    utterances: int

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

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        maps = {
            name: {"knots": list(one.knots), "values": list(one.values), "slope": one.slope}
            for name, one in self.maps.items()
        }
        return {"kind": self.kind, "utterances": self.utterances, "maps": maps}

    @classmethod
    def from_json(cls, data: Any, dimensions: Sequence[Dimension], where: str) -> "Calibration":
        """The inverse of `to_json`.

        Raises:
            UserError: naming `where`, for what isn't a calibration of these dimensions.
        """
        try:
            if data["kind"] not in KINDS:
                raise ValueError(f"its kind is {data['kind']}")
            read = {name: data["maps"][name] for name in dimensions}
            maps = {
                name: MonotoneMap(
                    tuple(float(knot) for knot in one["knots"]),
                    tuple(float(value) for value in one["values"]),
                    float(one["slope"]),
                )
                for name, one in read.items()
            }
            return cls(data["kind"], maps, int(data["utterances"]))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{where} holds a calibration that can't be used ({type(error).__name__}: {error}); export the run "
                "again"
            ) from error


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A network whose values are calibrated; its pooled vectors are untouched.

    Attributes:
        network: whose values.
        calibration: the maps.
    """

    network: "Network"
    calibration: Calibration

    @property
    def about(self) -> "About":
        """What the network predicts, with a word about the calibration in its origin."""
        about = self.network.about
        said = {"kind": self.calibration.kind, "validation_utterances": self.calibration.utterances}
        return replace(about, origin={**about.origin, "calibration": said})

    @property
    def members(self) -> int:
        """As the network's own."""
        return self.network.members

    def __call__(self, waveforms: "Sequence[Waveform]") -> "Outputs":
        """See `serfit.inference.networks.Network`."""
        outputs = self.network(waveforms)
        return replace(outputs, unit=self.calibration(outputs.unit, self.network.about.dimensions))


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
    if count < LEAST_UTTERANCES or not np.isfinite([predictions.values, predictions.targets]).all():
        raise UserError(
            f"{where} has {count} utterances, and a calibration needs at least {LEAST_UTTERANCES} with finite numbers; "
            "use the model without --calibrate"
        )
    fitted = affine if kind == "affine" else isotonic
    maps = {
        name: fitted(
            scales[name].to_unit(predictions.values[:, column]), scales[name].to_unit(predictions.targets[:, column])
        )
        for column, name in enumerate(predictions.dimensions)
    }
    return Calibration(kind, maps, count)


def affine(predictions: Floats, ratings: Floats) -> MonotoneMap:
    """The straight line through [N] points that gives the rating with the least squared error and doesn't fall.

    Where ratings fall as predictions rise, or these are all equal, that is the constant at the mean rating.

    >>> affine(np.array([0.0, 0.5, 1.0]), np.array([0.25, 0.5, 0.75]))([0.0, 2.0]).tolist()
    [0.25, 1.25]
    """
    x, y = predictions - predictions.mean(), ratings - ratings.mean()
    variance = float(x @ x)
    slope = max(float(x @ y) / variance, 0.0) if variance > 0.0 else 0.0
    return MonotoneMap((float(predictions.mean()),), (float(ratings.mean()),), slope)


def isotonic(predictions: Floats, ratings: Floats) -> MonotoneMap:
    """Straight lines between the block means of the monotone step function with the least squared error.

    Blocks closer than `CLOSEST` become one. Beyond the outermost means the slope of `affine` goes on.

    >>> isotonic(np.array([0.0, 0.25, 0.5, 1.0]), np.array([0.0, 0.75, 0.25, 1.0]))([0.0, 0.375, 1.0]).tolist()
    [0.0, 0.5, 1.0]
    """
    at, where, counts = np.unique(predictions, return_inverse=True, return_counts=True)
    means = np.bincount(where, weights=ratings) / counts
    knots: list[float] = []
    values: list[float] = []
    weights: list[float] = []
    for block in pool_adjacent_violators(means, counts.astype(np.float64)):
        weight = float(counts[block].sum())
        knot, value = (float(row[block] @ counts[block]) / weight for row in (at, means))
        while knots and knot - knots[-1] < CLOSEST:
            before = weights.pop()
            knot = (knots.pop() * before + knot * weight) / (before + weight)
            value = (values.pop() * before + value * weight) / (before + weight)
            weight += before
        knots.append(knot)
        values.append(max(value, values[-1]) if values else value)  # equal up to rounding
        weights.append(weight)
    return MonotoneMap(tuple(knots), tuple(values), affine(predictions, ratings).slope)


def pool_adjacent_violators(values: Floats, weights: Floats) -> list[slice]:
    """The blocks on which the best non-decreasing approximation of [N] weighted values is constant.

    Ayer et al., "An empirical distribution function for sampling with incomplete information", Annals of Mathematical
    Statistics 26 (1955). On each block the approximation is the weighted mean.

    >>> pool_adjacent_violators(np.array([1.0, 3.0, 2.0, 4.0]), np.ones(4))
    [slice(0, 1, None), slice(1, 3, None), slice(3, 4, None)]
    """
    blocks: list[tuple[int, float, float]] = []  # start, weight, mean
    for place, (value, weight) in enumerate(zip(values.tolist(), weights.tolist(), strict=True)):
        start = place
        while blocks and blocks[-1][2] >= value:
            start, before, mean = blocks.pop()
            value = (mean * before + value * weight) / (before + weight)
            weight += before
        blocks.append((start, weight, value))
    ends = [start for start, _, _ in blocks[1:]] + [len(values)]
    return [slice(start, end) for (start, _, _), end in zip(blocks, ends, strict=True)]


def stored(fitted: Sequence[Calibration], applied: Kind | None) -> dict[str, Any]:
    """What a bundle keeps of a member's calibrations: all that were fitted, and which one counts unless asked."""
    return {"applied": applied, **{one.kind: one.to_json() for one in fitted}}


def chosen(
    kept: Mapping[str, Any] | None, choice: Choice, dimensions: Sequence[Dimension], where: str
) -> Calibration | None:
    """The calibration to use of those that a member keeps; None for none.

    Raises:
        UserError: one is asked for that isn't there, or what is there can't be used.
    """
    wanted = (kept or {}).get("applied") if choice is None else choice
    if wanted is None or wanted == "none":
        return None
    if wanted not in KINDS:
        raise UserError(f"there is no calibration called {wanted}; choose {', '.join(KINDS)} or none")
    if not kept or wanted not in kept:
        raise UserError(
            f"{where} has no {wanted} calibration: its run wrote no predictions of the validation part "
            "(validation.csv; one trained on everything has none); train it again with this serfit, or leave "
            "--calibrate out"
        )
    return Calibration.from_json(kept[wanted], dimensions, where)
