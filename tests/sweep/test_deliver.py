"""Leaving with a model: which experiment, which epoch, and what the bundle says of itself."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import serfit
from serfit.config.load import load_config
from serfit.errors import UserError
from serfit.inference.bundle import read_bundle
from serfit.report.compare import read_run
from serfit.runs import directory as runs
from serfit.runs.finished import finished_directories
from serfit.sweep.deliver import best_experiment, check_delivery, deliver_ensemble, deliver_retrained, retraining
from serfit.sweep.plan import Job, plan_jobs
from serfit.system.log import Log
from serfit.training.experiment import run_experiment
from support import config_file, small_release


def done(job: Job) -> Path:
    config = load_config(job.config, job.overrides)
    return run_experiment(config, Log(Console(file=io.StringIO())), directory=job.directory)


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, ...]:
    folder = tmp_path_factory.mktemp("leave")
    release = small_release(folder / "iemocap")
    configs = [
        config_file(folder / "a.yaml", release, folder, experiment__name="a", train__epochs=3),
        config_file(
            folder / "b.yaml", release, folder, experiment__name="b", model__params__freeze_speech_encoder=True
        ),
    ]
    planned = plan_jobs(configs, folds=(1, 2), seeds=(1,))
    for job in planned:
        done(job)
    return planned


def test_the_experiment_with_the_best_mean_is_left_with(jobs: tuple[Job, ...]) -> None:
    chosen, words = best_experiment(jobs)
    means = {
        name: np.mean([read_run(job.directory).scores.test.average for job in jobs if f" {name} " in f" {job.name} "])
        for name in "ab"
    }
    best = max(means, key=lambda name: means[name])
    assert all(job.name.startswith(best) for job in chosen)
    assert len(chosen) == 2
    assert f"{means[best]:.4f}, against {min(means.values()):.4f}" in words
    assert "expect a little less" in words
    assert "expect" not in best_experiment(chosen)[1]


def test_the_ensemble_of_all_folds(jobs: tuple[Job, ...], tmp_path: Path) -> None:
    mine = [job for job in jobs if job.name.startswith("a")]
    deliver_ensemble(mine, tmp_path / "model")
    sound = np.random.default_rng(1).uniform(-1, 1, 8_000)
    again, several = serfit.load(tmp_path / "model"), serfit.load(*(job.directory for job in mine))
    assert again.predict(sound, rate=16_000).values == several.predict(sound, rate=16_000).values
    assert again.predict(sound, rate=16_000).spread
    deliver_ensemble(mine, tmp_path / "model")
    with pytest.raises(UserError, match="holds another model"):
        deliver_ensemble([job for job in jobs if job.name.startswith("b")], tmp_path / "model")


def test_one_network_trained_on_everything_for_the_median_best_epoch(jobs: tuple[Job, ...], tmp_path: Path) -> None:
    mine = [job for job in jobs if job.name.startswith("a")]
    epochs = sorted(read_run(job.directory).scores.best_epoch for job in mine)
    job = retraining(mine)
    assert f"train.stop_after={epochs[0]}" in job.overrides
    assert retraining(mine).directory == job.directory
    directory = done(job)
    records = (directory / runs.METRICS).read_text().splitlines()
    assert len(records) == epochs[0]
    assert not (directory / runs.PREDICTIONS).exists()
    deliver_retrained(job, mine, tmp_path / "model")
    check_delivery(jobs[::-1], None, tmp_path / "model")  # the same command again
    (member,) = read_bundle(tmp_path / "model")
    said = member.about.origin.cross_validation
    assert said is not None
    assert list(said.best_epochs) == [read_run(job.directory).scores.best_epoch for job in mine]
    reached = [read_run(job.directory).scores.test.average or 0.0 for job in mine]
    assert said.test_ccc["average"].mean == pytest.approx(np.mean(reached))
    assert np.isfinite(serfit.load(tmp_path / "model").predict(np.zeros(800), rate=16_000).valence)
    # and its run is in no table
    assert directory not in finished_directories(directory.parent)
    with pytest.raises(UserError, match="trained on everything, so it has no test scores"):
        read_run(directory)
    assert json.loads((directory / runs.SCORES).read_text())["test"]["ccc_average"] is None


def test_a_folder_that_is_taken_is_refused_before_anything_runs(jobs: tuple[Job, ...], tmp_path: Path) -> None:
    check_delivery(jobs, tmp_path / "new", tmp_path / "newer")
    check_delivery(jobs, None, None)
    with pytest.raises(UserError, match="name a folder for each"):
        check_delivery(jobs, tmp_path / "new", tmp_path / "other" / ".." / "new")
    (tmp_path / "file").touch()
    for taken in (tmp_path, tmp_path / "file"):
        with pytest.raises(UserError, match="exists already"):
            check_delivery(jobs, taken, None)
    mine, others = (tuple(job for job in jobs if job.name.startswith(name)) for name in "ab")
    deliver_ensemble(mine, tmp_path / "model")
    check_delivery(jobs, tmp_path / "model", None)  # the same command again
    for theirs, ensemble, retrain in ((others, "model", None), (jobs, None, "model")):
        with pytest.raises(UserError, match="exists already"):
            check_delivery(theirs, ensemble and tmp_path / ensemble, retrain and tmp_path / retrain)


def test_a_writer_that_was_killed_stands_in_nobodys_way(jobs: tuple[Job, ...], tmp_path: Path) -> None:
    (tmp_path / "model" / ".partial").mkdir(parents=True)
    (tmp_path / "model" / ".partial" / "model.safetensors").write_bytes(b"half")
    check_delivery(jobs, tmp_path / "model", None)
    deliver_ensemble(jobs[:2], tmp_path / "model")
    assert len(read_bundle(tmp_path / "model")) == 2
    assert sorted(path.name[0] for path in (tmp_path / "model").iterdir()) == list("mmms")


def test_scores_of_different_things_choose_no_model(jobs: tuple[Job, ...], tmp_path: Path) -> None:
    other = tmp_path / "one.yaml"
    other.write_text(jobs[0].config.read_text().replace("data:\n", "data:\n  dimensions: [valence]\n"))
    mixed = (*jobs, *plan_jobs([other], folds=(1, 2), seeds=(1,)))
    check_delivery(mixed, None, None)
    with pytest.raises(UserError, match="differ in corpus, dimensions or split"):
        check_delivery(mixed, tmp_path / "model", None)
