"""Intervals against plain recomputation and SciPy's t tests, and by simulation against a known truth."""

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serfit.scores.metrics import ccc
from serfit.scores.statistics import t_distribution
from serfit.scores.statistics.contrast import Cell, Contrast, clustering, contrast, minus
from serfit.scores.statistics.interval import Scope, estimate
from serfit.system.counters import generator
from simulated import Corpus, Design, System, as_good, draw, grouped, over_folds, pooled, predict, true_ccc

SMALL = Design(size=12, dialogues=12)
DIFFERING = System(slope_by_fold=0.15, fold=0.15)


def made(*address: int | str, design: Design = SMALL) -> tuple[Corpus, np.ndarray]:
    random = generator("interval", *address)
    corpus = draw(random, design)
    return corpus, predict(random, corpus, System())


def one_model(corpus: Corpus) -> Corpus:
    return replace(corpus, session=np.zeros_like(corpus.session))


def jackknife(corpus: Corpus, values: np.ndarray, *groups: np.ndarray) -> float:
    """Variance of the pooled CCC's z without one cluster of utterances that are alike in all groups."""
    names = np.unique(np.stack(groups, axis=1), axis=0, return_inverse=True)[1].reshape(-1)
    kept = [names != name for name in np.unique(names)]
    zs = np.array([math.atanh(ccc(corpus.targets[rows], values[rows])) for rows in kept])  # type: ignore[arg-type]
    return float((len(zs) - 1) / len(zs) * ((zs - zs.mean()) ** 2).sum())


def effective(names: np.ndarray) -> float:
    """Clusters of even size that would be worth as much in a pooled score."""
    shares = np.unique(names, return_counts=True)[1] / len(names)
    return float(1 / (shares**2).sum())


def ends(score: Contrast) -> tuple[float, float]:
    interval = estimate(score).interval
    assert interval is not None
    return interval.low, interval.high


def test_by_folds_the_interval_of_a_difference_is_that_of_the_paired_t_test() -> None:
    corpus, first = made()
    second = predict(generator("second"), corpus, System())
    where = grouped(corpus)
    found = estimate(minus(over_folds(where, corpus, first), over_folds(where, corpus, second)))
    rows = [corpus.session == fold for fold in range(5)]
    gains = [ccc(corpus.targets[r], first[r]) - ccc(corpus.targets[r], second[r]) for r in rows]  # type: ignore[operator]
    error = np.std(gains, ddof=1) / math.sqrt(5)
    assert found.interval is not None
    assert found.interval.degrees == 4
    assert found.interval.p == pytest.approx(t_distribution.two_sided_p(float(np.mean(gains) / error), 4))
    assert (found.interval.low, found.interval.high) == pytest.approx(
        (np.mean(gains) - 2.776445 * error, np.mean(gains) + 2.776445 * error), abs=1e-6
    )


@given(st.integers(0, 1000))
@settings(max_examples=25)
def test_p_is_below_5_percent_exactly_where_the_interval_excludes_0(number: int) -> None:
    corpus, first = made(number, design=Design(size=4, dialogues=3, sessions=3 + number % 3))
    second = predict(generator("dual", number), corpus, System(slope=0.4, slope_by_fold=0.1))
    where = grouped(corpus)
    for score in (minus(*(over_folds(where, corpus, v) for v in (first, second))), pooled(where, corpus, second)):
        interval = estimate(score).interval
        assert interval is not None
        assert (interval.p < 0.05) == (not interval.low <= 0.0 <= interval.high)


def test_a_pooled_score_is_left_without_one_fold_at_a_time() -> None:
    corpus, values = made()
    centre = math.atanh(ccc(corpus.targets, values))  # type: ignore[arg-type]
    reach = t_distribution.quantile(0.95, 4) * math.sqrt(jackknife(corpus, values, corpus.session))
    found = ends(pooled(grouped(corpus), corpus, values))
    assert found == pytest.approx((math.tanh(centre - reach), math.tanh(centre + reach)), abs=1e-6)


