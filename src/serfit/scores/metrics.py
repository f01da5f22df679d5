"""The concordance correlation coefficient and its companions, exact and in float64.

Every score is computed once over all utterances of a part; nothing here averages over batches.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from serfit.labels import DIMENSIONS, Dimension
from serfit.system.records import Count, Number

COLLAPSED = 0.1
"""Spread of the predictions, as a share of the ratings', below which an output counts as collapsed."""

ONE_AXIS = 0.1
"""Variance that predictions of one dimension have apart from another's, as a share of what ratings have, below which
both count as one: 0.025 where predictions correlate .99 and ratings .45."""

SURE = 4.0
"""Standard errors by which predictions must correlate more than ratings to count as one axis."""


def ccc(targets: ArrayLike, values: ArrayLike) -> float | None:
    """Concordance correlation coefficient of two sequences of equal length N, in [-1, 1].

    2 cov(x, y) / (var(x) + var(y) + (mean(x) - mean(y))^2) with population moments, as in
    Lin, "A concordance correlation coefficient to evaluate reproducibility", Biometrics 45 (1989).

    Returns None where it is undefined: no utterances, a value that isn't finite, or both sequences
    constant and equal. A constant prediction of varying targets is defined, and 0.

    >>> ccc([1, 2, 3, 4], [1, 2, 3, 4]), ccc([1, 2, 3, 4], [2, 2, 2, 2]), ccc([3, 3], [3, 3])
    (1.0, 0.0, None)
    """
    x = np.asarray(targets, dtype=np.float64)
    y = np.asarray(values, dtype=np.float64)
    assert x.ndim == 1, f"ccc takes sequences [N], not {x.shape}"
    assert x.shape == y.shape, f"ccc takes two sequences of one length, not {x.shape} and {y.shape}"
    if x.size == 0 or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return None
    dx, dy = _deviations(x), _deviations(y)
    denominator = (dx @ dx + dy @ dy) / x.size + (x.mean() - y.mean()) ** 2
    if denominator == 0.0:
        return None
    return float(2.0 * (dx @ dy) / x.size / denominator)


def pearson(targets: ArrayLike, values: ArrayLike) -> float | None:
    """Pearson correlation of two sequences of length N, or None where either is constant, empty or not finite."""
    x = np.asarray(targets, dtype=np.float64)
    y = np.asarray(values, dtype=np.float64)
    if x.size == 0 or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return None
    dx, dy = _deviations(x), _deviations(y)
    denominator = float(np.sqrt((dx @ dx) * (dy @ dy)))
    return float(dx @ dy) / denominator if denominator > 0.0 else None


def rating_slope(targets: ArrayLike, values: ArrayLike) -> float | None:
    """Slope of the straight line that gives ratings [N] from predictions [N] by least squares; None if undefined.

    1 is calibrated; less means that predictions go further out than the ratings that come with them.
    """
    x = np.asarray(values, dtype=np.float64)
    y = np.asarray(targets, dtype=np.float64)
    if x.size == 0 or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return None
    dx = _deviations(x)
    variance = float(dx @ dx)
    return float(dx @ _deviations(y)) / variance if variance > 0.0 else None


@dataclass(frozen=True, slots=True)
class DimensionScores:
    """Scores of one dimension; None stands for undefined and is never better than anything.

    Attributes:
        ccc: concordance correlation coefficient.
        pearson: Pearson correlation.
        rmse: root mean squared error, on the corpus's scale.
        mae: mean absolute error, on the corpus's scale.
        bias: mean of prediction minus target, on the corpus's scale.
        spread: standard deviation of the predictions over that of the targets; near 0 the output has collapsed.
        count: number of utterances.
    """

    ccc: Number | None
    pearson: Number | None
    rmse: Number | None
    mae: Number | None
    bias: Number | None
    spread: Number | None
    count: Count


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores per dimension, in the order of `labels.DIMENSIONS`."""

    dimensions: Mapping[Dimension, DimensionScores]

    def ccc(self, dimension: Dimension) -> float | None:
        """CCC of one dimension; None where undefined or where the dimension wasn't scored."""
        scored = self.dimensions.get(dimension)
        return None if scored is None else scored.ccc

    @property
    def average(self) -> float | None:
        """Mean CCC over all scored dimensions (CCC-Avg); None as soon as one of them is undefined."""
        values = [scored.ccc for scored in self.dimensions.values()]
        defined = [value for value in values if value is not None]
        return sum(defined) / len(defined) if defined and len(defined) == len(values) else None

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """In JSON, the dimensions lie flat behind `ccc_average`, which is computed again when they are read."""
        one = handler.generate_schema(DimensionScores)
        flat = core_schema.typed_dict_schema(
            {name: core_schema.typed_dict_field(one, required=False) for name in DIMENSIONS}
        )
        return core_schema.json_or_python_schema(
            json_schema=core_schema.no_info_after_validator_function(cls, flat),
            python_schema=core_schema.is_instance_schema(cls),
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda scores: {
                    "ccc_average": scores.average,
                    **{name: asdict(one) for name, one in scores.dimensions.items()},
                }
            ),
        )


