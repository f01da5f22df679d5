"""Runs as experiments: what belongs together, its means, and what keeps numbers from being comparable."""

import json
import os
from collections.abc import Callable
from functools import reduce
from pathlib import Path

import numpy as np
import pytest

from report.reading import rows
from report.written import SIZES, Written, numpy_ccc, part_predictions
from serfit.config.load import ADDED
from serfit.report.compare import COMPARISON, COMPARISON_CSV, COMPARISON_LATEX, compare, to_csv, to_latex, to_markdown
from serfit.report.page import to_html
from serfit.runs.directory import CONFIG, FINISHED
from serfit.runs.experiments import concatenated
from serfit.scores.records import Predictions
from serfit.scores.reference import FROZEN

Write = Callable[..., Written]
FILES = {COMPARISON, COMPARISON_CSV, COMPARISON_LATEX}


def test_means_and_deviations_are_those_numpy_finds(write_run: Write, tmp_path: Path) -> None:
    found = {(fold, seed): write_run(fold=fold, seed=seed).predictions for fold in range(1, 6) for seed in (1, 2, 3)}
    (result,) = compare(tmp_path / "runs").experiments
    table = np.array(
        [[[numpy_ccc(found[f, s], d) for d in ("valence", "arousal")] for s in (1, 2, 3)] for f in range(1, 6)]
    )
    by_fold = table.mean(axis=1)
    for column, name in enumerate(("valence", "arousal")):
        assert result.test[name].mean == pytest.approx(by_fold[:, column].mean(), abs=1e-9)
        assert result.test[name].deviation == pytest.approx(by_fold[:, column].std(ddof=1), abs=1e-9)
    assert result.test["average"].mean == pytest.approx(by_fold.mean(), abs=1e-9)
    assert result.test["average"].deviation == pytest.approx(by_fold.mean(axis=1).std(ddof=1), abs=1e-9)
    pooled = [concatenated([found[f, s] for f in range(1, 6)]) for s in (1, 2, 3)]
    for name in ("valence", "arousal"):
        assert result.pooled[name] == pytest.approx(np.mean([numpy_ccc(one, name) for one in pooled]), abs=1e-9)
    cell = rows(compare(tmp_path / "runs"), "## iemocap")[0]
    assert cell[:3] == ["alpha", "5 folds x 3 seeds", f"{by_fold[:, 0].mean():.4f} ± {by_fold[:, 0].std(ddof=1):.4f}"]


def test_runs_from_before_a_key_was_added_are_of_the_same_experiment(write_run: Write, tmp_path: Path) -> None:
    for fold in (1, 2):
        path = write_run(fold=fold).directory / CONFIG
        settings = json.loads(path.read_text())
        for key in ADDED if fold == 1 else ():
            *above, name = key.split(".")
            del reduce(lambda section, part: section[part], above, settings)[name]
        path.write_text(json.dumps(settings))
    (result,) = compare(tmp_path / "runs").experiments
    assert (result.label, result.folds) == ("alpha", (1, 2))


def test_seeds_that_lack_a_fold_count_nowhere_and_are_named(write_run: Write, tmp_path: Path) -> None:
    for seed in range(1, 5):
        write_run(fold=1, seed=seed, noise=2.0)
    write_run(fold=2, seed=1, noise=0.1)
    comparison = compare(tmp_path / "runs")
    (result,) = comparison.experiments
    assert [(run.fold, run.seed) for run in result.runs] == [(1, 1), (2, 1)]
    assert [(run.fold, run.seed) for run in result.incomplete] == [(1, 2), (1, 3), (1, 4)]
    mean = np.mean([numpy_ccc(run.predictions, "valence") for run in result.runs])
    assert result.test["valence"].mean == pytest.approx(mean)
    assert comparison.evidence.over_folds["alpha"]["valence"].value == pytest.approx(mean)
    assert rows(comparison, "## iemocap")[0][1] == "folds 1-2 x 1 seed, folds 3-5 missing"
    assert any(
        "fold 1 seed 2, fold 1 seed 3, fold 1 seed 4 left out of every mean" in said for said in comparison.warnings
    )


def test_where_no_seed_has_all_folds_the_lowest_of_each_counts(write_run: Write, tmp_path: Path) -> None:
    for fold, seed in ((1, 1), (1, 2), (2, 3), (2, 4)):
        write_run(fold=fold, seed=seed)
    comparison = compare(tmp_path / "runs")
    assert [(run.fold, run.seed) for run in comparison.experiments[0].runs] == [(1, 1), (2, 3)]
    assert any("no seed has all folds" in said for said in comparison.warnings)


