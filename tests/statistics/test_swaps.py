from itertools import product

import numpy as np
import pytest

from serfit.counters import generator
from serfit.metrics import ccc
from serfit.statistics.contrast import Cell, contrast, layout, minus
from serfit.statistics.interval import estimate
from serfit.statistics.swaps import DRAWS, holm, swap_test
from simulated import Design, System, as_good, draw, layouts, over_folds, predict


def test_all_ways_to_swap_speakers_are_those_of_plain_enumeration() -> None:
    random = generator("swaps")
    speaker = np.arange(40) % 4
    x = random.normal(size=40)
    a, b = x + random.normal(0, 0.5, 40), 0.5 * x + random.normal(0, 0.8, 40)
    where = layout([str(s) for s in speaker], [""] * 40, [0] * 40)
    one, other = (contrast(where, [Cell(np.arange(40), x, values, 0, 0, 1.0)]) for values in (a, b))
    observed = abs(ccc(x, a) - ccc(x, b))  # type: ignore[operator]
    reached = 0
    for swap in product([False, True], repeat=4):
        swapped = np.array(swap)[speaker]
        first, second = np.where(swapped, b, a), np.where(swapped, a, b)
        reached += abs(ccc(x, first) - ccc(x, second)) >= observed - 1e-12  # type: ignore[operator]
    test = swap_test(one, other, where.speakers)  # type: ignore[arg-type]
    assert test is not None
    assert (test.p, test.clusters, test.tried, test.exact) == (reached / 16, 4, 16, True)


def test_random_swaps_repeat_and_approach_the_exact_p() -> None:
    corpus = draw(generator("random swaps"), Design(size=6, dialogues=3))
    a, b = (predict(generator("random swaps", seed), corpus, System()) for seed in (1, 2))
    where = layouts(corpus)[1]
    sides = over_folds(where, corpus, a), over_folds(where, corpus, b)
    assert where.dialogues is not None
    assert where.speakers is not None
    first, again, other = (swap_test(*sides, where.dialogues, seed) for seed in ("x", "x", "y"))
    assert first == again
    assert first is not None
    assert other is not None
    assert (first.tried, first.exact, first.clusters) == (DRAWS + 1, False, 15)
    assert first.p == pytest.approx(other.p, abs=0.03)


def test_the_observed_way_counts_so_that_p_is_never_0() -> None:
    random = generator("never 0")
    x = random.normal(size=400)
    where = layout([""] * 400, [str(n % 40) for n in range(400)], [0] * 400)
    sides = [contrast(where, [Cell(np.arange(400), x, x + random.normal(0, s, 400), 0, 0, 1.0)]) for s in (0.1, 5.0)]
    test = swap_test(*sides, where.dialogues)  # type: ignore[arg-type]
    assert test is not None
    assert test.p == 1 / (DRAWS + 1)


def test_several_seeds_are_paired_and_give_the_difference_of_the_means() -> None:
    random = generator("seeds")
    x = random.normal(size=60)
    where = layout([str(n % 6) for n in range(60)], [""] * 60, [0] * 60)
    rows = np.arange(60)
    good = [x + random.normal(0, 0.3, 60) for _ in range(3)]
    bad = [x + random.normal(0, 3.0, 60) for _ in range(2)]
    one = contrast(where, [Cell(rows, x, values, 0, 0, 1 / 3) for values in good])
    other = contrast(where, [Cell(rows, x, values, 0, 0, 1 / 2) for values in bad])
    assert minus(one, other).value == pytest.approx(
        np.mean([ccc(x, v) for v in good]) - np.mean([ccc(x, v) for v in bad])  # type: ignore[arg-type]
    )
    test = swap_test(one, other, where.speakers)  # type: ignore[arg-type]
    assert test is not None
    assert test.p == 2 / 64  # the largest of all: only it and its mirror image


def test_no_difference_has_p_1_and_undefined_has_none() -> None:
    x = np.arange(12.0)
    where = layout([str(n % 4) for n in range(12)], [""] * 12, [0] * 12)
    one = contrast(where, [Cell(np.arange(12), x, x[::-1].copy(), 0, 0, 1.0)])
    broken = contrast(where, [Cell(np.arange(12), x, np.full(12, np.nan), 0, 0, 1.0)])
    test = swap_test(one, one, where.speakers)  # type: ignore[arg-type]
    assert test is not None
    assert test.p == 1.0
    assert swap_test(one, broken, where.speakers) is None  # type: ignore[arg-type]


def test_holm_is_the_published_example_and_never_below_the_raw_values() -> None:
    assert holm([0.01, 0.02, 0.03, 0.04]) == pytest.approx([0.04, 0.06, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize("slope", [0.6, 0.5])
def test_the_decision_keeps_its_level(slope: float) -> None:
    """A small version of benchmarks/statistics/coverage.py: two equally good systems, 200 corpora, 1.5 points."""
    design, system = Design(size=15), System()
    rival = as_good(design, system, slope)
    found = 0
    for number in range(200):
        random = generator("level test", slope == 0.6, number)
        corpus = draw(random, design)
        where = layouts(corpus)[1]
        sides = [over_folds(where, corpus, predict(random, corpus, which)) for which in (system, rival)]
        difference = estimate(minus(*sides)).interval
        test = swap_test(*sides, where.speakers)  # type: ignore[arg-type]
        assert test is not None
        assert difference is not None
        found += max(test.p, difference.p) < 0.05
    assert found / 200 <= 0.085, found
