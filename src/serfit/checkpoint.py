"""Weights and training state on disk: safetensors with JSON in the header, no pickle.

    best.safetensors                           trainable tensors at the best mean validation CCC
    checkpoints/step-00000123.safetensors      everything needed to go on after optimiser step 123

Frozen tensors aren't written: a digest of them is, and loading compares it, so that trained weights can't be put
onto another encoder by mistake. A checkpoint carries a SHA-256 of its tensors; one that is torn, altered or foreign
is passed over in favour of the one before.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from serfit.errors import UserError
from serfit.files import write_bytes
from serfit.nn.weights import weights_digest

KEPT_CHECKPOINTS = 2


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The trainable parameters by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def frozen_digest(model: nn.Module) -> str:
    """Digest of everything in the model that training doesn't change."""
    names = trainable(model)
    return weights_digest({name: tensor for name, tensor in model.state_dict().items() if name not in names})


def save_weights(path: Path, model: nn.Module, frozen: str) -> None:
    """Write the trainable tensors and the digest of the frozen ones."""
    tensors = {name: parameter.detach().cpu().contiguous() for name, parameter in trainable(model).items()}
    write_bytes(path, save(tensors, metadata={"frozen": frozen}))


def load_weights(path: Path, model: nn.Module, frozen: str) -> None:
    """Copy weights written by `save_weights` into a model of the same configuration.

    Raises UserError when the file can't be read, or belongs to another model or encoder.
    """
    tensors, metadata = _read(path)
    parameters = trainable(model)
    if metadata.get("frozen") != frozen or tensors.keys() != parameters.keys():
        raise UserError(
            f"the weights in {path} belong to another encoder or configuration; "
            "use the configuration and the encoder weights of the run that wrote them (config.json, environment.json)"
        )
    _copy(tensors, parameters)


def save_checkpoint(folder: Path, step: int, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> Path:
    """Write a checkpoint durably, then remove all but the newest `KEPT_CHECKPOINTS`.

    Args:
        folder: the run's checkpoint folder; created when absent.
        step: optimiser steps taken.
        tensors: named tensors.
        state: JSON-able rest of the state.
    """
    folder.mkdir(exist_ok=True)
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(state, allow_nan=False)
    path = folder / f"step-{step:08d}.safetensors"
    write_bytes(path, save(held, metadata={"state": text, "sha256": _digest(held, text)}))
    for old in sorted(folder.glob("step-*.safetensors"))[:-KEPT_CHECKPOINTS]:
        old.unlink()
    return path


def latest_checkpoint(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any], list[str]] | None:
    """The newest checkpoint that is whole.

    Returns:
        Its tensors, its state, and one sentence for each newer one that had to be passed over; None without any.
    """
    notes: list[str] = []
    for path in sorted(folder.glob("step-*.safetensors"), reverse=True):
        try:
            tensors, metadata = _read(path)
            state = json.loads(metadata["state"])
            if metadata["sha256"] == _digest(tensors, metadata["state"]):
                return tensors, state, notes
        except (UserError, KeyError, ValueError):
            pass
        notes.append(f"the checkpoint {path.name} is torn or altered and was passed over")
    return None


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


@torch.no_grad()
def _copy(tensors: Mapping[str, torch.Tensor], parameters: Mapping[str, nn.Parameter]) -> None:
    for name, parameter in parameters.items():
        parameter.copy_(tensors[name])


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"can't read {path} as safetensors ({error}); it is missing, torn or of another kind"
        ) from error


def _digest(tensors: Mapping[str, torch.Tensor], state: str) -> str:
    return hashlib.sha256((weights_digest(tensors) + state).encode()).hexdigest()
