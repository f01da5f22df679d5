"""The processes of one run, and what all of them do but the first: they compute their share and write nothing.

`serfit.training.experiment` tells the story; what stands here keeps step with it, from its first `ranks.wait()` on.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from serfit.config.schema import ExperimentConfig
from serfit.errors import NumericalError, UserError
from serfit.nn.model import EmotionModel, model_of
from serfit.scores.records import Predictions
from serfit.system.interrupt import Interrupted, StopRequest
from serfit.system.log import Log, Terminal
from serfit.system.runtime import choose_device, choose_precision
from serfit.training.announce import fill_store
from serfit.training.checkpoint import model_and_optimizer, restore_model_and_optimizer
from serfit.training.executor import Executor
from serfit.training.features import Features, features_of
from serfit.training.material import Material, prepare
from serfit.training.memory import first_budget
from serfit.training.optim import build_optimizer
from serfit.training.ranks import Ranks, leading, local_index, started_by_torchrun, torchrun_ranks
from serfit.training.trainer import TrainingState, evaluate, fit


def follow(ranks: Ranks, config: ExperimentConfig, gpus: tuple[int, ...] | None) -> None:
    """Compute this process's share of a run that the first process leads and writes.

    Where training ends in a stop or a number that isn't finite, the first process says so, and this one just ends.

    Args:
        ranks: this process and the others.
        config: the experiment.
        gpus: the GPU of each process; None for what `gpu_of` says.
    """
    try:
        _follow(ranks, config, gpu_of(ranks, gpus))
    except (NumericalError, Interrupted):
        return


@contextmanager
def company(config: ExperimentConfig, gpus: tuple[int, ...] | None) -> Iterator[Ranks]:
    """The processes of a run: those that torchrun started, or one per GPU, or this one alone.

    Args:
        config: the experiment.
        gpus: the GPU of each process, to be started here; None where torchrun or nobody starts others.

    Raises:
        UserError: a GPU that doesn't exist.
    """
    if started_by_torchrun():
        with torchrun_ranks() as ranks:
            yield ranks
        return
    for gpu in gpus or ():
        choose_device(gpu)
    with leading(len(gpus or (0,)), follow, (config, gpus)) as ranks:
        yield ranks


def gpu_of(ranks: Ranks, gpus: tuple[int, ...] | None) -> int | None:
    """The GPU of a process: as listed, or by its place on its machine under torchrun; None for the first or the CPU."""
    if gpus is not None:
        return gpus[ranks.index]
    return local_index() if started_by_torchrun() and torch.cuda.is_available() else None


def parsed_gpus(text: str) -> tuple[int, ...]:
    """GPU indices from text such as "0,1". Raises UserError."""
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts) or len({int(part) for part in parts}) < len(parts):
        raise UserError(f"--gpus is {text}, but it takes different GPU indices with commas between, for example 0,1")
    return tuple(int(part) for part in parts)


def _follow(ranks: Ranks, config: ExperimentConfig, gpu: int | None) -> None:
    ranks.wait()
    with open(os.devnull, "w", encoding="utf-8") as nowhere, StopRequest() as stop:
        log = Log(Terminal(file=nowhere))
        material = prepare(config)
        device, _ = choose_device(gpu)
        model = model_of(config).to(device)
        features = features_of(config, model)
        fill_store(features, material, log, stop.check)
        executor = executor_of(config, model, features, device, ranks)
        state = TrainingState(model, build_optimizer(model, config.train.optimizer))
        share_state(state, ranks)
        check = stopping_together(stop, ranks)
        for _ in fit(state, executor, features, material.train, material.validation, config, check):
            if ranks.any(stop.received is not None):
                return
        evaluate_at_the_end(executor, features, material, config, check)


def executor_of(
    config: ExperimentConfig, model: EmotionModel, features: Features, device: torch.device, ranks: Ranks
) -> Executor:
    """What computes the optimisation batches of a run, within the memory of the process that has least."""
    precision, autocast = choose_precision(config.train.precision, device)
    budget = first_budget(
        model, features.stage, features.entries_per_second, device, config.train, half=precision == "bf16"
    )
    return Executor(model, features.stage, device, autocast, ranks.least(budget), ranks)


def evaluate_at_the_end(
    executor: Executor, features: Features, material: Material, config: ExperimentConfig, check: Callable[[], None]
) -> tuple[Predictions, Predictions]:
    """Predictions of the validation and of the test part, in float32, with the first process's weights.

    Raises:
        NumericalError: a prediction isn't finite.
    """
    executor.ranks.share(executor.model.parameters())
    exact = replace(executor, autocast=choose_precision("fp32", executor.device)[1])
    workers = config.data.loader.workers
    validated = evaluate(exact, features, material.validation, workers, check)
    return validated, evaluate(exact, features, material.test, workers, check)


def share_state(state: TrainingState, ranks: Ranks) -> None:
    """Bring every process's training state to that of the first."""
    if ranks.count == 1:
        return
    numbers = (state.epoch, state.step, state.so_far, state.best, state.best_valence, state.stale_epochs)
    tensors: dict[str, torch.Tensor] = {}
    if ranks.first and state.step > 0:
        found = model_and_optimizer(state.model, state.optimizer)
        tensors = {name: tensor.detach().cpu() for name, tensor in found.items()}
    numbers, tensors = ranks.told((numbers, tensors))
    if ranks.first:
        return
    if tensors:
        restore_model_and_optimizer(tensors, state.model, state.optimizer)
    state.epoch, state.step, state.so_far, state.best, state.best_valence, state.stale_epochs = numbers


def stopping_together(stop: StopRequest, ranks: Ranks) -> Callable[[], None]:
    """A check for `fit` and `evaluate` that stops all processes at the same place when any was asked to stop."""

    def check() -> None:
        if (asked := asked_anywhere(stop, ranks)) is not None:
            stop.received = asked
            stop.check()

    return check


def asked_anywhere(stop: StopRequest, ranks: Ranks) -> str | None:
    """The signal that asked this process to stop, or words for one that another process got; None without any."""
    received = stop.received
    return received or "a signal to another process" if ranks.any(received is not None) else None
