"""Scheduling: who runs when and where, what is repeated, what is left behind.

Runs are stand-ins (benchmarks/engines/fake_serfit.py).
"""

import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from serfit.cli import main
from serfit.errors import UserError
from serfit.sweep.engines import _has_token, _on_worker
from serfit.sweep.plan import Job, numbers, plan_jobs
from serfit.sweep.run import run_sweep
from serfit.sweep.slots import Slots, held
from serfit.sweep.worker import run_job
from support import FOR_EVER, PATIENCE, config_file, eventually, is_gone, small_release

FAKE = (sys.executable, str(Path(__file__).parents[2] / "benchmarks" / "engines" / "fake_serfit.py"))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "deaths").mkdir()
    monkeypatch.setenv("FAKE_JOURNAL", str(tmp_path / "journal"))
    monkeypatch.setenv("FAKE_DEATHS", str(tmp_path / "deaths"))
    monkeypatch.setenv("FAKE_SECONDS", "0.4")
    with tempfile.TemporaryDirectory(prefix="s") as short:  # Ray puts sockets there, whose names must be short
        monkeypatch.setenv("TMPDIR", short)
        monkeypatch.setattr("tempfile.tempdir", None)
        yield tmp_path


def jobs(world: Path, count: int) -> list[Job]:
    return [
        Job(f"run {number}", Path("none.yaml"), (), world / "runs" / f"run{number}", program=FAKE)
        for number in range(count)
    ]


def journal(world: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (world / "journal").read_text().splitlines()]


def most_at_once(events: list[dict[str, Any]]) -> int:
    running = most = 0
    for event in sorted(events, key=lambda event: event["time"]):
        running += 1 if event["event"] == "start" else -1
        most = max(most, running)
    return most


def sweep(todo: list[Job], slots: Slots, **options: Any) -> list[str]:
    outcomes = run_sweep(todo, slots, Console(file=io.StringIO()), **options)
    return sorted(outcome.fate for outcome in outcomes)


def test_inline_runs_one_after_another_and_repeats_nothing(world: Path) -> None:
    todo = jobs(world, 3)
    assert sweep(todo, Slots()) == ["finished"] * 3
    assert most_at_once(journal(world)) == 1
    assert sweep(todo, Slots()) == []
    assert len(journal(world)) == 6


