from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from report.written import SIZES, Written, part_predictions
from serfit.counters import generator
from serfit.records import Predictions
from serfit.report.answers import answers
from serfit.report.compare import compare, to_markdown
from serfit.report.evidence import MOST_FOR_ALL_PAIRS, seed_deviation

Write = Callable[..., Written]
BOTH = ("valence", "arousal")


def fold_runs(write: Write, name: str, noise: float, seeds: tuple[int, ...] = (1,), folds: int = 5) -> None:
    for fold in range(1, folds + 1):
        for seed in seeds:
            write(name, fold, seed, noise=noise, described=True)


def test_estimates_are_the_means_of_the_table(write_run: Write, tmp_path: Path) -> None:
    fold_runs(write_run, "alpha", 0.8, (1, 2, 3))
    comparison = compare(tmp_path / "runs")
    (result,) = comparison.experiments
    for name in (*BOTH, "average"):
        over, pooled = comparison.evidence.over_folds["alpha"][name], comparison.evidence.pooled["alpha"][name]  # type: ignore[index]
        assert over.value == pytest.approx(result.test[name].mean, abs=1e-9)  # type: ignore[index]
        assert pooled.value == pytest.approx(result.pooled[name], abs=1e-9)  # type: ignore[index]
        assert over.headline == pooled.headline == "speaker and dialogue"
        assert over.clusters == {"speaker": 10, "dialogue": 30}
        assert over.interval is not None
        assert over.interval.low < over.value < over.interval.high  # type: ignore[operator]


def test_seeds_vary_inside_their_folds(write_run: Write, tmp_path: Path) -> None:
    found = {(f, s): write_run("alpha", f, s, noise=0.9).predictions for f in (1, 2) for s in (1, 2, 3)}
    write_run("alpha", 3, 1)
    (result,) = compare(tmp_path / "runs").experiments
    scores = np.array([[found[f, s].scores().ccc("arousal") for s in (1, 2, 3)] for f in (1, 2)], dtype=float)
    assert seed_deviation(result.runs, "arousal") == pytest.approx(np.sqrt(scores.var(axis=1, ddof=1).mean()))
    assert seed_deviation([run for run in result.runs if run.seed == 1], "arousal") is None


def test_a_clear_difference_is_shown_and_none_is_not(write_run: Write, tmp_path: Path) -> None:
    fold_runs(write_run, "good", 0.3)
    fold_runs(write_run, "bad", 2.5)
    fold_runs(write_run, "rival", 0.301)
    pairs = {(pair.first, pair.second, pair.measure): pair for pair in compare(tmp_path / "runs").evidence.pairs}
    assert len(pairs) == 9
    clear = pairs["good", "bad", "average"]
    assert clear.shown
    assert clear.p == 2 / 1024  # the least that ten speakers allow
    assert clear.corrected == pytest.approx(9 * 2 / 1024)
    assert (clear.folds, clear.utterances, clear.seeds) == ((1, 2, 3, 4, 5), sum(SIZES), 1)
    (close,) = [pair for key, pair in pairs.items() if {"good", "rival"} == set(key[:2]) and key[2] == "valence"]
    assert not close.shown
    assert close.p is not None
    assert close.p >= max(test.p for test in close.swaps.values())
    assert close.difference.interval is not None
    assert close.p >= close.difference.interval.p
    said = answers([clear])[0]
    assert said.startswith(
        "good against bad on iemocap (folds 1-5, 240 utterances, 10 speakers, 30 dialogues, one seed: "
        "about these trained models, not the recipes): better on average by "
    )
    assert f"by {clear.difference.value:.4f} CCC (95 % interval" in said
    assert "no difference shown in valence: " in answers([close])[0]


def test_the_direction_of_a_pair_does_not_depend_on_names(write_run: Write, tmp_path: Path) -> None:
    fold_runs(write_run, "a_bad", 2.5)
    fold_runs(write_run, "b_good", 0.3)
    for pair in compare(tmp_path / "runs").evidence.pairs:
        assert (pair.first, pair.second) == ("b_good", "a_bad")
        assert pair.difference.value is not None
        assert pair.difference.value > 0


