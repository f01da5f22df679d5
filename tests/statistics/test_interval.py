"""Intervals against plain recomputation, and by simulation against a known truth."""

import math

import numpy as np
import pytest

from serfit.counters import generator
from serfit.metrics import ccc
from serfit.statistics import student
from serfit.statistics.contrast import Cell, contrast, layout, minus
from serfit.statistics.interval import LEAST_DEGREES, estimate
from simulated import Corpus, Design, System, draw, layouts, over_folds, pooled, predict, true_ccc

SMALL = Design(size=12, dialogues=12)


def made(*address: int | str, design: Design = SMALL) -> tuple[Corpus, np.ndarray]:
    random = generator("interval", *address)
    corpus = draw(random, design)
    return corpus, predict(random, corpus, System())


def test_the_interval_by_speaker_is_the_textbook_jackknife() -> None:
    corpus, values = made()
    left_out = [math.atanh(ccc(corpus.targets[corpus.speaker != s], values[corpus.speaker != s])) for s in range(10)]  # type: ignore[arg-type]
    error = math.sqrt(0.9 * sum((z - np.mean(left_out)) ** 2 for z in left_out))
    centre = math.atanh(ccc(corpus.targets, values))  # type: ignore[arg-type]
    found = estimate(pooled(layouts(corpus)[0], corpus, values))
    interval = found.intervals["speaker"]
    assert interval.low == pytest.approx(math.tanh(centre - 2.26216 * error), abs=1e-5)
    assert interval.high == pytest.approx(math.tanh(centre + 2.26216 * error), abs=1e-5)
    assert interval.p == pytest.approx(student.two_sided_p(centre / error, 9))
    assert found.clusters == {"speaker": 10, "dialogue": 60}


def test_over_folds_speakers_vary_inside_their_folds_only() -> None:
    corpus, values = made()
    variance = 0.0
    cccs = [ccc(corpus.targets[corpus.session == f], values[corpus.session == f]) for f in range(5)]
    for fold in range(5):
        zs = []
        for speaker in (2 * fold, 2 * fold + 1):
            kept = (corpus.session == fold) & (corpus.speaker != speaker)
            changed = [*cccs[:fold], ccc(corpus.targets[kept], values[kept]), *cccs[fold + 1 :]]
            zs.append(math.atanh(np.mean(changed)))  # type: ignore[arg-type]
        variance += 0.5 * sum((z - np.mean(zs)) ** 2 for z in zs)
    interval = estimate(over_folds(layouts(corpus)[1], corpus, values)).intervals["speaker"]
    reach = student.quantile(0.95, 5) * math.sqrt(variance)
    assert interval.degrees == 5
    assert interval.high == pytest.approx(math.tanh(math.atanh(np.mean(cccs)) + reach), abs=1e-6)  # type: ignore[arg-type]


def test_the_two_way_variance_is_speakers_plus_dialogues_less_both() -> None:
    corpus, values = made(design=Design(speaker=0.05, size=12, dialogues=12))

    def variance(groups: np.ndarray) -> float:
        kept = [groups != group for group in np.unique(groups)]
        zs = np.array([math.atanh(ccc(corpus.targets[rows], values[rows])) for rows in kept])  # type: ignore[arg-type]
        return float((len(zs) - 1) / len(zs) * ((zs - zs.mean()) ** 2).sum())

    parts = [variance(corpus.speaker), variance(corpus.dialogue), variance(1000 * corpus.speaker + corpus.dialogue)]
    both_ways = parts[0] + parts[1] - parts[2]
    assert both_ways > max(parts)
    reach = student.quantile(0.95, 9) * math.sqrt(both_ways)
    centre = math.atanh(ccc(corpus.targets, values))  # type: ignore[arg-type]
    interval = estimate(pooled(layouts(corpus)[0], corpus, values)).interval
    assert interval is not None
    assert interval.degrees == 9
    assert (interval.low, interval.high) == pytest.approx((math.tanh(centre - reach), math.tanh(centre + reach)))


