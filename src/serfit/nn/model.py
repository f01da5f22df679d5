"""The whole network: encoder, layer mix, pooling and head."""

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from serfit.config import schema
from serfit.config.schema import ModelParams
from serfit.nn.dropout import Noise, dropout
from serfit.nn.encoder import CNN, EMBEDDING, WAVEFORM, SpeechEncoder, States
from serfit.nn.frames import Layout
from serfit.nn.pooling import LayerMix, build_pooling, mean_weights, weighted_mean
from serfit.nn.weights import Provenance, load_encoder, seeded

_HEAD_SITE = 0


class Head(nn.Module):
    """Linear, layer norm, ReLU, dropout, linear: a pooled vector to D values on the scale [0, 1].

    It starts close to 0.5, the middle of the scale.
    """

    def __init__(
        self, width: int, hidden: int, dimensions: int, p: float, output: Literal["linear", "sigmoid"]
    ) -> None:
        """A head from width inputs over hidden units to dimensions outputs, with dropout p."""
        super().__init__()
        self.hidden = nn.Linear(width, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.out = nn.Linear(hidden, dimensions)
        self.p = p
        self.squash = output == "sigmoid"
        nn.init.normal_(self.out.weight, std=0.1 / hidden**0.5)
        nn.init.constant_(self.out.bias, 0.0 if self.squash else 0.5)

    def forward(self, pooled: Tensor, noise: Noise | None = None) -> Tensor:
        """[B, P] to [B, D]."""
        hidden = torch.relu(self.norm(self.hidden(pooled)))
        values: Tensor = self.out(dropout(hidden, self.p, noise, _HEAD_SITE))
        return values.sigmoid() if self.squash else values


class EmotionModel(nn.Module):
    """Speech to emotion dimensions, as a chain of stages that can be entered anywhere.

    Attributes:
        encoder: the pretrained part; all its parameters are named `encoder.`.
        mix: weighted sum of hidden states.
        pooling: trainable pooling, or None for the mean.
        head: pooled vector to D values.
        provenance: where the encoder's weights came from.
    """

    def __init__(self, encoder: SpeechEncoder, params: ModelParams, dimensions: int, provenance: Provenance) -> None:
        """Put a head for so many dimensions on an encoder, initialised from torch's global generator."""
        super().__init__()
        self.encoder = encoder
        self.mix = LayerMix(encoder.kept)
        self.pooling = build_pooling(params.pooling, encoder.width)
        self.embedding_width = encoder.width * (2 if params.pooling == "attentive_statistics" else 1)
        self.head = Head(self.embedding_width, params.head_hidden, dimensions, params.head_dropout, params.output)
        self.provenance = provenance

    @property
    def last_stage(self) -> int:
        """The last stage a feature can stand at: pooled with mean pooling, else the encoder's output."""
        return self.encoder.last_stage + (self.pooling is None)

    @property
    def frozen_stages(self) -> int:
        """The last stage before the first trainable parameter, whose features may be stored."""
        frozen = self.encoder.frozen_stages
        return self.last_stage if frozen == self.encoder.last_stage else frozen

    def stage_name(self, stage: int) -> str:
        """What a feature at a stage is, in words."""
        if stage == WAVEFORM:
            return "waveform"
        if stage == CNN:
            return "output of the CNN"
        if stage == EMBEDDING:
            return "input of the transformer"
        if stage < self.encoder.last_stage:
            return f"output of transformer layer {stage - EMBEDDING} of {self.encoder.depth}"
        assert stage <= self.last_stage, f"no stage {stage} in a model of {self.last_stage}"
        return "output of the encoder" if stage == self.encoder.last_stage else "pooled output of the encoder"

    def feature_frames(self, samples: int, stage: int) -> int:
        """Length on axis 0 of the feature that a waveform of so many samples has at a stage."""
        if stage == WAVEFORM:
            return samples
        return 1 if stage > self.encoder.last_stage else int(self.encoder.frame_count(samples))

    def prefix_parameters(self, stop: int) -> dict[str, Tensor]:
        """Everything a feature at a stage depends on, by name: parameters and buffers of the stages up to it."""
        stages = range(1, min(stop, self.encoder.last_stage) + 1)
        return {f"encoder.{name}": t for stage in stages for name, t in self.encoder.stage_tensors(stage)}

    def prefix_recipe(self, stop: int) -> dict[str, Any]:
        """What else a feature at a stage depends on: the stage, which states are kept, and the architecture."""
        return {"stage": stop, "keep_all": self.encoder.keep_all, "architecture": self.encoder.architecture}

    @torch.no_grad()
    def prefix(self, waveform: Tensor, stop: int) -> Tensor:
        """The feature of one waveform [S] at a stage, as in evaluation, on the model's device and in its precision."""
        assert waveform.ndim == 1, f"one waveform [S], not {tuple(waveform.shape)}"
        inputs = waveform[None].to(self.encoder.device, self.encoder.dtype)
        states = States((inputs,), Layout.of((len(waveform),), len(waveform), inputs.device))
        states = self.encoder.run(states, WAVEFORM, min(stop, self.encoder.last_stage))
        if stop > self.encoder.last_stage:
            return self._layer_means(states)
        if stop < EMBEDDING or not self.encoder.keep_all:
            return states.newest[0]
        return torch.stack(states.tensors, dim=2)[0]

    def forward(
        self, inputs: Tensor, lengths: Tensor, start: int, noise: Noise | None = None, time_mask: Tensor | None = None
    ) -> Tensor:
        """Predictions [B, D] on the scale [0, 1] from a padded batch of features.

        Args:
            inputs: features at stage start, [B, T, ...], padded at the end of axis 1.
            lengths: [B], valid entries on axis 1. On the host they save a synchronisation.
            start: the stage that the features stand at.
            noise: dropout seeds, one per utterance; None computes without dropout.
            time_mask: bool [B, T] in frames, what the transformer mustn't see; only where start is below it.
        """
        pooled = self.embed(inputs, lengths, start, noise, time_mask)
        with torch.autocast(pooled.device.type, enabled=False):
            predictions: Tensor = self.head(pooled, noise)
        return predictions

    def embed(
        self, inputs: Tensor, lengths: Tensor, start: int, noise: Noise | None = None, time_mask: Tensor | None = None
    ) -> Tensor:
        """The pooled vectors [B, P] behind the predictions, P = `embedding_width`; arguments as for forward."""
        inputs = inputs.to(self.encoder.dtype)
        if start > self.encoder.last_stage:
            assert self.pooling is None, f"no stage {start} without mean pooling"
            return self.mix.pooled(inputs[:, 0])
        layout = Layout.of(lengths.tolist(), inputs.shape[1], inputs.device)
        split = start >= EMBEDDING and self.encoder.keep_all
        states = States(inputs.unbind(2) if split else (inputs,), layout)
        return self.pool(self.encoder.run(states, start, self.encoder.last_stage, noise, time_mask))

    def pool(self, states: States) -> Tensor:
        """The pooled vectors [B, P] of what the encoder's last stage gives."""
        with torch.autocast(states.newest.device.type, enabled=False):
            if self.pooling is None:
                return self.mix.pooled(self._layer_means(states))
            tensors = tuple(tensor.to(self.encoder.dtype) for tensor in states.tensors)
            pooled: Tensor = self.pooling(self.mix(tensors), states.layout)
        return pooled

    def _layer_means(self, states: States) -> Tensor:
        """Mean over valid frames of each normalised hidden state, [B, K, H]."""
        with torch.autocast(states.newest.device.type, enabled=False):
            weights = mean_weights(states.layout, self.encoder.dtype)
            kept = (self.mix.normalised(tensor.to(self.encoder.dtype)) for tensor in states.tensors)
            return torch.stack([weighted_mean(tensor, weights) for tensor in kept], dim=1)


def build_model(params: ModelParams, dimensions: int, seed: int, gradient_checkpointing: bool = False) -> EmotionModel:
    """The network that the configuration describes, in evaluation mode, on the CPU, in float32.

    Args:
        params: encoder, pooling and head.
        dimensions: number of outputs D.
        seed: decides the head's first weights (whatever the encoder) and an untrained encoder's.
        gradient_checkpointing: recompute the encoder's activations in the backward pass.

    Raises:
        UserError: as `serfit.nn.weights.load_encoder`.
    """
    encoder, provenance = load_encoder(params, seed, gradient_checkpointing)
    with seeded("head", seed):
        return EmotionModel(encoder, params, dimensions, provenance).eval()


def normalised(waveform: torch.Tensor) -> torch.Tensor:
    """A waveform [S] at zero mean and unit variance, as transformers' feature extractor does it.

    NaN where samples are so large that their variance isn't finite: dividing by it would turn them into silence.
    """
    centred = waveform - waveform.mean()
    variance = centred.square().mean()
    return torch.where(variance.isfinite(), centred / (variance + 1e-7).sqrt(), math.nan)


def model_of(config: schema.ExperimentConfig) -> EmotionModel:
    """The network of an experiment, on the CPU. Raises UserError as `build_model`."""
    return build_model(
        config.model.params,
        dimensions=len(config.data.dimensions),
        seed=config.experiment.seed,
        gradient_checkpointing=config.train.gradient_checkpointing,
    )
