"""Where the time of a training goes, measured around the records of `fit`, and how far it has come.

`Pace.timed` stands between `fit` and whoever consumes its records: what passes before a record arrives is waiting,
computing or evaluating, and what passes until the next is asked for is writing.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import fmean

import torch

from serfit.runs.directory import PROGRESS, Run
from serfit.scores.records import EpochRecord, EpochTime, Progress, StepRecord
from serfit.system.files import WriteError, write_json
from serfit.system.runtime import gpu_busy, gpu_memory
from serfit.system.timer import Tally

SECONDS_BETWEEN_LOOKS = 5.0
"""Least time between two writings of progress.json."""


@dataclass(slots=True)
class Pace:
    """Measures the epoch in progress.

    Attributes:
        run: where progress.json is written.
        device: whose memory and use are looked at.
        tally: what the loading of utterances has cost.
    """

    run: Run
    device: torch.device
    tally: Tally
    _began: float = field(default_factory=time.perf_counter)
    _looked: float = field(default_factory=time.perf_counter)
    _waiting: float = 0.0
    _computing: float = 0.0
    _evaluating: float = 0.0
    _writing: float = 0.0
    _steps: int = 0
    _utterances: int = 0
    _busy: list[float] = field(default_factory=list)

    def timed(self, records: Iterable[StepRecord | EpochRecord]) -> Iterator[StepRecord | EpochRecord]:
        """The same records, measured on the way."""
        self.tally.reset()
        self._began = asked = time.perf_counter()
        for record in records:
            came = time.perf_counter()
            if isinstance(record, EpochRecord):
                self._evaluating += came - asked
            else:
                self._waiting += record.waiting
                self._computing += record.seconds
                self._steps += 1
                self._utterances += record.utterances
                if came - self._looked >= SECONDS_BETWEEN_LOOKS:
                    self._looked = came
                    self._look(record)
            yield record
            asked = time.perf_counter()
            self._writing += asked - came

    def epoch_done(self, epoch: int) -> EpochTime:
        """Where the time since the last epoch's end went; the next epoch begins now."""
        spent = self._so_far(epoch)
        self._began = time.perf_counter()
        self._waiting = self._computing = self._evaluating = self._writing = 0.0
        self._steps = self._utterances = 0
        self._busy = []
        self.tally.reset()
        return spent

    def _so_far(self, epoch: int) -> EpochTime:
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
            loading=self.tally.so_far(),
            gpu_memory=used,
            gpu_memory_total=total,
            gpu_busy=fmean(self._busy) if self._busy else None,
        )

    def _look(self, record: StepRecord) -> None:
        """Write how far the epoch is; a disk without room for it is complained of elsewhere and stops nothing."""
        busy = gpu_busy(self.device)
        self._busy += [] if busy is None else [busy]
        progress = Progress(
            record.epoch, record.step, record.steps, record.loss, time.time(), self._so_far(record.epoch)
        )
        with suppress(WriteError):
            write_json(self.run / PROGRESS, progress.to_json(), durable=False)
