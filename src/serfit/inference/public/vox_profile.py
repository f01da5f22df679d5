"""Vox-Profile's dimensional models: WavLM or Whisper, three layers on each frame, their mean, a head each.

    backbone_model.*, weights, model_seq.{0,3,6} (convolutions one frame wide),
    {arousal,valence,dominance}_layer.{0,2} (linear); with Whisper also embed_positions

As published in tiantiaf/wavlm-large-msp-podcast-emotion-dim and tiantiaf/whisper-large-v3-msp-podcast-emotion-dim (Feng
et al., "Vox-Profile", 2025), from tiantiaf0627/vox-profile-release. Of WavLM the frames are the weighted sum of all
hidden states, the last of them after the final norm, as transformers 4 gave it. Of Whisper they are the last state, of
windows of 15 s filled up with silence, and the mean is over the frames of the speech; `weights` has no effect there.
Updates of low rank (LoRA) beside a weight are added to it, as loralib does.
"""

import re
from collections.abc import Mapping
from typing import Any

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

LAYOUT = "Vox-Profile's WavLMWrapper and WhisperWrapper (backbone_model.*, model_seq.*, arousal_layer.*)"

_LEFT_OUT = -1e4
"""A weight of which the softmax is exactly 0."""

_HEAD_WIDTH = 64
"""Of an attention head in every published Whisper; no tensor shows it."""

_KNOWN = re.compile(
    r"backbone_model\..+|weights|embed_positions|model_seq\.[036]\.(weight|bias)|"
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
    whisper = "encoder.conv1.weight" in encoder
    if whisper:
        encoder = _without_decoder(encoder, checkpoint)
    settings = _whisper_settings(encoder) if whisper else wavlm_settings(encoder)
    others = {
        f"pooling.layers.{2 * index}.{part}": checkpoint.tensor(f"model_seq.{3 * index}.{part}")
        for index in range(3)
        for part in ("weight", "bias")
    }
    others = {name: tensor.squeeze(-1) if tensor.ndim == 3 else tensor for name, tensor in others.items()}
    others |= _heads(checkpoint) | ({} if whisper else _mix(checkpoint, settings["num_hidden_layers"]))
    return Parts(
        settings=settings,
        encoder=encoder,
        normalisation=Normalisation(settings.get("do_stable_layer_norm", False), LAYOUT_STATES),
        others=others,
        params=ModelParams(
            encoder_input="window" if whisper else "utterance",
            layers="last" if whisper else "weighted",
            pooling="mean",
            head_hidden=len(others["head.hidden.bias"]),
            output="sigmoid",
        ),
        variant=Variant(
            mix_norm=False, projection=len(others["pooling.layers.0.bias"]), head_norm=False, activation="relu"
        ),
        outputs=DIMENSIONS,
        known=_KNOWN,
        licence="openrail",
        terms="no commercial use, no clinical use, no surveillance",
        assumed=("the encoder's settings are read off the shapes of its tensors: config.json names only its size",),
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


def _without_decoder(backbone: Mapping[str, Tensor], checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Whisper's encoder alone, with the positions that the wrapper puts into it before every pass."""
    encoder = {name.removeprefix("encoder."): one for name, one in backbone.items() if name.startswith("encoder.")}
    return encoder | {"embed_positions.weight": checkpoint.tensor("embed_positions")}


def _whisper_settings(encoder: Mapping[str, Tensor]) -> dict[str, Any]:
    """Whisper's configuration in transformers' words. Raises KeyError where a tensor is missing."""
    width, bands, _ = encoder["conv1.weight"].shape
    return {
        "model_type": "whisper",
        "num_mel_bins": bands,
        "d_model": width,
        "encoder_layers": len({name.split(".")[1] for name in encoder if name.startswith("layers.")}),
        "encoder_attention_heads": width // _HEAD_WIDTH,
        "encoder_ffn_dim": len(encoder["layers.0.fc1.bias"]),
        "max_source_positions": len(encoder["embed_positions.weight"]),
    }


def _mix(checkpoint: Checkpoint, layers: int) -> dict[str, Tensor]:
    """A weight for each of the hidden states: with or without the one that enters the first layer."""
    weights = checkpoint.tensor("weights")
    if len(weights) == layers:
        weights = torch.cat([weights.new_tensor([_LEFT_OUT]), weights])
    return {"mix.weights": weights}


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
