"""A pretrained speech encoder as a chain of stages that can be entered and left anywhere.

Weights, names and submodules are transformers'; its forward functions are never called, so neither SpecAugment,
LayerDrop nor its dropout can act. See the package's docstring for the stages.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from serfit.nn.attention import PositionBias, attend, position_bias
from serfit.nn.convolution import convolution, grouped_convolution
from serfit.nn.dropout import Noise, dropout
from serfit.nn.frames import Layout, frame_count, shortest_input
from serfit.nn.settings import refuse_unknown_parts

WAVEFORM, CNN, EMBEDDING = 0, 1, 2
"""Numbers of the first stages; the state after k transformer layers is stage EMBEDDING + k."""


@dataclass(frozen=True, slots=True)
class States:
    """What a stage hands to the next for a whole batch.

    Attributes:
        tensors: one tensor [B, S] or [B, T, C] for the first stages, then hidden states [B, T, H] from the lowest to
            the newest, only the newest where the encoder doesn't keep all.
        layout: which entries on axis 1 are valid.
    """

    tensors: tuple[Tensor, ...]
    layout: Layout

    @property
    def newest(self) -> Tensor:
        """The input of the next stage."""
        return self.tensors[-1]


class SpeechEncoder(nn.Module):
    """WavLM, HuBERT or wav2vec2, post-norm (base) or stable layer norm (large).

    Attributes:
        hf: transformers' model, the owner of all parameters.
        keep_all: whether hidden states of all layers are kept, for a weighted sum, or only the newest.
        normalise: whether waveforms must come with zero mean and unit variance. The encoder doesn't do it.
        p: dropout of the transformer's input, and after attention and feed-forward blocks, of trainable stages only.
        attention_p: dropout of attention weights in the same stages.
        gradient_checkpointing: recompute activations of trainable stages in the backward pass.
    """

    def __init__(
        self,
        hf: nn.Module,
        *,
        keep_all: bool,
        normalise: bool | None = None,
        p: float = 0.0,
        attention_p: float = 0.0,
        gradient_checkpointing: bool = False,
    ) -> None:
        """Wrap a transformers model.

        Raises:
            UserError: the model has parts that this forward doesn't know.
        """
        super().__init__()
        config: Any = hf.config
        refuse_unknown_parts(config)
        self.hf: Any = hf
        self.config: Any = config
        self.keep_all = keep_all
        self.normalise: bool = config.feat_extract_norm == "layer" if normalise is None else normalise
        self.p, self.attention_p = p, attention_p
        self.gradient_checkpointing = gradient_checkpointing
        if (mask := getattr(hf, "masked_spec_embed", None)) is not None:
            mask.requires_grad_(False)

    @property
    def depth(self) -> int:
        """L, the number of transformer layers."""
        return len(self.hf.encoder.layers)

    @property
    def width(self) -> int:
        """H, the width of hidden states."""
        return int(self.config.hidden_size)

    @property
    def last_stage(self) -> int:
        """The stage after all layers and the final norm."""
        return EMBEDDING + self.depth

    @property
    def kept(self) -> int:
        """K after all layers: how many hidden states come out."""
        return self.depth + 1 if self.keep_all else 1

    @property
    def shortest_input(self) -> int:
        """Fewest samples that the encoder can hear."""
        return shortest_input(self.config.conv_kernel, self.config.conv_stride)

    @property
    def architecture(self) -> dict[str, Any]:
        """What the stages compute besides their weights, as JSON: part of a stored feature's identity."""
        keys = ("model_type", "conv_kernel", "conv_stride", "feat_extract_norm", "feat_extract_activation",
                "do_stable_layer_norm", "layer_norm_eps", "hidden_act", "num_attention_heads",
                "num_conv_pos_embeddings", "num_conv_pos_embedding_groups", "num_buckets", "max_bucket_distance",
                "feat_proj_layer_norm")  # fmt: skip
        found = {key: getattr(self.config, key, None) for key in keys}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}

    def frame_count(self, samples: Any) -> Any:
        """Frames T of a waveform with so many samples, for ints and integer tensors."""
        return frame_count(samples, self.config.conv_kernel, self.config.conv_stride)

    def stage_modules(self, stage: int) -> dict[str, nn.Module]:
        """The modules, by name below `hf`, whose parameters turn stage - 1 into stage."""
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

    def stage_tensors(self, stage: int) -> Iterator[tuple[str, Tensor]]:
        """Parameters and buffers that turn stage - 1 into stage, named as in this module's state dict."""
        for name, module in self.stage_modules(stage).items():
            for key, tensor in module.state_dict(keep_vars=True).items():
                yield f"hf.{name}.{key}", tensor

    @property
    def frozen_stages(self) -> int:
        """The last stage below the first trainable parameter: found from the parameters, whatever froze them."""
        for stage in range(1, self.last_stage + 1):
            if any(p.requires_grad for module in self.stage_modules(stage).values() for p in module.parameters()):
                return stage - 1
        return self.last_stage

    def train(self, mode: bool = True) -> "SpeechEncoder":
        """As for any module, except that frozen stages stay in evaluation mode."""
        super().train(mode)
        for stage in range(1, self.frozen_stages + 1):
            for module in self.stage_modules(stage).values():
                module.eval()
        return self

    def run(
        self,
        states: States,
        start: int,
        stop: int,
        noise: Noise | None = None,
        time_mask: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> States:
        """Bring a batch from one stage to a later one.

        Args:
            states: the batch at stage start.
            start: where it stands.
            stop: where to take it, at most `last_stage`.
            noise: dropout seeds; frozen stages never drop anything.
            time_mask: bool [B, T], frames that the transformer mustn't see (SpecAugment); needs start < EMBEDDING.
            bias: WavLM's position bias (see `serfit.nn.attention`) where it is at hand; None looks it up.
        """
        assert start <= stop <= self.last_stage, f"can't run from stage {start} to {stop} of {self.last_stage}"
        assert time_mask is None or start < EMBEDDING <= stop, "a time mask acts between the CNN and the transformer"
        frozen = self.frozen_stages
        held = None if bias is None else PositionBias.of(bias)
        tensors, layout = states.tensors, states.layout
        for stage in range(start + 1, stop + 1):
            heard = noise if stage > frozen else None
            call = _recomputed if self.gradient_checkpointing and stage > frozen else _called
            if stage == CNN:
                tensors, layout = self._hear(tensors[0], layout, call)
                continue
            if stage == EMBEDDING:
                tensors = (self._embed(tensors[0], layout, heard, time_mask),)
                continue
            if held is None and self.config.model_type == "wavlm":
                held = PositionBias.of(position_bias(self.hf.encoder.layers[0].attention, layout.frames))
            newest = call(self._layer, stage, tensors[-1], layout, held, heard)
            tensors = (*tensors, newest) if self.keep_all else (newest,)
        return States(tensors, layout)

    def _hear(self, waveforms: Tensor, layout: Layout, call: Any) -> tuple[tuple[Tensor, ...], Layout]:
        """The CNN: waveforms [B, S] to [B, T, C]. Valid frames hear valid samples only."""
        counts, hidden = layout.counts, waveforms[..., None]
        geometry = zip(self.config.conv_kernel, self.config.conv_stride, strict=True)
        for layer, (kernel, stride) in zip(self.hf.feature_extractor.conv_layers, geometry, strict=True):
            counts = tuple(frame_count(count, (kernel,), (stride,)) for count in counts)
            hidden = call(_convolve, layer, hidden, counts)
        return (hidden,), Layout.of(counts, hidden.shape[1], hidden.device)

    def _embed(self, frames: Tensor, layout: Layout, noise: Noise | None, time_mask: Tensor | None) -> Tensor:
        """Projection and positional convolution: CNN output [B, T, C] to the transformer's input [B, T, H].

        The residual stream keeps the parameters' precision under autocast.
        """
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

    def _layer(
        self, stage: int, hidden: Tensor, layout: Layout, bias: PositionBias | None, noise: Noise | None
    ) -> Tensor:
        """One transformer layer [B, T, H] -> [B, T, H], with the final norm after the last one where there is one."""
        layer = self.hf.encoder.layers[stage - EMBEDDING - 1]

        def attended(x: Tensor) -> Tensor:
            out = attend(layer.attention, x, layout, bias, self.attention_p, noise, _site(stage, 0))
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
        """What stands in for a hidden frame [H]: the pretrained vector, or zeros where pretraining had none."""
        found: Tensor | None = getattr(self.hf, "masked_spec_embed", None)
        return torch.zeros(self.width, device=self.device) if found is None else found

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the parameters."""
        found: torch.dtype = self.hf.feature_projection.projection.weight.dtype
        return found

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        found: torch.device = self.hf.feature_projection.projection.weight.device
        return found


def _site(stage: int, place: int) -> int:
    """Number of a dropout site inside the encoder; 0 is left to the head."""
    return 4 * stage + place


def _called(function: Any, *arguments: Any) -> Any:
    """Call a function and let autograd keep what it needs."""
    return function(*arguments)


def _recomputed(function: Any, *arguments: Any) -> Any:
    """Call a function and compute it again in the backward pass; dropout draws the same masks by itself."""
    return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)


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
