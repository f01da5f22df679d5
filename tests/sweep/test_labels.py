"""Labels that were corrected between two `serfit cv`: what is finished, what is run again, and what goes together."""

import csv
import io
from pathlib import Path
from shutil import rmtree
from typing import Any

import pytest
import yaml
from rich.console import Console

from serfit.cli import main
from serfit.config.load import load_config
from serfit.corpus.audio import SAMPLE_RATE
from serfit.corpus.utterance import Corpus
from serfit.errors import UserError
from serfit.inference.source import runs_of_one_experiment
from serfit.report.compare import compare
from serfit.report.diagnosis.spread import experiments
from serfit.runs import directory as runs
from serfit.runs.live import Reader
from serfit.sweep.deliver import best_experiment
from serfit.sweep.plan import Job, on_present_labels, plan_jobs
from serfit.sweep.worker import Outcome
from serfit.system import counters
from serfit.system.log import Log
from serfit.training.experiment import run_experiment
from support import settings, tone

SPEAKERS, EACH = 6, 4


def write_labels(folder: Path, corrected: int = 0) -> None:
    """A CSV corpus of tones; the valence of so many utterances is corrected."""
    import soundfile

    rows = []
    for number in range(SPEAKERS * EACH):
        random = counters.generator("corrected", number)
        valence, arousal = random.uniform(size=2)
        path = folder / f"{number:02d}.wav"
        if not path.exists():
            soundfile.write(path, tone(arousal, valence, 0.3, random), SAMPLE_RATE)
        told = 1 + 4 * valence if number >= corrected else 5 - 4 * valence
        rows.append([path.name, f"speaker{number % SPEAKERS}", round(told, 3), round(1 + 4 * arousal, 3)])
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file", "who", "v", "a"], *rows])


@pytest.fixture
def config(tmp_path: Path) -> Path:
    write_labels(tmp_path)
    split = {"scheme": "grouped_kfold", "folds": 3, "group": "speaker"}
    table = {"path": "labels.csv", "audio": "file", "speaker": "who", "valence": "v", "arousal": "a"}
    scales = {"valence": [1, 5], "arousal": [1, 5]}
    plain: dict[str, Any] = settings(tmp_path, tmp_path, train__epochs=1)
    plain["data"] |= {"corpus": "csv", "table": table, "scales": scales, "split": split}
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(plain))
    return path


def planned(config: Path, *folds: int) -> tuple[tuple[Job, ...], list[str]]:
    corpora: dict[Path, Corpus] = {}
    return on_present_labels(plan_jobs([config], folds, (1,)), corpora)


def train(job: Job) -> Path:
    return run_experiment(
        load_config(job.config, job.overrides), Log(Console(file=io.StringIO())), directory=job.directory
    )


def test_a_run_on_labels_that_were_corrected_since_does_not_count(config: Path, tmp_path: Path) -> None:
    (old,), _ = planned(config, 1)
    train(old)
    assert planned(config, 1) == ((old,), [])
    write_labels(tmp_path, corrected=5)
    (again, second), (said,) = planned(config, 1, 2)
    assert (again.state, second.state) == ("new", "new")
    assert again.directory != old.directory
    assert "5 of 24 valence ratings differ" in said
    assert str(old.directory) in said
    train(again)
    train(second)
    (again, second), _ = planned(config, 1, 2)
    assert (again.state, second.state) == ("finished", "finished")
    comparison = compare(tmp_path / "runs")
    assert sorted(result.folds for result in comparison.experiments) == [(1,), (1, 2)]
    assert any("5 of 24 valence ratings differ" in line for line in comparison.warnings)
    assert runs_of_one_experiment(tmp_path / "runs") == sorted([again.directory, second.directory])
    histories = Reader().read([old.directory, again.directory, second.directory])
    assert sorted(len(group) for group in experiments(histories).values()) == [1, 2]
    best_experiment((again, second))
    with pytest.raises(UserError, match="5 of 24 valence ratings differ"):
        best_experiment((old, second))
    rmtree(again.directory)
    with pytest.raises(UserError, match="5 of 24 valence ratings differ"):
        runs_of_one_experiment(tmp_path / "runs")
    write_labels(tmp_path)
    (back,), _ = planned(config, 1)
    assert (back.directory, back.state) == (old.directory, "finished")


def test_cv_says_which_finished_runs_do_not_count_and_why(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (old,), _ = planned(config, 1)
    train(old)
    write_labels(tmp_path, corrected=5)
    monkeypatch.setattr("serfit.sweep.run.fill_stores", lambda jobs, slots: None)
    monkeypatch.setattr("serfit.sweep.run.run_sweep", lambda jobs, *_, **__: [Outcome(jobs[0], "failed", 1, "")])
    with pytest.raises(SystemExit):
        main(["cv", str(config), "--folds", "1", "--cpu"])
    said = " ".join(capsys.readouterr().out.split())
    assert "5 of 24 valence ratings differ" in said
    assert old.directory.name in said


def test_a_finished_run_of_an_older_version_is_checked_by_its_test_ratings(config: Path, tmp_path: Path) -> None:
    (old,), _ = planned(config, 1)
    train(old)
    (old.directory / runs.LABELS).unlink()
    path = old.directory / runs.ENVIRONMENT
    path.write_text(path.read_text().replace('"labels"', '"something else"'))
    assert planned(config, 1) == ((old,), [])
    write_labels(tmp_path, corrected=24)
    (again,), (said,) = planned(config, 1)
    assert again.state == "new"
    assert "its test ratings" in said


def test_without_the_corpus_finished_runs_count_and_that_is_said(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (old,), _ = planned(config, 1)
    train(old)
    (tmp_path / "labels.csv").unlink()
    (job,), (said,) = planned(config, 1)
    assert job == old
    assert "is unknown" in said
    with pytest.raises(UserError):
        planned(config, 1, 2)
    with pytest.raises(SystemExit) as caught:
        main(["cv", str(config), "--folds", "1-2"])
    assert caught.value.code == 2
    assert "labels.csv" in capsys.readouterr().err


def test_corpora_of_one_name_are_told_apart_whatever_the_fold(config: Path, tmp_path: Path) -> None:
    """Two corpora in files of one name, tested on disjoint parts: no number could show the difference."""
    (first, second), _ = planned(config, 1, 2)
    train(first)
    write_labels(tmp_path, corrected=1)
    train(second)
    comparison = compare(tmp_path / "runs")
    assert len(comparison.experiments) == 2
    assert len(comparison.warnings) == 1
