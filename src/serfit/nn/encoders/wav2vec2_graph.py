"""What counts on the host in WavLM, HuBERT and wav2vec2, as tensor operations that one graph can hold.

The network itself keeps lengths on the host, enters and leaves its chain anywhere and takes faster paths where nothing
is padded. A graph can do none of that: here lengths are a tensor, every mask is always applied, and batch and length
may change from call to call. Tests hold both against each other.
"""

from typing import Any

import torch
from torch import Tensor, nn

from serfit.nn.encoders.attention import relative_buckets
from serfit.nn.frames import frame_count, valid_mask

_VARIANCE_FLOOR = 1e-7
"""As in transformers' feature extractor."""


def convolved(layers: Any, inputs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """The CNN, channels before time as ONNX runtimes want it: [B, S] to [B, T, C], and the lengths [B] in frames."""
    hidden = inputs[:, None]
    for layer in layers:
        lengths = frame_count(lengths, layer.conv.kernel_size, layer.conv.stride)
        hidden = layer.conv(hidden)
        norm = getattr(layer, "layer_norm", None)
        if isinstance(norm, nn.GroupNorm):
            hidden = group_norm_rows(norm, hidden, lengths)
        elif norm is not None:
            hidden = norm(hidden.transpose(1, 2)).transpose(1, 2)
        hidden = layer.activation(hidden)
    return hidden.transpose(1, 2), lengths


def normalised_rows(waveforms: Tensor, lengths: Tensor, valid: Tensor) -> Tensor:
    """Each waveform of [B, S] at zero mean and unit variance over its valid samples, and 0 beyond.

    Args:
        waveforms: [B, S], 0 where not valid.
        lengths: [B].
        valid: bool [B, S].
    """
    counts = lengths[:, None].to(waveforms.dtype)
    centred = torch.where(valid, waveforms - waveforms.sum(1, keepdim=True) / counts, 0.0)
    return centred / (centred.square().sum(1, keepdim=True) / counts + _VARIANCE_FLOOR).sqrt()


def group_norm_rows(norm: nn.GroupNorm, hidden: Tensor, lengths: Tensor) -> Tensor:
    """Group norm over time of [B, C, T] with statistics over the first lengths[b] frames only; 0 beyond."""
    batch, channels, frames = hidden.shape
    valid = valid_mask(lengths, frames)[:, None, None]
    grouped = hidden.reshape(batch, norm.num_groups, channels // norm.num_groups, frames)
    counts = (lengths * (channels // norm.num_groups))[:, None, None, None].to(hidden.dtype)
    mean = torch.where(valid, grouped, 0.0).sum((2, 3), keepdim=True) / counts
    centred = torch.where(valid, grouped - mean, 0.0)
    variance = centred.square().sum((2, 3), keepdim=True) / counts
    normed = (centred * (variance + norm.eps).rsqrt()).reshape(batch, channels, frames)
    if norm.affine:
        normed = normed * norm.weight[:, None] + norm.bias[:, None]
    return torch.where(valid[:, 0], normed, 0.0)


def bias_of_pairs(attention: Any, frames: int) -> Tensor:
    """The position bias [heads, T, T] of `attention.position_bias`, gathered for each pair of frames, not strided."""
    table = attention.rel_attn_embed.weight
    distances = torch.arange(1 - frames, frames, device=table.device)
    by_distance = table[relative_buckets(distances, attention.num_buckets, attention.max_distance)]
    indices = torch.arange(frames, device=table.device)
    found: Tensor = by_distance[indices[None, :] - indices[:, None] + (frames - 1)]
    return found.permute(2, 0, 1)
