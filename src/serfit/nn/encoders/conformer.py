"""Conformer layers with relative or rotary positions, as in wav2vec2-conformer and wav2vec2-BERT.

Gulati et al., "Conformer: convolution-augmented transformer for speech recognition", Interspeech 2020. Modules and
names are transformers'; the forward pass is serfit's, because theirs lets a batch's padding into the convolutions.
"""

import math
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor, nn

from serfit.nn.dropout import DropoutSeeds, dropout
from serfit.nn.encoders.attention import hiding, mask_row_step, mixed
from serfit.nn.encoders.wav2vec2_config import Size, Transformer
from serfit.nn.frames import Layout


class ConformerSettings(Transformer):
    """Settings of conformer layers."""

    position_embeddings_type: str | None
    rotary_embedding_base: Size = 10_000
    conv_depthwise_kernel_size: Size = 31

    @model_validator(mode="after")
    def _positions_fit(self) -> Self:
        if self.conv_depthwise_kernel_size % 2 == 0:
            raise ValueError(f"conv_depthwise_kernel_size is {self.conv_depthwise_kernel_size}, and must be odd")
        width, words = self.hidden_size, "hidden_size"
        if self.position_embeddings_type == "rotary":
            width, words = width // self.num_attention_heads, "hidden_size / num_attention_heads"
        if width % 2:
            raise ValueError(f"{words} is {width}, and must be even: positions are pairs of a sine and a cosine")
        return self


@dataclass(frozen=True, slots=True)
class Bounded:
    """Relative positions for layers with an embedding of each distance in some bounds; farther ones share the last.

    Attributes:
        rows: int64 [T, P], the embedding of a query and a key, P as in `position_bias`.
    """

    rows: Tensor

    def bias(self, attention: Any, query: Tensor) -> Tensor:
        """The scores [B, heads, T, P] that positions add to those of queries [B, heads, T, H / heads] and keys."""
        scores = query @ attention.distance_embedding.weight.to(query.dtype).t()
        found: Tensor = scores.gather(-1, self.rows.expand(*scores.shape[:2], -1, -1))
        return found


@dataclass(frozen=True, slots=True)
class Sinusoidal:
    """Relative positions as sines and cosines of distances, which each layer projects.

    Dai et al., "Transformer-XL", ACL 2019, section 3.3.

    Attributes:
        sinusoids: [T + P - 1, H], from a key T - 1 frames before its query to one P - 1 frames behind it.
    """

    sinusoids: Tensor

    def bias(self, attention: Any, query: Tensor) -> Tensor:
        """As `Bounded.bias`."""
        batch, heads, frames, width = query.shape
        embeddings = attention.linear_pos(self.sinusoids).view(-1, heads, width).to(query.dtype)
        by_position = (query + attention.pos_bias_v[:, None]).to(query.dtype)
        scores = by_position @ embeddings.permute(1, 2, 0)
        # Row q must begin at column T - 1 - q. With a column in front, each row of the rest is one entry shorter than
        # what it is cut from, so that rows shift by one against another: nothing is gathered, nothing kept.
        count = scores.shape[-1]
        skewed = F.pad(scores, (1, 0)).flatten(2)[..., frames:].view(batch, heads, frames, count)
        return skewed[..., : count - frames + 1]


@dataclass(frozen=True, slots=True)
class Rotation:
    """Rotary positions: cosines and sines [T, 1, H / heads] of the angles by which pairs of numbers are turned.

    Su et al., "RoFormer", Neurocomputing 2024.
    """

    cosines: Tensor
    sines: Tensor

    @classmethod
    def of(cls, frequencies: Tensor, frames: int) -> "Rotation":
        """The rotation for so many frames, by frequencies [H / heads / 2] in turns of one radian per frame."""
        angles = torch.arange(frames, device=frequencies.device).to(frequencies)[:, None] * frequencies
        angles = torch.cat([angles, angles], dim=-1)[:, None]
        return cls(angles.cos(), angles.sin())

    def of_heads(self, hidden: Tensor, heads: int) -> Tensor:
        """Frames [B, T, H], each head's share of which is turned."""
        split = hidden.view(*hidden.shape[:2], heads, -1)
        first, second = split.chunk(2, dim=-1)
        turned: Tensor = split * self.cosines + torch.cat([-second, first], dim=-1) * self.sines
        return turned.flatten(2)


def distances(frames: int, device: torch.device) -> Tensor:
    """Signed distance key - query, int64 [T, P]: T rows, and columns as the fused kernels want them."""
    return torch.arange(_columns(frames, device), device=device) - torch.arange(frames, device=device)[:, None]


def _columns(frames: int, device: torch.device) -> int:
    """P: so many frames, rounded up to rows of a mask that the fused kernels read uncopied."""
    step = mask_row_step(device)
    return -(-frames // step) * step


Positions = Bounded | Sinusoidal | Rotation | None


def positions_of(hf: Any, frames: int) -> Positions:
    """The positions of a pass over so many frames through a transformers model, as its configuration wants them."""
    config, like = hf.config, hf.feature_projection.projection.weight
    match config.position_embeddings_type:
        case "relative":
            columns = _columns(frames, like.device)
            apart = torch.arange(frames - 1, -columns, -1, device=like.device).float()
            rates = torch.arange(0, config.hidden_size, 2, device=like.device).float()
            angles = apart[:, None] * torch.exp(rates * -(math.log(10_000.0) / config.hidden_size))
            return Sinusoidal(torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).to(like.dtype))
        case "relative_key":
            left, right = config.left_max_position_embeddings, config.right_max_position_embeddings
            return Bounded(distances(frames, like.device).clamp(-left, right) + left)
        case "rotary":
            return Rotation.of(hf.encoder.embed_positions.inv_freq, frames)
    return None


