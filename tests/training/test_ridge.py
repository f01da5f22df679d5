"""Ridge regression against its normal equations in float64, and the choice of its penalty."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serfit.system.counters import generator
from serfit.training.ridge import PENALTIES, Ridge, fit_ridge, moments, standardised


def solved(x: np.ndarray, y: np.ndarray, penalty: float) -> np.ndarray:
    """Weights [F] by the normal equations, whatever the shape."""
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    return np.linalg.solve(z.T @ z + penalty * np.eye(z.shape[1]), z.T @ (y - y.mean()))


@given(st.integers(2, 90), st.integers(1, 60), st.sampled_from(PENALTIES))
def test_ridge_solves_its_normal_equations_be_it_tall_or_wide(rows: int, width: int, penalty: float) -> None:
    random = generator("ridge", rows, width)
    x, y = random.normal(3, 2, (rows, width)), random.normal(size=(rows, 2))
    line = fit_ridge(x, y, x, y, [penalty])
    assert line.penalties == (penalty, penalty)
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    for column in (0, 1):
        weights = solved(x, y[:, column], penalty)
        np.testing.assert_allclose(line.weights[:, column], weights, atol=1e-10)
        np.testing.assert_allclose(line.predict(x)[:, column], z @ weights + y[:, column].mean(), atol=1e-9)


def concordance(wanted: np.ndarray, values: np.ndarray) -> float:
    """CCC from numpy's own covariances."""
    cov = np.cov(values, wanted, bias=True)
    return float(2 * cov[0, 1] / (cov[0, 0] + cov[1, 1] + (values.mean() - wanted.mean()) ** 2))


@pytest.mark.parametrize("width", [40, 90])
def test_each_dimension_has_the_penalty_that_the_validation_part_likes_best(width: int) -> None:
    random = generator("penalty", width)
    x, new = random.normal(size=(2, 60, width))
    truth = random.normal(size=(width, 2)) * [1.0, 0.1]
    y, wanted = (part @ truth + random.normal(0, 20, (60, 2)) for part in (x, new))
    line = fit_ridge(x, y, new, wanted)
    z = (new - x.mean(axis=0)) / x.std(axis=0)
    for column in (0, 1):
        scores = {
            penalty: concordance(wanted[:, column], z @ solved(x, y[:, column], penalty) + y[:, column].mean())
            for penalty in PENALTIES
        }
        assert line.penalties[column] == max(scores, key=scores.__getitem__)
    assert len(set(line.penalties)) == 2


def test_the_order_of_utterances_and_features_is_of_no_account() -> None:
    random = generator("order")
    x, new = random.normal(size=(2, 30, 50))
    y, wanted = random.normal(size=(2, 30, 1))
    rows, columns = random.permutation(30), random.permutation(50)
    one, other = fit_ridge(x, y, new, wanted), fit_ridge(x[rows][:, columns], y[rows], new[:, columns], wanted)
    assert one.penalties == other.penalties
    np.testing.assert_allclose(one.predict(new), other.predict(new[:, columns]), atol=1e-10)


def test_undefined_and_constant_features_do_no_harm() -> None:
    random = generator("undefined")
    x, y = random.normal(size=(40, 3)), random.normal(size=(40, 1))
    odd = np.column_stack([x, np.full(40, np.nan), np.ones(40)])
    plain: Ridge = fit_ridge(x, y, x, y, [1.0])
    line = fit_ridge(odd, y, odd, y, [1.0])
    np.testing.assert_allclose(line.predict(odd), plain.predict(x), atol=1e-10)
    odd[3, 0] = np.nan
    assert np.isfinite(line.predict(odd)).all()
    assert standardised(odd, *moments(odd))[3, 0] == 0.0


def test_where_no_penalty_reaches_anything_the_largest_is_taken() -> None:
    x, y = np.ones((5, 2)), np.arange(5.0)[:, None]
    assert fit_ridge(x, y, x, np.full((5, 1), y.mean())).penalties == (max(PENALTIES),)
