"""The best monotone maps, by second derivations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serfit.errors import UserError
from serfit.scores.calibration import CLOSEST, Calibration, MonotoneMap, affine, isotonic, pool_adjacent_violators
from serfit.scores.metrics import rating_slope
from serfit.system.records import from_plain, plain

numbers = st.floats(0.0, 1.0, width=32)


@given(st.lists(st.tuples(numbers, st.floats(0.125, 4.0)), min_size=1, max_size=12))
def test_pooled_violators_are_the_best_monotone_approximation(points: list[tuple[float, float]]) -> None:
    values, weights = (np.array(column, dtype=np.float64) for column in zip(*points, strict=True))
    fitted = np.empty(len(values))
    for block in pool_adjacent_violators(values, weights):
        fitted[block] = (values[block] @ weights[block]) / weights[block].sum()

    def mean(first: int, last: int) -> float:
        part = slice(first, last + 1)
        return float(values[part] @ weights[part] / weights[part].sum())

    count = len(values)
    minimax = [max(min(mean(i, k) for k in range(at, count)) for i in range(at + 1)) for at in range(count)]
    np.testing.assert_allclose(fitted, minimax, atol=1e-9)


grid = st.integers(0, 20).map(lambda step: step / 20)


@given(st.lists(st.tuples(grid, grid, st.integers(-2, 2), st.integers(-2, 2)), min_size=2, max_size=30))
def test_the_last_bit_of_a_number_changes_no_isotonic_map(rows: list[tuple[float, float, int, int]]) -> None:
    x, y, dx, dy = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
    exact, rounded = isotonic(x, y), isotonic(x + dx * 2.0**-53, y + dy * 2.0**-53)
    everywhere = np.linspace(0.0, 1.0, 101)
    np.testing.assert_allclose(rounded(everywhere), exact(everywhere), atol=1e-6)


def test_blocks_of_equal_means_are_one() -> None:
    thirds = np.array([0.1, 0.2, 0.3]), np.array([0.1 + 0.2, 0.3, 0.3])  # 0.1 + 0.2 is a bit more than 0.3
    for ratings in (thirds[1], thirds[1][::-1]):
        assert isotonic(thirds[0], ratings).knots == pytest.approx((0.2,))


def points(seed: int, count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    predictions = random.uniform(0.2, 0.8, count).round(2)
    return predictions, 0.3 + 0.5 * predictions**2 + 0.1 * random.standard_normal(count)


@pytest.mark.parametrize("seed", range(5))
def test_the_straight_line_is_that_of_least_squares(seed: int) -> None:
    predictions, ratings = points(seed)
    line = affine(predictions, ratings)
    slope, intercept = np.polyfit(predictions, ratings, 1)
    np.testing.assert_allclose(line([0.0, 0.5, 1.3]), [intercept, intercept + 0.5 * slope, intercept + 1.3 * slope])
    assert rating_slope(ratings, line(predictions)) == pytest.approx(1.0)
    assert affine(predictions, -ratings).is_constant
    assert affine(np.full(9, 0.5), ratings[:9])([0.0, 0.5]) == pytest.approx([ratings[:9].mean()] * 2)


@pytest.mark.parametrize("seed", range(5))
def test_the_isotonic_map_goes_through_the_block_means(seed: int) -> None:
    predictions, ratings = points(seed)
    curve = isotonic(predictions, ratings)
    assert (np.diff(curve.knots) >= CLOSEST).all()
    assert curve.slope == affine(predictions, ratings).slope
    grid = np.linspace(-1.0, 2.0, 2001)
    assert (np.diff(curve(grid)) >= 0.0).all()
    assert np.abs(np.diff(curve(grid))).max() < 0.2  # nothing jumps
    error = [np.square(mapped - ratings).mean() for mapped in (predictions, curve(predictions))]
    assert error[1] < error[0]
    constant = isotonic(predictions, -ratings)
    assert np.ptp(constant.values) < 0.05
    assert constant.slope == 0.0
    assert isotonic(np.array([0.3, 0.3]), np.array([0.2, 0.6]))([0.0, 1.0]) == pytest.approx([0.4, 0.4])


@pytest.mark.parametrize(
    ("knots", "values", "slope"),
    [((), (), 1.0), ((0.1,), (0.1, 0.2), 1.0), ((0.2, 0.1), (0.1, 0.2), 1.0), ((0.1, 0.2), (0.2, 0.1), 1.0),
     ((0.1,), (0.1,), -1.0), ((0.1,), (float("nan"),), 1.0)],
)  # fmt: skip
def test_what_is_no_monotone_map_is_refused(knots: tuple[float], values: tuple[float], slope: float) -> None:
    with pytest.raises(ValueError, match="knots"):
        MonotoneMap(knots, values, slope)
    maps = {"arousal": {"knots": list(knots), "values": list(values), "slope": slope}}
    with pytest.raises(UserError, match=r"x: maps\.arousal.*(knots|slope|values)"):
        from_plain(Calibration, {"kind": "affine", "utterances": 3, "maps": maps}, "x", "export it again")


def test_plain_data_that_differs_from_what_is_written_is_refused() -> None:
    """Also where it could be guessed what is meant."""
    line = {"knots": [0.5], "values": [0.25], "slope": 1.0}
    data = {"kind": "affine", "utterances": 3, "maps": {"arousal": line}}
    assert plain(from_plain(Calibration, data, "x", "")) == data
    for wrong in (
        None,
        [],
        data | {"kind": "cubic"},
        data | {"utterances": "3"},
        data | {"utterances": float("inf")},
        data | {"maps": {"arousal": line, "valence": line}},
        data | {"maps": {"valence": line}},
        data | {"maps": {"arousal": line | {"slope": "1.0"}}},
        data | {"maps": {"arousal": line | {"knots": 0.5}}},
    ):
        with pytest.raises(UserError, match=r"x: .*; export it again"):
            from_plain(Calibration, wrong, "x", "export it again").check(("arousal",), "x:", "export it again")


def test_a_map_is_the_same_wherever_its_numbers_lie_in_memory() -> None:
    predictions, ratings = points(1, 997)
    for fitted in (affine, isotonic):
        expected = fitted(predictions, ratings)
        for offset in range(1, 8):
            moved = []
            for row in (predictions, ratings):
                shifted = np.empty(len(row) + 8)[offset : offset + len(row)]
                shifted[:] = row
                moved.append(shifted)
            assert fitted(*moved) == expected
