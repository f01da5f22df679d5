import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from report.written import SIZES, Written, part_predictions
from serfit.inference.publish.cross_validated import expectation, reached
from serfit.report.answers import answers
from serfit.report.compare import compare, to_markdown
from serfit.report.comparison import Comparison, only
from serfit.report.evidence import MOST_FOR_ALL_PAIRS, seed_deviation
from serfit.report.exports import to_csv, to_latex
from serfit.report.page import to_html
from serfit.runs.directory import PREDICTIONS
from serfit.scores.records import Predictions
from serfit.system.counters import generator

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
        assert over.scope == pooled.scope
        assert str(over.scope) == "other trained models, speakers and dialogues"
        assert over.scope.counts == {"fold": 5, "speaker": 10, "dialogue": 30}
        assert over.interval is not None
        assert over.interval.low < over.value < over.interval.high  # type: ignore[operator]


def test_seeds_vary_inside_their_folds(write_run: Write, tmp_path: Path) -> None:
    found = {(f, s): write_run("alpha", f, s, noise=0.9).predictions for f in (1, 2) for s in (1, 2, 3)}
    write_run("alpha", 3, 1)
    (result,) = compare(tmp_path / "runs").experiments
    scores = np.array([[found[f, s].scores().ccc("arousal") for s in (1, 2, 3)] for f in (1, 2)], dtype=float)
    assert seed_deviation((*result.runs, *result.incomplete), "arousal") == pytest.approx(
        np.sqrt(scores.var(axis=1, ddof=1).mean())
    )
    assert seed_deviation([run for run in result.runs if run.seed == 1], "arousal") is None


def test_a_clear_difference_is_shown_and_none_is_not(write_run: Write, tmp_path: Path) -> None:
    fold_runs(write_run, "good", 0.3)
    fold_runs(write_run, "bad", 2.5)
    fold_runs(write_run, "rival", 0.301)
    pairs = {(pair.first, pair.second, pair.measure): pair for pair in compare(tmp_path / "runs").evidence.pairs}
    assert len(pairs) == 9
    clear = pairs["good", "bad", "average"]
    assert clear.shown
    assert clear.p is not None
    assert clear.p <= clear.corrected <= 9 * clear.p  # type: ignore[operator]
    assert (clear.folds, clear.utterances, clear.seeds) == ((1, 2, 3, 4, 5), sum(SIZES), 1)
    (close,) = [pair for key, pair in pairs.items() if {"good", "rival"} == set(key[:2]) and key[2] == "valence"]
    assert not close.shown
    assert close.p is not None
    said = answers([clear])[0]
    assert said.startswith(
        "good against bad on iemocap (folds 1-5, 240 utterances, 10 speakers, 30 dialogues, 1 seed): "
        "better on average by "
    )
    assert f"by {clear.difference.value:.4f} CCC (95% CI" in said
    assert said.endswith("95% CIs hold for other trained models, speakers and dialogues.")
    assert "no significant difference in valence: " in answers([close])[0]


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
    assert any(
        "1 pair of experiments on iemocap can't be tested" in line and line.endswith(": one and two")
        for line in comparison.warnings
    )


def test_the_interval_is_as_wide_as_its_folds_differ(write_run: Write, tmp_path: Path) -> None:
    """Folds as different as the demo's: .305, .544, -.027, .254 and .474."""
    for fold, noise in enumerate((2.0, 1.0, 12.0, 3.0, 1.2), start=1):
        write_run("apart", fold, noise=noise, described=True)
    (result,) = (comparison := compare(tmp_path / "runs")).experiments
    summary, one = result.test["valence"], comparison.evidence.over_folds["apart"]["valence"]
    assert summary.mean is not None
    assert summary.deviation is not None
    assert one.interval is not None
    assert summary.deviation > 0.2
    assert one.interval.high - one.interval.low > 2 * 2.776 * summary.deviation / 5**0.5 * 0.8


def test_two_speakers_decide_nothing_and_their_interval_is_named(write_run: Write, tmp_path: Path) -> None:
    for name, noise in (("one", 0.3), ("two", 2.9)):
        write_run(name, 1, noise=noise, described=True)
    comparison = compare(tmp_path / "runs")
    (said,) = answers(comparison.evidence.pairs)
    assert all(pair.p is None and pair.corrected is None and not pair.shown for pair in comparison.evidence.pairs)
    assert ": can't be decided: 2 speakers, and a test needs 5 speakers or 3 folds (run more folds); in valence" in said
    assert said.endswith("95% CIs hold for other dialogues, with these trained models and these 2 speakers.")
    for words in ("significant", " p ", "corrected"):
        assert words not in said


