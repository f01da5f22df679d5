"""The story of a sweep."""

import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, get_args

from rich.console import Console

from serfit.config.load import load_config
from serfit.errors import UserError
from serfit.interrupt import Interrupted, StopRequest
from serfit.report.answers import answers
from serfit.report.compare import compare, console_table, write_comparison
from serfit.report.finished import finished_directories
from serfit.report.page import write_report
from serfit.sweep.engines import inline, on_ray
from serfit.sweep.plan import Job, numbers, plan_jobs
from serfit.sweep.slots import Slots, choose_slots, held
from serfit.sweep.view import View
from serfit.sweep.worker import Outcome

Engine = Literal["auto", "inline", "ray"]


def run_sweep(
    jobs: Sequence[Job],
    slots: Slots,
    console: Console,
    *,
    engine: Engine = "auto",
    per_run: int = 1,
    address: str | None = None,
) -> list[Outcome]:
    """Run all jobs that aren't finished, show them, and say what became of them.

    Args:
        jobs: the runs.
        slots: where they may compute on this machine.
        console: where to show them.
        engine: auto takes Ray for several slots or a given address, else this process alone.
        per_run: slots that one run takes.
        address: an existing Ray cluster.

    Returns:
        An outcome for every job that was started.

    Raises:
        UserError: the engine can't be had.
        Interrupted: Ctrl-C or a signal; every run has saved itself, and the same command goes on.
    """
    waiting = [job for job in jobs if job.state != "finished"]
    done = len(jobs) - len(waiting)
    console.print(f"{len(jobs)} runs, {done} of them finished, {slots.total} slots", highlight=False)
    outcomes: list[Outcome] = []
    with StopRequest() as stop, View(console, jobs) as view:

        def stopped() -> bool:
            return stop.received is not None

        for outcome in _started(waiting, slots, engine, per_run, address, stopped, view.refresh):
            outcomes.append(outcome)
            view.ended(outcome)
            view.refresh()
    console.print(view.table())
    if stop.received is not None:
        raise Interrupted(f"stopped by {stop.received}; every run has saved itself: repeat the same command to go on")
    return outcomes


def _started(
    jobs: Sequence[Job],
    slots: Slots,
    engine: Engine,
    per_run: int,
    address: str | None,
    stopped: Callable[[], bool],
    refresh: Callable[[], None],
) -> Iterator[Outcome]:
    """Hand the jobs to the engine."""
    if not jobs:
        return iter(())
    if engine == "auto":
        engine = "ray" if address is not None or slots.total > per_run else "inline"
    if engine == "inline":
        if per_run > slots.total:
            raise UserError(f"a run takes {per_run} slots, and there are {slots.total}; lower --gpus-per-run")
        return inline(jobs, slots, stopped, refresh)
    return on_ray(jobs, slots, stopped, per_run=per_run, address=address, wait=refresh)


def fill_stores(jobs: Sequence[Job], slots: Slots) -> None:
    """Let each configuration's frozen features be computed once, before the runs that share them start.

    Raises:
        UserError: they can't be computed, so that no run could begin either.
    """
    filled: set[Path] = set()
    for job in jobs:
        if job.config in filled or job.state != "new":
            continue
        config = load_config(job.config, job.overrides)
        params = config.model.params
        frozen = params.freeze_speech_encoder or params.freeze_cnn or params.freeze_layers
        if not frozen or config.features.store is None:
            continue
        filled.add(job.config)
        command = [*job.program, "cache", "fill", "--config", str(job.config), *job.overrides]
        environment = dict(os.environ) | ({"CUDA_VISIBLE_DEVICES": slots.gpus[0]} if slots.gpus else {})
        with held(slots.gpus[:1]):
            done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise UserError(done.stderr.strip().removeprefix("error: ") or f"{' '.join(command)} failed")


def failures(outcomes: Sequence[Outcome]) -> list[Path]:
    """The directories of the runs that didn't finish."""
    return [outcome.job.directory for outcome in outcomes if outcome.fate != "finished"]


def run_cv(
    arguments: Sequence[str],
    *,
    folds: str,
    seeds: str,
    gpus: str | None,
    slots: int | None,
    gpus_per_run: int,
    engine: str,
    address: str | None,
) -> int:
    """What `serfit cv` does, in its own words: plan, run, compare.

    Returns:
        The exit code: 0 when every run has finished, 1 when some haven't.
    """
    known = next((name for name in get_args(Engine) if name == engine), None)
    if known is None:
        raise UserError(f"--engine is {engine}; it takes {', '.join(get_args(Engine))}")
    configs = [Path(argument) for argument in arguments if "=" not in argument]
    overrides = [argument for argument in arguments if "=" in argument]
    if not configs:
        raise UserError("no configuration given; name one or more, for example configs/finetune.yaml")
    jobs = plan_jobs(configs, numbers(folds, "--folds"), numbers(seeds, "--seeds"), overrides, gpus_per_run)
    chosen = choose_slots(None if gpus is None else numbers(gpus, "--gpus"), slots)
    console = Console()
    fill_stores(jobs, chosen)
    outcomes = run_sweep(jobs, chosen, console, engine=known, per_run=gpus_per_run, address=address)
    for folder in sorted({job.directory.parent for job in jobs}):
        directories = finished_directories(folder)
        if directories:
            comparison = compare(folder)
            console.print(console_table(comparison))
            for line in answers(comparison.evidence.pairs):
                console.print(line, markup=False, highlight=False, soft_wrap=True)
            written = (write_comparison(folder), write_report(directories, folder / "report.html"))
            console.print(f"written: {written[0]}, {written[1]}", highlight=False, soft_wrap=True)
    left = failures(outcomes)
    if left:
        console.print(
            f"{len(left)} runs haven't finished; see above why. Repeat the command to go on.", highlight=False
        )
    return 1 if left else 0