def test_a_run_that_dies_goes_on_and_one_that_errs_does_not(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_ERROR", "run1")
    (world / "deaths" / "one").touch()
    shown = io.StringIO()
    outcomes = run_sweep(jobs(world, 3), Slots(), Console(file=shown))
    assert [outcome.fate for outcome in outcomes] == ["finished", "failed", "finished"]
    assert "error: this configuration is wrong; mend it" in shown.getvalue()
    starts = [(event["run"], event["resumed"]) for event in journal(world) if event["event"] == "start"]
    assert starts == [("run0", False), ("run0", True), ("run1", False), ("run2", False)]


def test_a_run_that_another_sweep_runs_is_waited_for(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both were planned before either began; whoever comes second finds the run finished."""
    monkeypatch.setenv("FAKE_SECONDS", "1.5")
    (job,) = jobs(world, 1)
    with ThreadPoolExecutor(2) as pool:
        fates = [found.result().fate for found in [pool.submit(run_job, job, os.environ) for _ in range(2)]]
    assert fates == ["finished"] * 2
    assert len([event for event in journal(world) if event["event"] == "start"]) == 1
    assert [path.name for path in (world / "runs").iterdir()] == ["run0"]


def test_a_run_is_started_again_three_times(world: Path) -> None:
    for number in range(5):
        (world / "deaths" / str(number)).touch()
    (job,) = jobs(world, 1)
    outcome = run_job(job, os.environ)
    assert (outcome.fate, outcome.code) == ("died", -9)
    assert len([event for event in journal(world) if event["event"] == "start"]) == 1 + 3


def test_asked_to_stop_a_run_saves_itself(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_SECONDS", "8")  # after every quarter of which it looks whether it was asked to stop
    (job,) = jobs(world, 1)
    outcome = run_job(job, os.environ, stopped=lambda: (job.directory / "config.json").exists())
    assert outcome.fate == "interrupted"
    assert job.state == "unfinished"
    monkeypatch.setenv("FAKE_SECONDS", "0.1")
    assert run_job(job, os.environ).fate == "finished"


def test_a_run_that_is_stopped_before_it_can_listen_has_not_died(world: Path) -> None:
    (job,) = jobs(world, 1)
    assert run_job(job, os.environ, stopped=lambda: True).fate == "interrupted"
    assert not (world / "journal").exists()


def test_a_gpu_is_never_shared_between_launches(world: Path) -> None:
    with held(["0", "1"]):
        code = (
            "import sys\nfrom pathlib import Path\nfrom serfit.sweep.slots import held\nprint('asks', flush=True)\n"
            "with held(['1']):\n    Path(sys.argv[1]).touch()\n"
        )
        command = [sys.executable, "-c", code, str(world / "held")]
        other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
        assert other.stdout is not None
        assert other.stdout.readline() == "asks\n"
        time.sleep(1.0)
        assert not (world / "held").exists()
    other.communicate(timeout=PATIENCE)
    assert (world / "held").exists()


def test_a_killed_driver_leaves_no_run_behind(world: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom serfit.sweep.plan import Job\n"
        "from serfit.sweep.worker import run_job\nimport os\n"
        f"run_job(Job('x', Path('x'), (), Path({str(world / 'runs' / 'x')!r}), program={FAKE!r}), os.environ)\n"
    )
    environment = dict(os.environ) | {"FAKE_SECONDS": str(FOR_EVER)}
    driver = subprocess.Popen([sys.executable, "-c", code], env=environment)
    eventually(lambda: (world / "journal").exists() and journal(world))
    (start,) = journal(world)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    eventually(lambda: is_gone(start["pid"]))


@pytest.mark.slow
@pytest.mark.extra("ray")
def test_ray_keeps_to_its_slots_and_survives_deaths(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_SECONDS", "1.0")
    for number in range(2):
        (world / "deaths" / str(number)).touch()
    todo = jobs(world, 5)
    assert sweep(todo, Slots(count=2)) == ["finished"] * 5
    events = journal(world)
    ends = {event["run"] for event in events if event["event"] == "end"}
    assert ends == {f"run{number}" for number in range(5)}
    deaths = len([event for event in events if event["event"] == "start"]) - 5
    assert deaths == 2
    lasting = [
        event
        for event in events
        if event["event"] == "start"
        and any(other["event"] == "end" and other["pid"] == event["pid"] for other in events)
    ]
    pids = {event["pid"] for event in lasting}
    assert most_at_once([event for event in events if event["pid"] in pids]) <= 2
    assert sweep(todo, Slots(count=2)) == []


def test_a_plan_names_directories_that_a_repetition_finds_again(tmp_path: Path) -> None:
    release = small_release(tmp_path / "iemocap", dialogues=1, turns=2)
    one = config_file(tmp_path / "one.yaml", release, tmp_path)
    two = config_file(tmp_path / "two.yaml", release, tmp_path, train__epochs=3)
    plan = plan_jobs([one, two], [1, 2], [1, 2])
    assert len({job.directory for job in plan}) == 8
    assert [job.directory for job in plan_jobs([one, two], [1, 2], [1, 2])] == [job.directory for job in plan]
    assert all(job.directory.name.startswith(("tiny_fold1_seed", "tiny_fold2_seed")) for job in plan)
    with pytest.raises(UserError, match="are the same experiment"):
        plan_jobs([one, one], [1], [1])


@pytest.mark.parametrize("text", ["", "a", "3-1", "1,,2", "1-2,2", "1-", "²"])
def test_numbers_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"--folds is"):
        numbers(text, "--folds")


def test_folds_of_a_run_on_everything_are_refused(tmp_path: Path) -> None:
    config = config_file(tmp_path / "e.yaml", small_release(tmp_path / "r"), tmp_path, data__split__scheme="everything")
    with pytest.raises(UserError, match="no folds to test on"):
        plan_jobs([config], folds=(1,), seeds=(1,))


@pytest.mark.extra("ray")
def test_a_worker_of_a_cluster_runs_where_the_launch_stands(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.get_gpu_ids", list)
    monkeypatch.chdir(world.parent)
    job = Job("run 0", Path("none.yaml"), (), Path("runs") / "run0", program=FAKE)
    assert _on_worker(job, (), world).fate == "finished"
    assert (world / "runs" / "run0" / "FINISHED").is_file()
    lost = _on_worker(job, (), world / "nowhere")
    assert (lost.fate, "must be shared" in lost.words) == ("failed", True)


def test_a_token_for_ray_is_found_where_ray_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert not _has_token({})
    assert _has_token({"RAY_AUTH_TOKEN": "a"})
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").touch()
    assert _has_token({})


@pytest.mark.slow
def test_what_cannot_be_written_to_is_a_sentence_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    release = small_release(tmp_path / "r")
    for key, said in (("experiment.runs_dir", "can't write to"), ("features.store", "can't create the store")):
        config = config_file(tmp_path / "c.yaml", release, tmp_path)
        with pytest.raises(SystemExit) as caught:
            main(["cv", str(config), "--folds", "1", f"{key}={tmp_path / 'file' / 'inside'}"])
        assert caught.value.code == 2
        error = capsys.readouterr().err
        assert said in error
        assert key in error


def test_a_fold_too_many_is_told_before_the_others_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = config_file(tmp_path / "c.yaml", small_release(tmp_path / "r"), tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["cv", str(config), "--folds", "1-6"])
    assert caught.value.code == 2
    assert "fold is 6; it must be 1 to 5" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_killed_while_the_store_is_filled_nothing_goes_on(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom serfit.sweep.run import _prepare\n"
        "_prepare([sys.executable, '-c', 'import os, time; print(os.getpid(), flush=True); time.sleep(10_000)'], "
        "())"
    )
    driver = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    child = int(driver.stdout.readline())
    driver.kill()
    driver.wait()
    eventually(lambda: is_gone(child))


@pytest.mark.slow
def test_two_cross_validations_in_one_folder_at_once_both_succeed(tmp_path: Path) -> None:
    config = config_file(tmp_path / "c.yaml", small_release(tmp_path / "r"), tmp_path, train__epochs=1)
    command = [sys.executable, "-m", "serfit", "cv", str(config), "--folds", "1-2", "--slots", "1"]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path)
        for _ in range(2)
    ]
    said = [one.communicate(timeout=PATIENCE)[0] for one in both]
    assert [one.returncode for one in both] == [0, 0], said
    assert not any("failed" in text or "Traceback" in text for text in said), said
    names = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert not [name for name in names if name.startswith(".")], names
    assert len([name for name in names if name.startswith("tiny_fold")]) == 2
