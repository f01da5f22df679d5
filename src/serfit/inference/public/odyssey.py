"""The baselines of the Odyssey 2024 challenge: WavLM, attentive statistics, and a head like serfit's.

    ssl_model.*, pool_model.sap_linear.{weight,bias}, pool_model.attention,
    ser_model.fc.0.0 (linear), ser_model.fc.0.1 (layer norm), ser_model.out.0 (linear)

As published in 3loi/SER-Odyssey-Baseline-WavLM-Multi-Attributes and the models of single attributes (Goncalves et al.,
"Odyssey 2024 speech emotion recognition challenge", 2024), trained by msplabresearch/MSP-Podcast_Challenge. The code
beside these weights isn't read.
"""

import re
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

from serfit.config.schema import ModelParams
from serfit.inference.public.checkpoint import Checkpoint, Parts
from serfit.inference.public.wavlm import wavlm_settings
from serfit.labels import Dimension
from serfit.nn.encoders.folder import LAYOUT as LAYOUT_STATES
from serfit.nn.encoders.folder import Normalisation
from serfit.nn.variant import Variant
from serfit.system.records import Number, Record, from_plain

LAYOUT = "the Odyssey 2024 baselines' SERModel (ssl_model.*, pool_model.*, ser_model.*)"

TRAINED_ORDER: tuple[Dimension, ...] = ("arousal", "dominance", "valence")
"""Outputs of the model for all three: EmoAct, EmoDom, EmoVal of the labels. The table on its page is permuted."""

_SMALLEST = 1e-6
"""Added to the standard deviation by which waveforms are divided."""

_FIRST = "feature_extractor.conv_layers.0.conv"

_RENAMED = {
    "pooling.hidden.weight": "pool_model.sap_linear.weight",
    "pooling.hidden.bias": "pool_model.sap_linear.bias",
    "head.hidden.weight": "ser_model.fc.0.0.weight",
    "head.hidden.bias": "ser_model.fc.0.0.bias",
    "head.norm.weight": "ser_model.fc.0.1.weight",
    "head.norm.bias": "ser_model.fc.0.1.bias",
    "head.out.weight": "ser_model.out.0.weight",
    "head.out.bias": "ser_model.out.0.bias",
}


_KNOWN = re.compile(r"ssl_model\..+|pool_model\.attention|" + "|".join(re.escape(name) for name in _RENAMED.values()))


class _Config(Record):
    """The part of config.json that counts: mean and standard deviation of the training waveforms."""

    mean: Number
    std: Annotated[Number, Field(ge=0.0)]


def read(checkpoint: Checkpoint) -> Parts | None:
    """Take a model apart; None where it is of another layout. Raises KeyError where a tensor is missing."""
    if not {"pool_model.attention", "ser_model.out.0.weight"} <= checkpoint.tensors.keys():
        return None
    where = str(checkpoint.folder / "config.json")
    config = from_plain(_Config, dict(checkpoint.config), where, "fetch it again: waveforms are normalised by it")
    others = {ours: checkpoint.tensor(theirs) for ours, theirs in _RENAMED.items()}
    others["pooling.score.weight"] = checkpoint.tensor("pool_model.attention").t()
    encoder = checkpoint.below("ssl_model.")
    settings = wavlm_settings(encoder)
    count = len(others["head.out.bias"])
    usual = TRAINED_ORDER if count == len(TRAINED_ORDER) else _named(checkpoint.name)
    return Parts(
        settings=settings | {"conv_bias": True},
        encoder=_normalising(encoder, settings, config.mean, config.std + _SMALLEST),
        normalisation=Normalisation(False, LAYOUT_STATES),
        others=others,
        params=ModelParams(layers="last", pooling="attentive_statistics", head_hidden=len(others["head.hidden.bias"])),
        variant=Variant(attention_width=len(others["pooling.hidden.bias"]), least_variance=1e-5),
        outputs=checkpoint.outputs(count, usual),
        known=_KNOWN,
        licence="mit",
        terms="",
        assumed=("the encoder's settings are read off the shapes of its tensors: config.json names only its size",),
    )


def _named(name: str) -> tuple[Dimension, ...]:
    """The dimension at the end of a model's name, as in SER-Odyssey-Baseline-WavLM-Valence; empty for another end."""
    return tuple(one for one in TRAINED_ORDER if name.lower().endswith(one))


def _normalising(
    encoder: dict[str, Tensor], settings: dict[str, Any], mean: float, deviation: float
) -> dict[str, Tensor]:
    """The encoder's tensors with (waveform - mean) / deviation in its first convolution, which has no padding."""
    biases = {
        f"feature_extractor.conv_layers.{layer}.conv.bias": encoder[_FIRST + ".weight"].new_zeros(channels)
        for layer, channels in enumerate(settings["conv_dim"])
    }
    changed = biases | encoder
    weight = encoder[f"{_FIRST}.weight"].double() / deviation
    changed[f"{_FIRST}.bias"] = (changed[f"{_FIRST}.bias"].double() - mean * weight.sum((1, 2))).float()
    changed[f"{_FIRST}.weight"] = weight.float()
    return changed
