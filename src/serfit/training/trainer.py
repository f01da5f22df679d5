"""Training as a generator of records, and evaluation.

`fit` advances a `TrainingState` and yields a `StepRecord` after every optimiser step and an `EpochRecord` after
every epoch. It writes no files and prints nothing: whoever consumes the records does. Between two records the
state is complete, so it can be saved at any of them and `fit` goes on from there as if never interrupted.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch

from serfit.config.schema import ExperimentConfig
from serfit.corpus.utterance import Utterance
from serfit.errors import NumericalError, counted, listed
from serfit.labels import Dimension, LabelScale
from serfit.nn.losses import build_loss
from serfit.nn.model import EmotionModel
from serfit.scores.metrics import better
from serfit.scores.records import EpochRecord, Predictions, StepRecord
from serfit.system import counters
from serfit.training.augment import change_waveform, crop, mixup, time_mask
from serfit.training.batches import Example, plan_epoch, prefetched
from serfit.training.executor import Executor
from serfit.training.features import Features
from serfit.training.optim import clip_gradients, rate_factor, set_rates

EVALUATED_TOGETHER = 16
"""Utterances that each process is handed at a time in an evaluation."""


@dataclass(frozen=True, slots=True)
class Part:
    """The utterances of one part (train, validation, test) with what training needs of them.

    Attributes:
        utterances: N of them.
        seconds: duration of each.
        dimensions: names of the D rating columns.
        scales: rating scale per dimension.
    """

    utterances: tuple[Utterance, ...]
    seconds: tuple[float, ...]
    dimensions: tuple[Dimension, ...]
    scales: Mapping[Dimension, LabelScale]

    def targets(self) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        """Ratings [N, D] on the corpus's scale."""
        rows = [[spoken.ratings[name] for name in self.dimensions] for spoken in self.utterances]
        return np.array(rows, dtype=np.float64).reshape(len(rows), len(self.dimensions))

    def unit_target(self, index: int) -> torch.Tensor:
        """Ratings [D] of one utterance on [0, 1]."""
        ratings = self.utterances[index].ratings
        return torch.tensor([self.scales[name].to_unit(ratings[name]) for name in self.dimensions])

    def predictions(self, indices: Sequence[int], values: torch.Tensor) -> Predictions:
        """Model outputs [len(places), D] on [0, 1] as predictions on the corpus's scale."""
        rescaled = values.double().numpy()
        columns = [self.scales[name].from_unit(rescaled[:, column]) for column, name in enumerate(self.dimensions)]
        chosen = list(indices)
        ids = tuple(self.utterances[index].id for index in chosen)
        return Predictions(ids, self.dimensions, self.targets()[chosen], np.stack(columns, axis=1))


@dataclass(slots=True)
class EpochSoFar:
    """Totals of the epoch in progress: part of the state, since a run may stop in its middle."""

    steps: int = 0
    loss: float = 0.0
    gradient_norm: float = 0.0
    constant_batches: int = 0
    learning_rates: dict[str, float] = field(default_factory=dict)
    indices: list[int] = field(default_factory=list)
    values: list[torch.Tensor] = field(default_factory=list)


@dataclass(slots=True)
class TrainingState:
    """Everything that changes while training. No random state: draws are keyed by position (see `counters`).

    Attributes:
        model: the network.
        optimizer: AdamW with its moments.
        epoch: the epoch in progress, from 1.
        step: optimiser steps taken since the start.
        so_far: what the epoch in progress has gathered.
        best: best mean validation CCC, and the epoch it was reached in.
        best_valence: best validation CCC of valence, and its epoch.
        stale_epochs: epochs since the mean validation CCC was last the best.
        checked: whether the gradients of all trainable tensors have been seen to arrive.
    """

    model: EmotionModel
    optimizer: torch.optim.Optimizer
    epoch: int = 1
    step: int = 0
    so_far: EpochSoFar = field(default_factory=EpochSoFar)
    best: tuple[float, int] | None = None
    best_valence: tuple[float, int] | None = None
    stale_epochs: int = 0
    checked: bool = False


