"""Student's t distribution for whole degrees of freedom, in closed form."""

import math
from statistics import NormalDist

NORMAL_FROM = 10_000
"""Degrees of freedom from which the normal distribution stands in; the quantiles differ by less than 1e-3."""


def two_sided_p(t: float, degrees: int) -> float:
    """Probability that a t variable is at least as far from 0 as `t`.

    The finite series of Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.

    >>> round(two_sided_p(2.262157, 9), 6), round(two_sided_p(12.7062, 1), 6)
    (0.05, 0.05)
    """
    assert degrees >= 1, degrees
    if degrees >= NORMAL_FROM:
        return 2.0 * NormalDist().cdf(-abs(t))
    angle = math.atan2(abs(t), math.sqrt(degrees))
    cosine, sine = math.cos(angle), math.sin(angle)
    first = cosine if degrees % 2 else 1.0
    term, total = first, 0.0
    for power in range(1 if degrees % 2 else 0, degrees - 1, 2):
        total += term
        term *= cosine * cosine * (power + 1) / (power + 2)
    inside = 2.0 / math.pi * (angle + sine * total) if degrees % 2 else sine * total
    return min(1.0, max(0.0, 1.0 - inside))


def quantile(confidence: float, degrees: int) -> float:
    """The t beyond which, on either side, 1 - confidence of the distribution lies.

    >>> round(quantile(0.95, 5), 4), round(quantile(0.95, 9), 4)
    (2.5706, 2.2622)
    """
    assert 0.0 < confidence < 1.0, confidence
    low, high = 0.0, 1.0
    while two_sided_p(high, degrees) > 1.0 - confidence:
        high *= 2.0
    for _ in range(200):
        middle = 0.5 * (low + high)
        if two_sided_p(middle, degrees) > 1.0 - confidence:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)