def test_a_dimension_in_which_the_first_is_worse_says_worse(write_run: Write, tmp_path: Path) -> None:
    for fold in range(1, 6):
        base = part_predictions(fold, 1, BOTH, 0.5, SIZES[fold - 1])
        noise = generator("noise", fold).normal(size=base.values.shape)
        for name, scales in (("one", (0.3, 0.3)), ("two", (1.4, 0.01))):
            values = base.targets + noise * np.array(scales)
            write_run(
                name, fold, predictions=Predictions(base.ids, BOTH, base.targets, values.round(6)), described=True
            )
    (said,) = answers(compare(tmp_path / "runs").evidence.pairs)
    assert "one against two" in said
    assert "better in valence by" in said
    assert "worse in arousal by 0.0" in said


def test_only_shared_folds_with_the_same_utterances_and_ratings_are_tested(write_run: Write, tmp_path: Path) -> None:
    fold_runs(write_run, "whole", 0.5)
    fold_runs(write_run, "part", 0.9, folds=4)
    other = part_predictions(5, 1, BOTH, 0.5, SIZES[4])
    moved = Predictions(other.ids, BOTH, other.targets + 0.5, other.values)
    write_run("part", 5, predictions=moved, described=True)
    pairs = compare(tmp_path / "runs").evidence.pairs
    assert {pair.folds for pair in pairs} == {(1, 2, 3, 4)}
    assert {pair.utterances for pair in pairs} == {sum(SIZES[:4])}


def test_without_a_shared_fold_it_is_said_and_nothing_is_tested(write_run: Write, tmp_path: Path) -> None:
    write_run("one", 1)
    write_run("two", 2)
    comparison = compare(tmp_path / "runs")
    assert comparison.evidence.pairs == ()
    assert any("one and two have no fold with the same test utterances" in line for line in comparison.warnings)


def test_one_fold_of_two_speakers_gets_no_interval_by_speaker(write_run: Write, tmp_path: Path) -> None:
    write_run("one", 1, noise=0.5, described=True)
    write_run("two", 1, noise=0.9, described=True)
    comparison = compare(tmp_path / "runs")
    one = comparison.evidence.over_folds["one"]["valence"]
    assert "speaker" not in one.intervals
    text = to_markdown(comparison)
    assert "too few speakers for an interval by speaker" in text
    for pair in comparison.evidence.pairs:
        assert pair.p is not None
        assert pair.p >= 0.5  # two speakers can be swapped in four ways
    assert "2 speakers allow no p below 0.500" in " ".join(answers(comparison.evidence.pairs))


def test_an_undefined_score_leaves_pairs_without_p_and_the_others_corrected(write_run: Write, tmp_path: Path) -> None:
    fold_runs(write_run, "fine", 0.5)
    for fold in range(1, 6):
        found = part_predictions(fold, 1, BOTH, 0.5, SIZES[fold - 1])
        if fold == 2:
            found.values[0, 0] = np.nan
        write_run("holed", fold, predictions=found, described=True)
    pairs = {pair.measure: pair for pair in compare(tmp_path / "runs").evidence.pairs}
    assert pairs["valence"].p is None
    assert pairs["average"].p is None
    assert pairs["arousal"].corrected == pairs["arousal"].p
    assert "nothing can be said in valence" in answers(list(pairs.values()))[0]


def test_many_experiments_are_tested_against_the_frozen_one(write_run: Write, tmp_path: Path) -> None:
    for number in range(MOST_FOR_ALL_PAIRS + 1):
        frozen = {"model.params.freeze_speech_encoder": number == 3}
        write_run(f"e{number}", 1, noise=0.2 + 0.1 * number, changes=frozen)
    pairs = compare(tmp_path / "runs").evidence.pairs
    assert all("e3" in (pair.first, pair.second) for pair in pairs)
    assert len(pairs) == 3 * MOST_FOR_ALL_PAIRS
