"""Runs of other labels never become one experiment: no mean, no pooled CCC, no test."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from report.written import SIZES, Written, part_predictions
from serfit.corpus.identity import Labels
from serfit.labels import Dimension
from serfit.report.compare import compare, to_markdown

Write = Callable[..., Written]
DIMENSIONS: tuple[Dimension, ...] = ("valence", "arousal")


def labels(changed: int = 0, fold: int = 5) -> Labels:
    """Those of all five parts, with so many valence ratings of one fold corrected."""
    parts = [part_predictions(number, 1, DIMENSIONS, 0.5, SIZES[number - 1]) for number in range(1, 6)]
    ratings: dict[Dimension, dict[str, float]] = {name: {} for name in DIMENSIONS}
    for number, part in enumerate(parts, start=1):
        for row, one in enumerate(part.ids):
            ratings["valence"][one] = part.targets[row, 0] + (0.01 if number == fold and row < changed else 0.0)
            ratings["arousal"][one] = part.targets[row, 1]
    cuts = dict.fromkeys(ratings["valence"], (0.0, None))
    return Labels(cuts, ratings, dict.fromkeys(DIMENSIONS, (1.0, 5.0)))


def test_corrected_labels_make_another_experiment(write_run: Write, tmp_path: Path) -> None:
    write_run("alpha", 1, labels=labels())
    for fold in range(2, 6):
        write_run("alpha", fold, labels=labels(12))
    comparison = compare(tmp_path / "runs")
    assert sorted(result.folds for result in comparison.experiments) == [(1,), (2, 3, 4, 5)]
    assert len({result.label for result in comparison.experiments}) == 2
    assert all(result.missing for result in comparison.experiments)
    assert all(value is None for result in comparison.experiments for value in result.pooled.values())
    (warning,) = comparison.warnings
    assert "12 of 240 valence ratings differ" in warning
    assert "never averaged, pooled or tested against each other" in warning
    old = next(path.name for path in (tmp_path / "runs").glob("alpha_fold1_*"))
    assert warning.endswith(f"train again {old}")
    assert warning in to_markdown(comparison)


def test_equal_labels_are_one_experiment_as_ever(write_run: Write, tmp_path: Path) -> None:
    for fold in range(1, 6):
        write_run("alpha", fold, labels=labels())
    comparison = compare(tmp_path / "runs")
    (result,) = comparison.experiments
    assert (result.label, result.corpus, result.missing) == ("alpha", "iemocap", ())
    assert result.pooled["valence"] is not None
    assert comparison.warnings == ()


def test_no_test_between_experiments_of_different_labels(write_run: Write, tmp_path: Path) -> None:
    """The test part is the same here: only what they were trained on differs."""
    write_run("alpha", 1, labels=labels())
    write_run("beta", 1, labels=labels(1), noise=2.0)
    comparison = compare(tmp_path / "runs")
    assert comparison.evidence.pairs == ()
    assert "**" not in to_markdown(comparison)
    assert any("1 of 240 valence ratings differ" in line for line in comparison.warnings)


def test_predicting_one_dimension_less_is_no_other_corpus(write_run: Write, tmp_path: Path) -> None:
    whole = labels()
    write_run("alpha", 1, labels=whole)
    alone = Labels(whole.cuts, {"valence": whole.ratings["valence"]}, {"valence": whole.scales["valence"]})
    write_run("beta", 1, labels=alone, dimensions=("valence",))
    comparison = compare(tmp_path / "runs")
    assert {result.corpus for result in comparison.experiments} == {"iemocap"}
    assert comparison.evidence.pairs


def test_a_run_of_an_older_version_counts_where_nothing_contradicts_it(write_run: Write, tmp_path: Path) -> None:
    old = write_run("alpha", 1)
    write_run("alpha", 2, labels=labels())
    comparison = compare(tmp_path / "runs")
    (result,) = comparison.experiments
    assert result.folds == (1, 2)
    (warning,) = comparison.warnings
    assert old.directory.name in warning
    assert "didn't record the labels" in warning


@pytest.mark.parametrize("change", [{"total": 200}, {}], ids=["size", "test ratings"])
def test_an_older_run_that_contradicts_the_labels_stands_alone(
    write_run: Write, tmp_path: Path, change: dict[str, int]
) -> None:
    write_run("alpha", 1, **change)
    write_run("alpha", 2, labels=labels() if change else labels(3, fold=1))
    assert len(compare(tmp_path / "runs").experiments) == 2


def test_an_older_run_joins_none_of_two_versions(write_run: Write, tmp_path: Path) -> None:
    write_run("alpha", 1)
    write_run("alpha", 2, labels=labels())
    write_run("alpha", 3, labels=labels(4))
    assert sorted(result.folds for result in compare(tmp_path / "runs").experiments) == [(1,), (2,), (3,)]


def test_corrected_speakers_make_another_experiment(write_run: Write, tmp_path: Path) -> None:
    before = replace(labels(), groups=dict.fromkeys(labels().cuts, ("s1", None, None)))
    after = replace(before, groups={**before.groups, next(iter(before.groups)): ("s2", None, None)})
    write_run("alpha", 1, labels=before)
    write_run("alpha", 2, labels=after)
    comparison = compare(tmp_path / "runs")
    assert sorted(result.folds for result in comparison.experiments) == [(1,), (2,)]
    assert any("1 of 240 utterances have another speaker" in line for line in comparison.warnings)
