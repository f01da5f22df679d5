"""A checkpoint's tensors in the encoder that its configuration describes: every one of them, or a refusal.

A checkpoint may be the bare encoder, or a model for some task around it. transformers fills what it doesn't find with
random numbers, drops what it can't place, and reports both in a log; here both are refused by name.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from serfit.errors import UserError, listed
from serfit.nn.saved import finite_or_complain

_UNREAD = ("masked_spec_embed", "num_batches_tracked")
"""Endings of names whose tensors a checkpoint may lack, or hold beyond its configuration: no prediction reads them."""

_HEADS = (
    "classifier", "decoder", "final_proj", "label_embs_concat", "layer_weights", "lm_head", "objective", "proj_out",
    "project_hid", "project_q", "projector", "quantizer", "target_glu", "tdnn",
)  # fmt: skip
"""First words of the names of tensors beside a bare encoder: heads for recognition, classification and pretraining."""

_WEIGHT_NORM = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
"""torch's old names of a weight norm's two tensors, and its present ones."""

_MASTERS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Types of numbers that float32 can stand for: those of 8 bits mean nothing without the scales beside them."""


def with_weights(build: Callable[[], Any], tensors: Mapping[str, Tensor] | None, name: str) -> Any:
    """A transformers model with a checkpoint's weights in float32, in memory of its own.

    Args:
        build: makes the bare model; called on the meta device where there are weights.
        tensors: the weights as read; None leaves the model as it is built, on torch's default device.
        name: of the encoder, for messages.

    Raises:
        UserError: the weights don't belong to the model, or aren't finite.
    """
    if tensors is None:
        return build()
    with torch.device("meta"):
        bare = build()
    present = fitting(tensors, bare.state_dict(), name)
    finite_or_complain(present, name)
    hf, report = type(bare).from_pretrained(
        None, config=bare.config, state_dict=present, dtype=torch.float32, output_loading_info=True
    )
    left_out = [key for keys in report.values() for key in keys if not str(key).endswith(_UNREAD)]
    assert not left_out, f"transformers didn't take {left_out}"
    for tensor in hf.state_dict(keep_vars=True).values():
        tensor.data = tensor.data.clone()  # from views of the file to memory of its own: see tensors.read_tensors
    return hf


def fitting(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors of a checkpoint that make up an encoder, by the encoder's own names.

    Args:
        tensors: the weights as read: of the encoder, or of a model around it.
        wanted: the encoder's state dict, on any device.
        name: of the encoder, for messages.

    Raises:
        UserError: a tensor of the encoder is missing, left over, there twice, or of another shape or type.
    """
    named = _present_names(tensors, name)
    prefix = _prefix(named, wanted, name)
    inside = {key.removeprefix(prefix): tensor for key, tensor in named.items() if key.startswith(prefix)}
    if missing := sorted(key for key in wanted if key not in inside and not key.endswith(_UNREAD)):
        raise UserError(
            f"{name} lacks weights that its configuration promises ({listed(missing)}), and random numbers would "
            "take their place; the file is incomplete or of another architecture: fetch it again"
        )
    left = sorted(prefix + key for key in inside.keys() - wanted.keys() if not _belongs_elsewhere(key))
    if left:
        raise UserError(
            f"{name} holds weights that its configuration leaves out ({listed(left)}), and the encoder would be "
            "another than the one that was trained; fetch config.json and weights again, together"
        )
    found = {key: inside[key] for key in wanted if key in inside}
    for key, tensor in found.items():
        other = wanted[key]
        if tensor.shape != other.shape:
            raise UserError(
                f"{name} holds {prefix}{key} of shape {list(tensor.shape)}, and its configuration asks for "
                f"{list(other.shape)}; fetch config.json and weights again, together"
            )
        if other.is_floating_point() and tensor.dtype not in _MASTERS:
            raise UserError(
                f"{name} holds {prefix}{key} as {str(tensor.dtype).removeprefix('torch.')}: it is quantised, which "
                "serfit doesn't support; use the encoder in float32, float16 or bfloat16"
            )
    return found


def _present_names(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors with torch's present names for weight norms. Raises UserError where one is there by both names."""
    found: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        stem, _, last = key.rpartition(".")
        present = f"{stem}.{_WEIGHT_NORM[last]}" if last in _WEIGHT_NORM else key
        if present in found:
            raise UserError(f"{name} holds {present} twice, by its old and its new name; fetch the weights again")
        found[present] = tensor
    return found


def _prefix(named: Mapping[str, Tensor], wanted: Mapping[str, Tensor], name: str) -> str:
    """What the names of an encoder's tensors begin with in a checkpoint: the beginning under which most of them are.

    A model for a task keeps its encoder below a name such as "wavlm." or "model.encoder.", serfit below "encoder.hf.".

    Raises:
        UserError: several encoders are there in full.
    """
    read = {key for key in wanted if not key.endswith(_UNREAD)}
    held: Counter[str] = Counter()
    for key in named:
        words = key.split(".")
        ends = (".".join(words[start:]) for start in range(len(words)))
        held.update(key.removesuffix(end) for end in ends if end in read)
    several = sorted(prefix for prefix, count in held.items() if count == len(read))
    if len(several) > 1:
        raise UserError(
            f"{name} holds the encoder more than once, below {listed(several)}, and nothing states which one is "
            "meant; keep one of them in the file"
        )
    return max(held, key=lambda prefix: held[prefix], default="")


def _belongs_elsewhere(key: str) -> bool:
    """Whether a tensor that the encoder doesn't ask for is part of a head, or one that no prediction reads."""
    return key.endswith(_UNREAD) or key.partition(".")[0] in _HEADS
