"""An encoder from what it is made of, for training, bundles and export alike; and what is recorded of it."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from serfit.config.schema import ModelParams
from serfit.errors import UserError
from serfit.labels import SAMPLE_RATE
from serfit.nn.encoders.base import Encoder
from serfit.nn.encoders.data2vec import Data2VecEncoder
from serfit.nn.encoders.source import Source, quiet_transformers
from serfit.nn.encoders.wav2vec2 import Wav2Vec2Encoder
from serfit.nn.encoders.wav2vec2_bert import Wav2Vec2BertEncoder
from serfit.nn.encoders.wav2vec2_conformer import Wav2Vec2ConformerEncoder
from serfit.nn.encoders.whisper import WhisperEncoder
from serfit.nn.saved import weights_digest
from serfit.system.counters import address


def build_encoder(source: Source, params: ModelParams, seed: int, gradient_checkpointing: bool = False) -> Encoder:
    """The encoder of a source, on torch's default device, frozen as the configuration says.

    Args:
        source: its settings and weights.
        params: what is frozen, kept and dropped.
        seed: decides random weights, and those that a checkpoint lacks; torch's global generator stays as it was.
        gradient_checkpointing: recompute activations in the backward pass.

    Raises:
        UserError: an architecture without support, settings that can't be, weights that don't fit or aren't finite,
            too many frozen layers.
    """
    options: dict[str, Any] = {
        "keep_all": params.layers == "weighted",
        "p": params.encoder_dropout,
        "attention_p": params.attention_dropout,
        "gradient_checkpointing": gradient_checkpointing,
    }
    family = source.settings.get("model_type")
    if params.encoder_input == "window" and family != "whisper":
        raise UserError(
            f"model.params.encoder_input is window, which is for Whisper alone, and {params.speech_encoder} was never "
            "trained on windows of one length; set it to utterance"
        )
    encoder: Encoder
    with seeded("encoder", seed), quiet_transformers():
        match family:
            case "wavlm" | "hubert" | "wav2vec2":
                encoder = Wav2Vec2Encoder.of(source, **options)
            case "data2vec-audio":
                encoder = Data2VecEncoder.of(source, **options)
            case "wav2vec2-conformer":
                encoder = Wav2Vec2ConformerEncoder.of(source, **options)
            case "wav2vec2-bert":
                encoder = Wav2Vec2BertEncoder.of(source, **options)
            case "whisper":
                encoder = WhisperEncoder.of(source, windows=params.encoder_input == "window", **options)
            case other:
                kind = other if isinstance(other, str) and other.isidentifier() else repr(other)
                raise UserError(
                    f"{source.where} is of type {kind[:40]}, which serfit doesn't support; use a wavlm, hubert, "
                    "wav2vec2, wav2vec2-bert, wav2vec2-conformer, data2vec-audio or whisper encoder"
                )
    encoder.freeze(params)
    return encoder


@dataclass(frozen=True, slots=True)
class Provenance:
    """The origin of an encoder, and what must be the same when it is used again.

    Attributes:
        name: hub id, folder, file or random:size, as the user wrote it.
        revision: commit on the hub, or None where there is none.
        sha256: `weights_digest` of the weights as loaded.
        normalise: whether waveforms are brought to zero mean and unit variance.
        normalise_from: the file that states it; "layout" where none does, "random" where there is nothing to state.
        sampling_rate: samples per second of the audio that it takes.
        architecture: what it computes besides its weights (see `Encoder.architecture`).
    """

    name: str
    revision: str | None
    sha256: str
    normalise: bool | None = None
    normalise_from: str = ""
    sampling_rate: int = SAMPLE_RATE
    architecture: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, source: Source, encoder: Encoder) -> "Provenance":
        """The record of an encoder that has just been built; without a digest where it has no weights yet."""
        bare = any(parameter.is_meta for parameter in encoder.parameters())
        return cls(
            source.name,
            source.revision,
            "" if bare else weights_digest(encoder.hf),
            encoder.normalise,
            source.normalisation.stated_by,
            architecture=encoder.architecture,
        )


def encoder_differences(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Describe how an encoder differs from its record, weights apart.

    Args:
        recorded: a `Provenance` as plain data; what an older version didn't record differs in nothing.
        now: the same of the present encoder.
    """
    then: dict[str, Any] = {key: recorded[key] for key in ("normalise", "sampling_rate") if key in recorded}
    architecture = recorded.get("architecture")
    then |= architecture if isinstance(architecture, Mapping) else {}
    present = {**now, **now.get("architecture", {})}
    return [
        f"{key} was {value} and is {present[key]}"
        for key, value in sorted(then.items())
        if key in present and value is not None and present[key] != value
    ]


@contextlib.contextmanager
def seeded(*parts: int | str) -> Iterator[None]:
    """Draw from torch's CPU generator as if freshly seeded by an address, and put its state back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(address(*parts))
        yield
