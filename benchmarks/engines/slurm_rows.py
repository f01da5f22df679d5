"""Rows S1 to S8: the Slurm engine on a machine that slurm_here.sh has made a cluster of one node with two CPUs."""

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from world import HERE, Event, alive, jobs, journal, most_at_once, never, restarted, spans, world

from serfit.runs import directory as runs
from serfit.sweep.queue import queue_now
from serfit.sweep.slurm import on_slurm
from serfit.sweep.worker import RETRIES

NO_GPU = {"gpus-per-node": "0"}

DRIVER = """
import io, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from rich.console import Console
from world import jobs
from serfit.system.interrupt import Interrupted
from serfit.sweep.run import run_sweep
from serfit.sweep.slots import Slots
console = Console(file=io.StringIO())
try:
    todo = jobs(Path(sys.argv[2]), int(sys.argv[3]))
    run_sweep(todo, Slots(count=2), console, engine="slurm", slurm={"gpus-per-node": "0"})
except Interrupted as stopped:
    sys.exit(stopped.exit_code)
"""
"""A launch of its own: where benchmarks/engines is, folder, number of runs."""

RESULTS = (
    *(runs.METRICS, runs.PREDICTIONS, runs.SCORES, runs.BEST_RESULT),
    *(runs.BEST_WEIGHTS, runs.BEST_VALENCE_WEIGHTS),
)


def driver(folder: Path, count: int) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", DRIVER, str(HERE), str(folder), str(count)]
    return subprocess.Popen(command, start_new_session=True)


def until(true: Callable[[], bool], seconds: float = 120.0) -> None:
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends, "it took too long"
        time.sleep(0.1)


def so_far(folder: Path) -> list[Event]:
    return journal(folder) if (folder / "journal").exists() else []


def started(folder: Path) -> int:
    return sum(event["event"] == "start" for event in so_far(folder))


def s1(options: argparse.Namespace) -> str:
    said = []
    for most in (1, None):
        with world(2.0) as folder:
            outcomes = list(on_slurm(jobs(folder, 5), never, most=most, options=NO_GPU))
            at_once = most_at_once([(start, end, 1) for start, end, _ in spans(journal(folder))])
            finished = sum(outcome.fate == "finished" for outcome in outcomes)
            asked = "no --slots on two processors" if most is None else f"--slots {most}"
            said.append(f"{asked}: {finished} of 5 finished, at most {at_once} at a time")
    return "; ".join(said)


def s2(options: argparse.Namespace) -> str:
    sys.path.insert(0, str(HERE.parents[1] / "tests"))
    from support import config_file, small_release

    with world(0.0) as folder:
        release = small_release(folder / "iemocap")
        found: dict[str, dict[str, dict[str, bytes]]] = {}
        for engine, more in (("inline", ()), ("slurm", ("--slots", "2", "--slurm", "gpus-per-node=0"))):
            (folder / engine).mkdir()
            config = config_file(folder / f"{engine}.yaml", release, folder / engine, train__epochs=40)
            command = [sys.executable, "-m", "serfit", "cv", str(config), "--folds", "1-2", "--engine", engine, *more]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            sent = _signals(folder / engine / "runs", epochs=(3, 20)) if engine == "slurm" else 0
            assert process.wait() == 0
            found[engine] = {
                run.name: {name: (run / name).read_bytes() for name in RESULTS if (run / name).exists()}
                for run in sorted((folder / engine / "runs").glob("tiny_fold*"))
            }
        files = sum(len(results) for results in found["slurm"].values())
        same = sum(
            found["slurm"][run][name] == data
            for run, results in found["inline"].items()
            for name, data in results.items()
        )
        said = "".join(path.read_text() for path in (folder / "slurm" / "runs").glob("tiny_fold*/train.log"))
    return (
        f"2 runs, {sent} signals, {said.count('Interrupted: ')} times saved and requeued; "
        f"{same} of {files} files of results the same bytes as inline"
    )


def _signals(folder: Path, epochs: tuple[int, ...]) -> int:
    """Send each job SIGUSR2, as Slurm does before a time limit, whenever its run has got so far."""
    sent = 0
    for epoch in epochs:
        for fold in (1, 2):

            def far(fold: int = fold, epoch: int = epoch) -> bool:
                found = list(folder.glob(f"tiny_fold{fold}_*/metrics.jsonl"))
                return bool(found) and len(found[0].read_text().splitlines()) >= epoch

            until(far, 300.0)
            (job,) = [job for job in queue_now() if job.alive and f"fold{fold}_" in job.run.name]
            sent += subprocess.run(["scancel", "--signal=USR2", job.id]).returncode == 0
    return sent


def s3(options: argparse.Namespace) -> str:
    with world(20.0) as folder:
        process = driver(folder, 5)
        until(lambda: started(folder) == 2)
        os.kill(process.pid, signal.SIGINT)
        asked = time.monotonic()
        code = process.wait()
        took = time.monotonic() - asked
        processes = sum(alive(event["pid"]) for event in journal(folder))
        left = [element for element in queue_now() if element.alive and element.run.is_relative_to(folder.resolve())]
        os.environ["FAKE_SECONDS"] = "1"
        again = driver(folder, 5).wait()
        finished = len(list((folder / "runs").glob("*/FINISHED")))
        resumed = sum(event["event"] == "start" and event["resumed"] for event in journal(folder))
    return (
        f"exit code {code} after {took:.0f} s, {len(left)} jobs and {processes} processes left; "
        f"repeated: exit code {again}, {finished} of 5 finished, {resumed} of them resumed"
    )