def test_clusterings_that_cross_are_added_without_what_they_share() -> None:
    corpus, values = made("crossed", design=Design(speaker=0.05, size=12, dialogues=12))
    centre = math.atanh(ccc(corpus.targets, values))  # type: ignore[arg-type]
    by_turns = replace(corpus, session=np.arange(len(values)) % 5)
    for one, kinds in (
        (one_model(corpus), (corpus.speaker, corpus.dialogue)),
        (by_turns, (by_turns.session, corpus.speaker, corpus.dialogue)),
    ):
        degrees = round(min(effective(kind) for kind in kinds) - 1)
        variance = 0.0
        for size in range(1, len(kinds) + 1):
            for some in combinations(kinds, size):
                variance -= (-1) ** size * jackknife(one, values, *some)
        variance = max(variance, *(jackknife(one, values, kind) for kind in kinds))
        reach = t_distribution.quantile(0.95, degrees) * math.sqrt(variance)
        score = pooled(grouped(one), one, values)
        assert ends(score) == pytest.approx((math.tanh(centre - reach), math.tanh(centre + reach)), abs=1e-6)
        assert estimate(score).interval.degrees == degrees  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "counts", [(50, 50, 50, 50, 50), (400, 50, 200, 100, 250), (900, 20, 20), (40, 45, 38, 44, 41)]
)
def test_folds_of_uneven_size_count_as_fewer_in_a_pooled_score_and_only_there(counts: tuple[int, ...]) -> None:
    random = generator("uneven", *counts)
    session = np.repeat(np.arange(len(counts)), counts)
    corpus = Corpus(random.normal(size=sum(counts)), session, session, session)
    values = corpus.targets + random.normal(size=sum(counts))
    where = grouped(corpus)
    even, whole = estimate(over_folds(where, corpus, values)).interval, estimate(pooled(where, corpus, values)).interval
    assert even is not None
    assert whole is not None
    assert even.degrees == len(counts) - 1
    assert whole.degrees == max(1, round(effective(session) - 1))
    reach = t_distribution.quantile(0.95, whole.degrees) * math.sqrt(jackknife(corpus, values, session))
    centre = math.atanh(ccc(corpus.targets, values))  # type: ignore[arg-type]
    assert (whole.low, whole.high) == pytest.approx((math.tanh(centre - reach), math.tanh(centre + reach)), abs=1e-6)


@pytest.mark.parametrize(
    ("names", "varied", "words"),
    [
        ("5 folds", ("fold", "speaker", "dialogue"), "other trained models, speakers and dialogues"),
        ("3 folds", ("fold", "speaker", "dialogue"), "other trained models, speakers and dialogues"),
        ("1 fold", ("speaker", "dialogue"), "other speakers and dialogues, with these trained models"),
        ("2 speakers", ("dialogue",), "other dialogues, with these trained models and these 2 speakers"),
        ("2 speakers in all folds", ("fold", "dialogue"), "other trained models and dialogues, with these 2 speakers"),
        ("nothing known", ("fold",), "other trained models, with unknown speakers"),
        ("half known", ("fold", "dialogue"), "other trained models and dialogues, with unknown speakers"),
        ("nothing known, 1 fold", (), "these trained models and unknown speakers"),
    ],
)
def test_an_interval_says_what_it_holds_for(names: str, varied: tuple[str, ...], words: str) -> None:
    corpus, values = made(design=replace(SMALL, sessions={"3 folds": 3, "2 speakers": 1}.get(names, 5)))
    if names == "2 speakers in all folds":
        corpus = replace(corpus, speaker=corpus.speaker % 2)
    if "1 fold" in names:
        corpus = one_model(corpus)
    speakers, dialogues = ([str(one) for one in column] for column in (corpus.speaker, corpus.dialogue))
    if "nothing" in names:
        speakers = dialogues = [""] * len(values)
    elif names == "half known":
        speakers = [name if index % 2 else "" for index, name in enumerate(speakers)]
    where = clustering(speakers, dialogues, corpus.session.tolist())
    found = estimate(over_folds(where, corpus, values))
    assert (found.scope.varied, str(found.scope)) == (varied, words)
    assert found.scope.testable == ("speaker" in varied)
    assert (found.interval is None) == (not varied), "utterances alone are no clusters"


