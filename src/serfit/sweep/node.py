"""One run on a node of a Slurm cluster."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

from serfit.sweep.plan import Job
from serfit.sweep.worker import attempt
from serfit.system.files import write_json
from serfit.system.interrupt import StopRequest


def run_on_node(job: Job, note: Path) -> None:
    """Run a job once, and write down what became of it.

    Before its time limit Slurm sends SIGUSR2: the run saves itself, and the job goes back into the queue to go on.
    SIGTERM (cancelled, or preempted) lets the run save itself too; Slurm knows what is to follow.

    Args:
        job: the run.
        note: file that gets fate, exit code and last words; it doesn't exist while the run lasts.
    """
    note.unlink(missing_ok=True)
    with StopRequest() as stop:
        outcome = attempt(job, os.environ, stop.asked)
        stopped = stop.asked() and outcome.fate in ("interrupted", "died")
        again = stopped and stop.received in ("SIGUSR1", "SIGUSR2")
        if stopped:
            outcome = replace(outcome, fate="interrupted")
        if again and job.state == "new":
            again, words = False, "the time limit came before the run had begun; give it more: --slurm time=..."
            outcome = replace(outcome, fate="failed", words=words)
        write_json(note, {"fate": outcome.fate, "code": outcome.code, "words": outcome.words})
        if again:
            subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], stdin=subprocess.DEVNULL)
