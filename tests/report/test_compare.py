import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from report.written import SIZES, Written, change_json, numpy_ccc, part_predictions
from serfit.records import Predictions
from serfit.report import compare as module
from serfit.report.compare import (
    COMPARISON,
    COMPARISON_CSV,
    COMPARISON_LATEX,
    Comparison,
    compare,
    console_table,
    to_markdown,
    write_comparison,
)
from serfit.report.experiments import concatenated
from serfit.runs import CONFIG, ENVIRONMENT, FINISHED

Write = Callable[..., Written]
FILES = {COMPARISON, COMPARISON_CSV, COMPARISON_LATEX}


def rows(comparison: Comparison, heading: str) -> list[list[str]]:
    """Cells of the first Markdown table after a heading, without its header."""
    lines = to_markdown(comparison).splitlines()
    rest = lines[lines.index(heading) + 1 :]
    start = next(index for index, line in enumerate(rest) if line.startswith("| "))
    end = next(index for index, line in enumerate(rest[start:], start) if not line.startswith("| "))
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in rest[start + 2 : end]]


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


def test_unequal_numbers_of_seeds_do_not_weigh_folds(write_run: Write, tmp_path: Path) -> None:
    for seed in range(1, 5):
        write_run(fold=1, seed=seed, noise=2.0)
    write_run(fold=2, seed=1, noise=0.1)
    (result,) = compare(tmp_path / "runs").experiments
    by_fold = {f: [numpy_ccc(run.predictions, "valence") for run in result.runs if run.fold == f] for f in (1, 2)}
    assert result.test["valence"].mean == pytest.approx((np.mean(by_fold[1]) + np.mean(by_fold[2])) / 2)
    assert rows(compare(tmp_path / "runs"), "## iemocap")[0][1] == "folds 1-2 x 1-4 seeds, folds 3-5 missing"


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


def test_unfinished_runs_change_nothing_at_all(write_run: Write, tmp_path: Path) -> None:
    write_run()
    before = write_comparison(tmp_path / "runs").read_bytes()
    write_run("later", finished=False)
    (tmp_path / "runs" / "foreign").mkdir()
    assert write_comparison(tmp_path / "runs").read_bytes() == before
    assert {path.name for path in (tmp_path / "runs").iterdir() if not path.is_dir()} == FILES


def test_broken_directories_are_left_out_with_one_warning_each(write_run: Write, tmp_path: Path) -> None:
    write_run("good")
    broken = write_run("broken")
    (broken.directory / CONFIG).write_text("{")
    foreign = tmp_path / "runs" / "foreign"
    foreign.mkdir()
    (foreign / FINISHED).touch()
    comparison = compare(tmp_path / "runs")
    assert [result.label for result in comparison.experiments] == ["good"]
    assert len(comparison.warnings) == 2
    assert all(line.startswith("left out: ") and "\n" not in line for line in comparison.warnings)
    assert "foreign" in comparison.warnings[1]
    assert all(f"- {line}" in to_markdown(comparison).splitlines() for line in comparison.warnings)


def test_a_list_of_directories_warns_about_unfinished_ones(write_run: Write) -> None:
    comparison = compare([write_run().directory, write_run("later", finished=False).directory])
    assert len(comparison.experiments) == 1
    assert "is not a finished run" in comparison.warnings[0]


