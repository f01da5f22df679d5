"""One run as a process of its own: started, watched, stopped with whoever started it."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from serfit.sweep.child import dying_with_parent
from serfit.sweep.plan import Job
from serfit.system.interrupt import KILL
from serfit.system.lock import take

Fate = Literal["finished", "failed", "interrupted", "died"]

RETRIES = 3
"""How often a run is started again, when the machine and not the program is to blame."""

GRACE = 30.0
"""Seconds that a run gets to save itself before it is killed."""

POLL = 0.2
"""Seconds between two looks at a run."""

LAST_LINES = 5
"""Lines of a failed run's output that are shown."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a run.

    Attributes:
        job: the run.
        fate: finished; failed (the program said why: never repeated); interrupted (asked to stop, everything saved);
            died (killed, out of memory, machine gone: worth another try).
        code: the exit code, negative for a signal.
        words: the last lines that it said, where it didn't finish.
    """

    job: Job
    fate: Fate
    code: int
    words: str = ""


def fate_of(code: int) -> Fate:
    """Interpret an exit code: 0 done, 75 stopped on request, a signal (or 128 + one) died, else the program's word.

    >>> [fate_of(code) for code in (0, 2, 3, 75, -9, 137)]
    ['finished', 'failed', 'failed', 'interrupted', 'died', 'died']
    """
    if code == 0:
        return "finished"
    if code == 75:
        return "interrupted"
    return "died" if code < 0 or code > 128 else "failed"


def run_job(
    job: Job,
    environment: Mapping[str, str],
    stopped: Callable[[], bool] = lambda: False,
    look: Callable[[], None] = lambda: None,
) -> Outcome:
    """Run a job to its end, again if it dies, at most `RETRIES` times; it goes on where it stopped.

    Args:
        job: the run.
        environment: environment variables of the process, CUDA_VISIBLE_DEVICES among them.
        stopped: asked a few times a second; once true, the run is asked to save itself and stop.
        look: called as often, to show progress.
    """
    outcome = attempt(job, environment, stopped, look)
    for _ in range(RETRIES):
        if outcome.fate != "died" or stopped():
            break
        outcome = attempt(job, environment, stopped, look)
    return outcome


def attempt(
    job: Job,
    environment: Mapping[str, str],
    stopped: Callable[[], bool] = lambda: False,
    look: Callable[[], None] = lambda: None,
) -> Outcome:
    """Run a job once; arguments as for `run_job`. Waits while another sweep in the same folder runs it."""
    job.directory.parent.mkdir(parents=True, exist_ok=True)
    with alone(job, stopped, look) as reached:
        if job.state == "finished":
            return Outcome(job, "finished", 0)
        if not reached:
            return Outcome(job, "interrupted", 75)
        output = job.directory.with_name(f".{job.directory.name}.out")
        with output.open("wb") as stream:
            code = run_process(job.command(), environment, stopped, look, stdout=stream, stderr=subprocess.STDOUT)
        fate = fate_of(code)
        if fate == "died" and stopped():  # before it could listen, or after its time to save itself was over
            fate = "interrupted"
        words = "" if fate == "finished" else last_lines(output)
        if fate != "died":
            output.unlink(missing_ok=True)
        return Outcome(job, fate, code, words)


@contextmanager
def alone(job: Job, stopped: Callable[[], bool], look: Callable[[], None]) -> Iterator[bool]:
    """Be the only sweep that runs a job: wait until no other does. Gives False when asked to stop before that."""
    path = job.directory.with_name(f".{job.directory.name}.lock")
    while not stopped():
        lock = take(path)
        if isinstance(lock, ExitStack):
            with lock:
                yield True
            return
        look()
        time.sleep(POLL)
    yield False


def run_process(
    command: Sequence[str],
    environment: Mapping[str, str],
    stopped: Callable[[], bool],
    look: Callable[[], None] = lambda: None,
    **streams: Any,
) -> int:
    """Run a command in a session of its own, which dies with this process.

    Args:
        command: the program and its arguments.
        environment: its environment variables.
        stopped: asked a few times a second; once true, or when this process is interrupted, the command is asked to
            save itself and stop.
        look: called as often, to show progress.
        streams: `stdout` and `stderr` as for `subprocess.Popen`.

    Returns:
        Its exit code.
    """
    process = subprocess.Popen(
        dying_with_parent(command), env=dict(environment), stdin=subprocess.DEVNULL, start_new_session=True, **streams
    )
    try:
        while (code := process.poll()) is None:
            if stopped():
                return _stop(process)
            look()
            time.sleep(POLL)
    except BaseException:
        _stop(process)
        raise
    return code


def _stop(process: "subprocess.Popen[bytes]") -> int:
    """End a process and all that it started: politely, and after `GRACE` seconds by force."""
    _signal(process, signal.SIGTERM)
    try:
        return process.wait(GRACE)
    except subprocess.TimeoutExpired:
        _signal(process, KILL)
        return process.wait()


def _signal(process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, number)
        else:  # Windows
            process.send_signal(number)


def last_lines(path: Path) -> str:
    """Return the last output of a run: its error message, or `LAST_LINES` lines."""
    lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [index for index, line in enumerate(lines) if line.startswith(("error: ", "stopped: "))]
    return "\n".join(lines[errors[-1] :] if errors else lines[-LAST_LINES:])
