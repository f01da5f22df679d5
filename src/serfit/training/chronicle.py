"""What becomes of a training's records: written down, said, drawn; and when its state is saved."""

import time
from dataclasses import dataclass, field

from serfit.config.schema import ExperimentConfig
from serfit.report.text import epoch_heading, epoch_line
from serfit.runs.directory import Run
from serfit.scores.records import EpochRecord, StepRecord
from serfit.scores.reference import Reference
from serfit.system.log import Log
from serfit.training.announce import draw, show_step
from serfit.training.pace import Pace
from serfit.training.resume import save_best, save_if_possible, save_state
from serfit.training.trainer import TrainingState

SECONDS_BETWEEN_PICTURES = 30.0
"""Least time between two drawings of the curves; drawing takes longer than an epoch of a small head."""


@dataclass(slots=True)
class Chronicle:
    """Keeps the run directory of a training up to date.

    Attributes:
        run: where to write.
        log: where to say what happens.
        config: the experiment.
        state: what `fit` advances.
        frozen: digest of the frozen weights.
        pace: measures the epochs.
        reference: what the curves are drawn beside, if they can be compared.
    """

    run: Run
    log: Log
    config: ExperimentConfig
    state: TrainingState
    frozen: str
    pace: Pace
    reference: Reference | None
    _drawn: float = field(default_factory=time.monotonic)
    _saved: float = field(default_factory=time.monotonic)

    def begin(self) -> None:
        """Say what the columns of the epochs' lines are."""
        groups = [group["name"] for group in self.state.optimizer.param_groups]
        self.log.say(epoch_heading(self.config.data.dimensions, list(dict.fromkeys(groups)), self.config.last_epoch))

    def tell(self, record: StepRecord | EpochRecord) -> None:
        """Write a record down and show it."""
        if isinstance(record, StepRecord):
            show_step(record, self.run, self.config.last_epoch, self.pace.device, self.log)
            return
        self.run.add(record, self.pace.epoch_done(record.epoch))
        self.log.settle()
        self.log.say(epoch_line(record, self.config.last_epoch, self.run.times[-1]))
        if time.monotonic() - self._drawn > SECONDS_BETWEEN_PICTURES:
            self.draw()

    def save(self, record: StepRecord | EpochRecord, *, stopping: bool) -> None:
        """Write a checkpoint after every epoch, after some minutes and before stopping; and the best weights.

        Raises:
            WriteError: one can't be written without which going on, or stopping, would lose something.
        """
        overdue = time.monotonic() - self._saved > 60.0 * self.config.train.checkpoint_minutes
        if stopping:
            save_state(self.state, self.run)
        elif isinstance(record, EpochRecord) or overdue:
            failure = save_if_possible(self.state, self.run)
            if failure is not None:
                self.log.say(failure)
            self._saved = time.monotonic()
        if isinstance(record, EpochRecord):
            save_best(record, self.state, self.run, self.frozen)

    def draw(self) -> None:
        """Draw the curves so far."""
        draw(self.run, self.reference, self.log)
        self._drawn = time.monotonic()