def attend(
    attention: Any,
    hidden: Tensor,
    layout: Layout,
    positions: Positions,
    p: float,
    noise: DropoutSeeds | None,
    site: int,
) -> Tensor:
    """Self-attention [B, T, H] -> [B, T, H] through a conformer's projections; arguments as `attention.attend`."""
    count = attention.num_heads
    turned = positions.of_heads(hidden, count) if isinstance(positions, Rotation) else hidden
    if torch.is_autocast_enabled(hidden.device.type):  # once, instead of once per projection, each kept for backward
        half = torch.get_autocast_dtype(hidden.device.type)
        hidden, turned = (hidden.to(half),) * 2 if turned is hidden else (hidden.to(half), turned.to(half))

    def heads(projected: Tensor) -> Tensor:
        return projected.view(*hidden.shape[:2], count, -1).transpose(1, 2)

    query, key = heads(attention.linear_q(turned)), heads(attention.linear_k(turned))
    mask = None if layout.valid is None else layout.valid[:, None, None, :]
    if isinstance(positions, Bounded | Sinusoidal):
        mask = hiding(positions.bias(attention, query) * query.shape[-1] ** -0.5, layout)
        if isinstance(positions, Sinusoidal):
            query = (query + attention.pos_bias_u[:, None]).to(query.dtype)
    value = heads(attention.linear_v(hidden))
    out: Tensor = attention.linear_out(mixed(query, key, value, mask, layout, p, noise, site))
    return out


def convolve(block: Any, hidden: Tensor, layout: Layout) -> Tensor:
    """The convolution of a layer, [B, T, H] -> [B, T, H]: nothing of the padding gets into valid frames.

    A batch norm uses the statistics of pretraining, in training too: those of a batch would make an utterance's
    output depend on its neighbours. wav2vec2-BERT has a layer norm in its place, and its convolution is causal.
    """
    hidden = block.layer_norm(hidden)
    if layout.valid is not None:
        hidden = hidden.masked_fill(~layout.valid[..., None], 0.0)
    hidden = F.glu(_pointwise(block.pointwise_conv1, hidden), dim=-1).transpose(1, 2)
    causal = block.depthwise_conv.padding == (0,)
    if causal:
        hidden = F.pad(hidden, (block.depthwise_conv.kernel_size[0] - 1, 0))
    if hidden.is_cpu:  # whose 16-bit kernels are wrong for narrow groups: see grouped_convolution
        with torch.autocast("cpu", enabled=False):
            hidden = block.depthwise_conv(hidden.to(block.depthwise_conv.weight.dtype))
    else:
        hidden = block.depthwise_conv(hidden)
    if causal:
        hidden = block.depthwise_layer_norm(hidden.transpose(1, 2))
    else:
        norm = block.batch_norm
        statistics = norm.running_mean, norm.running_var, norm.weight, norm.bias
        hidden = F.batch_norm(hidden, *statistics, training=False, eps=norm.eps).transpose(1, 2)
    return _pointwise(block.pointwise_conv2, block.activation(hidden))


def _pointwise(conv: nn.Conv1d, x: Tensor) -> Tensor:
    """A convolution with a kernel of 1, as a product: [B, T, C] to [B, T, O]."""
    return F.linear(x, conv.weight[..., 0], conv.bias)


def conformer_layer(
    layer: Any,
    hidden: Tensor,
    layout: Layout,
    positions: Positions,
    p: float,
    attention_p: float,
    noise: DropoutSeeds | None,
    first_site: int,
) -> Tensor:
    """One layer [B, T, H] -> [B, T, H]: half a feed-forward block, attention, convolution, and the other half.

    Args:
        layer: transformers' module.
        hidden: [B, T, H].
        layout: which frames are valid.
        positions: those of the pass.
        p: dropout after attention and feed-forward blocks.
        attention_p: dropout of attention weights.
        noise: dropout seeds, None for no dropout.
        first_site: the first of the layer's four dropout sites.
    """

    def fed_forward(norm: Any, block: Any, x: Tensor, site: int) -> Tensor:
        out = block.output_dense(block.intermediate_act_fn(block.intermediate_dense(norm(x))))
        return 0.5 * dropout(out, p, noise, first_site + site, layout.counts)

    hidden = hidden + fed_forward(layer.ffn1_layer_norm, layer.ffn1, hidden, 3)
    attended = attend(
        layer.self_attn, layer.self_attn_layer_norm(hidden), layout, positions, attention_p, noise, first_site
    )
    hidden = hidden + dropout(attended, p, noise, first_site + 1, layout.counts)
    hidden = hidden + convolve(layer.conv_module, hidden, layout)
    hidden = hidden + fed_forward(layer.ffn2_layer_norm, layer.ffn2, hidden, 2)
    normed: Tensor = layer.final_layer_norm(hidden)
    return normed