def test_the_published_mean_of_two_dimensions_is_not_beside_one_of_three(write_run: Write, tmp_path: Path) -> None:
    write_run(dimensions=("valence", "arousal", "dominance"), total=10_039)
    comparison = compare(tmp_path / "runs")
    published = next(row for row in rows(comparison, "## iemocap") if "reference project" in row[0])
    assert published[2:6] == ["0.5896", "0.6867", "-", "-"]
    for text in (to_csv(comparison), to_latex(comparison), to_html(comparison)):
        assert f"{FROZEN.average:.4f}" not in text


def test_missing_folds_are_named_marked_and_never_pooled(write_run: Write, tmp_path: Path) -> None:
    for fold in (1, 2, 4):
        write_run("short", fold)
    for fold in range(1, 6):
        write_run("whole", fold, noise=1.0)
    comparison = compare(tmp_path / "runs")
    short, whole = comparison.experiments
    assert (short.missing, whole.missing) == ((3, 5), ())
    assert set(short.pooled.values()) == {None}
    assert None not in whole.pooled.values()
    first, second = rows(comparison, "## iemocap")
    assert first[1] == "folds 1-2, 4 x 1 seed, folds 3, 5 missing"
    assert "†" in first[2]
    assert "†" not in second[2]
    text = to_markdown(comparison)
    assert "† short: folds 1-2, 4 of 5 only; not a result over all folds." in text
    assert "**" not in text  # nothing comparable, so nothing is the best
    assert any("(short: folds 1-2, 4; whole: folds 1-5)" in line for line in comparison.warnings)


def test_one_fold_has_no_deviation(write_run: Write, tmp_path: Path) -> None:
    found = write_run().predictions
    comparison = compare(tmp_path / "runs")
    assert comparison.experiments[0].test["valence"].deviation is None
    assert rows(comparison, "## iemocap")[0][2] == f"{numpy_ccc(found, 'valence'):.4f} †"


def test_an_undefined_score_makes_the_mean_undefined_and_never_the_best(write_run: Write, tmp_path: Path) -> None:
    for fold in range(1, 6):
        write_run("defined", fold, noise=3.0)
        predictions = part_predictions(fold, 1, ("valence", "arousal"), 0.1, SIZES[fold - 1])
        if fold == 2:
            predictions.values[3, 0] = np.nan
        write_run("holed", fold, predictions=predictions, baseline=False)
    comparison = compare(tmp_path / "runs")
    defined, holed = comparison.experiments
    assert holed.test["valence"].mean is None
    assert holed.test["average"].mean is None
    assert holed.test["arousal"].mean is not None
    text = rows(comparison, "## iemocap")
    assert text[1][2] == "n/a"
    assert text[1][4] == "n/a"
    assert not text[0][2].startswith("**")  # alone with a defined value: nobody to be better than
    assert text[1][3].startswith("**")
    assert defined.label == "defined"


def test_one_name_for_two_configurations_is_told_apart_by_what_differs(write_run: Write, tmp_path: Path) -> None:
    write_run("twin")
    write_run("twin", 2, changes={"train.epochs": 50, "train.loss.weights": {"valence": 2.0}})
    write_run("twin", 1, changes={"train.epochs": 50, "train.loss.weights": {"valence": 2.0}})
    write_run("other")
    labels = [result.label for result in compare(tmp_path / "runs").experiments]
    assert labels == [
        "other",
        "twin (train.epochs=20, train.loss.weights={}, train.loss.weights.valence=absent)",
        "twin (train.epochs=50, train.loss.weights=absent, train.loss.weights.valence=2.0)",
    ]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("experiment.runs_dir", "elsewhere"),
        ("data.root", "/other/place"),
        ("data.loader.workers", 7),
        ("features.store", "other/store"),
        ("train.micro_batch_seconds", 12.5),
        ("train.gradient_checkpointing", True),
        ("train.checkpoint_minutes", 1.0),
    ],
)
def test_what_cannot_change_the_result_does_not_make_another_experiment(
    write_run: Write, tmp_path: Path, key: str, value: object
) -> None:
    write_run("same", 1)
    write_run("same", 2, changes={key: value})
    (result,) = compare(tmp_path / "runs").experiments
    assert result.folds == (1, 2)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.optimizer.lr", 2e-4),
        ("data.loader.batch_size", 8),
        ("features.dtype", "float16"),
        ("model.params.freeze_speech_encoder", True),
        ("data.split.folds", 4),
    ],
)
def test_everything_else_does(write_run: Write, tmp_path: Path, key: str, value: object) -> None:
    write_run("same", 1)
    write_run("same", 2, changes={key: value})
    assert len(compare(tmp_path / "runs").experiments) == 2


