"""Self-attention of speech encoders, through the fused kernel and through the modules' own projections.

transformers' WavLM hands raw weights to one big function, which materialises all attention weights and by-passes any
adapter wrapped around a projection. Here every projection is called as a module, and the gated relative position bias
enters the fused kernel as an additive mask.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from serfit.nn.dropout import DropoutSeeds, dropped
from serfit.nn.frames import Layout

_KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""The fused kernels that may be used on CUDA: not cuDNN's, which torch prefers on Hopper and Blackwell. It has no
derivative by the mask, through which the position bias learns, can give NaN gradients where there is a mask
(https://github.com/pytorch/pytorch/issues/196678), and is planned anew for every length."""


def mask_row_step(device: torch.device) -> int:
    """What the row length of an additive mask must be a multiple of, for the fused kernels to read it uncopied."""
    return 16 if device.type == "cuda" else 1


def has_mask_gradient(device: torch.device) -> bool:
    """Whether a device's fused kernel has a derivative by the mask; the CPU's stand-in for it is slow."""
    return device.type == "cuda"


def relative_buckets(distances: Tensor, buckets: int, farthest: int) -> Tensor:
    """Bucket of each signed distance key - query: exact when small, logarithmic up to farthest, a half per sign.

    T5's scheme (Raffel et al., "Exploring the limits of transfer learning", JMLR 2020), as WavLM uses it.

    Args:
        distances: integers, any shape.
        buckets: number of buckets over both signs.
        farthest: distance from which on everything falls into the last bucket.
    """
    half = buckets // 2
    exact = half // 2
    size = distances.abs()
    growth = torch.log(size.clamp(min=1).float() / exact) / math.log(farthest / exact) * (half - exact)
    coarse = (exact + growth).long().clamp(max=half - 1)
    return torch.where(size < exact, size, coarse) + (distances > 0).long() * half


def position_bias(attention: Any, frames: int) -> Tensor:
    """Relative position bias [heads, T, P] of the WavLM attention module that owns `rel_attn_embed` (layer 0).

    Looked up once per distance instead of once per pair of frames. P is T, on CUDA rounded up for the fused kernels;
    entries beyond T mean nothing.
    """
    table = attention.rel_attn_embed.weight
    distances = torch.arange(1 - frames, frames, device=table.device)
    found = relative_buckets(distances, attention.num_buckets, attention.max_distance)
    step = mask_row_step(table.device)
    width = -(-frames // step) * step
    by_distance = F.pad(F.embedding(found, table).t(), (0, width - frames))
    # Row q of the bias is the stretch of distances -q to T - 1 - q. Strided views of one vector give all rows without a
    # lookup for each of T x T pairs, in the forward pass and, as a sum along diagonals, in the backward pass.
    return by_distance.unfold(-1, width, 1).flip(1).contiguous()  # flip alone leaves the columns side by side


@dataclass(frozen=True, slots=True)
class PositionBias:
    """The position bias as all layers of a pass use it.

    Attributes:
        exact: [heads, T, P], see `position_bias`.
        rounded: the same in the precision that autocast computes in, without a graph; None where that is its own.
    """

    exact: Tensor
    rounded: Tensor | None

    @classmethod
    def of(cls, exact: Tensor) -> "PositionBias":
        """The bias, rounded once for the autocast context that it is made in."""
        kind = exact.device.type
        half = torch.is_autocast_enabled(kind)
        return cls(exact, exact.detach().to(torch.get_autocast_dtype(kind)) if half else None)


def bias_gate(attention: Any, hidden: Tensor) -> Tensor:
    """WavLM's gate [B, heads, T, 1] on the position bias, from the attention's input [B, T, H].

    Chen et al., "WavLM", IEEE JSTSP 2022, section IV-A: two sigmoids per head and query.
    """
    batch, frames, _ = hidden.shape
    heads = hidden.view(batch, frames, attention.num_heads, -1)
    pair = attention.gru_rel_pos_linear(heads).view(batch, frames, attention.num_heads, 2, 4).sum(-1)
    update, reset = torch.sigmoid(pair.transpose(1, 2).contiguous()).chunk(2, dim=-1)
    gate: Tensor = update * (reset * attention.gru_rel_pos_const - 1.0) + 2.0
    return gate


class Gated(torch.autograd.Function):
    """The gate [B, heads, T, 1] times a position bias [heads, T, P] that was rounded once for all layers.

    Every layer keeps the same rounded bias for its backward pass, and the derivative by the bias is added up over
    utterances and layers in the bias's own precision.
    """

    @staticmethod
    def forward(ctx: Any, gate: Tensor, bias: Tensor, rounded: Tensor) -> Tensor:
        """[B, heads, T, P] in the precision of gate and rounded; bias is the one that was rounded."""
        ctx.save_for_backward(gate, rounded)
        ctx.precision = bias.dtype
        return gate * rounded

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor | None, None]:
        """Derivatives by gate and bias."""
        gate, rounded = ctx.saved_tensors
        by_bias = (slope * gate).sum(0, dtype=ctx.precision) if ctx.needs_input_grad[1] else None
        return (slope * rounded).sum(-1, keepdim=True), by_bias, None


