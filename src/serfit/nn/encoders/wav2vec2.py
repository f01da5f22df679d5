"""WavLM, HuBERT and wav2vec 2.0: seven convolutions over the waveform, a convolution for positions, a transformer."""

import math
from typing import Any, Self

import torch
from torch import Tensor, nn

from serfit.nn.dropout import DropoutSeeds, dropout
from serfit.nn.encoders.attention import PositionBias, attend, position_bias
from serfit.nn.encoders.base import CNN, EMBEDDING, INPUT, Encoder, States
from serfit.nn.encoders.convolution import convolution, grouped_convolution
from serfit.nn.encoders.sizes import Sizes
from serfit.nn.encoders.source import Source
from serfit.nn.encoders.wav2vec2_config import Settings, Transformer, configured, refuse_unknown_parts, skeleton
from serfit.nn.encoders.wav2vec2_graph import bias_of_pairs, convolved, normalised_rows
from serfit.nn.encoders.weights import with_weights
from serfit.nn.frames import Layout, frame_count, shortest_input, valid_mask

_ARCHITECTURE = (
    "model_type", "conv_kernel", "conv_stride", "feat_extract_norm", "feat_extract_activation", "do_stable_layer_norm",
    "layer_norm_eps", "hidden_act", "num_attention_heads", "num_conv_pos_embeddings", "num_conv_pos_embedding_groups",
    "num_buckets", "max_bucket_distance", "feat_proj_layer_norm",
)  # fmt: skip


