"""What a run writes down: predictions, steps and epochs. Everything people read is a view of these."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serfit.labels import Dimension
from serfit.metrics import Scores, score


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
    """

    epoch: int
    step: int
    steps: int
    loss: float
    gradient_norm: float
    utterances: int
    audio_seconds: float
    seconds: float


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
