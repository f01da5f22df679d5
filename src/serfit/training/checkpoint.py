"""Weights and training state on disk: safetensors with JSON in the header, no pickle.

    best.safetensors                           trainable tensors at the best mean validation CCC
    checkpoints/step-00000123.safetensors      everything needed to go on after optimiser step 123

Frozen tensors aren't written: a digest of them is, and loading compares it, so that trained weights can't be put
onto another encoder by mistake. A checkpoint carries a SHA-256 of its tensors; one that is torn, altered or foreign
is passed over in favour of the one before.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from serfit.errors import UserError
from serfit.nn.saved import _copy, trainable, weights_digest
from serfit.system.files import WriteError
from serfit.system.tensors import Shapes, read_tensors, write_tensors

KEPT_CHECKPOINTS = 2

Fits = Callable[[Shapes, Mapping[str, Any]], bool]
"""Whether shapes and state of a checkpoint are those that are wanted."""


def save_checkpoint(folder: Path, step: int, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> Path:
    """Write a checkpoint durably, read it back, and only then remove all but the newest `KEPT_CHECKPOINTS`.

    Args:
        folder: the run's checkpoint folder; created when absent.
        step: optimiser steps taken. Checkpoints of later steps, which were passed over when the run went on from an
            earlier one, are removed too.
        tensors: named tensors.
        state: JSON-able rest of the state.

    Raises:
        WriteError: when it can't be written, or isn't the same when read back; the ones before are all there.
    """
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise WriteError(f"can't create {folder}: {error.strerror or error}; make room there") from error
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(state, allow_nan=False)
    path = folder / f"step-{step:08d}.safetensors"
    digest = _digest(held, text)
    write_tensors(path, held, {"state": text, "sha256": digest})
    if _whole(path) is None:
        raise WriteError(f"{path} isn't what was written when read back; that disk can't be trusted")
    there = sorted(folder.glob("step-*.safetensors"))
    newest = [old for old in there if old.name <= path.name][-KEPT_CHECKPOINTS:]
    for old in there:
        if old not in newest:
            old.unlink(missing_ok=True)
    return path


def latest_checkpoint(
    folder: Path, fits: Fits = lambda shapes, state: True
) -> tuple[dict[str, torch.Tensor], dict[str, Any], list[str]] | None:
    """The newest checkpoint that is whole.

    Args:
        folder: the run's checkpoint folder; may be absent.
        fits: whether the shapes of the tensors and the state are those of this run; asked before tensors are read.

    Returns:
        Its tensors, its state, and one sentence for each newer one that had to be passed over; None without any.
    """
    notes: list[str] = []
    for path in sorted(folder.glob("step-*.safetensors"), reverse=True):
        found = _whole(path, fits)
        if found is not None:
            return *found, notes
        notes.append(f"the checkpoint {path.name} is torn, altered or foreign and was passed over")
    if notes:
        raise UserError(
            f"none of the {len(notes)} checkpoints in {folder} is whole and of this run; remove them to begin this run "
            "again from its first step, or start a new one"
        )
    return None


def _whole(
    path: Path, fits: Fits = lambda shapes, state: True
) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """Tensors and state of a checkpoint, or None where anything about it isn't as it was written."""
    states: list[dict[str, Any]] = []

    def state_fits(shapes: Shapes, metadata: Mapping[str, str]) -> bool:
        state = json.loads(metadata.get("state", ""))
        states.append(state)
        return "sha256" in metadata and isinstance(state, dict) and fits(shapes, state)

    try:
        tensors, metadata = read_tensors(path, state_fits)
    except (UserError, RecursionError):
        return None
    return (tensors, states[0]) if metadata["sha256"] == _digest(tensors, metadata["state"]) else None


def bytes_on_disk(model: nn.Module) -> int:
    """Most bytes that a run's weights and checkpoints take: what is kept, and one more of each while it is replaced."""
    weights = sum(parameter.numel() * parameter.element_size() for parameter in trainable(model).values())
    return weights * (3 * (KEPT_CHECKPOINTS + 1) + 2 + 1)


def model_and_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The trainable weights and the optimiser's moments as named tensors."""
    tensors: dict[str, torch.Tensor] = {}
    for name, parameter in trainable(model).items():
        tensors[f"model/{name}"] = parameter
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{key}/{name}"] = value
    return tensors


def restore_model_and_optimizer(
    tensors: Mapping[str, torch.Tensor], model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """The inverse of `model_and_optimizer`, for a model and an optimiser of the same configuration."""
    parameters = trainable(model)
    _copy({name: tensors[f"model/{name}"] for name in parameters}, parameters)
    fused = bool(optimizer.defaults.get("fused"))
    for key, value in tensors.items():
        kind, _, rest = key.partition("/")
        moment, _, name = rest.partition("/")
        if kind == "optimizer":
            parameter = parameters[name]
            device = parameter.device if moment != "step" or fused else torch.device("cpu")
            optimizer.state[parameter][moment] = value.to(device, copy=True)


def _digest(tensors: Mapping[str, torch.Tensor], state: str) -> str:
    return hashlib.sha256((weights_digest(tensors) + state).encode()).hexdigest()
