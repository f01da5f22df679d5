import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serfit.scores.metrics import ccc
from serfit.scores.statistics.contrast import Cell, clustering, concordance, contrast, minus
from serfit.system.counters import generator
from simulated import Design, System, draw, grouped, over_folds, pooled, predict


@given(st.lists(st.tuples(st.integers(-20, 20), st.integers(-20, 20)), min_size=2, max_size=40), st.floats(-50, 50))
def test_sums_give_the_ccc_of_the_definition(pairs: list[tuple[int, int]], shift: float) -> None:
    x, y = (np.array(column, dtype=float) / 4 + shift for column in zip(*pairs, strict=True))
    names = [str(number % 3) for number in range(len(x))]
    where = clustering(names, ["d"] * len(x), [0] * len(x))
    score = contrast(where, [Cell(np.arange(len(x)), x, y, 0, 0, 1.0)])
    expected = ccc(x, y)
    if expected is None:
        return
    assert score.value == pytest.approx(expected, abs=1e-7)


def test_the_mean_over_folds_is_the_mean_of_the_folds_own_cccs() -> None:
    corpus = draw(generator("contrast"), Design(size=10))
    values = predict(generator("contrast", 1), corpus, System())
    where = grouped(corpus)
    cccs = [ccc(corpus.targets[corpus.session == fold], values[corpus.session == fold]) for fold in range(5)]
    assert over_folds(where, corpus, values).value == pytest.approx(np.mean(cccs))
    assert pooled(where, corpus, values).value == pytest.approx(ccc(corpus.targets, values))


def test_leaving_a_cluster_out_of_the_sums_is_leaving_its_utterances_out() -> None:
    corpus = draw(generator("leave out"), Design(size=8))
    values = predict(generator("leave out", 1), corpus, System())
    where = grouped(corpus)
    score = pooled(where, corpus, values)
    speakers = where.groups["speaker"]
    sums = score.clustered(speakers)
    kept = corpus.speaker != 3
    rows = [str(number) for number in range(10)]
    (cluster,) = {speakers[atom] for atom in where.atoms[corpus.speaker == 3]}
    assert len(rows) == sums.shape[1]
    without = score.of(sums.sum(axis=1) - sums[:, cluster])
    assert without == pytest.approx(ccc(corpus.targets[kept], values[kept]))


def test_weights_average_dimensions_and_seeds_and_differences_subtract() -> None:
    random = generator("weights")
    x, y, z = random.normal(size=(3, 30))
    where = clustering(["a", "b", "c"] * 10, [""] * 30, [0] * 30)
    rows = np.arange(30)
    both = contrast(where, [Cell(rows, x, y, 0, 0, 0.5), Cell(rows, x, z, 0, 1, 0.5)])
    one = contrast(where, [Cell(rows, x, y, 0, 0, 1.0)])
    assert both.value == pytest.approx((ccc(x, y) + ccc(x, z)) / 2)  # type: ignore[operator]
    assert minus(both, one).value == pytest.approx(both.value - one.value)
    assert minus(one, one).value == 0.0
    assert not minus(one, one).bounded


def test_one_unknown_speaker_is_counted_and_no_cluster() -> None:
    where = clustering(["a", "", "a", "b"], ["x", "y", "x", "y"], [0, 0, 0, 0])
    assert set(where.groups) == {"fold", "dialogue"}
    assert where.unknown == {"fold": 0, "speaker": 1, "dialogue": 0}


def test_a_fold_with_nothing_left_drops_out_of_the_mean_and_constants_are_undefined() -> None:
    x = np.array([1.0, 2, 3, 1, 2, 4])
    where = clustering(["a"] * 3 + ["b"] * 3, [""] * 6, [1, 1, 1, 2, 2, 2])
    cells = [Cell(np.arange(3), x[:3], x[:3], 1, 0, 1.0), Cell(np.arange(3, 6), x[3:], x[3:][::-1], 2, 0, 1.0)]
    score = contrast(where, cells)
    sums = score.clustered(where.groups["speaker"])
    assert score.of(sums[:, 0]) == pytest.approx(1.0)
    assert np.isnan(concordance(np.array([3.0, 3, 3, 3, 3, 3])))