def test_the_latest_of_repeated_runs_counts_and_it_is_said(write_run: Write, tmp_path: Path) -> None:
    older, newer = write_run(noise=0.1), write_run(noise=2.0)
    comparison = compare(tmp_path / "runs")
    assert comparison.experiments[0].runs[0].directory == newer.directory
    (warning,) = comparison.warnings
    assert warning == (
        "alpha, fold 1, seed 1 was run 2 times; the latest counts, "
        f"{newer.directory.name}, and not {older.directory.name}"
    )
    os.utime(older.directory / FINISHED, ns=(10**15, 10**15))
    assert compare(tmp_path / "runs").experiments[0].runs[0].directory == older.directory


def test_the_best_is_bold_among_experiments_on_the_same_utterances(write_run: Write, tmp_path: Path) -> None:
    for fold in range(1, 6):
        write_run("clean", fold, noise=0.2)
        write_run("noisy", fold, noise=2.0)
    for fold in (1, 2):
        write_run("partial", fold, noise=0.01)
    bold = {row[0]: row[2].startswith("**") for row in rows(compare(tmp_path / "runs"), "## iemocap")}
    assert bold == {"clean": True, "noisy": False, "partial": False}


def test_the_same_fold_with_other_utterances_is_not_comparable(write_run: Write, tmp_path: Path) -> None:
    write_run("one", noise=0.2)
    found = part_predictions(1, 1, ("valence", "arousal"), 2.0, SIZES[0])
    renamed = Predictions(tuple(f"x{name}" for name in found.ids), found.dimensions, found.targets, found.values)
    write_run("two", predictions=renamed)
    comparison = compare(tmp_path / "runs")
    assert "**" not in to_markdown(comparison)
    assert any("not all tested on the same utterances" in line for line in comparison.warnings)


def test_runs_of_older_versions_on_corpora_of_different_sizes_are_different_experiments(
    write_run: Write, tmp_path: Path
) -> None:
    write_run("one", 1)
    write_run("one", 2, total=200)
    comparison = compare(tmp_path / "runs")
    assert [result.folds for result in comparison.experiments] == [(2,), (1,)]
    (warning,) = comparison.warnings
    assert "not recorded, 240 utterances (one fold 1); labels not recorded, 200 utterances (one fold 2)" in warning


@pytest.mark.parametrize(
    ("what", "changes"),
    [
        ("encoder weights", {"encoder": {"name": "x", "revision": None, "sha256": "other"}}),
        ("precision", {"precision": "bf16"}),
        ("precision of the frozen part", {"frozen_precision": "bf16"}),
        ("source code", {"commit": "beef"}),
        ("torch", {"packages": {"torch": "3.0"}}),
    ],
)
def test_runs_of_one_experiment_made_of_different_things_are_warned_about(
    write_run: Write, tmp_path: Path, what: str, changes: dict[str, object]
) -> None:
    write_run("one", 1)
    write_run("one", 2, environment=changes)
    (warning,) = compare(tmp_path / "runs").warnings
    assert warning.startswith(f"runs of one differ in {what}: ")


def test_random_encoders_may_differ_between_seeds(write_run: Write, tmp_path: Path) -> None:
    for seed in (1, 2):
        encoder = {"name": "random:tiny", "revision": None, "sha256": f"weights{seed}"}
        write_run(seed=seed, changes={"model.params.speech_encoder": "random:tiny"}, environment={"encoder": encoder})
    assert compare(tmp_path / "runs").warnings == ()


def test_folds_that_share_test_utterances_are_not_pooled(write_run: Write, tmp_path: Path) -> None:
    same = part_predictions(1, 1, ("valence", "arousal"), 0.5, SIZES[0])
    for fold in range(1, 6):
        write_run(fold=fold, predictions=same, total=5 * SIZES[0])  # as many rows as the corpus has utterances
    comparison = compare(tmp_path / "runs")
    assert set(comparison.experiments[0].pooled.values()) == {None}
    assert "folds 1 and 2 of alpha share 40 test utterances; no pooled CCC" in comparison.warnings


def test_incomplete_coverage_is_not_pooled(write_run: Write, tmp_path: Path) -> None:
    for fold in range(1, 6):
        write_run(fold=fold, total=sum(SIZES) + 1)
    assert set(compare(tmp_path / "runs").experiments[0].pooled.values()) == {None}


def test_missing_folds_are_not_pooled_even_if_the_numbers_add_up(write_run: Write, tmp_path: Path) -> None:
    for fold in (1, 2):
        write_run(fold=fold, total=SIZES[0] + SIZES[1])
    assert set(compare(tmp_path / "runs").experiments[0].pooled.values()) == {None}


def test_an_official_test_part_is_its_own_pool(write_run: Write, tmp_path: Path) -> None:
    found = write_run(corpus="csv", changes={"data.split.scheme": "official"}).predictions
    (result,) = compare(tmp_path / "runs").experiments
    assert result.missing == ()
    assert result.pooled["valence"] == pytest.approx(numpy_ccc(found, "valence"))
