"""What a training writes while it lasts: its records and times, how far it is, its curves, and its state.

What it shows people is in `messages`. A process that only follows the first one keeps the records, and writes nothing.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from statistics import fmean

import torch

from serfit.config.schema import ExperimentConfig
from serfit.corpus.utterance import Corpus
from serfit.errors import NumericalError
from serfit.report.text import epoch_heading, epoch_line
from serfit.runs.directory import PROGRESS, Run
from serfit.scores.records import EpochRecord, EpochTime, Progress, StepRecord
from serfit.scores.reference import FROZEN, obstacle
from serfit.system.files import WriteError
from serfit.system.interrupt import Interrupted
from serfit.system.log import Log
from serfit.system.records import write_record
from serfit.system.runtime import gpu_busy, gpu_memory
from serfit.system.timer import Timer
from serfit.training.messages import draw, show_step
from serfit.training.resume import save_best, save_if_possible, save_state
from serfit.training.trainer import TrainingState

SECONDS_BETWEEN_PICTURES = 30.0
"""Least time between two drawings of the curves; drawing takes longer than an epoch of a small head."""

SECONDS_BETWEEN_LOOKS = 5.0
"""Least time between two writings of progress.json."""

Record = StepRecord | EpochRecord


@dataclass(slots=True)
class EpochTimer:
    """Measures where the time of an epoch goes.

    What passes before a record of `fit` arrives is waiting, computing or evaluating; what passes until the next one is
    asked for is writing.

    Attributes:
        device: whose memory and use are measured.
        timer: what the loading of utterances has cost.
    """

    device: torch.device
    timer: Timer
    _began: float = field(default_factory=time.perf_counter)
    _waiting: float = 0.0
    _computing: float = 0.0
    _evaluating: float = 0.0
    _writing: float = 0.0
    _steps: int = 0
    _utterances: int = 0
    _busy: list[float] = field(default_factory=list)

    def timed(self, records: Iterable[Record]) -> Iterator[Record]:
        """The same records, measured on the way."""
        self._begin()
        asked = self._began
        for record in records:
            came = time.perf_counter()
            if isinstance(record, EpochRecord):
                self._evaluating += came - asked
            else:
                self._waiting += record.waiting
                self._computing += record.seconds
                self._steps += 1
                self._utterances += record.utterances
            yield record
            asked = time.perf_counter()
            self._writing += asked - came

    def epoch_done(self, epoch: int) -> EpochTime:
        """Return the time since the last epoch's end by activity; the next epoch begins now."""
        spent = self.so_far(epoch)
        self._begin()
        return spent

    def so_far(self, epoch: int) -> EpochTime:
        """Return the time of the current epoch by activity."""
        used, total = gpu_memory(self.device) or (None, None)
        return EpochTime(
            epoch=epoch,
            seconds=time.perf_counter() - self._began,
            waiting=self._waiting,
            computing=self._computing,
            evaluating=self._evaluating,
            writing=self._writing,
            steps=self._steps,
            utterances=self._utterances,
            loading=self.timer.so_far(),
            gpu_memory=used,
            gpu_memory_total=total,
            gpu_busy=fmean(self._busy) if self._busy else None,
        )

    def sample_gpu(self) -> None:
        """Note how busy the GPU is at this moment, where it can be asked."""
        busy = gpu_busy(self.device)
        self._busy += [] if busy is None else [busy]

    def _begin(self) -> None:
        self._began = time.perf_counter()
        self._waiting = self._computing = self._evaluating = self._writing = 0.0
        self._steps = self._utterances = 0
        self._busy = []
        self.timer.reset()


@dataclass(slots=True)
class ProgressWriter:
    """Keeps the run directory of a training up to date.

    Attributes:
        run: where to write.
        log: where to say what happens.
        config: the experiment.
        state: what `fit` advances.
        frozen: digest of the frozen weights.
        timer: measures the epochs.
        corpus: what is trained on; it decides whether curves are drawn with a published result.
    """

    run: Run
    log: Log
    config: ExperimentConfig
    state: TrainingState
    frozen: str
    timer: EpochTimer
    corpus: Corpus
    _drawn: float = field(default_factory=time.monotonic)
    _saved: float = field(default_factory=time.monotonic)
    _looked: float = field(default_factory=time.monotonic)

    def begin(self) -> None:
        """Say what the columns of the epochs' lines are."""
        groups = [group["name"] for group in self.state.optimizer.param_groups]
        self.log.say(epoch_heading(self.config.data.dimensions, list(dict.fromkeys(groups)), self.config.last_epoch))

    @contextmanager
    def saved_on_the_way_out(self) -> Iterator[None]:
        """Save the state where training stops because it was asked to, or at a number that isn't finite."""
        try:
            yield
        except (NumericalError, Interrupted):
            if self.run.written:
                save_state(self.state, self.run)
            raise

    def take(self, record: Record, notes: Iterable[str] = ()) -> None:
        """Write a record down, show it and what else there is to say, and save the state where it is time.

        Raises:
            WriteError: the best weights can't be written, without which going on would lose something.
        """
        if isinstance(record, EpochRecord):
            self.run.add(record, self.timer.epoch_done(record.epoch))
            self.log.settle()
            self.log.say(epoch_line(record, self.config.last_epoch, self.run.times[-1]))
        else:
            self._look(record)
            show_step(record, self.run, self.config.last_epoch, self.timer.device, self.log)
        for note in notes:
            self.log.say(note)
        if self.run.written:
            self._save(record)
            if isinstance(record, EpochRecord) and time.monotonic() - self._drawn > SECONDS_BETWEEN_PICTURES:
                self.draw()

    def draw(self) -> None:
        """Draw the curves so far."""
        if self.run.written:
            comparable = obstacle(FROZEN, self.corpus.name, len(self.corpus.utterances)) is None
            draw(self.run, FROZEN if comparable else None, self.log)
            self._drawn = time.monotonic()

    def _save(self, record: Record) -> None:
        """Write a checkpoint after every epoch and after some minutes, and then the best weights."""
        overdue = time.monotonic() - self._saved > 60.0 * self.config.train.checkpoint_minutes
        if isinstance(record, EpochRecord) or overdue:
            failure = save_if_possible(self.state, self.run)
            if failure is not None:
                self.log.say(failure)
            self._saved = time.monotonic()
        if isinstance(record, EpochRecord):
            save_best(record, self.state, self.run, self.frozen)

    def _look(self, record: StepRecord) -> None:
        """Write how far the epoch is; a disk without room for it is complained of elsewhere and stops nothing."""
        if not self.run.written or time.monotonic() - self._looked < SECONDS_BETWEEN_LOOKS:
            return
        self._looked = time.monotonic()
        self.timer.sample_gpu()
        spent = self.timer.so_far(record.epoch)
        now = Progress(record.epoch, record.step, record.steps, record.loss, time.time(), spent)
        with suppress(WriteError):
            write_record(self.run / PROGRESS, now, durable=False)
