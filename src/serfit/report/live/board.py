"""Everything that the terminal and the page show of some runs at one moment, in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from serfit.labels import Dimension, letter
from serfit.report.diagnosis.diagnose import command, diagnose
from serfit.report.diagnosis.finding import Finding, one_voice
from serfit.report.diagnosis.learning import standing
from serfit.report.diagnosis.spread import experiments, of_runs
from serfit.runs.live import History, Reader, run_directories
from serfit.scores.records import EpochTime

MOST_RUNS = 60
"""Most runs shown; of more, those that aren't finished, then the newest."""

UNDEFINED = "n/a"

FIRST = ("run", "state", "epoch")
"""Columns that are always there."""

_ENDINGS = {"NumericalError": "not finite", "Interrupted": "on request"}
"""What a stopped run's last error is called."""


@dataclass(frozen=True, slots=True)
class Said:
    """A finding with what it is about.

    Attributes:
        about: name of the run, or of the experiment.
        finding: the finding.
        command: the command that tries its advice; "" where no setting helps.
    """

    about: str
    finding: Finding
    command: str

    def __str__(self) -> str:
        """Two lines: the finding, and the command to try."""
        said = f"{self.about}: {self.finding.kind}: {self.finding.evidence}; {self.finding.advice}"
        return f"{said}\n    {self.command}" if self.command else said


@dataclass(frozen=True, slots=True)
class Board:
    """Some runs at one moment.

    Attributes:
        experiments: the runs shown, by experiment.
        said: what there is to say about them.
        troubles: run directories that can't be read, and why.
        left_out: how many runs there are besides.
    """

    experiments: Mapping[str, Sequence[History]]
    said: Sequence[Said]
    troubles: Mapping[Path, str]
    left_out: int

    @property
    def histories(self) -> list[History]:
        """All runs shown."""
        return [history for group in self.experiments.values() for history in group]

    @property
    def endings(self) -> list[str]:
        """Why runs stopped, where it was neither asked for nor is diagnosed."""
        return [
            f"{name_of(one)} stopped: {one.stopped.message}"
            for one in self.histories
            if one.stopped is not None and one.stopped.kind not in _ENDINGS
        ]

    @property
    def alive(self) -> bool:
        """Whether any run is in progress."""
        return any(history.state == "running" for history in self.histories)


def look(paths: Sequence[Path], reader: Reader) -> Board:
    """Read the runs among some directories and folders of them. Raises UserError when a path doesn't exist."""
    found = reader.read(run_directories(paths))
    chosen = sorted(found, key=lambda one: one.state == "finished")[:MOST_RUNS]
    groups = experiments(chosen)
    said = []
    for label, group in groups.items():
        of_each = [(one, finding) for one in group for finding in diagnose(one)]
        of_all = [one for one in of_runs(group) if all(one.agrees(finding) for _, finding in of_each)]
        said += [Said(label, finding, command(group[0], finding)) for finding in one_voice(of_all, group[0].config)]
        said += [Said(f"{label} {part_of(one)}", finding, command(one, finding)) for one, finding in of_each]
    return Board(groups, said, dict(reader.troubles), len(found) - len(chosen))


def name_of(history: History) -> str:
    """Short name of a run."""
    return f"{history.config.experiment.name} {part_of(history)}"


def part_of(history: History) -> str:
    """Fold and seed of a run within its experiment."""
    return f"{'everything' if _untested(history) else f'fold {history.fold}'} seed {history.seed}"


def table_of(histories: Sequence[History]) -> tuple[list[str], list[list[str]]]:
    """Headings, and a row of words per run; columns in which no run has anything to say are left out."""
    headings = columns(histories)
    rows = [row(history, headings) for history in histories]
    kept = [index for index, heading in enumerate(headings) if heading in FIRST or any(one[index] for one in rows)]
    return [headings[index] for index in kept], [[one[index] for index in kept] for one in rows]


def columns(histories: Sequence[History]) -> list[str]:
    """All headings there may be for these runs."""
    named = [f"CCC-{letter(name)}" for name in dimensions(histories)]
    return [*FIRST, "step", "left", *named, "expected", "best", "utt/s", "waiting", "card", "GPU", "memory"]


def dimensions(histories: Sequence[History]) -> list[Dimension]:
    """Dimensions that any of the runs predicts."""
    return list(dict.fromkeys(name for one in histories for name in one.config.data.dimensions))


def row(history: History, headings: Sequence[str]) -> list[str]:
    """One run in words, column by column; "" where there is nothing to say."""
    epochs, done = history.config.last_epoch, len(history.records)
    now, spent = history.progress, _spent(history)
    cells = {
        "run": name_of(history),
        "state": state_words(history),
        "epoch": f"{done if now is None else now.epoch}/{epochs}",
        "best": "" if history.best_epoch is None or _untested(history) else str(history.best_epoch),
        "expected": standing(history) or "",
        "card": history.card or "",
    }
    if now is not None:
        cells["step"] = f"{now.step}/{now.steps}"
    if history.state == "running" and history.seconds_left is not None:
        cells["left"] = duration(history.seconds_left)
    for name in history.config.data.dimensions if history.records and not _untested(history) else ():
        value = history.records[-1].validation.ccc(name)
        cells[f"CCC-{letter(name)}"] = UNDEFINED if value is None else f"{round(value, 3) + 0.0:.3f}"
    if spent is not None:
        cells["utt/s"] = "" if spent.speed is None else f"{spent.speed:.1f}"
        if spent.waiting is not None and spent.seconds > 0.0:
            cells["waiting"] = f"{100 * spent.waiting / spent.seconds:.0f} %"
        if spent.gpu_memory is not None and spent.gpu_memory_total is not None:
            cells["memory"] = f"{spent.gpu_memory / 2**30:.1f}/{spent.gpu_memory_total / 2**30:.0f} GiB"
        if spent.gpu_busy is not None:
            cells["GPU"] = f"{100 * spent.gpu_busy:.0f} %"
    return [cells.get(heading, "") for heading in headings]


def state_words(history: History) -> str:
    """The state, and why where it is known."""
    if history.state == "stopped" and history.stopped is not None:
        return f"stopped ({_ENDINGS.get(history.stopped.kind, 'error')})"
    if history.state == "running" and not history.records and history.progress is None:
        return "running (preparing)"
    return history.state


def duration(seconds: float) -> str:
    """A time in words.

    >>> duration(48), duration(600), duration(5 * 3600 + 60)
    ('48 s', '10 min', '5 h 01 min')
    """
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _untested(history: History) -> bool:
    """Whether a run keeps nothing to validate on."""
    return history.config.data.split.scheme == "everything"


def _spent(history: History) -> EpochTime | None:
    """The freshest measurement: of the epoch in progress, else of the last one."""
    if history.progress is not None:
        return history.progress.so_far
    return history.times[-1] if history.times else None