def test_what_can_not_be_tested_takes_no_part_in_the_correction(write_run: Write, tmp_path: Path) -> None:
    fold_runs(write_run, "one", 0.5, folds=3)
    fold_runs(write_run, "two", 0.9, folds=3)
    alone = {pair.measure: pair.corrected for pair in compare(tmp_path / "runs").evidence.pairs}
    write_run("three", 1, noise=1.5, described=True)
    pairs = compare(tmp_path / "runs").evidence.pairs
    assert len(pairs) == 9
    assert {pair.measure: pair.corrected for pair in pairs if pair.corrected is not None} == alone


@pytest.mark.parametrize(("known", "folds"), [(0, 1), (0.5, 1), (0, 5), (0.5, 5)])
def test_unknown_speakers_are_never_counted_as_speakers(
    write_run: Write, tmp_path: Path, known: float, folds: int
) -> None:
    for name, noise in (("one", 0.3), ("two", 2.9)):
        for fold in range(1, folds + 1):
            written = write_run(name, fold, noise=noise, described=True)
            path = written.directory / PREDICTIONS
            rows = list(csv.DictReader(path.open()))
            for index, row in enumerate(rows):
                row["dialogue"] = ""
                row["speaker"] = row["speaker"] if index % 4 < 4 * known else ""
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, rows[0])
                writer.writeheader()
                writer.writerows(rows)
    comparison = compare(tmp_path / "runs")
    unknown = sum(sum(index % 4 >= 4 * known for index in range(size)) for size in SIZES[:folds])
    (said,) = answers(comparison.evidence.pairs)
    assert f"speakers of {unknown} unknown" in said
    assert f"can't be decided: the speakers of {unknown} utterances are unknown (name them in the corpus)" in said
    held = "other trained models, with unknown speakers" if folds > 1 else None
    assert ("95% CI" in said) == (folds > 1), "utterances alone are no clusters"
    for one in comparison.evidence.over_folds["one"].values():
        assert (one.interval is None) == (held is None)
        assert held is None or str(one.scope) == held


def test_speakers_that_either_run_knows_are_known(write_run: Write, tmp_path: Path) -> None:
    for fold in (1, 2, 3):
        write_run("old", fold, noise=0.9)
        write_run("new", fold, noise=0.5, described=True)
    pairs = compare(tmp_path / "runs").evidence.pairs
    assert {(pair.p is not None, pair.difference.scope.counts["speaker"]) for pair in pairs} == {(True, 6)}


def test_every_view_names_what_its_intervals_hold_for(write_run: Write, tmp_path: Path) -> None:
    for folds, words in (
        (1, "other dialogues, with these trained models and these 2 speakers"),
        (3, "other trained models, speakers and dialogues"),
    ):
        fold_runs(write_run, "one", 0.5, folds=folds)
        fold_runs(write_run, "two", 0.9, folds=folds)
        comparison = compare(tmp_path / "runs")
        views = [to_markdown(comparison), to_html(comparison), *to_latex(comparison).split(r"\end{table}")[:2]]
        views += [only_result_card(comparison)]
        for text in views:
            assert words in text
        rows = list(csv.DictReader(io.StringIO(to_csv(comparison))))
        assert {row["holds_for"] for row in rows if row["low"]} == {words}
        assert all(bool(row["low"]) == bool(row["holds_for"]) == bool(row["degrees"]) for row in rows)


def only_result_card(comparison: Comparison) -> str:
    return "\n".join(expectation(reached(only(comparison, "one"))))


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
    assert "nothing can be said in valence, because a CCC is undefined" in answers(list(pairs.values()))[0]


def test_many_experiments_are_tested_against_the_frozen_one(write_run: Write, tmp_path: Path) -> None:
    for number in range(MOST_FOR_ALL_PAIRS + 1):
        frozen = {"model.params.freeze_speech_encoder": number == 3}
        write_run(f"e{number}", 1, noise=0.2 + 0.1 * number, changes=frozen)
    pairs = compare(tmp_path / "runs").evidence.pairs
    assert all("e3" in (pair.first, pair.second) for pair in pairs)
    assert len(pairs) == 3 * MOST_FOR_ALL_PAIRS