def s4(options: argparse.Namespace) -> str:
    with world(4.0) as folder:
        process = driver(folder, 6)
        until(lambda: (folder / "journal").exists() and any(event["event"] == "end" for event in journal(folder)))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        queued = sum(element.alive for element in queue_now() if element.run.is_relative_to(folder.resolve()))
        submissions = len(list((folder / "runs" / ".slurm").glob("*/runs.json")))
        again = driver(folder, 6)
        until(lambda: again.poll() is not None or started(folder) == 6)
        submissions_again = len(list((folder / "runs" / ".slurm").glob("*/runs.json"))) - submissions
        code = again.wait()
        events = journal(folder)
        most = most_at_once([(start, end, 1) for start, end, _ in spans(events)])
        begun = sum(event["event"] == "start" for event in events)
        finished = len(list((folder / "runs").glob("*/FINISHED")))
    return (
        f"{queued} jobs outlived the driver; repeated: exit code {code}, {submissions_again} submitted again, "
        f"{finished} of 6 finished, {begun - 6} begun twice, {restarted(events)} finished ones repeated, "
        f"at most {most} at a time"
    )


def s5(options: argparse.Namespace) -> str:
    with world(600.0) as folder:
        os.environ["FAKE_ERROR"] = "run1"
        killer = threading.Thread(target=_kill_on_the_node, args=(folder, "run0", 1 + RETRIES))
        killer.start()
        fates = [f"{outcome.job.name} {outcome.fate}" for outcome in on_slurm(jobs(folder, 2), never, options=NO_GPU)]
        killer.join()
        del os.environ["FAKE_ERROR"]
        starts = [event["run"] for event in journal(folder) if event["event"] == "start"]
    return (
        f"killed {1 + RETRIES} times: run 0 begun {starts.count('run0')} times; run 1, which errs, "
        f"{starts.count('run1')}; {', '.join(sorted(fates))}"
    )


def _kill_on_the_node(folder: Path, run: str, times: int) -> None:
    """Kill what started a run, so that nobody is left who could say what became of it."""
    for number in range(1, times + 1):
        until(lambda number=number: sum(event["run"] == run for event in so_far(folder)) == number)
        pid = [event["pid"] for event in so_far(folder) if event["run"] == run][-1]
        parent = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        os.kill(parent, signal.SIGKILL)


def s6(options: argparse.Namespace) -> str:
    with world(100.0) as folder:
        (outcome,) = on_slurm(jobs(folder, 1), never, options={**NO_GPU, "time": "2"})
        events = journal(folder)
        begun = [event for event in events if event["event"] == "start"]
        submitted = {event["time"]: event["resumed"] for event in begun}
        lasted = [event["time"] - start["time"] for start, event in zip(events[::2], events[1::2], strict=True)]
    return (
        f"a run of 100 s under a limit of 2 minutes, warned 90 s before: {outcome.fate}, {len(begun)} starts, "
        f"{sum(submitted.values())} of them resumed, which lasted {', '.join(f'{seconds:.0f} s' for seconds in lasted)}"
    )


def s7(options: argparse.Namespace) -> str:
    """To Slurm the node is lost: it requeues the jobs and lets the node's daemon kill what runs there."""
    with world(8.0) as folder:
        process = driver(folder, 4)
        until(lambda: started(folder) == 2)
        node = os.uname().nodename.partition(".")[0]
        subprocess.run(["scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=row S7"], check=True)
        time.sleep(2.0)
        subprocess.run(["scontrol", "update", f"NodeName={node}", "State=RESUME"], stderr=subprocess.DEVNULL)
        code = process.wait()
        events = journal(folder)
        begun = sum(event["event"] == "start" for event in events)
        finished = len(list((folder / "runs").glob("*/FINISHED")))
    return (
        f"node down under 2 of 4 runs: exit code {code}, {finished} of 4 finished, {begun - 4} begun twice, "
        f"{restarted(events)} finished ones repeated"
    )


def s8(options: argparse.Namespace) -> str:
    with world(8.0) as folder:
        process = driver(folder, 3)
        until(lambda: started(folder) == 2)
        urgent = ["sbatch", "--partition=urgent", "--ntasks=2", "--output=/dev/null", "--wrap=sleep 5"]
        subprocess.run(urgent, check=True, stdout=subprocess.DEVNULL)
        code = process.wait()
        events = journal(folder)
        begun = [event for event in events if event["event"] == "start"]
        finished = len(list((folder / "runs").glob("*/FINISHED")))
    return (
        f"2 of 3 runs preempted by an urgent job: exit code {code}, {finished} of 3 finished, {len(begun) - 3} begun "
        f"twice, {sum(event['resumed'] for event in begun)} of them resumed, {restarted(events)} finished ones repeated"
    )


SLURM = {"S1": s1, "S2": s2, "S3": s3, "S4": s4, "S5": s5, "S6": s6, "S7": s7, "S8": s8}