def additive_mask(gate: Tensor, bias: PositionBias, layout: Layout) -> Tensor:
    """Gated position bias [B, heads, T, T] in the gate's precision, -inf on padded keys; gate [B, heads, T, 1]."""
    return hiding(gate * bias.exact if bias.rounded is None else Gated.apply(gate, bias.exact, bias.rounded), layout)


def hiding(mask: Tensor, layout: Layout) -> Tensor:
    """An additive mask [B, heads, T, P] in place with -inf on padded keys, and without the columns beyond T."""
    if layout.valid is not None:
        keys = torch.zeros(layout.valid.shape, dtype=mask.dtype, device=mask.device)
        keys.masked_fill_(~layout.valid, -math.inf)
        mask.add_(F.pad(keys, (0, mask.shape[-1] - layout.frames))[:, None, None, :])
    return mask[..., : layout.frames]


def attend(
    attention: Any,
    hidden: Tensor,
    layout: Layout,
    bias: PositionBias | None = None,
    p: float = 0.0,
    noise: DropoutSeeds | None = None,
    site: int = 0,
    keys: Tensor | None = None,
) -> Tensor:
    """Self-attention [B, T, H] -> [B, T, H] through a transformers attention module's projections.

    Equals the module's own forward on valid frames; padded frames are neither attended to nor meaningful.

    Args:
        attention: an attention module with `num_heads`, `q_proj`, `k_proj`, `v_proj` and `out_proj`.
        hidden: [B, T, H].
        layout: which frames are valid.
        bias: for WavLM, which gates it; None for plain attention.
        p: dropout probability of attention weights; above 0 and with noise, the fused kernel can't be used.
        noise: dropout seeds, None for no dropout.
        site: the dropout site.
        keys: bool, broadcastable to [B, heads, T, T], which frames each frame attends to; None takes the valid ones.
    """
    batch, frames, _ = hidden.shape
    if torch.is_autocast_enabled(hidden.device.type):  # once, instead of once per projection, each kept for backward
        hidden = hidden.to(torch.get_autocast_dtype(hidden.device.type))

    def heads(projection: Any) -> Tensor:
        split: Tensor = projection(hidden).view(batch, frames, attention.num_heads, -1).transpose(1, 2)
        return split

    query, key, value = heads(attention.q_proj), heads(attention.k_proj), heads(attention.v_proj)
    mask: Tensor | None
    if bias is not None:
        mask = additive_mask(bias_gate(attention, hidden).to(query.dtype), bias, layout)
    elif keys is not None:
        mask = keys
    else:
        mask = None if layout.valid is None else layout.valid[:, None, None, :]
    out: Tensor = attention.out_proj(mixed(query, key, value, mask, layout, p, noise, site))
    return out


def mixed(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    layout: Layout,
    p: float,
    noise: DropoutSeeds | None,
    site: int,
) -> Tensor:
    """Values mixed by attention, [B, T, H], from queries, keys and values [B, heads, T, H / heads]; rest as `attend`.

    The fused kernel never materialises all weights [B, heads, T, T], most of attention's memory and time. It can't be
    used where weights themselves are dropped, or where the mask learns and the device has no derivative by it.
    """
    noise = noise if p > 0.0 else None
    learned = mask is not None and mask.requires_grad
    if noise is None and (not learned or has_mask_gradient(query.device)):
        found = fused_attention(query, key, value, mask)
    else:
        weights = attention_weights(query, key, mask)
        if noise is not None:
            shapes = [(weights.shape[1], count, count) for count in layout.counts]
            weights = dropped(weights, shapes, p, noise, site)
        found = weights.to(value.dtype) @ value
    return found.transpose(1, 2).flatten(2)


def fused_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Attention [B, heads, T, H / heads] by the fused kernel of the device, with a derivative by the mask."""
    if query.device.type != "cuda":
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    with sdpa_kernel(_KERNELS):
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


def attention_weights(query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax weights [B, heads, T, T] of queries and keys [B, heads, T, H / heads] under an additive or bool mask."""
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    weights: Tensor = scores.softmax(dim=-1)
    return weights
