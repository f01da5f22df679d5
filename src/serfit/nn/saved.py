"""Trained tensors on disk, beside a digest of the frozen ones they belong to."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from serfit.errors import UserError
from serfit.system.tensors import Shapes, read_tensors, write_tensors


def weights_digest(weights: nn.Module | Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of tensors, whatever their order or device."""
    if isinstance(weights, nn.Module):
        weights = weights.state_dict()
    named = weights.items() if isinstance(weights, Mapping) else weights
    digest = hashlib.sha256()
    for name, tensor in sorted(named, key=lambda pair: pair[0]):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def finite_or_complain(tensors: Mapping[str, Tensor], where: str) -> None:
    """Raise UserError naming tensors that hold NaN or infinity: every prediction would be NaN.

    Args:
        tensors: weights by name.
        where: what they belong to, for the message.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not math.isfinite(
            float(tensor.detach().abs().max() if tensor.numel() else 0)
        ):
            broken = int((~tensor.isfinite()).sum())
            raise UserError(
                f"the weights of {where} aren't finite: {broken} of {tensor.numel()} values of {name} are NaN or "
                "infinite, so that every prediction would be; the file is damaged, or its training diverged: fetch it "
                "again, or use another"
            )


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The trainable parameters by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def frozen_digest(model: nn.Module) -> str:
    """Digest of everything in the model that training doesn't change."""
    names = trainable(model)
    return weights_digest({name: tensor for name, tensor in model.state_dict().items() if name not in names})


def save_weights(path: Path, model: nn.Module, frozen: str, epoch: int = 0) -> None:
    """Write the trainable tensors, the digest of the frozen ones, and the epoch they were reached in."""
    write_tensors(path, trainable(model), {"frozen": frozen, "epoch": str(epoch)})


def load_weights(path: Path, model: nn.Module, frozen: str, epoch: int = 0) -> None:
    """Copy weights written by `save_weights` into a model of the same configuration.

    Args:
        path: the file.
        model: a model of the same configuration.
        frozen: digest of the frozen tensors that must go with the weights.
        epoch: the epoch that they must be of; 0 takes any.

    Raises:
        UserError: when the file can't be read, or belongs to another model, encoder or epoch.
    """
    parameters = trainable(model)
    wanted = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    found: dict[str, str] = {}

    def fits(shapes: Shapes, metadata: Mapping[str, str]) -> bool:
        found.update(metadata)
        return shapes == wanted and metadata.get("frozen") == frozen

    try:
        tensors, _ = read_tensors(path, fits)
    except UserError as error:
        if not found:
            raise
        raise UserError(
            f"the weights in {path} belong to another encoder or configuration; "
            "use the configuration and the encoder weights of the run that wrote them (config.json, environment.json)"
        ) from error
    finite_or_complain(tensors, str(path))
    if epoch and found.get("epoch") != str(epoch):
        raise UserError(
            f"the weights in {path} are of epoch {found.get('epoch')}, and the best epoch of this run is {epoch}: the "
            "run was interrupted and went differently on other hardware; start it again in a new directory"
        )
    _copy(tensors, parameters)


@torch.no_grad()
def _copy(tensors: Mapping[str, torch.Tensor], parameters: Mapping[str, nn.Parameter]) -> None:
    for name, parameter in parameters.items():
        parameter.copy_(tensors[name])
