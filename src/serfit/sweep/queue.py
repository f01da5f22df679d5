"""What stands in Slurm's queue: jobs, each of which is one run of a sweep.

The queue itself says where a job was submitted from, and a file there, written before the submission, which runs those
are. So a sweep that is repeated after any crash knows its jobs again. Slurm's accounting (sacct) isn't needed.
"""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from serfit.errors import UserError

NAME = "serfit"
"""Name of all jobs."""

FOLDER = ".slurm"
"""Beside the run directories: a folder per submission, with script, logs and what became of each run."""

RUNS = "runs.json"
"""In a submission's folder: the run directories, in the order of the array."""

GONE = "GONE"
"""State of a job that Slurm has forgotten."""

ENDED = frozenset(
    (
        *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL"),
        *("OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT", GONE),
    )
)
"""States from which a job doesn't come back. A requeued one is PENDING."""

PATIENCE = 60.0
"""Seconds for which Slurm may take to answer."""


@dataclass(frozen=True, slots=True)
class Element:
    """One job, which is one run; mostly an element of an array.

    Attributes:
        id: for example "12_3", or "12" where a single run was submitted.
        state: Slurm's word for it.
        folder: of its submission.
        run: the run directory.
    """

    id: str
    state: str
    folder: Path
    run: Path

    @property
    def alive(self) -> bool:
        """Whether it waits, runs, or will run again."""
        return self.state not in ENDED

    @property
    def note(self) -> Path:
        """Where the node writes down what became of the run."""
        return note_of(self.folder, int(self.id.partition("_")[2] or 0))

    @property
    def log(self) -> Path:
        """What the job said, outside the run."""
        return self.folder / f"{self.id}_0_log.out"


def note_of(folder: Path, index: int) -> Path:
    """Where the node writes down what became of the run with that index in a submission."""
    return folder / f"{index}.json"


def queue() -> list[Element] | None:
    """This user's jobs of serfit, those among them that ended a few minutes ago; None when Slurm doesn't answer."""
    command = ["squeue", "--me", f"--name={NAME}", "--array", "--states=all", "--noheader", "--format=%i|%T|%o"]
    try:
        said = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return None
    if said.returncode != 0:
        return None
    found: list[Element] = []
    runs: dict[Path, list[str]] = {}
    for line in said.stdout.splitlines():
        name, state, script = line.strip().split("|", 2)
        folder = Path(script).parent
        if folder not in runs:
            runs[folder] = _runs(folder)
        index = int(name.partition("_")[2] or 0)
        if index < len(runs[folder]):
            found.append(Element(name, state, folder, Path(runs[folder][index])))
    return found


def queue_now() -> list[Element]:
    """The same, where nothing can go on without an answer. Raises UserError."""
    found = queue()
    if found is None:
        raise UserError("squeue doesn't answer, so nobody knows which runs are queued already; try again when it does")
    return found


def cancel(elements: Sequence[Element]) -> None:
    """Ask Slurm to end jobs: their runs save themselves (SIGTERM), and what is left after its KillWait is killed."""
    if elements:
        command = ["scancel", *(element.id for element in elements)]
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE)


def _runs(folder: Path) -> list[str]:
    if folder.parent.name != FOLDER:
        return []
    try:
        return [str(run) for run in json.loads((folder / RUNS).read_text("utf-8"))]
    except (OSError, ValueError):
        return []