def test_the_headline_holds_both_others() -> None:
    for number in range(20):
        corpus, values = made(number)
        found = estimate(over_folds(layouts(corpus)[1], corpus, values))
        assert found.headline == "speaker and dialogue"
        assert found.interval is not None
        for kind in ("speaker", "dialogue"):
            assert found.interval.low <= found.intervals[kind].low  # type: ignore[index]
            assert found.interval.high >= found.intervals[kind].high  # type: ignore[index]


def test_a_speaker_in_every_fold_and_one_speaker_per_fold_still_get_intervals() -> None:
    corpus, values = made()
    spread = Corpus(corpus.targets, corpus.speaker, corpus.dialogue, np.arange(len(values)) % 5)
    by_speaker = estimate(over_folds(layouts(spread)[1], spread, values)).intervals["speaker"]
    assert by_speaker.degrees == 9
    alone = Corpus(corpus.targets, corpus.session, corpus.dialogue, corpus.session)
    found = estimate(over_folds(layouts(alone)[1], alone, values)).intervals["speaker"]
    cccs = [ccc(corpus.targets[corpus.session == f], values[corpus.session == f]) for f in range(5)]
    others = [math.atanh(np.mean([c for place, c in enumerate(cccs) if place != f])) for f in range(5)]  # type: ignore[arg-type]
    error = math.sqrt(0.8 * sum((z - np.mean(others)) ** 2 for z in others))
    centre = math.atanh(np.mean(cccs))  # type: ignore[arg-type]
    assert found.degrees == 4
    assert found.low == pytest.approx(math.tanh(centre - student.quantile(0.95, 4) * error), abs=1e-6)


def test_few_speakers_leave_the_dialogues_and_nothing_known_leaves_the_utterances() -> None:
    corpus, values = made(design=Design(sessions=1, size=12))
    found = estimate(pooled(layouts(corpus)[0], corpus, values))
    assert found.headline == "dialogue"
    assert "speaker" not in found.intervals
    blank = layout([""] * len(values), [""] * len(values), [0] * len(values))
    assert estimate(pooled(blank, corpus, values)).headline == "utterance"


def test_undefined_scores_have_no_interval() -> None:
    x = np.array([1.0, 2, 3, 4, 5, 6])
    where = layout(list("abcdef"), list("abcdef"), [0] * 6)
    nothing = contrast(where, [Cell(np.arange(6), x, np.where(x > 5, np.nan, x), 0, 0, 1.0)])
    assert (estimate(nothing).value, estimate(nothing).interval) == (None, None)
    assert len(x) > LEAST_DEGREES
    same = contrast(where, [Cell(np.arange(6), x, x + 0.5, 0, 0, 1.0)])
    difference = estimate(minus(same, same))
    assert difference.value == 0.0
    assert difference.interval is not None
    assert (difference.interval.low, difference.interval.high, difference.interval.p) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize("name", ["pooled", "over folds"])
def test_intervals_cover_the_truth_about_as_often_as_they_say(name: str) -> None:
    """A small version of benchmarks/statistics/coverage.py: 250 corpora, binomial deviation 1.4 points."""
    design, system = Design(size=20), System()
    held, values = [], []
    for number in range(250):
        random = generator("coverage test", number)
        corpus = draw(random, design)
        predicted = predict(random, corpus, system)
        make, where = (pooled, layouts(corpus)[0]) if name == "pooled" else (over_folds, layouts(corpus)[1])
        found = estimate(make(where, corpus, predicted))
        assert found.interval is not None
        held.append((found.interval.low, found.interval.high))
        values.append(found.value)
    truth = true_ccc(design, system) if name == "pooled" else float(np.mean([value for value in values if value]))
    low, high = np.array(held).T
    covered = ((low <= truth) & (truth <= high)).mean()
    assert 0.92 <= covered <= 0.98, covered
