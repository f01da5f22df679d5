"""WavLM, HuBERT and wav2vec 2.0: seven convolutions over the waveform, a convolution for positions, a transformer."""

import math
import re
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from serfit.errors import UserError, counted, listed
from serfit.nn.dropout import DropoutSeeds, dropout
from serfit.nn.encoders.attention import PositionBias, attend, position_bias
from serfit.nn.encoders.base import CNN, EMBEDDING, INPUT, Encoder, Sizes, States
from serfit.nn.encoders.convolution import convolution, grouped_convolution
from serfit.nn.encoders.source import Source
from serfit.nn.encoders.wav2vec2_config import configured, refuse_unknown_parts, skeleton
from serfit.nn.encoders.wav2vec2_graph import bias_of_pairs, convolved, normalised_rows
from serfit.nn.frames import Layout, frame_count, shortest_input, valid_mask
from serfit.nn.saved import finite_or_complain

_HARMLESS = ("masked_spec_embed",)
"""Weights that a checkpoint may lack: only SpecAugment reads them."""

_LAYER = re.compile(r"(encoder\.layers|feature_extractor\.conv_layers)\.\d+\.")
"""Begins the names of weights that decide what an encoder computes."""

_ARCHITECTURE = (
    "model_type", "conv_kernel", "conv_stride", "feat_extract_norm", "feat_extract_activation", "do_stable_layer_norm",
    "layer_norm_eps", "hidden_act", "num_attention_heads", "num_conv_pos_embeddings", "num_conv_pos_embedding_groups",
    "num_buckets", "max_bucket_distance", "feat_proj_layer_norm",
)  # fmt: skip


class Wav2Vec2Encoder(Encoder):
    """WavLM, HuBERT or wav2vec2, post-norm (base) or stable layer norm (large)."""

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
        super().__init__(
            hf,
            Sizes(
                width=config.hidden_size,
                heads=config.num_attention_heads,
                inner=config.intermediate_size,
                channels=config.conv_dim[-1],
                hop=math.prod(config.conv_stride),
            ),
            config.num_hidden_layers,
            normalise=config.feat_extract_norm == "layer" if normalise is None else normalise,
            **options,
        )
        if (mask := getattr(hf, "masked_spec_embed", None)) is not None:
            mask.requires_grad_(False)

    @classmethod
    def of(cls, source: Source, **options: Any) -> Self:
        """Build the encoder of a source; options as for `Encoder`. Raises UserError as `transformers_model`."""
        hf = transformers_model(source.settings, source.tensors, source.name, source.where)
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
        found = {key: getattr(self.config, key, None) for key in _ARCHITECTURE}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}

    def stage_modules(self, stage: int) -> dict[str, nn.Module]:
        """See `Encoder`."""
        hf, stable = self.hf, self.config.do_stable_layer_norm
        match stage:
            case 0:
                return {}
            case 1:
                return {"feature_extractor": hf.feature_extractor}
            case 2:
                parts = {
                    "feature_projection": hf.feature_projection,
                    "encoder.pos_conv_embed": hf.encoder.pos_conv_embed,
                }
                return parts if stable else parts | {"encoder.layer_norm": hf.encoder.layer_norm}
        index = stage - EMBEDDING - 1
        parts = {f"encoder.layers.{index}": hf.encoder.layers[index]}
        return parts | {"encoder.layer_norm": hf.encoder.layer_norm} if stable and stage == self.last_stage else parts

    def front_bytes(self, stage: int, seconds: float, word: int, *, checkpointing: bool) -> float:
        """Projection and positional convolution keep 6 H bytes and 2.5 H numbers a frame.

        The CNN keeps 3.5 tensors of each of its layers' outputs; with checkpointing one, and once its first layer's.
        """
        kept: float = (6 + 2.5 * word) * self.width * self.entries_per_second(CNN) * seconds
        if stage != INPUT:
            return kept
        rate, made = self.entries_per_second(INPUT), []
        for channels, stride in zip(self.config.conv_dim, self.config.conv_stride, strict=True):
            rate /= stride
            made.append(channels * rate)
        numbers: float = sum(made) + 2.5 * made[0] if checkpointing else 3.5 * sum(made)
        return kept + seconds * word * numbers

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
        projection, encoder = self.hf.feature_projection, self.hf.encoder
        if getattr(projection, "feat_proj_layer_norm", True):
            frames = projection.layer_norm(frames)
        hidden = projection.projection(frames).to(self.dtype)
        if time_mask is not None:
            hidden = torch.where(time_mask[..., None], self._mask_embedding().to(hidden.dtype), hidden)
        if layout.valid is not None:
            hidden = hidden.masked_fill(~layout.valid[..., None], 0.0)
        hidden = hidden + grouped_convolution(encoder.pos_conv_embed, hidden)
        if not self.config.do_stable_layer_norm:
            hidden = encoder.layer_norm(hidden)
        return dropout(hidden, self.p, noise, _site(EMBEDDING, 0), layout.counts)

    def _shared(self, layout: Layout) -> PositionBias | None:
        if self.config.model_type != "wavlm":
            return None
        return PositionBias.of(position_bias(self.hf.encoder.layers[0].attention, layout.frames))

    def _layer(
        self, stage: int, hidden: Tensor, layout: Layout, shared: PositionBias | None, noise: DropoutSeeds | None
    ) -> Tensor:
        layer = self.hf.encoder.layers[stage - EMBEDDING - 1]

        def attended(x: Tensor) -> Tensor:
            out = attend(layer.attention, x, layout, shared, self.attention_p, noise, _site(stage, 0))
            return dropout(out, self.p, noise, _site(stage, 1), layout.counts)

        def fed_forward(x: Tensor) -> Tensor:
            block = layer.feed_forward
            out = block.output_dense(block.intermediate_act_fn(block.intermediate_dense(x)))
            return dropout(out, self.p, noise, _site(stage, 2), layout.counts)

        if not self.config.do_stable_layer_norm:
            hidden = layer.layer_norm(hidden + attended(hidden))
            normed: Tensor = layer.final_layer_norm(hidden + fed_forward(hidden))
            return normed
        hidden = hidden + attended(layer.layer_norm(hidden))
        hidden = hidden + fed_forward(layer.final_layer_norm(hidden))
        return self.hf.encoder.layer_norm(hidden) if stage == self.last_stage else hidden

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


