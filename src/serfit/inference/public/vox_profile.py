"""Vox-Profile's dimensional models: a weighted sum of layers, three layers on each frame, their mean, a head each.

    backbone_model.*, weights, model_seq.{0,3,6} (convolutions one frame wide),
    {arousal,valence,dominance}_layer.{0,2} (linear)

As published in tiantiaf/wavlm-large-msp-podcast-emotion-dim (Feng et al., "Vox-Profile", 2025), from
tiantiaf0627/vox-profile-release. Updates of low rank (LoRA) beside a weight are added to it, as loralib does.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from serfit.config.schema import ModelParams
from serfit.errors import UserError
from serfit.inference.public.checkpoint import Checkpoint, Parts
from serfit.inference.public.wavlm import wavlm_settings
from serfit.labels import DIMENSIONS
from serfit.nn.encoders.folder import LAYOUT as LAYOUT_STATES
from serfit.nn.encoders.folder import Normalisation
from serfit.nn.variant import Variant

LAYOUT = "Vox-Profile's WavLMWrapper (backbone_model.*, model_seq.*, arousal_layer.*)"

_LEFT_OUT = -1e4
"""A softmax of which the share is exactly 0."""

_KNOWN = re.compile(
    r"backbone_model\..+|weights|model_seq\.[036]\.(weight|bias)|"
    r"(valence|arousal|dominance|emotion|detailed_out|gender)_layer\.[02]\.(weight|bias)"
)
"""Heads for emotions and gender aren't read: no dimension depends on them."""


def read(checkpoint: Checkpoint) -> Parts | None:
    """Take a model apart; None where it is of another layout. Raises KeyError where a tensor is missing."""
    if not {"model_seq.0.weight", "arousal_layer.0.weight"} <= checkpoint.tensors.keys():
        return None
    if checkpoint.order:
        raise UserError(f"the outputs of {checkpoint.name} are named in its weights; leave --order out")
    encoder = merged(checkpoint.below("backbone_model."))
    settings = wavlm_settings(encoder)
    others = {
        f"pooling.layers.{2 * index}.{part}": checkpoint.tensor(f"model_seq.{3 * index}.{part}")
        for index in range(3)
        for part in ("weight", "bias")
    }
    others = {name: tensor.squeeze(-1) if tensor.ndim == 3 else tensor for name, tensor in others.items()}
    others["mix.weights"] = _mix(checkpoint, settings["num_hidden_layers"])
    others |= _heads(checkpoint)
    return Parts(
        settings=settings,
        encoder=encoder,
        normalisation=Normalisation(settings["do_stable_layer_norm"], LAYOUT_STATES),
        others=others,
        params=ModelParams(
            layers="weighted", pooling="mean", head_hidden=len(others["head.hidden.bias"]), output="sigmoid"
        ),
        variant=Variant(
            mix_norm=False, projection=len(others["pooling.layers.0.bias"]), head_norm=False, activation="relu"
        ),
        outputs=DIMENSIONS,
        known=_KNOWN,
        licence="openrail",
        terms="no commercial use, no clinical use, no surveillance",
        assumed=("WavLM's settings are read off the shapes of its tensors: config.json names only its size",),
    )


def merged(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights with their updates of low rank: W + B A / r for A [r, I] and B [O, r] (loralib, with its alpha of 1)."""
    found = {name: tensor for name, tensor in tensors.items() if not name.endswith((".lora_A", ".lora_B"))}
    for name, low in tensors.items():
        stem = name.removesuffix(".lora_A")
        if name != stem:
            update = tensors[f"{stem}.lora_B"].double() @ low.double() / len(low)
            found[f"{stem}.weight"] = (found[f"{stem}.weight"].double() + update).float()
    return found


def _mix(checkpoint: Checkpoint, layers: int) -> Tensor:
    """A weight for each of the hidden states: with or without the one that enters the first layer."""
    weights = checkpoint.tensor("weights")
    return weights if len(weights) != layers else torch.cat([weights.new_tensor([_LEFT_OUT]), weights])


def _heads(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The heads of all dimensions as one, in which each output reads the hidden units of its own."""
    hidden, out = (
        [[checkpoint.tensor(f"{name}_layer.{layer}.{part}") for name in DIMENSIONS] for part in ("weight", "bias")]
        for layer in (0, 2)
    )
    return {
        "head.hidden.weight": torch.cat(hidden[0]),
        "head.hidden.bias": torch.cat(hidden[1]),
        "head.out.weight": torch.block_diag(*out[0]),  # type: ignore[no-untyped-call]
        "head.out.bias": torch.stack([bias.reshape(()) for bias in out[1]]),
    }