class Wav2Vec2Encoder(Encoder):
    """WavLM, HuBERT or wav2vec2 (also XLS-R and MMS), post-norm (base) or stable layer norm (large).

    Attributes:
        norm_stage: where the encoder's own norm acts: on the first layer's input or the last one's output; None if it
            has none.
    """

    known: type[Transformer] = Settings
    described_by: tuple[str, ...] = _ARCHITECTURE
    position_modules: tuple[str, ...] = ("encoder.pos_conv_embed",)
    position_numbers = 2
    """Multiples of H that the backward pass keeps per frame where positions are added."""

    def __init__(self, hf: nn.Module, *, normalise: bool | None = None, **options: Any) -> None:
        """Wrap a transformers model.

        Args:
            hf: the model.
            normalise: None takes what the layout suggests: encoders with layer norms in their CNN were trained on
                normalised audio.
            options: as for `Encoder`.

        Raises:
            UserError: the model has parts that this forward doesn't know.
        """
        config: Any = hf.config
        refuse_unknown_parts(config)
        channels, hop = self.front_sizes(config)
        super().__init__(
            hf,
            Sizes(config.hidden_size, config.num_attention_heads, config.intermediate_size, channels, hop),
            config.num_hidden_layers,
            normalise=getattr(config, "feat_extract_norm", "layer") == "layer" if normalise is None else normalise,
            **options,
        )
        self.norm_stage: int | None = self.last_stage if getattr(config, "do_stable_layer_norm", False) else EMBEDDING
        if (mask := getattr(hf, "masked_spec_embed", None)) is not None:
            mask.requires_grad_(False)

    @staticmethod
    def front_sizes(config: Any) -> tuple[int, int]:
        """C, the width of the first stage's output, and samples per frame."""
        return config.conv_dim[-1], math.prod(config.conv_stride)

    @classmethod
    def of(cls, source: Source, **options: Any) -> Self:
        """Build the encoder of a source; options as for `Encoder`.

        Raises:
            UserError: the settings can't be, the weights don't belong to them, or aren't finite.
        """
        config = configured(source.settings, source.where, cls.known)
        hf = with_weights(lambda: skeleton(config, source.where), source.tensors, source.name)
        return cls(hf, normalise=source.normalisation.normalise, **options)

    @property
    def shortest_input(self) -> int:
        """See `Encoder`."""
        return shortest_input(self.config.conv_kernel, self.config.conv_stride)

    def frame_count(self, samples: Any) -> Any:
        """See `Encoder`."""
        return frame_count(samples, self.config.conv_kernel, self.config.conv_stride)

    @property
    def architecture(self) -> dict[str, Any]:
        """See `Encoder`."""
        found = {key: getattr(self.config, key, None) for key in self.described_by}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}

    def stage_modules(self, stage: int) -> dict[str, nn.Module]:
        """See `Encoder`."""
        match stage:
            case 0:
                names: tuple[str, ...] = ()
            case 1:
                names = ("feature_extractor",)
            case 2:
                names = ("feature_projection", *self.position_modules)
            case _:
                names = (f"encoder.layers.{stage - EMBEDDING - 1}",)
        if stage == self.norm_stage:
            names = (*names, "encoder.layer_norm")
        return {name: self.hf.get_submodule(name) for name in names}

    def front_bytes(self, stage: int, seconds: float, word: int, *, checkpointing: bool) -> float:
        """Projection and positional convolution keep 6 H bytes and 2.5 H numbers a frame, in other families others.

        The CNN keeps 3.5 tensors of each of its layers' outputs; with checkpointing one, and once its first layer's.
        """
        width, rate = self.width, self.entries_per_second(CNN)
        kept: float = (6 + (0.5 + self.position_numbers) * word) * width * rate * seconds
        if stage != INPUT:
            return kept
        rate, made = self.entries_per_second(INPUT), []
        for channels, stride in zip(self.config.conv_dim, self.config.conv_stride, strict=True):
            rate /= stride
            made.append(channels * rate)
        numbers: float = sum(made) + 2.5 * made[0] if checkpointing else 3.5 * sum(made)
        return kept + seconds * word * numbers

    @property
    def keeps_pairs(self) -> bool:
        """See `Encoder`. The position bias of WavLM is gated by every layer and learns."""
        return self.config.model_type == "wavlm" or super().keeps_pairs

    def shared_bytes(self, stage: int, frames: float, *, half: bool) -> float:
        """The position bias, and the weights of the positional convolution."""
        config = self.config
        bias = (6 if half else 4) * self.sizes.heads * frames**2 if config.model_type == "wavlm" else 0.0
        position = self.width**2 // config.num_conv_pos_embedding_groups * config.num_conv_pos_embeddings
        return bias + (4.0 * position if stage <= CNN and not half else 0.0)

    def traced(self, waveforms: Tensor, lengths: Tensor) -> States:
        """See `Encoder`; layers and attention are those of `run`."""
        valid = valid_mask(lengths, waveforms.shape[1])
        inputs = torch.where(valid, waveforms, 0.0)
        if self.normalise:
            inputs = normalised_rows(inputs, lengths, valid)
        hidden, counts = convolved(self.hf.feature_extractor.conv_layers, inputs, lengths)
        frames = hidden.shape[1]
        states = States((hidden,), Layout((), frames, counts, valid_mask(counts, frames)))
        shared = None
        if self.config.model_type == "wavlm":
            shared = PositionBias.of(bias_of_pairs(self.hf.encoder.layers[0].attention, frames))
        return self.run(states, CNN, self.last_stage, shared=shared)

    def _front(self, inputs: Tensor, layout: Layout, call: Any) -> tuple[Tensor, Layout]:
        counts, hidden = layout.counts, inputs[..., None]
        for layer in self.hf.feature_extractor.conv_layers:
            counts = tuple(frame_count(count, layer.conv.kernel_size, layer.conv.stride) for count in counts)
            hidden = call(_convolve, layer, hidden, counts)
        return hidden, Layout.of(counts, hidden.shape[1], hidden.device)

    def _embed(self, frames: Tensor, layout: Layout, noise: DropoutSeeds | None, time_mask: Tensor | None) -> Tensor:
        """See `Encoder`. The residual stream keeps the parameters' precision under autocast."""
        projection = self.hf.feature_projection
        if getattr(projection, "feat_proj_layer_norm", True):
            frames = projection.layer_norm(frames)
        hidden = projection.projection(frames).to(self.dtype)
        if time_mask is not None:
            hidden = torch.where(time_mask[..., None], self._mask_embedding().to(hidden.dtype), hidden)
        if layout.valid is not None:
            hidden = hidden.masked_fill(~layout.valid[..., None], 0.0)
        hidden = self._placed(hidden, layout)
        if self.norm_stage == EMBEDDING:
            hidden = self.hf.encoder.layer_norm(hidden)
        return dropout(hidden, self.p, noise, _site(EMBEDDING, 0), layout.counts)

    def _placed(self, hidden: Tensor, layout: Layout) -> Tensor:
        """Frames [B, T, H], 0 where padded, with their positions."""
        return hidden + grouped_convolution(self.hf.encoder.pos_conv_embed, hidden)

    def _shared(self, layout: Layout) -> Any:
        if self.config.model_type != "wavlm":
            return None
        return PositionBias.of(position_bias(self.hf.encoder.layers[0].attention, layout.frames))

    def _layer(self, stage: int, hidden: Tensor, layout: Layout, shared: Any, noise: DropoutSeeds | None) -> Tensor:
        layer = self.hf.encoder.layers[stage - EMBEDDING - 1]

        def attended(x: Tensor) -> Tensor:
            out = attend(layer.attention, x, layout, shared, self.attention_p, noise, _site(stage, 0))
            return dropout(out, self.p, noise, _site(stage, 1), layout.counts)

        def fed_forward(x: Tensor) -> Tensor:
            block = layer.feed_forward
            out = block.output_dense(block.intermediate_act_fn(block.intermediate_dense(x)))
            return dropout(out, self.p, noise, _site(stage, 2), layout.counts)

        if self.norm_stage == EMBEDDING:
            hidden = layer.layer_norm(hidden + attended(hidden))
            normed: Tensor = layer.final_layer_norm(hidden + fed_forward(hidden))
            return normed
        hidden = hidden + attended(layer.layer_norm(hidden))
        hidden = hidden + fed_forward(layer.final_layer_norm(hidden))
        return self.hf.encoder.layer_norm(hidden) if stage == self.norm_stage else hidden

    def _mask_embedding(self) -> Tensor:
        """Replacement for a masked frame [H]: the pretrained vector, or zeros if pretraining had none."""
        found: Tensor | None = getattr(self.hf, "masked_spec_embed", None)
        return torch.zeros(self.width, device=self.device) if found is None else found