def fit(
    state: TrainingState,
    executor: Executor,
    features: Features,
    train: Part,
    validation: Part,
    config: ExperimentConfig,
    check: Callable[[], None] = lambda: None,
) -> Iterator[StepRecord | EpochRecord]:
    """Train from where the state stands to the last epoch, or until early stopping.

    `check` is called between the passes of an evaluation, where the state is complete; it may raise to stop there.

    Raises:
        NumericalError: a loss, gradient or prediction isn't finite; the state is as before that step.
        UserError: audio can't be read, or memory runs out with a single utterance.
    """
    while state.epoch <= config.last_epoch:
        patience = config.train.early_stopping
        if patience is not None and state.stale_epochs >= patience:
            return
        yield from _train_epoch(state, executor, features, train, config)
        yield _close_epoch(state, executor, features, train, validation, config, check)


def _train_epoch(
    state: TrainingState, executor: Executor, features: Features, train: Part, config: ExperimentConfig
) -> Iterator[StepRecord]:
    seed, epoch = config.experiment.seed, state.epoch
    loader = config.data.loader
    plan = plan_epoch(train.seconds, config.optimisation_batch, seed=seed, epoch=epoch, bucketing=loader.bucketing)
    prepare = partial(training_example, part=train, features=features, config=config, epoch=epoch)
    remaining = plan[state.so_far.steps :]
    asked = time.perf_counter()
    for indices, examples in zip(remaining, prefetched(remaining, prepare, loader.workers), strict=True):
        began = time.perf_counter()
        if config.data.augmentation.mixup_alpha:
            examples = mixup(examples, config.data.augmentation.mixup_alpha, seed, epoch, state.so_far.steps)
        loss, norm = _step(state, executor, examples, indices, steps=len(plan) * config.train.epochs, config=config)
        yield StepRecord(
            epoch=epoch,
            step=state.so_far.steps,
            steps=len(plan),
            loss=loss,
            gradient_norm=norm,
            utterances=len(examples),
            audio_seconds=sum(train.seconds[index] for index in indices),
            seconds=time.perf_counter() - began,
            waiting=began - asked,
        )
        asked = time.perf_counter()


def _step(
    state: TrainingState,
    executor: Executor,
    examples: Sequence[Example],
    indices: Sequence[int],
    steps: int,
    config: ExperimentConfig,
) -> tuple[float, float]:
    """One optimiser step; returns the loss and the gradient norm before clipping."""
    targets = torch.stack([example.target for example in examples])
    rates = set_rates(state.optimizer, rate_factor(state.step, steps, config.train.schedule))
    loss, predictions = executor.gradients(examples, build_loss(config.train.loss, config.data.dimensions))
    if not state.checked:
        check_gradients(state.model)
        state.checked = True
    trainable = [parameter for parameter in state.model.parameters() if parameter.requires_grad]
    norm = clip_gradients(trainable, config.train.grad_clip)
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise NumericalError(_not_finite(state, loss, norm, rates, examples))
    state.optimizer.step()
    state.step += 1
    so_far = state.so_far
    so_far.steps += 1
    so_far.loss += loss
    so_far.learning_rates = rates
    so_far.gradient_norm = max(so_far.gradient_norm, norm)
    so_far.constant_batches += bool((targets == targets[0]).all(dim=0).any())
    so_far.indices += [int(index) for index in indices]
    so_far.values.append(predictions)
    return loss, norm


def _close_epoch(
    state: TrainingState,
    executor: Executor,
    features: Features,
    train: Part,
    validation: Part,
    config: ExperimentConfig,
    check: Callable[[], None],
) -> EpochRecord:
    """Evaluate, and put the state at the start of the next epoch. Without validation part, the latest epoch is best."""
    predicted = evaluate(executor, features, validation, workers=config.data.loader.workers, check=check)
    scores = predicted.scores()
    best = not validation.utterances or better(scores.average, state.best[0] if state.best else None)
    valence = scores.ccc("valence")
    best_valence = better(valence, state.best_valence[0] if state.best_valence else None)
    so_far = state.so_far
    record = EpochRecord(
        epoch=state.epoch,
        step=state.step,
        train_loss=so_far.loss / so_far.steps,
        train=train.predictions(so_far.indices, torch.cat(so_far.values)).scores(),
        validation=scores,
        learning_rates=so_far.learning_rates,
        gradient_norm=so_far.gradient_norm,
        constant_batches=so_far.constant_batches,
        best=best,
        best_valence=best_valence,
    )
    if best and scores.average is not None:
        state.best = (scores.average, state.epoch)
    if best_valence:
        assert valence is not None
        state.best_valence = (valence, state.epoch)
    state.stale_epochs = 0 if best else state.stale_epochs + 1
    state.epoch += 1
    state.so_far = EpochSoFar()
    return record


