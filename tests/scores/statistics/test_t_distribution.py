import math
from statistics import NormalDist

import numpy as np
import pytest

from serfit.scores.statistics.t_distribution import NORMAL_FROM, quantile, two_sided_p

TABLE = {1: 12.7062, 2: 4.30265, 3: 3.18245, 4: 2.77645, 5: 2.57058, 9: 2.26216, 10: 2.22814, 30: 2.04227, 120: 1.97993}
"""Student's t, two-sided 5 %: printed tables."""


@pytest.mark.parametrize("degrees", TABLE)
def test_quantiles_are_those_of_printed_tables(degrees: int) -> None:
    assert quantile(0.95, degrees) == pytest.approx(TABLE[degrees], abs=1e-4)


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 7, 20, 151])
@pytest.mark.parametrize("t", [0.1, 1.0, 2.5, 6.0])
def test_the_series_is_the_integral_of_the_density(degrees: int, t: float) -> None:
    x = np.linspace(0, t, 200_001)
    logarithm = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2) - 0.5 * math.log(degrees * math.pi)
    density = np.exp(logarithm - (degrees + 1) / 2 * np.log1p(x * x / degrees))
    inside = 2 * float(((density[1:] + density[:-1]) / 2).sum() * (x[1] - x[0]))
    assert two_sided_p(t, degrees) == pytest.approx(1 - inside, abs=1e-8)
    assert two_sided_p(-t, degrees) == two_sided_p(t, degrees)


def test_many_degrees_are_the_normal_distribution() -> None:
    assert quantile(0.95, NORMAL_FROM) == pytest.approx(NormalDist().inv_cdf(0.975), abs=1e-9)
    assert quantile(0.95, NORMAL_FROM - 1) == pytest.approx(quantile(0.95, NORMAL_FROM), abs=1e-3)
