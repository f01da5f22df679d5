"""A training state to and from the checkpoints of its run."""

from typing import Any

import torch

from serfit import runs
from serfit.checkpoint import latest_checkpoint, model_and_optimizer, restore_model_and_optimizer, save_checkpoint
from serfit.runs import Run
from serfit.trainer import EpochSoFar, TrainingState


def save_state(state: TrainingState, run: Run) -> None:
    """Write everything `fit` needs to go on from here."""
    so_far = state.so_far
    tensors = model_and_optimizer(state.model, state.optimizer)
    tensors["so_far/places"] = torch.tensor(so_far.places, dtype=torch.int64)
    tensors["so_far/values"] = torch.cat(so_far.values) if so_far.values else torch.zeros(0)
    numbers = {
        "epoch": state.epoch,
        "step": state.step,
        "best": state.best,
        "best_valence": state.best_valence,
        "stale_epochs": state.stale_epochs,
        "so_far": {
            "steps": so_far.steps,
            "loss": so_far.loss,
            "gradient_norm": so_far.gradient_norm,
            "constant_batches": so_far.constant_batches,
            "learning_rates": so_far.learning_rates,
        },
    }
    save_checkpoint(run / runs.CHECKPOINTS, state.step, tensors, numbers)


def restore(state: TrainingState, run: Run) -> list[str]:
    """Bring a fresh state, and the run's records, to the newest whole checkpoint, if there is one.

    Returns:
        What there is to say about it.
    """
    found = latest_checkpoint(run / runs.CHECKPOINTS)
    if found is None:
        run.forget_after(0)
        return []
    tensors, numbers, notes = found
    restore_model_and_optimizer(tensors, state.model, state.optimizer)
    state.epoch, state.step = numbers["epoch"], numbers["step"]
    state.best, state.best_valence = _pair(numbers["best"]), _pair(numbers["best_valence"])
    state.stale_epochs = numbers["stale_epochs"]
    places = tensors["so_far/places"].tolist()
    state.so_far = EpochSoFar(**numbers["so_far"], places=places, values=[tensors["so_far/values"]] if places else [])
    run.forget_after(state.epoch - 1)
    return [*notes, f"going on after step {state.step}, in epoch {state.epoch}"]


def _pair(value: Any) -> tuple[float, int] | None:
    return None if value is None else (float(value[0]), int(value[1]))
