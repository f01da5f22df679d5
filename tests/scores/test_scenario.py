"""The audio-free baseline against brute-force loops and another package's CCC."""

from pathlib import Path

import audmetric
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serfit.corpus.folds import Split
from serfit.corpus.utterance import Utterance
from serfit.scores.records import Predictions
from serfit.scores.scenario import by_style, scenario_baseline, within_scenario

DIMENSIONS = ("valence", "arousal")
scenarios = st.sampled_from(["impro01", "impro02", "script01", "unseen", None])
rows = st.lists(st.tuples(scenarios, st.integers(4, 20), st.integers(4, 20)), min_size=2, max_size=25)


def utterances(rows: list[tuple], prefix: str) -> tuple[Utterance, ...]:
    return tuple(
        Utterance(
            f"{prefix}{number}", Path("a.wav"), {"valence": v / 4, "arousal": a / 4}, scenario=scenario,
            style=None if scenario is None else "scripted" if scenario.startswith("script") else "improvised",
        )
        for number, (scenario, v, a) in enumerate(rows)
    )  # fmt: skip


def noisy(test: tuple[Utterance, ...]) -> Predictions:
    targets = np.array([[u.ratings[name] for name in DIMENSIONS] for u in test])
    values = 0.5 * targets + np.random.default_rng(len(test)).normal(1.5, 0.7, targets.shape)
    return Predictions(tuple(u.id for u in test), DIMENSIONS, targets, values)


@settings(max_examples=60)
@given(train=rows, validation=rows, test=rows)
def test_each_prediction_is_the_scenario_mean_over_the_other_parts(train: list, validation: list, test: list) -> None:
    train = [row for row in train if row[0] != "unseen"] or [(None, 8, 8)]
    validation = [row for row in validation if row[0] != "unseen"] or [("impro01", 9, 12)]
    split = Split(1, 5, utterances(train, "t"), utterances(validation, "v"), utterances(test, "e"), "")
    predicted = scenario_baseline(split, DIMENSIONS)
    if all(row[0] is None for row in test):
        assert predicted is None
        return
    assert predicted is not None
    assert predicted.ids == tuple(u.id for u in split.test)
    for row, utterance in enumerate(split.test):
        for column, name in enumerate(DIMENSIONS):
            everything, same = [], []
            for other in split.train + split.validation:
                everything.append(other.ratings[name])
                if utterance.scenario is not None and other.scenario == utterance.scenario:
                    same.append(other.ratings[name])
            chosen = same or everything
            assert predicted.targets[row, column] == utterance.ratings[name]
            assert predicted.values[row, column] == pytest.approx(sum(chosen) / len(chosen), abs=1e-12)


@settings(max_examples=60)
@given(test=rows)
def test_within_scenario_scores_deviations_from_the_scenario(test: list) -> None:
    spoken = utterances(test, "e")
    predictions = noisy(spoken)
    scores = within_scenario(predictions, {u.id: u for u in spoken})
    kept = [row for row, u in enumerate(spoken) if u.scenario is not None]
    if not kept:
        assert scores is None
        return
    assert scores is not None
    for column, name in enumerate(DIMENSIONS):
        targets, values = [], []
        for row in kept:
            group = [other for other in kept if spoken[other].scenario == spoken[row].scenario]
            targets.append(
                predictions.targets[row, column] - sum(predictions.targets[g, column] for g in group) / len(group)
            )
            values.append(
                predictions.values[row, column] - sum(predictions.values[g, column] for g in group) / len(group)
            )
        scored = scores.dimensions[name]
        assert scored.count == len(kept)
        assert scored.bias == pytest.approx(0.0, abs=1e-12)
        if np.var(values) + np.var(targets) < 1e-20:
            continue
        assert scored.ccc == pytest.approx(audmetric.concordance_cc(targets, values), abs=1e-9)


def test_knowing_the_scenario_alone_is_worth_nothing_within_it() -> None:
    rng = np.random.default_rng(3)
    levels = {"impro01": 4, "impro02": 12, "script01": 19}
    drawn = [(name, levels[name] + int(rng.integers(0, 2)), int(rng.integers(4, 20))) for name in [*levels] * 40]
    split = Split(1, 5, utterances(drawn, "t"), utterances(drawn[:3], "v"), utterances(drawn[::-1], "e"), "")
    predictions = scenario_baseline(split, DIMENSIONS)
    assert predictions is not None
    assert (predictions.scores().ccc("valence") or 0.0) > 0.95
    within = within_scenario(predictions, {u.id: u for u in split.test})
    assert within is not None
    assert abs(within.ccc("valence") or 0.0) < 1e-9


@settings(max_examples=40)
@given(test=rows)
def test_styles_are_scored_apart(test: list) -> None:
    spoken = utterances(test, "e")
    predictions = noisy(spoken)
    scored = by_style(predictions, {u.id: u for u in spoken})
    for style in ("improvised", "scripted"):
        chosen = [row for row, u in enumerate(spoken) if u.style == style]
        assert (style in scored) == bool(chosen)
        if len(chosen) > 1:
            expected = audmetric.concordance_cc(predictions.targets[chosen, 0], predictions.values[chosen, 0])
            assert scored[style].ccc("valence") == pytest.approx(expected, abs=1e-9)


def test_a_corpus_without_scenarios_has_no_baseline() -> None:
    spoken = utterances([(None, 4, 8), (None, 8, 12)], "e")
    assert scenario_baseline(Split(1, 5, spoken, spoken, spoken, ""), DIMENSIONS) is None
    assert within_scenario(noisy(spoken), {u.id: u for u in spoken}) is None
    assert by_style(noisy(spoken), {u.id: u for u in spoken}) == {}
