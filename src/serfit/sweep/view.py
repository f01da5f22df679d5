"""One live table of all runs of a sweep, read from their records; plain lines where there is no terminal."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from serfit.labels import letter
from serfit.report.live.board import FIRST, table_of
from serfit.report.live.terminal import CAPTION, fitting
from serfit.runs.live import History, Reader
from serfit.sweep.plan import Job
from serfit.sweep.worker import Fate, Outcome


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
    _reader: Reader = field(default_factory=Reader)
    _live: Live | None = None
    _shown: dict[Path, int] = field(default_factory=dict)
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
        for job, history in zip(self.jobs, self._read(), strict=True):
            done = 0 if history is None else len(history.records)
            if history is not None and done > self._shown.get(job.directory, done):
                self.console.print(
                    f"{_stamp()} {job.name}: {_words(history)}", markup=False, highlight=False, soft_wrap=True
                )
            self._shown[job.directory] = done

    def ended(self, outcome: Outcome) -> None:
        """Note what became of a run, and say it."""
        self.fates[outcome.job.directory] = outcome.fate
        line = f"{_stamp()} {outcome.job.name}: {outcome.fate}"
        if outcome.words:
            line += f" (exit code {outcome.code})\n" + "\n".join(f"    {part}" for part in outcome.words.splitlines())
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def table(self) -> Table:
        """All runs, one per row, with what their records say and the terminal has room for."""
        histories = self._read()
        headings, known = table_of([history for history in histories if history is not None])
        told = iter(known)
        rows = []
        for job, history in zip(self.jobs, histories, strict=True):
            cells = [""] * len(headings) if history is None else next(told)
            rows.append([job.name, self._state(job, cells[FIRST.index("state")]), *cells[2:]])
        headings, rows = fitting(headings, rows, self.console.width - 3 * len(headings))
        table = Table(caption=CAPTION, caption_justify="left")
        for heading in headings:
            table.add_column(heading, justify="left" if heading in ("run", "state") else "right")
        for row in rows:
            table.add_row(*map(Text, row))
        return table

    def _read(self) -> list[History | None]:
        """What each run has recorded; None where there is nothing to read yet."""
        found = {one.directory: one for one in self._reader.read([job.directory for job in self.jobs if job.begun])}
        return [found.get(job.directory) for job in self.jobs]

    def _state(self, job: Job, recorded: str) -> str:
        """What became of a run here, else what its records say."""
        return self.fates.get(job.directory) or recorded or ("running" if job.begun else "waiting")


def _words(history: History) -> str:
    """How far a run is, after an epoch."""
    last = history.records[-1]
    scores = ", ".join(
        f"CCC-{letter(name)} {'n/a' if value is None else f'{value:.4f}'}"
        for name in history.config.data.dimensions
        for value in (last.validation.ccc(name),)
    )
    took = f", {history.times[-1].seconds:.0f} s" if history.times else ""
    return f"epoch {last.epoch}/{history.config.last_epoch}, validation {scores}{took}"


def _stamp() -> str:
    return time.strftime("%H:%M:%S")
