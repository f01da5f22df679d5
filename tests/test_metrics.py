"""CCC and its companions against a second source, and where they are undefined."""

import math

import audmetric
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serfit.metrics import Scores, better, ccc, pearson, rating_slope, score, score_dimension

numbers = st.floats(-100, 100).map(lambda value: round(value, 3))
pairs = st.lists(st.tuples(numbers, numbers), min_size=2, max_size=40)


@given(pairs)
def test_ccc_and_pearson_are_those_of_audmetric(rows: list[tuple[float, float]]) -> None:
    x, y = (np.array(column) for column in zip(*rows, strict=True))
    ours = ccc(x, y)
    if x.std() > 1e-3 and y.std() > 1e-3:
        assert ours == pytest.approx(audmetric.concordance_cc(x, y), abs=1e-9)
        assert pearson(x, y) == pytest.approx(audmetric.pearson_cc(x, y), abs=1e-9)


@given(pairs, st.floats(0.1, 10), st.floats(-5, 5))
def test_ccc_is_symmetric_bounded_and_knows_no_unit(
    rows: list[tuple[float, float]], factor: float, shift: float
) -> None:
    x, y = (np.array(column) for column in zip(*rows, strict=True))
    value = ccc(x, y)
    if x.std() < 1e-3 and y.std() < 1e-3:
        return
    assert value is not None
    assert -1 - 1e-12 <= value <= 1 + 1e-12
    assert ccc(y, x) == pytest.approx(value, abs=1e-12)
    assert ccc(x * factor + shift, y * factor + shift) == pytest.approx(value, abs=1e-6)
    assert abs(value) <= abs(pearson(x, y) or 0.0) + 1e-9


def test_ccc_by_its_definition() -> None:
    x, y = [1.0, 2.0, 4.0], [1.5, 1.0, 3.0]
    mean_x, mean_y = sum(x) / 3, sum(y) / 3
    covariance = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / 3
    spread = sum((a - mean_x) ** 2 for a in x) / 3 + sum((b - mean_y) ** 2 for b in y) / 3
    assert ccc(x, y) == pytest.approx(2 * covariance / (spread + (mean_x - mean_y) ** 2))


@pytest.mark.parametrize(
    ("targets", "values", "expected"),
    [
        ([], [], None),
        ([3, 3], [3, 3], None),
        ([2.7] * 7, [2.7] * 7, None),
        ([3, 3], [4, 4], 0.0),
        ([1, 2, 3], [2, 2, 2], 0.0),
        ([1, 2, 3], [1, 2, math.nan], None),
        ([1, 2, 3], [1, 2, math.inf], None),
    ],
)
def test_where_ccc_is_undefined_it_is_none(targets: list[float], values: list[float], expected: float | None) -> None:
    assert ccc(targets, values) == expected


def test_an_undefined_dimension_leaves_no_average() -> None:
    scores = score([[3, 1], [3, 2]], [[3, 1], [3, 2]], ("valence", "arousal"))
    assert scores.ccc("valence") is None
    assert scores.ccc("arousal") == 1.0
    assert scores.average is None
    assert not better(scores.average, 0.1)
    assert scores.ccc("dominance") is None


def test_scores_survive_json() -> None:
    scores = score(
        np.random.default_rng(1).random((9, 2)), np.random.default_rng(2).random((9, 2)), ("valence", "arousal")
    )
    assert Scores.from_json(scores.to_json()) == scores


def test_errors_bias_and_spread() -> None:
    scored = score_dimension([1.0, 2.0, 3.0], [2.0, 2.0, 5.0])
    assert scored.mae == pytest.approx(1.0)
    assert scored.bias == pytest.approx(1.0)
    assert scored.rmse == pytest.approx(math.sqrt(5 / 3))
    assert scored.spread == pytest.approx(np.std([2, 2, 5]) / np.std([1, 2, 3]))
    assert score_dimension([2.0, 2.0], [1.0, 3.0]).spread is None


def test_equal_numbers_have_no_spread_though_their_mean_is_rounded() -> None:
    equal, other = [2.7] * 7, [1.0, 2.0, 3.0, 4.0, 5.0, 1.0, 2.0]
    assert np.mean(equal) != 2.7
    assert (pearson(equal, other), pearson(other, equal), rating_slope(other, equal)) == (None, None, None)
    assert score_dimension(equal, other).spread is None
    assert (ccc(other, equal), score_dimension(other, equal).spread) == (0.0, 0.0)
