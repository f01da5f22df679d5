"""The engine that hands the runs of a sweep to a Slurm cluster, as arrays of jobs, and waits for them."""

import io
import json
import os
import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stderr
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from serfit.errors import UserError, listed
from serfit.sweep.node import run_on_node
from serfit.sweep.plan import Job
from serfit.sweep.queue import FOLDER, GONE, NAME, RUNS, Element, cancel, note_of, queue, queue_now
from serfit.sweep.worker import RETRIES, Outcome, last_lines
from serfit.system.files import write_json
from serfit.system.lock import take

POLL = 5.0
"""Seconds between two looks at the queue."""

LEAVING = 180.0
"""Seconds within which cancelled jobs are expected to be gone."""

Options = Mapping[str, str | bool]
"""Options of sbatch by their long names; True for one without a value."""

OURS = ("array", "error", "job-name", "nodes", "ntasks", "ntasks-per-node", "open-mode", "output", "requeue", "wrap")
"""Options of sbatch that serfit sets itself, or that would take the jobs out of its hands."""

GPUS = ("gpus", "gpus-per-node", "gpus-per-task", "gres")
"""Options of sbatch that ask for GPUs."""


def slurm_options(given: Sequence[str]) -> dict[str, str | bool]:
    """Options for sbatch from `key=value`, or `key` alone.

    Raises:
        UserError: it isn't written so, it is named twice, or serfit sets it itself.

    >>> slurm_options(["time=12:00:00", "mem_per_cpu=4G", "exclusive"])
    {'time': '12:00:00', 'mem-per-cpu': '4G', 'exclusive': True}
    """
    options: dict[str, str | bool] = {}
    for text in given:
        name, equals, value = text.partition("=")
        key = name.strip().removeprefix("--").replace("_", "-")
        if not re.fullmatch(r"[a-z][a-z-]*", key) or not value.isprintable() or (equals and not value):
            raise UserError(
                f"--slurm is {text!r}; it takes a long option of sbatch, such as time=12:00:00 or partition=gpu"
            )
        if key in OURS:
            raise UserError(f"--slurm {key} is set by serfit itself; leave it out; so are {', '.join(OURS)}")
        if key in options:
            raise UserError(f"--slurm names {key} twice; give it once")
        options[key] = value if equals else True
    return options


def on_slurm(
    jobs: Sequence[Job],
    stopped: Callable[[], bool],
    *,
    most: int | None = None,
    per_run: int = 1,
    options: Options | None = None,
    wait: Callable[[], object] = lambda: None,
) -> Iterator[Outcome]:
    """Run jobs on the Slurm cluster that this machine belongs to, and yield each outcome as it comes.

    A run whose job is queued or running already, from a launch before, is waited for and not submitted again. One whose
    machine died is submitted again, at most `RETRIES` times.

    Args:
        jobs: the runs, in directories that this machine and the nodes share.
        stopped: once true, the jobs are cancelled, and their runs save themselves.
        most: runs at a time; None leaves that to Slurm.
        per_run: GPUs that one run takes, unless `options` say how many.
        options: for sbatch (see `slurm_options`).
        wait: called a few times a second, to show progress.

    Raises:
        UserError: Slurm or submitit isn't there, Slurm doesn't answer, or it refuses the jobs.
    """
    _check_slurm()
    asked: Options = {**({} if set(GPUS) & set(options or {}) else {"gpus-per-node": str(per_run)}), **(options or {})}
    left = {job.directory.resolve(): job for job in jobs}
    queued = {element.run: element for element in queue_now() if element.alive and element.run in left}
    tries = Counter(list(queued))
    # `left` are the runs without an outcome, `queued` those of them that Slurm has. Each round: give out what has ended
    # (a run that died leaves `queued` alone, and so is submitted again), fill the room there is, wait, ask Slurm once.
    while left:
        for run in [run for run, element in queued.items() if not element.alive]:
            outcome = _what_became(left[run], queued.pop(run))
            if outcome.fate != "died" or tries[run] > RETRIES:
                del left[run]
                yield outcome
        if stopped():
            yield from _cancelled(left, queued, wait)
            return
        idle = [job for run, job in left.items() if run not in queued]
        room = (most or len(jobs)) - len(queued)
        if idle and room > 0:
            batch = idle if not queued else idle[:room]  # an empty queue gets all: the array itself keeps to `most`
            queued |= _submitted(batch, most or len(jobs), asked)
            tries.update(job.directory.resolve() for job in batch)
        _pause(POLL, stopped, wait)
        queued = _seen_again(queued)
    _tidy({job.directory.resolve().parent / FOLDER for job in jobs})


def _check_slurm() -> None:
    missing = [name for name in ("sbatch", "squeue", "scancel", "srun") if shutil.which(name) is None]
    if missing:
        raise UserError(
            f"--engine slurm needs Slurm's commands, and there is no {missing[0]} on this machine; "
            "start it on a login node of the cluster, or choose another --engine"
        )
    if find_spec("submitit") is None:
        raise UserError("--engine slurm needs submitit, which isn't installed: `uv sync --extra slurm`")


