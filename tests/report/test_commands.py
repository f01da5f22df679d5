"""`serfit compare`, `serfit report` and `serfit baseline` on the command line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from report.written import SIZES, Written, part_predictions
from serfit.cli import main
from serfit.report import compare as module
from serfit.report.compare import COMPARISON, COMPARISON_CSV, COMPARISON_LATEX
from serfit.scores.records import Predictions
from support import config_file, small_release

Write = Callable[..., Written]


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return int(caught.value.code or 0)


def test_comparing_a_folder_answers_and_writes_three_files(
    write_run: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for fold in range(1, 6):
        write_run("good", fold, noise=0.3, described=True)
        write_run("bad", fold, noise=2.5, described=True)
    assert run("compare", tmp_path / "runs") == 0
    shown = capsys.readouterr().out
    assert "good against bad on iemocap (folds 1-5, 240 utterances, 10 speakers, 30 dialogues" in shown
    assert "better on average by" in shown
    written = {path.name for path in (tmp_path / "runs").iterdir() if path.is_file()}
    assert written == {COMPARISON, COMPARISON_CSV, COMPARISON_LATEX}


def test_two_dimensions_on_one_axis_get_one_line(
    write_run: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Several such experiments too, and none where predictions are as different as ratings."""
    write_run("apart", described=True)
    ordinary = part_predictions(1, 1, ("valence", "arousal"), 0.5, SIZES[0])
    mean = ordinary.targets.mean(axis=1, keepdims=True)
    flat = ordinary.values * 0.02 + mean * 0.98
    assert run("compare", tmp_path / "runs") == 0
    assert "one axis" not in capsys.readouterr().out
    for name in ("flat", "flatter"):
        write_run(name, predictions=Predictions(ordinary.ids, ordinary.dimensions, ordinary.targets, flat))
    assert run("compare", tmp_path / "runs") == 0
    (line,) = [one for one in capsys.readouterr().out.splitlines() if "one axis" in one]
    assert "flat, valence and arousal (r 1.00 in predictions, " in line
    assert "flatter, valence and arousal" in line
    assert "apart" not in line


def test_pairs_that_cannot_be_tested_share_one_warning(
    write_run: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for fold in range(1, 5):
        write_run(f"on{fold}", fold)
    assert run("compare", tmp_path / "runs") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.count("same test utterances") == 1
    assert "warning: 6 pairs of experiments on iemocap can't be tested" in shown
    assert "on1 and on2, on1 and on3, on1 and on4 and 3 more" in shown


def test_a_choice_of_runs_is_compared_without_touching_the_folder(
    write_run: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = [write_run(name, described=True).directory for name in ("one", "two")]
    write_run("three", described=True)
    assert run("compare", *chosen) == 0
    shown = capsys.readouterr().out
    assert "one" in shown
    assert "three" not in shown
    assert not [path for path in (tmp_path / "runs").iterdir() if path.is_file()]


def test_the_report_goes_beside_the_runs_or_where_it_is_told(write_run: Write, tmp_path: Path) -> None:
    directory = write_run("one").directory
    assert run("report", tmp_path / "runs") == 0
    assert (tmp_path / "runs" / "report.html").is_file()
    assert run("report", directory, "--output", tmp_path / "mine.html") == 0
    assert "one" in (tmp_path / "mine.html").read_text()
    assert run("report", directory) == 0
    assert not (directory / "report.html").exists()  # a finished run is never written again


@pytest.mark.parametrize("verb", ["compare", "report"])
def test_a_folder_that_is_not_there_is_a_sentence(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(verb, tmp_path / "nowhere") == 2
    assert "error: there is no folder" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["compare", "report"])
def test_a_folder_without_finished_runs_is_a_sentence_and_nothing_is_written(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(verb, tmp_path) == 2
    assert "error: there is no finished run to look at" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_baseline_is_one_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = small_release(tmp_path / "release", dialogues=1, turns=4)
    config = config_file(tmp_path / "tiny.yaml", root, tmp_path)
    assert run("baseline", "--config", config, "--fold", "2") == 0
    assert "test CCC V " in capsys.readouterr().out
    (directory,) = (tmp_path / "runs").glob("tiny_handmade_fold2_*")
    assert (directory / "FINISHED").is_file()
    raters = json.loads((directory / "scores.json").read_text())["raters_agreement"]
    assert raters["rater"]["valence"]["count"] == raters["system"]["valence"]["count"] == 3 * 4
    assert 0 < raters["rater"]["valence"]["ccc"] < 1
    assert "tiny_handmade" in (tmp_path / "runs" / COMPARISON).read_text()
    assert run("baseline", "--config", config, "--fold", "9") == 2


@pytest.mark.parametrize("verb", ["compare", "report"])
def test_a_comparison_is_computed_once_however_many_files_are_made_of_it(
    write_run: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    for name in ("one", "two"):
        write_run(name, described=True)
    weighed, looked_into = [], []
    weigh, look_into = module.weigh, module.look_into
    monkeypatch.setattr(module, "weigh", lambda found: weighed.append(1) or weigh(found))
    monkeypatch.setattr(module, "look_into", lambda found: looked_into.append(found.label) or look_into(found))
    assert run(verb, tmp_path / "runs") == 0
    assert len(weighed) == 1
    assert looked_into == ["one", "two"]


def test_a_page_for_each_experiment(write_run: Write, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_run(name, described=True)
    write_run("one", 2, described=True, changes={"train.epochs": 50})
    assert run("report", tmp_path / "runs", "--each") == 0
    pages = {path.name: path.read_text() for path in (tmp_path / "runs").glob("*.html")}
    alone = {"report_one_train.epochs=20.html", "report_one_train.epochs=50.html", "report_two.html"}
    assert pages.keys() == {"report.html", *alone}
    assert "<td>two</td>" in pages["report_two.html"]
    assert "<td>one" not in pages["report_two.html"]
    assert "Differences" not in pages["report_two.html"]
