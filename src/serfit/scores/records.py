"""What a run writes down: predictions, steps and epochs. Everything people read is a view of these."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PlainSerializer

from serfit.labels import Dimension
from serfit.scores.metrics import Correlation, Scores, correlations, score
from serfit.system.records import Count, Number

Rounded = Annotated[Number, Field(ge=0.0), PlainSerializer(lambda value: round(value, 3))]
"""Written with three decimals: seconds to the millisecond."""


@dataclass(frozen=True, slots=True)
class Predictions:
    """Predictions beside their targets, both on the corpus's scale.

    Attributes:
        ids: utterance ids, N of them.
        dimensions: names of the D columns.
        targets: [N, D] float64.
        values: [N, D] float64.
    """

    ids: tuple[str, ...]
    dimensions: tuple[Dimension, ...]
    targets: NDArray[np.float64]
    values: NDArray[np.float64]

    def __post_init__(self) -> None:
        shape = (len(self.ids), len(self.dimensions))
        assert self.targets.shape == self.values.shape == shape, (self.targets.shape, self.values.shape, shape)

    def scores(self) -> Scores:
        """Scores over all utterances at once."""
        return score(self.targets, self.values, self.dimensions)

    def correlations(self) -> tuple[Correlation, ...]:
        """Correlations of every two dimensions, in predictions and in ratings."""
        return correlations(self.targets, self.values, self.dimensions)

    def only(self, keep: Sequence[bool]) -> "Predictions":
        """The predictions of the utterances marked True, in the same order."""
        chosen = np.asarray(keep, dtype=bool)
        ids = tuple(name for name, kept in zip(self.ids, chosen, strict=True) if kept)
        return Predictions(ids, self.dimensions, self.targets[chosen], self.values[chosen])


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One optimiser step, for progress displays; not part of the permanent record.

    Attributes:
        epoch: from 1.
        step: steps taken in this epoch, from 1.
        steps: steps in an epoch.
        loss: loss of the optimisation batch before the update.
        gradient_norm: global L2 norm before clipping.
        utterances: number of utterances in the batch.
        audio_seconds: seconds of speech in the batch.
        seconds: wall-clock time of the step.
        waiting: wall-clock time before it, in which the training waited for the batch's utterances.
    """

    epoch: int
    step: int
    steps: int
    loss: float
    gradient_norm: float
    utterances: int
    audio_seconds: float
    seconds: float
    waiting: float


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One epoch: a line of metrics.jsonl. Holds no wall-clock time, so equal runs write equal bytes.

    Attributes:
        epoch: from 1.
        step: optimiser steps taken since the start of the run.
        train_loss: mean loss of the epoch's optimisation batches.
        train: scores over all training predictions of the epoch, each made before the update of its step.
        validation: scores over the whole validation part after the epoch.
        learning_rates: rate per parameter group ("encoder", "head") at the last step.
        gradient_norm: largest global gradient norm of the epoch, before clipping.
        constant_batches: optimisation batches in which the targets of some dimension were all equal, so that its
            CCC could teach nothing.
        best: whether the mean validation CCC is the best so far.
        best_valence: whether the validation CCC of valence is the best so far.
    """

    epoch: Count
    step: Count
    train_loss: Number
    train: Scores
    validation: Scores
    learning_rates: Mapping[str, Number]
    gradient_norm: Number
    constant_batches: Count
    best: bool
    best_valence: bool


@dataclass(frozen=True, slots=True)
class EpochTime:
    """Time spent in an epoch, by activity: a line of timing.jsonl. Times are wall-clock seconds; None is not measured.

    Of an epoch that was interrupted, only the part since the run was taken up again.

    Attributes:
        epoch: from 1.
        seconds: in all.
        waiting: for utterances to be read, before the steps.
        computing: optimiser steps.
        evaluating: the validation part.
        writing: records, checkpoints, pictures and progress, since the record of the epoch before was due; the
            checkpoint after an epoch therefore counts with the next.
        steps: optimiser steps taken.
        utterances: utterances trained on.
        loading: kind of work (see `serfit.system.timer`) to how often it was done and the seconds it took, summed over
            the loader's threads, so they may exceed the time waited.
        gpu_memory: most bytes that torch has allocated on the GPU since the process began.
        gpu_memory_total: bytes that the GPU has.
        gpu_busy: share of time in which the GPU was computing, by its driver, mean over samples.
    """

    epoch: Count
    seconds: Rounded
    waiting: Rounded | None = None
    computing: Rounded | None = None
    evaluating: Rounded | None = None
    writing: Rounded | None = None
    steps: Count | None = None
    utterances: Count | None = None
    loading: Mapping[str, tuple[Count, Rounded]] = field(default_factory=dict)
    gpu_memory: Count | None = None
    gpu_memory_total: Count | None = None
    gpu_busy: Rounded | None = None

    @property
    def step_seconds(self) -> float | None:
        """Seconds from one optimiser step to the next, evaluations and writing apart; None where not measured."""
        if not self.steps or self.waiting is None or self.computing is None:
            return None
        return (self.waiting + self.computing) / self.steps

    @property
    def speed(self) -> float | None:
        """Utterances per second while training, waiting included; None where not measured."""
        if self.utterances is None or self.waiting is None or self.computing is None:
            return None
        taken = self.waiting + self.computing
        return self.utterances / taken if taken > 0.0 else None


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of the current epoch: the content of progress.json, replaced every few seconds.

    Attributes:
        epoch: from 1.
        step: steps taken in this epoch.
        steps: steps in an epoch.
        loss: loss of the last optimisation batch.
        at: when, in seconds since 1970 by the clock of the machine that trains.
        so_far: where the time of this epoch went until now.
    """

    epoch: Count
    step: Count
    steps: Annotated[Count, Field(ge=1)]
    loss: Number
    at: Number
    so_far: EpochTime
