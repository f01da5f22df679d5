"""A run directory read in whatever state it is: what happened so far, and whether anybody is still at it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Literal, TypeVar

from serfit.config.load import load_config
from serfit.config.schema import ExperimentConfig
from serfit.errors import UserError
from serfit.labels import Dimension
from serfit.runs import directory as runs
from serfit.runs.records import REMEDY, Stopped, TestScores
from serfit.scores.metrics import Correlation
from serfit.scores.records import EpochRecord, EpochTime, Progress
from serfit.scores.reference import FROZEN, obstacle
from serfit.system.lease import Holder, Watch
from serfit.system.records import read_record

T = TypeVar("T")

State = Literal["running", "stopped", "died", "finished"]
"""running: a process holds the lock; stopped: no process does, and the last one ended by itself; died: it didn't, its
lock is still there; finished: the results are written."""


@dataclass(frozen=True, slots=True)
class History:
    """One run so far.

    Attributes:
        directory: the run directory.
        config: the whole configuration.
        state: whether it runs, and if not, why.
        records: the finished epochs.
        times: where the time of each went; may be shorter, or hold totals alone, in older runs.
        progress: how far the epoch in progress is; None between epochs, and before the first step.
        stopped: how the last process ended; None while running, after a kill and once finished.
        corpus: name of the corpus; None before the run has said so.
        utterances: utterances of the corpus in all parts together; None likewise.
        labels: digests of the labels it is made from; empty likewise, and in runs of older versions.
        device: kind of device, "cuda" or "cpu"; None likewise.
        card: which GPUs the run was given (CUDA_VISIBLE_DEVICES); None where it may use all, or none.
        precision: "fp32" or "bf16"; None likewise.
        correlations: of every two dimensions over the validation part, with the best weights; empty until the run is
            finished, and in runs of older versions.
    """

    directory: Path
    config: ExperimentConfig
    state: State
    records: Sequence[EpochRecord] = ()
    times: Sequence[EpochTime] = ()
    progress: Progress | None = None
    stopped: Stopped | None = None
    corpus: str | None = None
    utterances: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    device: str | None = None
    card: str | None = None
    precision: str | None = None
    correlations: Sequence[Correlation] = ()

    @property
    def fold(self) -> int:
        """Fold, from 1."""
        return self.config.data.split.fold

    @property
    def seed(self) -> int:
        """Seed of everything random."""
        return self.config.experiment.seed

    @property
    def comparable(self) -> bool:
        """Whether the run fine-tunes pretrained weights on the whole of IEMOCAP, of which the expected ranges hold."""
        known = self.corpus is not None and obstacle(FROZEN, self.corpus, self.utterances) is None
        return known and self.config.model.params.pretrained

    @property
    def best_epoch(self) -> int | None:
        """The epoch with the best mean validation CCC so far."""
        return next((record.epoch for record in reversed(self.records) if record.best), None)

    def validated(self, name: Dimension) -> int:
        """Utterances of the validation part; 0 where there is none, and before the first epoch."""
        scored = self.records[-1].validation.dimensions.get(name) if self.records else None
        return 0 if scored is None else scored.count

    def validation(self, name: Dimension) -> list[float]:
        """Validation CCC after each epoch; undefined ones count as 0, which is what an output without meaning gets."""
        return [record.validation.ccc(name) or 0.0 for record in self.records]

    def train(self, name: Dimension) -> list[float]:
        """Training CCC of each epoch, likewise."""
        return [record.train.ccc(name) or 0.0 for record in self.records]

    @property
    def seconds_left(self) -> float | None:
        """Estimated time to the last epoch's end, from the measured pace; None where nothing was measured yet."""
        left = self.config.last_epoch - len(self.records)
        if self.state == "finished" or left <= 0:
            return None
        pace = None if self.progress is None else self.progress.so_far.step_seconds
        if self.times:
            epoch = median(spent.seconds for spent in self.times[-3:])
        elif self.progress is not None and pace is not None:
            epoch = pace * self.progress.steps
        else:
            return None
        done = 0.0 if self.progress is None else self.progress.step / self.progress.steps
        return epoch * (left - done)


@dataclass(slots=True)
class Reader:
    """Reads run directories again and again; remembers what it needs to tell a dead writer from a living one.

    Attributes:
        troubles: run directories that couldn't be read at the last look, and why.
    """

    troubles: dict[Path, str] = field(default_factory=dict)
    _watches: dict[Path, Watch] = field(default_factory=dict)
    _finished: dict[Path, History] = field(default_factory=dict)

    def read(self, directories: Sequence[Path]) -> list[History]:
        """The runs among these directories that can be read, in the same order."""
        self.troubles = {}
        found = []
        for directory in directories:
            known = self._finished.get(directory)
            if known is not None:
                found.append(known)
                continue
            try:
                history = self._read(directory)
            except UserError as error:
                self.troubles[directory] = str(error)
                continue
            if history.state == "finished":
                self._finished[directory] = history
            found.append(history)
        return found

    def _read(self, directory: Path) -> History:
        state = self.state(directory)
        config = load_config(directory / runs.CONFIG)
        about = runs.read_environment(directory)
        scores = _read(TestScores, directory / runs.SCORES) if state == "finished" else None
        progress = _read(Progress, directory / runs.PROGRESS)
        records = runs.read_epochs(directory)
        return History(
            directory=directory,
            config=config,
            state=state,
            records=records,
            times=runs.read_times(directory),
            progress=progress if progress is not None and progress.epoch > len(records) else None,
            stopped=_read(Stopped, directory / runs.STOPPED) if state == "stopped" else None,
            corpus=None if about is None else about.corpus.name,
            utterances=None if about is None else about.corpus.utterances,
            labels={} if about is None else about.corpus.labels,
            device=None if about is None else about.device_type,
            card=None if about is None else about.visible_gpus,
            precision=None if about is None else about.precision,
            correlations=() if scores is None else scores.correlations.get("validation", ()),
        )

    def state(self, directory: Path) -> State:
        """Whether a run is finished, or who holds its lock. Never takes the lock itself.

        A holder on this machine is looked up among its processes. One on another machine counts as living until its
        lock hasn't been touched for a minute, as seen from here; so the first look can't tell.
        """
        if (directory / runs.FINISHED).exists():
            return "finished"
        for path in (directory / f"{runs.LOCK}.claim", directory / runs.LOCK):
            try:
                holder = Holder.from_bytes(path.read_bytes())
            except OSError:
                continue
            if holder is None and path.name == runs.LOCK:
                continue  # just being taken, or beside a claim file
            return "died" if self._watches.setdefault(path, Watch()).abandoned(path) else "running"
        return "stopped"


def run_directories(paths: Sequence[Path]) -> list[Path]:
    """Run directories from a mixture of run directories and folders of them, newest first, each once.

    Raises:
        UserError: a path doesn't exist.
    """
    found: dict[Path, float] = {}
    for path in paths:
        if not path.is_dir():
            raise UserError(
                f"there is no folder {path}; name a run directory, or the folder that holds them (experiment.runs_dir)"
            )
        inside = [path] if (path / runs.CONFIG).is_file() else [one.parent for one in path.glob(f"*/{runs.CONFIG}")]
        for directory in inside:
            try:
                found[directory] = (directory / runs.CONFIG).stat().st_mtime
            except OSError:  # removed in this moment
                continue
    return sorted(found, key=lambda directory: (-found[directory], directory.name))


def _read(kind: type[T], path: Path) -> T | None:
    """A record that a run may not have, or not any more."""
    return read_record(kind, path, REMEDY) if path.is_file() else None
