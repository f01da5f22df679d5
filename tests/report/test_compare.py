"""A comparison as a document, a table for the terminal, and files."""

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

from report.reading import rows
from report.written import Written, change_json, numpy_ccc
from serfit.report import compare as module
from serfit.report.compare import (
    COMPARISON,
    COMPARISON_CSV,
    COMPARISON_LATEX,
    compare,
    console_table,
    to_markdown,
    write_comparison,
)
from serfit.runs.directory import CONFIG, ENVIRONMENT, FINISHED

Write = Callable[..., Written]
FILES = {COMPARISON, COMPARISON_CSV, COMPARISON_LATEX}


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
    assert "No difference to the reference for small: the published result was measured on 10,039 utterances" in text


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
    row = rows(compare(tmp_path / "runs"), "### Compared with the no-audio baseline")[1]
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
        "import sys, serfit.report.compare, serfit.report.drawing.plots, serfit.report.text, serfit.scores.reference; "
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