def _site(stage: int, index: int) -> int:
    """Number of a dropout site inside the encoder; 0 is left to the head."""
    return 4 * stage + index


def _convolve(layer: Any, hidden: Tensor, counts: tuple[int, ...]) -> Tensor:
    """One layer of the CNN on [B, T, C], of whose output counts[b] frames are valid."""
    hidden = convolution(layer.conv, hidden)
    norm = getattr(layer, "layer_norm", None)
    if isinstance(norm, nn.GroupNorm):
        hidden = group_norm(norm, hidden.transpose(1, 2), counts).transpose(1, 2).contiguous()
    elif norm is not None:
        hidden = norm(hidden)
    activated: Tensor = layer.activation(hidden)
    return activated


def group_norm(norm: nn.GroupNorm, hidden: Tensor, counts: tuple[int, ...]) -> Tensor:
    """Group norm over time of [B, C, T] with statistics over the first counts[b] frames only; 0 beyond.

    Statistics over a padded batch would make an utterance's features depend on its neighbours' lengths.
    """
    frames = hidden.shape[-1]
    if all(count == frames for count in counts):
        normed: Tensor = norm(hidden)
        return normed
    rows = [norm(row[None, :, :count]) for row, count in zip(hidden, counts, strict=True)]
    padded: Tensor = rows[0].new_zeros(hidden.shape)
    for index, (row, count) in enumerate(zip(rows, counts, strict=True)):
        padded[index, :, :count] = row[0]
    return padded