def test_an_empty_folder_is_an_empty_comparison(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    assert "There is no finished run yet." in write_comparison(tmp_path / "runs").read_text()


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


def test_corpora_of_different_size_are_warned_about(write_run: Write, tmp_path: Path) -> None:
    write_run("one", 1)
    write_run("one", 2, total=200)
    (warning,) = (line for line in compare(tmp_path / "runs").warnings if "different sizes" in line)
    assert "240 utterances: one fold 1; 200 utterances: one fold 2" in warning


@pytest.mark.parametrize(
    ("what", "changes"),
    [
        ("encoder weights", {"encoder": {"name": "x", "revision": None, "sha256": "other"}}),
        ("precision", {"precision": "bf16"}),
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


def test_the_reference_is_shown_for_full_iemocap_only(write_run: Write, tmp_path: Path) -> None:
    for fold in range(1, 6):
        write_run("full", fold, total=10_039)
    comparison = compare(tmp_path / "runs")
    (result,) = comparison.experiments
    assert result.difference["valence"] == pytest.approx((result.test["valence"].mean or 0) - 0.5896)
    assert result.difference["average"] == pytest.approx((result.test["average"].mean or 0) - 0.6381)
    *_, reference = rows(comparison, "## iemocap")
    assert reference[2:5] == ["0.5896", "0.6867", "0.6381"]
    write_run("small")
    text = to_markdown(compare(tmp_path / "runs"))
    assert "No difference to the reference for small: the frozen reference was measured on 10,039 utterances" in text


def test_other_corpora_have_no_reference_row(write_run: Write, tmp_path: Path) -> None:
    write_run("mine", corpus="csv", corpus_name="mine", baseline=False, total=10_039)
    text = to_markdown(compare(tmp_path / "runs"))
    assert "0.5896" not in text
    assert "reference" not in text
    assert "scenario" not in text.lower()


def test_scenario_honesty_has_its_own_table(write_run: Write, tmp_path: Path) -> None:
    found = [write_run(fold=fold).predictions for fold in range(1, 6)]
    halves = [one.only([index % 2 == 0 for index in range(len(one.ids))]) for one in found]
    base = [numpy_ccc(half, "arousal") for half in halves]
    test = [numpy_ccc(one, "arousal") for one in found]
    row = rows(compare(tmp_path / "runs"), "### Beside the audio-free baseline")[1]
    cell = f"{np.mean(base):.4f} ± {np.std(base, ddof=1):.4f}"
    above = f"{np.mean(test) - np.mean(base):+.4f}"
    assert row == [
        "alpha",
        "arousal",
        f"{np.mean(test):.4f} ± {np.std(test, ddof=1):.4f}",
        cell,
        above,
        cell,
        cell,
        cell,
    ]


def test_experiments_with_different_dimensions_share_a_table(write_run: Write, tmp_path: Path) -> None:
    write_run("three", dimensions=("valence", "arousal", "dominance"), noise=2.0)
    write_run("two", noise=0.2)
    first, second = rows(compare(tmp_path / "runs"), "## iemocap")
    assert second[4] == "-"
    assert first[4] not in ("-", "n/a")
    assert second[2].startswith("**")  # valence is comparable
    assert not second[5].startswith("**")  # averages over other dimensions aren't


def test_every_run_is_listed_with_its_protocol(write_run: Write, tmp_path: Path) -> None:
    written = [write_run(fold=fold, best_epoch=fold % 3 + 1) for fold in (2, 1)]
    comparison = compare(tmp_path / "runs")
    listed = rows(comparison, "### Runs")
    assert [(row[1], row[-3], row[-1]) for row in listed] == [
        ("1", "2 of 3", f"`{written[1].directory.name}`"),
        ("2", "3 of 3", f"`{written[0].directory.name}`"),
    ]
    text = to_markdown(comparison)
    assert "- fold 1 of 5: tests on Ses01 (40 utterances)\n- fold 2 of 5: tests on Ses02 (44 utterances)" in text
    assert "### Notes on the corpus\n\n- a note" in text


def test_markdown_tables_are_rectangular_even_with_odd_values(write_run: Write, tmp_path: Path) -> None:
    write_run("odd", changes={"model.params.encoder_revision": "a|b"})
    write_run("odd", 2)
    write_run("three", 3, dimensions=("valence", "arousal", "dominance"), baseline=False, total=10_039)
    blocks = to_markdown(compare(tmp_path / "runs")).split("\n\n")
    tables = [block.splitlines() for block in blocks if block.startswith("| ")]
    assert len(tables) > 3
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1, table


@pytest.mark.parametrize("width", [80, 200])
def test_the_console_table_shows_every_experiment_and_warning(write_run: Write, tmp_path: Path, width: int) -> None:
    for fold in range(1, 6):
        write_run("alpha", fold, total=10_039)
    write_run("beta", 2, dimensions=("valence", "arousal", "dominance"), corpus="csv", corpus_name="mine[/bold]")
    write_run("alpha", 5, total=10_039)
    comparison = compare(tmp_path / "runs")
    console = Console(width=width, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(console_table(comparison))
    text = console.export_text()
    for wanted in ("alpha", "beta", "mine[/bold]", "0.5896", "was run 2 times", "† over part of the folds"):
        assert wanted in text
    for result in comparison.experiments:
        assert f"{result.test['valence'].mean:.4f}" in text
    assert max(map(len, text.splitlines())) <= width
    assert "epoch" in text


def test_the_content_depends_on_the_runs_alone(write_run: Write, tmp_path: Path) -> None:
    for fold in (3, 1, 2):
        for name in ("beta", "alpha"):
            write_run(name, fold)
    comparison = compare(tmp_path / "runs")
    shuffled = compare(
        [result.directory for experiment in reversed(comparison.experiments) for result in experiment.runs]
    )
    assert to_markdown(shuffled) == to_markdown(comparison)
    first = write_comparison(tmp_path / "runs").read_bytes()
    assert write_comparison(tmp_path / "runs").read_bytes() == first == to_markdown(comparison).encode()


def test_a_run_that_finishes_while_the_comparison_is_written_is_not_lost(
    write_run: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run("early")
    original, wrote = module.write_text, []

    def slow(path: Path, text: str) -> None:
        if not wrote:
            write_run("late")
        if path.name == COMPARISON:
            wrote.append(text)
        original(path, text)

    monkeypatch.setattr(module, "write_text", slow)
    text = write_comparison(tmp_path / "runs").read_text()
    assert "late" in text
    assert "late" not in wrote[0]
    assert len(wrote) == 2


def test_readers_never_see_half_a_comparison(write_run: Write, tmp_path: Path) -> None:
    write_run()
    path = write_comparison(tmp_path / "runs")
    whole, seen, stop = path.read_text(), set(), threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.add(path.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    writers = [threading.Thread(target=write_comparison, args=(tmp_path / "runs",)) for _ in range(5)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    stop.set()
    reader.join()
    assert seen == {whole}
    assert {child.name for child in path.parent.iterdir() if child.is_file()} == FILES


def test_reports_never_import_torch_or_draw_before_they_must() -> None:
    code = (
        "import sys, serfit.report.compare, serfit.report.plots, serfit.report.text, serfit.report.reference; "
        "print(sorted({'torch', 'transformers', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_environment_without_optional_keys_is_enough(write_run: Write, tmp_path: Path) -> None:
    directory = write_run().directory

    def strip(data: dict[str, object]) -> None:
        for key in ("encoder", "precision", "commit", "packages"):
            del data[key]
        del data["corpus"]["notes"]  # type: ignore[attr-defined]

    change_json(directory / ENVIRONMENT, strip)
    comparison = compare(tmp_path / "runs")
    assert comparison.warnings == ()
    assert "alpha" in to_markdown(comparison)