def test_one_fold_of_one_speaker_has_no_interval_and_a_scope_in_words() -> None:
    corpus, values = made(design=replace(SMALL, sessions=1))
    where = clustering(["a"] * len(values), ["d"] * len(values), [1] * len(values))
    found = estimate(pooled(where, corpus, values))
    assert found.interval is None
    assert str(found.scope) == "these trained models, this speaker and this dialogue"
    assert str(Scope((), {"fold": 2, "speaker": 1200}, {})) == "these trained models and these 1,200 speakers"


def test_undefined_scores_have_no_interval() -> None:
    x = np.array([1.0, 2, 3, 4, 5, 6])
    where = clustering(list("abcdef"), list("abcdef"), [0] * 6)
    nothing = contrast(where, [Cell(np.arange(6), x, np.where(x > 5, np.nan, x), 0, 0, 1.0)])
    assert (estimate(nothing).value, estimate(nothing).interval) == (None, None)
    same = contrast(where, [Cell(np.arange(6), x, x + 0.5, 0, 0, 1.0)])
    difference = estimate(minus(same, same))
    assert difference.value == 0.0
    assert difference.interval is not None
    assert (difference.interval.low, difference.interval.high, difference.interval.p) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize("name", ["folds alike", "folds differ", "folds differ, uneven", "3 folds differ"])
def test_intervals_cover_and_tests_keep_their_level_over_trained_models(name: str) -> None:
    """A small version of benchmarks/statistics/coverage.py: 250 corpora, binomial standard deviation 1.4 points."""
    system = DIFFERING if "differ" in name else System()
    design = Design(size=6, dialogues=12, uneven="uneven" in name, sessions=3 if "3" in name else 5)
    rival = as_good(design, system, 0.8 * system.slope)
    held, values, found = [], [], 0
    for number in range(250):
        random = generator("coverage test", name, number)
        corpus = draw(random, design)
        where = grouped(corpus)
        one, other = (over_folds(where, corpus, predict(random, corpus, which)) for which in (system, rival))
        values.append(one.value)
        whole = pooled(where, corpus, predict(random, corpus, system))
        held.append((*ends(one), *ends(whole)))
        found += estimate(minus(one, other)).interval.p < 0.05  # type: ignore[union-attr]
    low, high, pooled_low, pooled_high = np.array(held).T
    mean, truth = float(np.mean(values)), true_ccc(design, system)
    assert 0.91 <= ((low <= mean) & (mean <= high)).mean() <= 0.99
    assert 0.91 <= ((pooled_low <= truth) & (truth <= pooled_high)).mean() <= 0.99
    assert found / 250 <= 0.085, found


def test_with_one_fold_the_interval_covers_for_these_two_speakers() -> None:
    """Other dialogues of the same two speakers, the same trained model: what its scope says, and no more."""
    held, strangers = [], []
    for pair in range(12):
        found, values = [], []
        for number in range(20):
            random = generator("two speakers", pair, number)
            people = [generator("people", pair, what) for what in (1, 2)]
            corpus = draw(random, Design(sessions=1, size=8, dialogues=20), people[0])
            score = pooled(grouped(corpus), corpus, predict(random, corpus, System(), people[1]))
            found.append(ends(score))
            values.append(score.value)
        low, high = np.array(found).T
        held.append(((low <= np.mean(values)) & (np.mean(values) <= high)).mean())
        truth = true_ccc(Design(), System())
        strangers.append(((low <= truth) & (truth <= high)).mean())
    assert 0.91 <= np.mean(held) <= 0.99
    assert np.mean(strangers) < 0.85, "not for other speakers"


@given(st.integers(0, 200))
@settings(max_examples=40)
def test_equal_systems_are_never_called_different(number: int) -> None:
    """Their difference is 0 but for the order of additions, and so is its error."""
    corpus, values = made(number, design=Design(size=4, dialogues=3, sessions=3 + number % 3))
    where = grouped(corpus)
    for score in (
        minus(over_folds(where, corpus, values), over_folds(where, corpus, values + 1e-16)),
        minus(pooled(where, corpus, values), pooled(where, corpus, values)),
    ):
        interval = estimate(score).interval
        assert interval is not None
        assert interval.p == 1.0
        assert interval.low <= 0.0 <= interval.high