def _submitted(jobs: Sequence[Job], most: int, options: Options) -> dict[Path, Element]:
    """Submit jobs as one array, except those that another launch has submitted meanwhile."""
    folder = jobs[0].directory.resolve().parent / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with _only_launch(folder):
        wanted = {job.directory.resolve(): job for job in jobs}
        there = {element.run: element for element in queue_now() if element.alive and element.run in wanted}
        return there | _submit([job for run, job in wanted.items() if run not in there], folder, most, options)


def _submit(jobs: Sequence[Job], folder: Path, most: int, options: Options) -> dict[Path, Element]:
    if not jobs:
        return {}
    import submitit

    own = Path(tempfile.mkdtemp(prefix=time.strftime("%Y%m%d-%H%M%S-"), dir=folder))
    directories = [job.directory.resolve() for job in jobs]
    write_json(own / RUNS, [str(directory) for directory in directories])
    cpus = options.get("cpus-per-task")
    executor = submitit.SlurmExecutor(own)
    executor.update_parameters(
        job_name=NAME,
        time=None,
        wckey=None,
        array_parallelism=most,
        stderr_to_stdout=True,
        srun_args=[] if cpus is None else [f"--cpus-per-task={cpus}"],  # since 22.05 srun doesn't take it from sbatch
        additional_parameters={"requeue": True, **options},
    )
    within_a_job = submitit.helpers.clean_env if "SLURM_JOB_ID" in os.environ else nullcontext
    try:
        with within_a_job(), redirect_stderr(io.StringIO()):  # submitit repeats there what the error says, too
            started = executor.map_array(run_on_node, jobs, [note_of(own, number) for number in range(len(jobs))])
    except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
        shutil.rmtree(own)
        lines = str(error).splitlines()
        said = "; ".join(line.partition("error:")[2].strip() for line in lines if "error:" in line) or lines[-1]
        asked = listed([key if value is True else f"{key}={value}" for key, value in options.items()])
        raise UserError(f"Slurm refuses the jobs ({said}), asked for with {asked}; see to --slurm") from error
    return {
        directory: Element(job.job_id, "PENDING", own, directory)
        for job, directory in zip(started, directories, strict=True)
    }


def _what_became(job: Job, element: Element) -> Outcome:
    """Return the outcome of a run whose job has left the queue; "died" if another try is worth it."""
    if job.state == "finished":
        return Outcome(job, "finished", 0)
    try:
        noted = json.loads(element.note.read_text("utf-8"))
    except (OSError, ValueError):
        noted = None
    if noted is not None and noted["fate"] != "interrupted":
        return Outcome(job, noted["fate"], noted["code"], noted["words"])
    if element.state == "CANCELLED":
        return Outcome(job, "interrupted", 75, f"job {element.id} was cancelled")
    words = f"job {element.id} ended as {element.state}"
    if noted is None and element.log.is_file():
        words += f"; {element.log} ends with\n{last_lines(element.log)}"
    return Outcome(job, "died", -1, words)


def _seen_again(queued: Mapping[Path, Element]) -> dict[Path, Element]:
    """The same jobs in their present state; as they were where Slurm doesn't answer.

    Elements that are cancelled before they start vanish at once; other jobs that end stay to be seen for minutes.
    """
    now = queue()
    if now is None:
        return dict(queued)
    states = {element.id: element.state for element in now}
    return {
        run: replace(element, state=states.get(element.id, "CANCELLED" if element.state == "PENDING" else GONE))
        for run, element in queued.items()
    }


def _cancelled(left: Mapping[Path, Job], queued: dict[Path, Element], wait: Callable[[], object]) -> Iterator[Outcome]:
    """Cancel all jobs, and wait until they are gone."""
    cancel(list(queued.values()))
    ends = time.monotonic() + LEAVING
    while any(element.alive for element in queued.values()) and time.monotonic() < ends:
        _pause(1.0, lambda: False, wait)
        queued = _seen_again(queued)
    for run, element in queued.items():
        if left[run].state == "finished":
            yield Outcome(left[run], "finished", 0)
        else:
            words = f"job {element.id} is still {element.state}; see to it with squeue" if element.alive else ""
            yield Outcome(left[run], "interrupted", 75, words)


def _pause(seconds: float, stopped: Callable[[], bool], wait: Callable[[], object]) -> None:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends and not stopped():
        wait()
        time.sleep(min(0.2, seconds))


@contextmanager
def _only_launch(folder: Path) -> Iterator[None]:
    """Be the only launch that looks at the queue and submits."""
    while not isinstance(lock := take(folder / "LOCK"), ExitStack):
        time.sleep(1.0)
    with lock:
        yield


def _tidy(folders: set[Path]) -> None:
    """Remove what submissions left behind whose runs have all finished."""
    for folder in folders:
        for listing in folder.glob(f"*/{RUNS}"):
            if all((Path(run) / "FINISHED").exists() for run in json.loads(listing.read_text("utf-8"))):
                shutil.rmtree(listing.parent, ignore_errors=True)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
