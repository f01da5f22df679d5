"""CCC and its companions against a second source, and where they are undefined."""

import math

import audmetric
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serfit.scores.metrics import (
    Correlation,
    Scores,
    better,
    ccc,
    correlations,
    pearson,
    rating_slope,
    score,
    score_dimension,
)
from serfit.system.records import from_plain, plain

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
    assert from_plain(Scores, plain(scores), "", "") == scores


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


def test_correlations_are_those_of_numpy() -> None:
    random = np.random.default_rng(1)
    targets, values = random.normal(size=(2, 50, 3))
    found = correlations(targets, values, ("valence", "arousal", "dominance"))
    pairs = [("valence", "arousal"), ("valence", "dominance"), ("arousal", "dominance")]
    assert [(one.first, one.second) for one in found] == pairs
    for one, (x, y) in zip(found, [(0, 1), (0, 2), (1, 2)], strict=True):
        assert one.rated == pytest.approx(np.corrcoef(targets.T)[x, y])
        assert one.predicted == pytest.approx(np.corrcoef(values.T)[x, y])
        assert from_plain(Correlation, plain(one), "", "") == one
    (constant,) = correlations(targets[:, :2], np.ones((50, 2)), ("valence", "arousal"))
    assert constant.predicted is None
    assert not constant.one_axis


@pytest.mark.parametrize(
    ("predicted", "rated", "count", "one_axis"),
    [
        (0.99, 0.45, 2000, True),
        (0.97, 0.45, 2000, True),
        (0.90, 0.45, 2000, False),
        (-0.99, 0.45, 2000, True),
        (0.99, -0.45, 2000, True),
        (0.99, 0.45, 8, False),  # so few utterances show nothing
        (0.96, 0.85, 2000, False),  # arousal and dominance, as raters see them
        (0.999, 0.999, 2000, False),
        (1.0, 0.45, 2000, True),
        (1.0, 1.0, 2000, False),
        (0.99, 0.45, 2, False),
    ],
)
def test_one_axis_is_more_than_the_ratings_explain(predicted: float, rated: float, count: int, one_axis: bool) -> None:
    assert Correlation("valence", "arousal", predicted, rated, count).one_axis == one_axis


def test_predictions_that_know_both_dimensions_are_hardly_ever_one_axis() -> None:
    """Systems whose errors go together as strongly as ratings do, or more, on parts of any size."""
    random, alarms = np.random.default_rng(2), 0
    for _ in range(400):
        count = int(random.choice([20, 100, 1000]))
        shared, rho = random.uniform(0.0, 0.8), random.uniform(0.3, 0.8)
        mixing = np.linalg.cholesky(np.array([[1.0, shared], [shared, 1.0]]))
        more = np.linalg.cholesky(np.array([[1.0, 0.9], [0.9, 1.0]]))
        truth = random.normal(size=(count, 2)) @ mixing.T
        values = rho * truth + np.sqrt(1 - rho**2) * random.normal(size=(count, 2)) @ more.T
        (found,) = correlations(truth, values, ("valence", "arousal"))
        alarms += found.one_axis
    assert alarms == 0


def test_predictions_of_one_axis_are_found_on_parts_of_a_hundred_utterances() -> None:
    random, found = np.random.default_rng(3), 0
    for _ in range(200):
        truth = random.normal(size=(100, 2)) @ np.linalg.cholesky(np.array([[1.0, 0.45], [0.45, 1.0]])).T
        axis = truth @ np.array([0.3, 0.7])
        values = np.stack([axis, axis], axis=1) + 0.06 * random.normal(size=(100, 2))
        (pair,) = correlations(truth, values, ("valence", "arousal"))
        found += pair.one_axis
    assert found == 200