def transformers_model(settings: Mapping[str, Any], tensors: Mapping[str, Tensor] | None, name: str, where: str) -> Any:
    """A transformers model of settings that anybody may have written, with its weights.

    Args:
        settings: the configuration as read.
        tensors: the weights as read; None draws them from torch's generator, or leaves them out on the meta device.
        name: of the encoder, for messages.
        where: the file of the settings, for messages.

    Raises:
        UserError: the settings can't be, the weights don't belong to them, or aren't finite.
    """
    config = configured(settings, where)
    if tensors is None:
        return skeleton(config, where)
    with torch.device("meta"):
        bare = skeleton(config, where)
    wanted = {key: tuple(tensor.shape) for key, tensor in bare.state_dict().items()}
    found = {plain_name(key, config.model_type): tensor for key, tensor in tensors.items()}
    present = {key: tensor for key, tensor in found.items() if key in wanted}
    wrong = [key for key, one in present.items() if tuple(one.shape) != wanted[key] or not one.is_floating_point()]
    _check_complete(wanted.keys() - present.keys(), wrong, name)
    _refuse_left_over(found.keys() - wanted.keys(), config, name)
    finite_or_complain(present, name)
    hf, report = type(bare).from_pretrained(
        None, config=config, state_dict=present, dtype=torch.float32, output_loading_info=True
    )
    _check_complete(report["missing_keys"], [key for key, *_ in report["mismatched_keys"]], name)
    for tensor in hf.state_dict(keep_vars=True).values():
        tensor.data = tensor.data.clone()  # from views of the file to memory of its own: see tensors.read_tensors
    return hf


def plain_name(name: str, model_type: str) -> str:
    """A tensor's name in the bare encoder: without the model around it, and with torch's present name of a weight norm.

    >>> plain_name("wavlm.encoder.pos_conv_embed.conv.weight_g", "wavlm")
    'encoder.pos_conv_embed.conv.parametrizations.weight.original0'
    """
    bare = name.removeprefix(f"{model_type}.")
    for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
        if bare.endswith(f".{old}"):
            bare = f"{bare.removesuffix(old)}parametrizations.weight.{new}"
    return bare


def _check_complete(missing: Any, mismatched: Any, name: str) -> None:
    """Raise UserError where weights of the encoder were not in the file and stayed random."""
    random = sorted({*(key for key in missing if not key.endswith(_HARMLESS)), *mismatched})
    if random:
        raise UserError(
            f"{name} lacks weights that its configuration promises ({listed(random)}), and training would start from "
            "random numbers there; the file is incomplete or of another architecture: fetch it again"
        )


def _refuse_left_over(unused: Any, config: Any, name: str) -> None:
    """Raise UserError where layers of the encoder itself would be left out; heads for other tasks may be."""
    left = sorted(key for key in unused if _LAYER.match(key))
    if left:
        raise UserError(
            f"{name} holds weights that its configuration leaves out ({listed(left)}): it states num_hidden_layers: "
            f"{config.num_hidden_layers} and {counted(len(config.conv_dim), 'layer')} of the CNN (conv_dim), and the "
            "encoder would be another than the one that was trained; fetch config.json and weights again, together"
        )