def evaluate(
    executor: Executor, features: Features, part: Part, workers: int = 0, check: Callable[[], None] = lambda: None
) -> Predictions:
    """Predict every utterance of a part, in the part's own order; `check` and errors as for `predictions_of`."""
    groups = evaluated_together(part.seconds, executor.ranks.count)
    by_length = [index for group in groups for index in group]
    predicted = predictions_of(executor, features, part.utterances, groups, workers, check)
    values = torch.cat([torch.zeros(0, len(part.dimensions)), *predicted])
    ordered = torch.empty_like(values)
    ordered[by_length] = values
    return part.predictions(range(len(by_length)), ordered)


def evaluated_together(seconds: Sequence[float], processes: int = 1) -> list[list[int]]:
    """The indices of utterances of these lengths, sorted by length, in the groups in which they are predicted."""
    by_length = sorted(range(len(seconds)), key=lambda index: (seconds[index], index))
    size = EVALUATED_TOGETHER * processes
    return [by_length[first : first + size] for first in range(0, len(by_length), size)]


def predictions_of(
    executor: Executor,
    features: Features,
    utterances: Sequence[Utterance],
    groups: Sequence[Sequence[int]],
    workers: int = 0,
    check: Callable[[], None] = lambda: None,
) -> Iterator[torch.Tensor]:
    """Predictions [n, D] on [0, 1] of each group of n utterances, whole and without augmentation.

    `check` is called before each group, and may raise to stop.

    Raises:
        NumericalError: a prediction isn't finite; the message names the utterances.
    """
    unknown = torch.zeros(executor.model.head.dimensions)

    def prepare(index: int) -> Example:
        return Example(utterances[index].id, features(utterances[index]), unknown)

    for group, examples in zip(groups, prefetched(groups, prepare, workers), strict=True):
        check()
        values = executor.predict(examples)
        broken = [utterances[index].id for index, row in zip(group, values, strict=True) if not row.isfinite().all()]
        if broken:
            raise NumericalError(f"the predictions for {listed(broken)} aren't finite; the weights have diverged")
        yield values


def training_example(index: int, part: Part, features: Features, config: ExperimentConfig, epoch: int) -> Example:
    """One training utterance with this epoch's crop, augmentation and dropout seed."""
    seed, augmentation = config.experiment.seed, config.data.augmentation
    utterance = part.utterances[index]
    inputs = features(utterance)
    random = counters.generator(seed, "augmentation", epoch, utterance.id)
    seconds, rate = config.data.loader.crop_seconds, features.entries_per_second
    if seconds is not None and rate is not None:
        inputs = crop(inputs, round(seconds * rate), random)
    if features.stage == 0:
        inputs = change_waveform(inputs, augmentation, random)
    mask = None
    if augmentation.time_mask_share:
        frames = features.model.encoder.frame_count(len(inputs)) if features.stage == 0 else len(inputs)
        hidden = time_mask(frames, augmentation.time_mask_share, augmentation.time_mask_frames, random)
        mask = torch.from_numpy(hidden)
    return Example(
        id=utterance.id,
        inputs=inputs,
        target=part.unit_target(index),
        dropout_seed=counters.address(seed, "dropout", epoch, utterance.id),
        time_mask=mask,
    )


def check_gradients(model: EmotionModel) -> None:
    """Stop when a trainable tensor gets no gradient, or one that isn't finite: it would never learn.

    Raises:
        NumericalError: naming the tensors.
    """
    dead, broken = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.grad is None:
            dead.append(name)
        elif parameter.requires_grad and not torch.isfinite(parameter.grad).all():  # type: ignore[arg-type]
            broken.append(name)
    if dead:
        tensors = counted(len(dead), "trainable tensor")
        raise NumericalError(f"{tensors} got no gradient in the first step: {listed(dead)}")
    if broken:
        tensors = counted(len(broken), "tensor")
        raise NumericalError(f"the gradients of {tensors} aren't finite in the first step: {listed(broken)}")


def _not_finite(
    state: TrainingState, loss: float, norm: float, rates: Mapping[str, float], examples: Sequence[Example]
) -> str:
    """The sentence that goes with a loss or gradient that isn't finite."""
    rate_words = ", ".join(f"{name} {rate:.2e}" for name, rate in rates.items())
    return (
        f"epoch {state.epoch}, step {state.so_far.steps + 1}: loss {loss:.4g}, gradient norm {norm:.4g}; this step was "
        f"not taken and the weights are as before it. Learning rates: {rate_words}. "
        f"Utterances: {', '.join(example.id for example in examples)}"
    )
