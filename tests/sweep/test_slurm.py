"""The Slurm engine: what is submitted, what is waited for, what is submitted again.

Slurm and the runs are stand-ins (benchmarks/engines/fake_slurm.py, fake_serfit.py); rows S1 to S5 there have the same
on a real Slurm.
"""

import json
import os
import re
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serfit.cli import main
from serfit.errors import UserError
from serfit.sweep import slurm
from serfit.sweep.node import run_on_node
from serfit.sweep.plan import Job
from serfit.sweep.queue import FOLDER, RUNS, Element, queue
from serfit.sweep.slurm import OURS, on_slurm, slurm_options
from support import config_file, eventually, small_release

STAND_INS = Path(__file__).parents[2] / "benchmarks" / "engines"
FAKE = (sys.executable, str(STAND_INS / "fake_serfit.py"))
COMMANDS = ("sbatch", "squeue", "scancel", "scontrol", "srun")

needs_submitit = pytest.mark.extra("slurm")


def never() -> bool:
    return False


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cluster of stand-ins; whatever still runs on it at the end is killed."""
    programs, state = tmp_path / "bin", tmp_path / "slurm"
    programs.mkdir()
    state.mkdir()
    for name in COMMANDS:
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{STAND_INS / "fake_slurm.py"}" {name} "$@"\n')
        program.chmod(0o755)
    (tmp_path / "deaths").mkdir()
    for key, value in {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "FAKE_SLURM": str(state),
        "FAKE_JOURNAL": str(tmp_path / "journal"),
        "FAKE_DEATHS": str(tmp_path / "deaths"),
        "FAKE_SECONDS": "0.4",
    }.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(slurm, "POLL", 0.2)
    yield tmp_path
    for pid in state.glob("*.pid"):
        os.killpg(int(pid.read_text()), signal.SIGKILL)


def jobs(cluster: Path, count: int) -> list[Job]:
    return [
        Job(f"run {number}", Path("none.yaml"), (), cluster / "runs" / f"run{number}", program=FAKE)
        for number in range(count)
    ]


def journal(cluster: Path) -> list[dict[str, Any]]:
    path = cluster / "journal"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def starts(cluster: Path) -> list[tuple[str, bool]]:
    return [(event["run"], event["resumed"]) for event in journal(cluster) if event["event"] == "start"]


def most_at_once(events: list[dict[str, Any]]) -> int:
    running = most = 0
    for event in sorted(events, key=lambda event: event["time"]):
        running += 1 if event["event"] == "start" else -1
        most = max(most, running)
    return most


def script(cluster: Path, job: int = 1) -> str:
    return (cluster / "slurm" / f"{job}.sh").read_text()


def submissions(cluster: Path) -> int:
    return len(list((cluster / "slurm").glob("*.sh")))


@needs_submitit
def test_an_array_keeps_to_its_slots_and_leaves_nothing(cluster: Path) -> None:
    todo = jobs(cluster, 4)
    options = slurm_options(["time=12:00:00", "partition=gpu", "cpus_per_task=4", "exclusive"])
    outcomes = list(on_slurm(todo, never, most=2, per_run=3, options=options))
    assert {outcome.job.name for outcome in outcomes} == {job.name for job in todo}
    assert {outcome.fate for outcome in outcomes} == {"finished"}
    assert most_at_once(journal(cluster)) == 2
    assert not (cluster / "runs" / FOLDER).exists()
    flags = set(re.findall(r"^#SBATCH --(.*)$", script(cluster), re.MULTILINE))
    assert {"array=0-3%2", "time=12:00:00", "partition=gpu", "cpus-per-task=4", "exclusive", "gpus-per-node=3"} <= flags
    assert {"job-name=serfit", "requeue", "nodes=1", "signal=USR2@90"} <= flags
    assert not [flag for flag in flags if flag.startswith("wckey")]
    assert "--cpus-per-task=4" in script(cluster).partition("srun")[2]


@needs_submitit
def test_a_run_whose_machine_dies_goes_on_and_one_that_errs_does_not(
    cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_ERROR", "run1")
    (cluster / "deaths" / "one").touch()
    ends = on_slurm(jobs(cluster, 2), never, most=1, per_run=3, options=slurm_options(["gres=gpu:a100:1"]))
    outcomes = {outcome.job.name: outcome for outcome in ends}
    assert [outcomes[name].fate for name in ("run 0", "run 1")] == ["finished", "failed"]
    assert outcomes["run 1"].words == "error: this configuration is wrong; mend it"
    assert sorted(starts(cluster)) == [("run0", False), ("run0", True), ("run1", False)]
    assert re.findall(r"^#SBATCH --(g(?:pus|res).*|time.*)$", script(cluster), re.MULTILINE) == ["gres=gpu:a100:1"]


@needs_submitit
def test_a_run_is_submitted_again_so_many_times(cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "RETRIES", 1)
    for number in range(4):
        (cluster / "deaths" / str(number)).touch()
    (outcome,) = on_slurm(jobs(cluster, 1), never)
    assert outcome.fate == "died"
    assert len(starts(cluster)) == submissions(cluster) == 2


@needs_submitit
@pytest.mark.parametrize("requeues", [True, False])
def test_before_its_time_limit_a_run_saves_itself_and_goes_on(
    cluster: Path, monkeypatch: pytest.MonkeyPatch, requeues: bool
) -> None:
    if not requeues:
        (cluster / "slurm" / "final").touch()
    monkeypatch.setenv("FAKE_SECONDS", "1")
    done = cluster / "runs" / "run0" / "done"

    def signal_it() -> None:
        eventually(done.exists)
        os.system("scancel --signal=USR2 1")

    thread = threading.Thread(target=signal_it)
    thread.start()
    (outcome,) = on_slurm(jobs(cluster, 1), never)
    thread.join()
    assert outcome.fate == "finished"
    assert starts(cluster) == [("run0", False), ("run0", True)]
    assert submissions(cluster) == (1 if requeues else 2)


@needs_submitit
def test_two_launches_at_once_submit_each_run_once(cluster: Path) -> None:
    launches = [threading.Thread(target=lambda: list(on_slurm(jobs(cluster, 2), never))) for _ in range(2)]
    for launch in launches:
        launch.start()
    for launch in launches:
        launch.join()
    assert sorted(starts(cluster)) == [("run0", False), ("run1", False)]
    assert submissions(cluster) == 1


@pytest.mark.slow
@needs_submitit
def test_a_repeated_launch_submits_no_run_twice(cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_SECONDS", "1")

    class Crash(Exception):
        pass

    def crash() -> None:
        if len(journal(cluster)) > 1:
            raise Crash

    with pytest.raises(Crash):
        list(on_slurm(jobs(cluster, 3), never, most=1, wait=crash))
    todo = [job for job in jobs(cluster, 4) if job.state != "finished"]
    assert {outcome.fate for outcome in on_slurm(todo, never, most=2)} == {"finished"}
    assert {job.state for job in jobs(cluster, 4)} == {"finished"}
    assert sorted(starts(cluster)) == [(f"run{number}", False) for number in range(4)]
    assert submissions(cluster) == 2
    assert most_at_once(journal(cluster)) <= 2


@pytest.mark.slow
@needs_submitit
def test_asked_to_stop_it_cancels_everything(cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_SECONDS", "4")
    todo = jobs(cluster, 3)
    outcomes = list(on_slurm(todo, lambda: len(journal(cluster)) > 1, most=2))
    assert [outcome.fate for outcome in outcomes] == ["interrupted"] * 3
    assert [job.state for job in todo] == ["unfinished", "unfinished", "new"]
    assert not any(element.alive for element in queue() or [])
    assert {event["event"] for event in journal(cluster)[-2:]} == {"end"}
    monkeypatch.setenv("FAKE_SECONDS", "0.1")
    assert [outcome.fate for outcome in on_slurm(todo, never)] == ["finished"] * 3


@needs_submitit
def test_what_is_cancelled_by_hand_stays_cancelled(cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_SECONDS", "8")

    def cancel_both() -> None:
        eventually(lambda: (cluster / "runs" / "run0" / "config.json").exists())
        os.system("scancel 1_1 1_0")

    thread = threading.Thread(target=cancel_both)
    thread.start()
    outcomes = list(on_slurm(jobs(cluster, 2), never, most=1))
    thread.join()
    assert [outcome.fate for outcome in outcomes] == ["interrupted"] * 2
    assert submissions(cluster) == 1


@needs_submitit
def test_a_silent_slurm_is_waited_for_but_nothing_is_submitted_blindly(cluster: Path) -> None:
    silent = cluster / "slurm" / "silent"

    def hush() -> None:
        if len(starts(cluster)) == 1 and not silent.exists():
            silent.touch()
            threading.Timer(1.5, silent.unlink).start()

    (outcome,) = on_slurm(jobs(cluster, 1), never, wait=hush)
    assert outcome.fate == "finished"
    assert len(starts(cluster)) == 1
    silent.touch()
    with pytest.raises(UserError, match="squeue doesn't answer"):
        list(on_slurm(jobs(cluster, 2), never))


@needs_submitit
def test_a_refusal_is_told_in_slurms_words(cluster: Path) -> None:
    (cluster / "slurm" / "refuse").touch()
    with pytest.raises(UserError, match=r"Slurm refuses .*Invalid partition name specified.*--slurm"):
        list(on_slurm(jobs(cluster, 2), never))
    assert not list((cluster / "runs" / FOLDER).glob(f"*/{RUNS}"))


def test_a_time_limit_shorter_than_the_start_is_an_error_not_a_circle(cluster: Path) -> None:
    code = "import os, signal, time; os.kill(os.getppid(), signal.SIGUSR2); time.sleep(10_000)"  # before it can listen
    job = Job("x", Path("x"), (), cluster / "runs" / "x", program=(sys.executable, "-c", code))
    note = cluster / "note.json"
    run_on_node(job, note)
    noted = json.loads(note.read_text())
    assert (noted["fate"], noted["words"][:18]) == ("failed", "the time limit cam")
    assert not list((cluster / "slurm").glob("*.requeue"))


@pytest.mark.parametrize(
    ("state", "alive"),
    [
        *((state, True) for state in ("PENDING", "RUNNING", "COMPLETING", "REQUEUE_HOLD", "SUSPENDED")),
        *((state, False) for state in ("COMPLETED", "NODE_FAIL", "TIMEOUT", "PREEMPTED", "CANCELLED")),
    ],
)
def test_a_state_that_a_job_comes_back_from_is_alive(state: str, alive: bool) -> None:
    assert Element("1_2", state, Path("f"), Path("r")).alive is alive


@given(st.dictionaries(st.from_regex(r"[a-z]+(-[a-z]+)*", fullmatch=True), st.text("a=:/,%1 ", min_size=1), max_size=3))
@settings(max_examples=30)
def test_options_are_kept_as_they_are_given(options: dict[str, str]) -> None:
    wanted = {key: value for key, value in options.items() if key not in OURS}
    assert slurm_options([f"{key}={value}" for key, value in wanted.items()]) == wanted


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["=1"], "takes a long option of sbatch"),
        (["time="], "takes a long option of sbatch"),
        (["-p=gpu"], "takes a long option of sbatch"),
        (["time=1\n#SBATCH --array=1"], "takes a long option of sbatch"),
        (["array=1-5"], "set by serfit itself"),
        (["job_name=x"], "set by serfit itself"),
        (["time=1", "--time=2"], "names time twice"),
    ],
)
def test_options_that_are_none_are_refused(given: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        slurm_options(given)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--engine", "slurm"], "there is no sbatch on this machine"),
        (["--engine", "slurm", "--gpus", "0"], "--gpus names GPUs of this machine"),
        (["--engine", "slurm", "--address", "auto"], "--address is a Ray cluster's"),
        (["--slurm", "time=1"], "--slurm is for --engine slurm"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    release = small_release(tmp_path / "iemocap", dialogues=1, turns=2)
    config = config_file(tmp_path / "tiny.yaml", release, tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["cv", str(config), *arguments])
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


def test_submitit_is_missed_in_one_sentence(cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="uv sync --extra slurm"):
        list(on_slurm(jobs(cluster, 1), never))
