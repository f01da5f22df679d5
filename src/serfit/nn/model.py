"""The whole network: encoder, layer mix, pooling and head."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from serfit.config import schema
from serfit.config.schema import ModelParams
from serfit.nn.dropout import DropoutSeeds, dropout
from serfit.nn.encoders.base import EMBEDDING, INPUT, Encoder, States
from serfit.nn.encoders.build import Provenance, build_encoder, seeded
from serfit.nn.encoders.source import Source, find_encoder
from serfit.nn.frames import Layout
from serfit.nn.pooling import LayerMix, build_pooling, mean_weights, weighted_mean
from serfit.nn.variant import TRAINED, Variant

_HEAD_SITE = 0


class Head(nn.Module):
    """Linear, layer norm, ReLU, dropout, linear: a pooled vector to D values on the scale [0, 1].

    It starts close to 0.5, the middle of the scale.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        dimensions: int,
        p: float,
        output: Literal["linear", "sigmoid"],
        variant: Variant = TRAINED,
    ) -> None:
        """A head from width inputs over hidden units to dimensions outputs, with dropout p."""
        super().__init__()
        self.dimensions = dimensions
        self.hidden = nn.Linear(width, hidden)
        self.norm = nn.LayerNorm(hidden) if variant.head_norm else nn.Identity()
        self.activation = torch.tanh if variant.activation == "tanh" else torch.relu
        self.out = nn.Linear(hidden, dimensions)
        self.p = p
        self.squash = output == "sigmoid"
        nn.init.normal_(self.out.weight, std=0.1 / hidden**0.5)
        nn.init.constant_(self.out.bias, 0.0 if self.squash else 0.5)

    def forward(self, pooled: Tensor, noise: DropoutSeeds | None = None) -> Tensor:
        """[B, P] to [B, D]."""
        hidden = self.activation(self.norm(self.hidden(pooled)))
        values: Tensor = self.out(dropout(hidden, self.p, noise, _HEAD_SITE))
        return values.sigmoid() if self.squash else values


