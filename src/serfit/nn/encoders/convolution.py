"""Convolution over time as matrix products, on tensors whose channels lie together in memory."""

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def convolution(conv: nn.Conv1d, x: Tensor) -> Tensor:
    """Convolve [B, T, C] to [B, T', O] with T' = (T - kernel) // stride + 1.

    Equals `conv(x.transpose(1, 2)).transpose(1, 2)`. With the channels innermost, the layer norm and activation that
    follow need no transposed copies, and where the kernel is a stride wide or a little more, its taps are plain
    matrix products over views of x: nothing is unfolded. docs/performance.md says what that is worth.

    Args:
        conv: without padding, dilation and groups, as in the encoders' CNN.
        x: [B, T, C], T at least the kernel's width.
    """
    kernel, stride = conv.kernel_size[0], conv.stride[0]
    assert conv.groups == 1, "no groups"
    assert conv.padding == (0,) and conv.dilation == (1,), "no padding and no dilation"  # noqa: PT018
    weight = conv.weight
    batch, frames, channels = x.shape
    count = (frames - kernel) // stride + 1
    if channels == 1:
        return F.linear(x[..., 0].unfold(1, kernel, stride), weight[:, 0], conv.bias)
    whole = kernel // stride * stride
    parts = []
    for first in range(0, whole, stride):
        taps = weight[:, :, first : first + stride].permute(2, 1, 0).reshape(stride * channels, -1)
        block = x.narrow(1, first, count * stride) if count * stride < frames else x
        parts.append(block.reshape(batch, count, stride * channels) @ taps)
    for tap in range(whole, kernel):
        parts.append(x[:, tap::stride][:, :count] @ weight[:, :, tap].t())
    out = parts[0]
    for part in parts[1:]:
        out = out + part
    return out if conv.bias is None else out + conv.bias.to(out.dtype)


def grouped_convolution(module: nn.Module, x: Tensor) -> Tensor:
    """The positional convolution of [B, T, H] -> [B, T, H], in float32 where a CPU's 16-bit kernel is wrong.

    On CPUs with AMX, oneDNN 3.13 (torch 2.15) computes bf16 convolutions with several groups of 4 to 12 channels with a
    relative error of 1, forward and backward. Widths that are multiples of 16 are right; published encoders have 48
    and 64 channels in a group, so only small ones pay for the detour.

    Args:
        module: transformers' positional embedding, whose `conv` holds the groups.
        x: [B, T, H] in the precision of the parameters.
    """
    conv = module.conv
    assert isinstance(conv, nn.Conv1d)
    narrow = conv.groups > 1 and conv.in_channels // conv.groups % 16 != 0
    with torch.autocast("cpu", enabled=False) if narrow and x.is_cpu else nullcontext():
        out: Tensor = module(x)
    return out
