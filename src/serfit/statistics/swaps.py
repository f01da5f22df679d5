"""Permutation test between two experiments on the same utterances, and correction for many comparisons.

If neither is better, it doesn't matter whose prediction is whose: swapping the predictions of whole clusters gives
differences as large as the observed one as often as chance has it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from serfit.counters import generator
from serfit.statistics.contrast import Contrast, Floats, Integers, concordance

EXACT = 13
"""Most clusters for which all 2^G ways to swap are tried."""

DRAWS = 9_999
"""Random ways to swap where there are too many; the observed one counts as one more."""

_CHUNK = 1_000
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class SwapTest:
    """Outcome of a permutation test.

    Attributes:
        p: two-sided p; never 0.
        clusters: how many could be swapped.
        tried: number of ways to swap, the observed one included.
        exact: whether these were all.
    """

    p: float
    clusters: int
    tried: int
    exact: bool


def swap_test(first: Contrast, second: Contrast, clusters: Integers, *address: int | str) -> SwapTest | None:
    """Test whether two experiments score alike, by swapping their predictions of whole clusters.

    With several seeds, every seed of one is paired with every seed of the other in the same fold, and all pairs are
    swapped together.

    Args:
        first: score of one experiment.
        second: of the other, on the same layout.
        clusters: [C] cluster of each atom, numbered from 0: what is swapped as a whole.
        address: names the stream of random numbers.

    Returns:
        None where the difference is undefined.
    """
    assert first.layout is second.layout, "a paired test needs one layout"
    pairs = [
        (a, b)
        for a in range(len(first.weights))
        for b in range(len(second.weights))
        if first.folds[a] == second.folds[b] and first.dimensions[a] == second.dimensions[b]
    ]
    left, right = ([pair[side] for pair in pairs] for side in (0, 1))
    weights = _pair_weights(first, second, left, right)
    ours, theirs = first.clustered(clusters)[left], second.clustered(clusters)[right]
    count = ours.shape[1]
    change = (theirs - ours).transpose(1, 0, 2).reshape(count, -1)
    totals = [side.sum(axis=1) for side in (ours, theirs)]
    observed = float((concordance(totals[0]) - concordance(totals[1])) @ weights)
    if not np.isfinite(observed):
        return None
    exact = count <= EXACT
    at_least = 0 if exact else 1
    tried = 2**count if exact else DRAWS + 1
    random = generator("swap test", *address)
    for start in range(0, 2**count if exact else DRAWS, _CHUNK):
        size = min(_CHUNK, (2**count if exact else DRAWS) - start)
        swaps = _ways(start, size, count) if exact else random.integers(0, 2, (size, count)).astype(np.float64)
        moved = (swaps @ change).reshape(size, *totals[0].shape)
        differences = (concordance(totals[0] + moved) - concordance(totals[1] - moved)) @ weights
        at_least += int((np.abs(differences) >= abs(observed) - _ROUNDING).sum())
    return SwapTest(at_least / tried, count, tried, exact)


def holm(probabilities: Sequence[float]) -> list[float]:
    """Adjusted p values that keep the chance of any false positive among all tests below the level.

    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6 (1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(probabilities)), key=lambda place: probabilities[place])
    adjusted, highest = [0.0] * len(order), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * probabilities[place]))
        adjusted[place] = highest
    return adjusted


def _pair_weights(first: Contrast, second: Contrast, left: Sequence[int], right: Sequence[int]) -> Floats:
    """Weights of pairs of cells that give the same difference of scores as the cells themselves."""
    folds = len(np.unique(first.folds))
    weights = []
    for a, b in zip(left, right, strict=True):
        alike = (second.folds == second.folds[b]) & (second.dimensions == second.dimensions[b])
        weights.append(first.weights[a] * second.weights[b] / second.weights[alike].sum() / folds)
    return np.array(weights)


def _ways(start: int, size: int, count: int) -> Floats:
    """Rows of 0 and 1: the binary digits of start, start + 1, ..."""
    numbers = np.arange(start, start + size)[:, None]
    return ((numbers >> np.arange(count)) & 1).astype(np.float64)