class EmotionModel(nn.Module):
    """Speech to emotion dimensions, as a chain of stages that can be entered anywhere.

    Attributes:
        encoder: the pretrained part; all its parameters are named `encoder.`.
        mix: weighted sum of hidden states.
        pooling: frames to one vector.
        head: pooled vector to D values.
        provenance: where the encoder's weights came from.
    """

    def __init__(
        self,
        encoder: Encoder,
        params: ModelParams,
        dimensions: int,
        provenance: Provenance,
        variant: Variant = TRAINED,
    ) -> None:
        """Put a head for so many dimensions on an encoder, initialised from torch's global generator."""
        super().__init__()
        self.encoder = encoder
        self.mix = LayerMix(encoder.kept, norm=variant.mix_norm)
        self.pooling = build_pooling(params.pooling, encoder.width, variant)
        self.embedding_width = self.pooling.width
        self.head = Head(
            self.embedding_width, params.head_hidden, dimensions, params.head_dropout, params.output, variant
        )
        self.provenance = provenance

    @property
    def last_stage(self) -> int:
        """The last stage a feature can be at: pooled where the pooling is linear, else the encoder's output."""
        return self.encoder.last_stage + self.pooling.linear

    @property
    def frozen_stages(self) -> int:
        """The last stage before the first trainable parameter, whose features may be stored."""
        frozen = self.encoder.frozen_stages
        return self.last_stage if frozen == self.encoder.last_stage else self.encoder.entry(frozen)

    @property
    def statistics_stage(self) -> int:
        """The stage of `layer_statistics`, beside the chain that leads to predictions."""
        return self.encoder.last_stage + 2

    def stage_name(self, stage: int) -> str:
        """Describe a feature at a stage in words; part of a stored feature's identity."""
        if stage == self.statistics_stage:
            return "mean and standard deviation over time of every hidden state"
        assert stage <= self.last_stage, f"no stage {stage} in a model of {self.last_stage}"
        return "pooled output of the encoder" if stage > self.encoder.last_stage else self.encoder.stage_name(stage)

    def feature_shape(self, samples: int, stage: int) -> tuple[int, ...]:
        """Shape of the feature that a waveform of so many samples has at a stage, time first."""
        if stage > self.encoder.last_stage:
            return 1 + (stage == self.statistics_stage), self.encoder.kept, self.encoder.width
        return self.encoder.feature_shape(samples, stage)

    def entries_per_second(self, stage: int) -> float | None:
        """Entries on the time axis of a feature, per second of speech; None once pooled over time."""
        return None if stage > self.encoder.last_stage else self.encoder.entries_per_second(stage)

    def computed_entries(self, entries: int, stage: int) -> int:
        """Entries of a feature at a stage that one of so many is worth when passes are planned."""
        return self.encoder.computed_samples(entries) if stage == INPUT else entries

    def prefix_parameters(self, stop: int) -> dict[str, Tensor]:
        """Everything a feature at a stage depends on, by name: parameters and buffers of the stages up to it."""
        stages = range(1, min(stop, self.encoder.last_stage) + 1)
        return {f"encoder.{name}": t for stage in stages for name, t in self.encoder.stage_tensors(stage)}

    def prefix_recipe(self, stop: int) -> dict[str, Any]:
        """What else a feature at a stage depends on: the stage, which states are kept, and the architecture."""
        recipe = {"stage": stop, "keep_all": self.encoder.keep_all, "architecture": self.encoder.architecture}
        return recipe if self.mix.norm else recipe | {"mix_norm": False}

    @torch.no_grad()
    def prefix(self, prepared: Tensor, stop: int) -> Tensor:
        """The feature of one utterance at a stage, as in evaluation, on the model's device and in its precision.

        Args:
            prepared: what `Encoder.prepare` makes of its waveform.
            stop: the stage.
        """
        inputs = prepared[None].to(self.encoder.device, self.encoder.dtype)
        states = States((inputs,), Layout.of((len(prepared),), len(prepared), inputs.device))
        states = self.encoder.run(states, INPUT, min(stop, self.encoder.last_stage))
        if stop == self.statistics_stage:
            return layer_statistics(states)[0]
        if stop > self.encoder.last_stage:
            return self._layer_means(states)
        if stop < EMBEDDING or not self.encoder.keep_all:
            return states.newest[0, : states.layout.counts[0]]
        return torch.stack(states.tensors, dim=2)[0, : states.layout.counts[0]]

    def forward(
        self,
        inputs: Tensor,
        lengths: Tensor,
        start: int,
        noise: DropoutSeeds | None = None,
        time_mask: Tensor | None = None,
    ) -> Tensor:
        """Predictions [B, D] on the scale [0, 1] from a padded batch of features.

        Args:
            inputs: features at stage start, [B, T, ...], padded at the end of axis 1.
            lengths: [B], valid entries on axis 1. On the host they save a synchronisation.
            start: the stage that the features are at.
            noise: dropout seeds, one per utterance; None computes without dropout.
            time_mask: bool [B, T] in frames, what the transformer mustn't see; only where start is below it.
        """
        pooled = self.embed(inputs, lengths, start, noise, time_mask)
        with torch.autocast(pooled.device.type, enabled=False):
            predictions: Tensor = self.head(pooled, noise)
        return predictions

    def embed(
        self,
        inputs: Tensor,
        lengths: Tensor,
        start: int,
        noise: DropoutSeeds | None = None,
        time_mask: Tensor | None = None,
    ) -> Tensor:
        """The pooled vectors [B, P] behind the predictions, P = `embedding_width`; arguments as for forward."""
        inputs = inputs.to(self.encoder.dtype)
        if start > self.encoder.last_stage:
            assert self.pooling.linear, f"no stage {start} without a linear pooling"
            with torch.autocast(inputs.device.type, enabled=False):
                return self.mix.pooled(inputs[:, 0])
        layout = Layout.of(lengths.tolist(), inputs.shape[1], inputs.device)
        split = start >= EMBEDDING and self.encoder.keep_all
        states = States(inputs.unbind(2) if split else (inputs,), layout)
        return self.pool(self.encoder.run(states, start, self.encoder.last_stage, noise, time_mask))

    def pool(self, states: States) -> Tensor:
        """The pooled vectors [B, P] of what the encoder's last stage gives."""
        with torch.autocast(states.newest.device.type, enabled=False):
            if self.pooling.linear:
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


def layer_statistics(states: States) -> Tensor:
    """Mean and standard deviation over valid frames of each hidden state as it comes, [B, 2, K, H]."""
    weights = mean_weights(states.layout, states.newest.dtype)
    with torch.autocast(states.newest.device.type, enabled=False):
        means = [weighted_mean(tensor, weights) for tensor in states.tensors]
        variances = [
            weighted_mean((tensor - mean[:, None]).square(), weights)
            for tensor, mean in zip(states.tensors, means, strict=True)
        ]
    return torch.stack([torch.stack(means, dim=1), torch.stack(variances, dim=1).sqrt()], dim=1)


def build_model(
    params: ModelParams,
    dimensions: int,
    seed: int,
    gradient_checkpointing: bool = False,
    source: Source | None = None,
    variant: Variant = TRAINED,
) -> EmotionModel:
    """The network that a configuration describes, in evaluation mode, in float32, on torch's default device.

    Args:
        params: encoder, pooling and head.
        dimensions: number of outputs D.
        seed: decides the head's first weights (whatever the encoder) and an untrained encoder's.
        gradient_checkpointing: recompute the encoder's activations in the backward pass.
        source: what the encoder is made of; None finds what the configuration names.
        variant: other parts than those of networks that serfit trains, for public models.

    Raises:
        UserError: as `find_encoder` and `build_encoder`.
    """
    source = find_encoder(params.speech_encoder, params.encoder_revision) if source is None else source
    encoder = build_encoder(source, params, seed, gradient_checkpointing)
    with seeded("head", seed):
        return EmotionModel(encoder, params, dimensions, Provenance.of(source, encoder), variant).eval()


def model_of(config: schema.ExperimentConfig) -> EmotionModel:
    """The network of an experiment, on the CPU. Raises UserError as `build_model`."""
    return build_model(
        config.model.params,
        dimensions=len(config.data.dimensions),
        seed=config.experiment.seed,
        gradient_checkpointing=config.train.gradient_checkpointing,
    )
