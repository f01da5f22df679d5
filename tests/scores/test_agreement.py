"""Raters' agreement against a loop that follows the definition word by word, and against what theory says."""

from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serfit.corpus.utterance import Utterance
from serfit.labels import Dimension
from serfit.scores.agreement import Agreement, agreement
from serfit.scores.metrics import ccc
from serfit.scores.records import Predictions
from serfit.system.counters import generator
from serfit.system.records import from_plain, plain

BOTH: tuple[Dimension, ...] = ("valence", "arousal")


def utterances(given: list[dict[Dimension, tuple[float, ...]]]) -> dict[str, Utterance]:
    """Rated utterances by id; their mean ratings are of no interest here."""
    return {
        f"u{index}": Utterance(id=f"u{index}", path=Path("x.wav"), ratings={}, single_ratings=single)
        for index, single in enumerate(given)
    }


def predictions(values: np.ndarray, dimensions: tuple[Dimension, ...] = BOTH) -> Predictions:
    ids = tuple(f"u{index}" for index in range(len(values)))
    return Predictions(ids, dimensions, np.full_like(values, np.nan), values)


def plain_ccc(x: list[float], y: list[float]) -> float:
    """The definition in plain Python."""
    mx, my = fmean(x), fmean(y)
    covariance = fmean((a - mx) * (b - my) for a, b in zip(x, y, strict=True))
    return 2 * covariance / (fmean((a - mx) ** 2 for a in x) + fmean((b - my) ** 2 for b in y) + (mx - my) ** 2)


points = st.integers(1, 5).map(float)


@given(
    rated=st.lists(st.tuples(st.lists(points, max_size=4), st.lists(points, max_size=4), points), min_size=1),
)
def test_it_is_what_a_loop_over_ratings_finds(rated: list[tuple[list[float], list[float], float]]) -> None:
    known = utterances([{"valence": tuple(v), "arousal": tuple(a)} for v, a, _ in rated])
    values = np.array([[value, -value] for _, _, value in rated])
    found = agreement(predictions(values), known)
    counts = []
    for column, name in enumerate(BOTH):
        ratings, others, system = [], [], []
        for index, utterance in enumerate(known.values()):
            single = list(utterance.single_ratings[name])
            for mine in range(len(single)):
                rest = single[:mine] + single[mine + 1 :]
                if rest:
                    ratings.append(single[mine])
                    others.append(sum(rest) / len(rest))
                    system.append(values[index, column])
        counts.append(len(ratings))
        if found is None:
            continue
        assert found.rater.dimensions[name].count == found.system.dimensions[name].count == len(ratings)
        for scores, given_values in ((found.rater, ratings), (found.system, system)):
            got = scores.ccc(name)
            if got is not None:
                assert got == pytest.approx(plain_ccc(others, given_values), abs=1e-9)
            else:
                assert len({*others, *given_values}) <= 1
    assert (found is None) == (not any(counts))


@pytest.mark.parametrize("raters", [2, 3, 6])
def test_raters_who_hear_the_same_and_err_apart_agree_as_theory_says(raters: int) -> None:
    """Truth of variance 1 and errors of variance e: CCC = 2 / (1 + e + 1 + e / (n - 1)); for the truth, without e."""
    random, error, count = generator("raters", raters), 0.6, 20_000
    truth = random.normal(size=count)
    single = truth[:, None] + error**0.5 * random.normal(size=(count, raters))
    known = utterances([{"valence": tuple(row)} for row in single.tolist()])
    found = agreement(predictions(truth[:, None], ("valence",)), known)
    assert found is not None
    assert found.rater.ccc("valence") == pytest.approx(2 / (2 + error + error / (raters - 1)), abs=0.01)
    assert found.system.ccc("valence") == pytest.approx(2 / (2 + error / (raters - 1)), abs=0.01)


def test_a_system_that_answers_as_a_rater_scores_as_one_and_names_do_not_matter() -> None:
    """Two raters of each utterance: the system that repeats the first meets itself once and the second once."""
    random = generator("copy")
    single = random.integers(1, 6, size=(50, 2)).astype(float)
    known = utterances([{"valence": tuple(row)} for row in single.tolist()])
    found = agreement(predictions(single[:, :1], ("valence",)), known)
    assert found is not None
    assert found.rater.ccc("valence") == pytest.approx(
        ccc([*single[:, 0], *single[:, 1]], [*single[:, 1], *single[:, 0]])
    )
    turned = {
        name: replace(one, single_ratings={"valence": one.single_ratings["valence"][::-1]})
        for name, one in known.items()
    }
    again = agreement(predictions(single[:, :1], ("valence",)), turned)
    assert again is not None
    assert again.rater.ccc("valence") == pytest.approx(found.rater.ccc("valence"))
    assert again.system.ccc("valence") == pytest.approx(found.system.ccc("valence"))


def test_single_raters_and_unknown_ones_give_nothing() -> None:
    values = np.zeros((2, 2))
    assert agreement(predictions(values), utterances([{}, {"valence": (3.0,)}])) is None
    found = agreement(predictions(values), utterances([{}, {"valence": (3.0, 4.0)}]))
    assert found is not None
    assert (found.rater.dimensions["valence"].count, found.rater.dimensions["arousal"].count) == (2, 0)
    assert found.rater.ccc("arousal") is None
    assert found.rater.average is None


def test_undefined_predictions_leave_the_raters_theirs() -> None:
    known = utterances([{"valence": (1.0, 2.0)}, {"valence": (4.0, 5.0)}])
    found = agreement(predictions(np.array([[np.nan], [1.0]]), ("valence",)), known)
    assert found is not None
    assert found.rater.ccc("valence") is not None
    assert found.system.ccc("valence") is None


def test_it_survives_the_way_through_a_file() -> None:
    found = agreement(predictions(np.ones((2, 2))), utterances([{"valence": (1.0, 2.0)}, {"valence": (4.0, 5.0, 3.0)}]))
    assert found is not None
    assert from_plain(Agreement, plain(found), "", "") == found
