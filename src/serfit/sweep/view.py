"""One live table of all runs of a sweep, read from their directories; plain lines where there is no terminal."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from serfit import runs
from serfit.sweep.plan import Job
from serfit.sweep.worker import Fate, Outcome


@dataclass(frozen=True, slots=True)
class Glance:
    """How far a run has come.

    Attributes:
        epoch: the last finished epoch; 0 before the first.
        epochs: how many there are at most; 0 where unknown.
        valence: latest validation CCC of valence, or None.
        arousal: the same of arousal.
        seconds: wall-clock time of the last epoch; None before the first.
        finished: whether the run is.
    """

    epoch: int = 0
    epochs: int = 0
    valence: float | None = None
    arousal: float | None = None
    seconds: float | None = None
    finished: bool = False


def glance(directory: Path) -> Glance:
    """Read a run directory in whatever state it is; what isn't there yet, or can't be read, is left out."""
    try:
        config = json.loads((directory / runs.CONFIG).read_text())
        epochs = int(config["train"]["epochs"])
    except (OSError, ValueError, KeyError):
        return Glance()
    finished = (directory / runs.FINISHED).exists()
    try:
        last = json.loads((directory / runs.METRICS).read_text().splitlines()[-1])
        taken = json.loads((directory / runs.TIMING).read_text().splitlines()[-1])
    except (OSError, ValueError, IndexError):
        return Glance(epochs=epochs, finished=finished)
    validation = last["validation"]
    return Glance(
        epoch=last["epoch"],
        epochs=epochs,
        valence=validation.get("valence", {}).get("ccc"),
        arousal=validation.get("arousal", {}).get("ccc"),
        seconds=taken["seconds"],
        finished=finished,
    )


@dataclass(slots=True)
class View:
    """Shows a sweep while it lasts.

    Attributes:
        console: where.
        jobs: all runs of the sweep.
        fates: what became of those that have ended.
    """

    console: Console
    jobs: Sequence[Job]
    fates: dict[Path, Fate] = field(default_factory=dict)
    _live: Live | None = None
    _shown: dict[Path, Glance] = field(default_factory=dict)
    _looked: float = 0.0

    def __enter__(self) -> "View":
        if self.console.is_terminal:
            self._live = Live(self.table(), console=self.console, refresh_per_second=2, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def refresh(self) -> None:
        """Look at all runs again, at most once a second."""
        if time.monotonic() - self._looked < 1.0:
            return
        self._looked = time.monotonic()
        if self._live is not None:
            self._live.update(self.table())
            return
        for job in self.jobs:
            now = glance(job.directory)
            before = self._shown.get(job.directory)
            if before is not None and now.epoch > before.epoch:
                self.console.print(f"{_stamp()} {job.name}: {_words(now)}", highlight=False, soft_wrap=True)
            self._shown[job.directory] = now

    def ended(self, outcome: Outcome) -> None:
        """Note what became of a run, and say it."""
        self.fates[outcome.job.directory] = outcome.fate
        line = f"{_stamp()} {outcome.job.name}: {outcome.fate}"
        if outcome.words:
            line += f" (exit code {outcome.code})\n" + "\n".join(f"    {part}" for part in outcome.words.splitlines())
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def table(self) -> Table:
        """All runs, one per row."""
        table = Table()
        for heading in ("run", "state", "epoch", "CCC-V", "CCC-A", "s/epoch", "left"):
            table.add_column(heading, justify="left" if heading in ("run", "state") else "right")
        for job in self.jobs:
            now = glance(job.directory)
            seen = "finished" if now.finished else "running" if now.epochs else "waiting"
            state = self.fates.get(job.directory, seen)
            left = None if now.seconds is None or now.finished else now.seconds * (now.epochs - now.epoch)
            table.add_row(
                job.name,
                state,
                f"{now.epoch}/{now.epochs}" if now.epochs else "",
                _number(now.valence),
                _number(now.arousal),
                "" if now.seconds is None else f"{now.seconds:.0f}",
                "" if left is None else f"{left / 60:.0f} min",
            )
        return table


def _words(now: Glance) -> str:
    scores = f"validation CCC-V {_number(now.valence) or 'n/a'}, CCC-A {_number(now.arousal) or 'n/a'}"
    return f"epoch {now.epoch}/{now.epochs}, {scores}, {now.seconds or 0.0:.0f} s"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _stamp() -> str:
    return time.strftime("%H:%M:%S")
