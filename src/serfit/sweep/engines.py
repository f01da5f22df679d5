"""Who starts the runs of a sweep: this process one after another, or Ray Core several at a time."""

import logging
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from serfit.errors import UserError
from serfit.sweep.plan import Job
from serfit.sweep.slots import Slots, held, on_gpus
from serfit.sweep.worker import RETRIES, Outcome, run_job

QUIET = {
    "RAY_memory_monitor_refresh_ms": "0",  # it kills innocent workers for another program's memory
    "RAY_DEDUP_LOGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # under `uv run` each worker would build an environment of its own
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Environment under which a local Ray cluster is started."""


def inline(
    jobs: Sequence[Job], slots: Slots, stopped: Callable[[], bool], look: Callable[[], None] = lambda: None
) -> Iterator[Outcome]:
    """Run one job after another, each on all the slots there are; `look` is called while waiting, to show progress."""
    for job in jobs:
        if stopped():
            return
        with held(slots.gpus, stopped):
            yield run_job(job, on_gpus(slots.gpus), stopped, look)


def on_ray(
    jobs: Sequence[Job],
    slots: Slots,
    stopped: Callable[[], bool],
    *,
    per_run: int = 1,
    address: str | None = None,
    wait: Callable[[], object] = lambda: None,
) -> Iterator[Outcome]:
    """Run jobs on a Ray cluster, as many at a time as there are slots, and yield each outcome as it comes.

    A run whose process dies is started again where it ran (see `run_job`); one whose node is lost, on another.

    Args:
        jobs: the runs.
        slots: what a cluster on this machine may use; an existing cluster brings its own.
        stopped: once true, runs are asked to save themselves, and no new one is started.
        per_run: slots that one run takes.
        address: an existing cluster ("auto", or host:port); None starts one here and ends it again.
        wait: called about once a second, to show progress.

    Raises:
        UserError: Ray isn't installed, or the cluster can't be reached or never has so many slots for a run.
    """
    ray = _connected(slots, address)
    try:
        kind = "GPU" if address is not None or slots.gpus else "slot"
        if ray.cluster_resources().get(kind, 0) < per_run:
            there = int(ray.cluster_resources().get(kind, 0))
            raise UserError(f"a run takes {per_run} slots, and there are {there}; lower --gpus-per-run")
        demand: dict[str, Any] = {"num_gpus": per_run} if kind == "GPU" else {"resources": {"slot": per_run}}
        task = ray.remote(max_retries=RETRIES, num_cpus=0, **demand)(_on_worker)
        waiting = {task.remote(job, slots.gpus if address is None else (), Path.cwd()): job for job in jobs}
        cancelled = False
        while waiting:
            done, _ = ray.wait(list(waiting), timeout=1.0)
            wait()
            if stopped() and not cancelled:
                cancelled = True
                for pending in waiting:
                    ray.cancel(pending)
            for reference in done:  # cancelled ones among them: their workers let the runs save themselves first
                yield _outcome(ray, reference, waiting.pop(reference))
    finally:
        ray.shutdown()


def _connected(slots: Slots, address: str | None) -> Any:
    os.environ.update({key: os.environ.get(key, value) for key, value in QUIET.items()})
    if address is not None and _has_token(os.environ):
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # `ray start` asks for the token it finds; ray.init offers none
    try:
        import ray
    except ImportError as error:
        raise UserError(
            "several slots need Ray, which isn't installed: `uv sync --extra ray`, or use --engine inline"
        ) from error
    try:
        if address is not None:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        else:
            booked: dict[str, Any] = (
                {"num_gpus": len(slots.gpus)} if slots.gpus else {"resources": {"slot": slots.count}}
            )
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, **booked)
    except (OSError, RuntimeError, ValueError) as error:
        index = address or "this machine"
        raise UserError(f"can't use Ray on {index}: {error}; --engine inline does without it") from error
    return ray


def _has_token(environment: Mapping[str, str]) -> bool:
    """Whether this user has a token for Ray clusters, in one of the places where Ray looks for it."""
    named = "RAY_AUTH_TOKEN" in environment or "RAY_AUTH_TOKEN_PATH" in environment
    return named or (Path.home() / ".ray" / "auth_token").is_file()


def _on_worker(job: Job, gpus: Sequence[str], folder: Path) -> Outcome:
    """What a Ray worker does: go where the launch stands, hold its GPUs against other launches, and run the job."""
    import ray

    try:
        os.chdir(folder)  # a worker of an existing cluster stands where `ray start` was called
    except OSError as error:
        words = f"error: {folder} can't be entered on {platform.node()} ({error.strerror}); it must be shared"
        return Outcome(job, "failed", 1, words)
    booked = [str(number) for number in ray.get_gpu_ids()]
    mine = [gpus[int(number)] for number in booked] if gpus else booked
    with held(mine):
        return run_job(job, on_gpus(mine))


def _outcome(ray: Any, reference: Any, job: Job) -> Outcome:
    """Return the outcome of a task, whatever became of its worker."""
    try:
        outcome: Outcome = ray.get(reference)
        return outcome
    except (ray.exceptions.TaskCancelledError, ray.exceptions.RayTaskError) as error:
        if isinstance(error, ray.exceptions.TaskCancelledError) or "KeyboardInterrupt" in str(error):
            return Outcome(job, "interrupted", 75)
        return Outcome(job, "failed", 1, str(error).strip().splitlines()[-1])
    except ray.exceptions.RayError as error:
        return Outcome(job, "died", -1, type(error).__name__)