def score_dimension(targets: ArrayLike, values: ArrayLike) -> DimensionScores:
    """All scores of one dimension from targets [N] and predictions [N], both on the corpus's scale."""
    x: NDArray[np.float64] = np.asarray(targets, dtype=np.float64)
    y: NDArray[np.float64] = np.asarray(values, dtype=np.float64)
    if x.size == 0 or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return DimensionScores(None, None, None, None, None, None, int(x.size))
    error = y - x
    deviation = float(np.sqrt((_deviations(x) ** 2).mean()))
    return DimensionScores(
        ccc=ccc(x, y),
        pearson=pearson(x, y),
        rmse=float(np.sqrt((error**2).mean())),
        mae=float(np.abs(error).mean()),
        bias=float(error.mean()),
        spread=float(np.sqrt((_deviations(y) ** 2).mean())) / deviation if deviation > 0.0 else None,
        count=int(x.size),
    )


def score(targets: ArrayLike, values: ArrayLike, dimensions: Sequence[Dimension]) -> Scores:
    """Scores of predictions [N, D] against targets [N, D], both on the corpus's scale, columns named by dimension."""
    x = np.asarray(targets, dtype=np.float64)
    y = np.asarray(values, dtype=np.float64)
    assert x.shape == y.shape == (len(x), len(dimensions)), f"{x.shape} and {y.shape} for {len(dimensions)} dimensions"
    return Scores({name: score_dimension(x[:, column], y[:, column]) for column, name in enumerate(dimensions)})


@dataclass(frozen=True, slots=True)
class Correlation:
    """Correlation of two dimensions in the predictions and in the ratings of the same utterances.

    Attributes:
        first: a dimension.
        second: another one.
        predicted: Pearson correlation of their predictions; None where undefined.
        rated: that of their ratings; None likewise.
        count: number of utterances.
    """

    first: Dimension
    second: Dimension
    predicted: Number | None
    rated: Number | None
    count: Count

    @property
    def one_axis(self) -> bool:
        """Whether the predictions hardly tell the two dimensions apart, where the ratings do.

        Both the variance that is left (see `ONE_AXIS`) and the difference of Fisher's z, whose standard error is
        sqrt(2 / (count - 3)) for two independent samples, must say so. Half as many utterances would count where they
        are clustered; hence the wide margin of `SURE`.
        """
        if self.predicted is None or self.rated is None or self.count <= 3:
            return False
        predicted, rated = min(abs(self.predicted), NEARLY_ONE), math.copysign(1.0, self.predicted) * self.rated
        if 1.0 - predicted**2 >= ONE_AXIS * (1.0 - rated**2):
            return False
        apart = math.atanh(predicted) - math.atanh(max(rated, -NEARLY_ONE))
        return apart > SURE * math.sqrt(2.0 / (self.count - 3))


NEARLY_ONE = 1.0 - 1e-12
"""Correlation that stands for 1, whose Fisher's z is infinite."""


def correlations(targets: ArrayLike, values: ArrayLike, dimensions: Sequence[Dimension]) -> tuple[Correlation, ...]:
    """Correlation of every two dimensions in predictions [N, D] beside that in ratings [N, D]."""
    x, y = np.asarray(targets, dtype=np.float64), np.asarray(values, dtype=np.float64)
    found = []
    for one, two in combinations(range(len(dimensions)), 2):
        predicted, rated = (pearson(table[:, one], table[:, two]) for table in (y, x))
        found.append(Correlation(dimensions[one], dimensions[two], predicted, rated, len(x)))
    return tuple(found)


def _deviations(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values [N] minus their mean; exactly 0 where all are equal, though the mean of equal numbers may be rounded."""
    return np.zeros_like(values) if (values == values[0]).all() else values - values.mean()


def better(candidate: float | None, best: float | None) -> bool:
    """Whether a score beats the best so far; undefined never does, and ties keep the earlier.

    >>> better(0.5, None), better(None, 0.1), better(0.5, 0.5)
    (True, False, False)
    """
    return candidate is not None and (best is None or candidate > best)
