"""What a run writes down: predictions, steps and epochs. Everything people read is a view of these."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serfit.labels import Dimension
from serfit.scores.metrics import Correlation, Scores, correlations, score


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
        """How every two dimensions go together, in predictions and in ratings."""
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

    epoch: int
    step: int
    train_loss: float
    train: Scores
    validation: Scores
    learning_rates: Mapping[str, float]
    gradient_norm: float
    constant_batches: int
    best: bool
    best_valence: bool

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries for one JSON line."""
        plain = {name: getattr(self, name) for name in EpochRecord.__slots__}
        rates = dict(self.learning_rates)
        return plain | {"train": self.train.to_json(), "validation": self.validation.to_json(), "learning_rates": rates}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "EpochRecord":
        """The inverse of `to_json`."""
        parts = {name: Scores.from_json(data[name]) for name in ("train", "validation")}
        return cls(**{**data, **parts})


@dataclass(frozen=True, slots=True)
class EpochTime:
    """Where the time of an epoch went: a line of timing.jsonl. Times are wall-clock seconds; None is not measured.

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

    epoch: int
    seconds: float
    waiting: float | None = None
    computing: float | None = None
    evaluating: float | None = None
    writing: float | None = None
    steps: int | None = None
    utterances: int | None = None
    loading: Mapping[str, tuple[int, float]] = field(default_factory=dict)
    gpu_memory: int | None = None
    gpu_memory_total: int | None = None
    gpu_busy: float | None = None

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

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries for one JSON line; times to the millisecond."""
        plain = {name: round(value, 3) if isinstance(value, float) else value for name, value in asdict(self).items()}
        return plain | {"loading": {name: [count, round(spent, 3)] for name, (count, spent) in self.loading.items()}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "EpochTime":
        """The inverse of `to_json`; what an older record doesn't say is None."""
        known = {name: data[name] for name in EpochTime.__slots__ if name in data}
        loading = {str(name): (int(count), float(spent)) for name, (count, spent) in data.get("loading", {}).items()}
        return cls(**{**known, "epoch": int(data["epoch"]), "seconds": float(data["seconds"]), "loading": loading})


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the epoch in progress is: the content of progress.json, replaced every few seconds.

    Attributes:
        epoch: from 1.
        step: steps taken in this epoch.
        steps: steps in an epoch.
        loss: loss of the last optimisation batch.
        at: when, in seconds since 1970 by the clock of the machine that trains.
        so_far: where the time of this epoch went until now.
    """

    epoch: int
    step: int
    steps: int
    loss: float
    at: float
    so_far: EpochTime

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries."""
        return {name: getattr(self, name) for name in Progress.__slots__} | {"so_far": self.so_far.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Progress":
        """The inverse of `to_json`."""
        return cls(**{**data, "so_far": EpochTime.from_json(data["so_far"])})
