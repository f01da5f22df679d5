"""Kernels for GPUs, written in Triton; what they compute is defined by `serfit.nn.dropout.hashed_masks`.

Every operation of torch on a GPU is a kernel of its own that reads and writes all of its tensors. Drawing a mask by a
hash takes some fifty of them. Here one kernel draws, drops and scales, and the backward pass draws the same mask again,
so that no mask is kept.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_WORDS = 256
"""Words of four draws each that one program of the grid computes."""

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
"""Precisions that the kernel knows; its arithmetic is float32."""


@triton.jit
def _mixed(word):  # type: ignore[no-untyped-def]
    """The finaliser of SplitMix64 on int64 words; shifts are made logical by masking the copies of the sign."""
    word = (word ^ ((word >> 30) & 0x3FFFFFFFF)) * -4658895280553007687
    word = (word ^ ((word >> 27) & 0x1FFFFFFFFF)) * -7723592293110705685
    return word ^ ((word >> 31) & 0x1FFFFFFFF)


@triton.jit(do_not_specialize=["site", "least", "outer", "middle"])  # type: ignore[untyped-decorator]
def _drop(x, out, seeds, limits, site, least, scale, outer, middle, inner, WORDS: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    """One program: WORDS times four neighbouring entries of one utterance's [outer, middle, inner]."""
    utterance = tl.program_id(1).to(tl.int64)
    per_row = tl.cdiv(inner, 4)
    word = tl.program_id(0) * WORDS + tl.arange(0, WORDS)
    row, block = word // per_row, word % per_row
    first, second = row // middle, row % middle
    counter = block.to(tl.int64) + (second.to(tl.int64) << 22) + (first.to(tl.int64) << 44)
    state = _mixed(_mixed(tl.load(seeds + utterance)) ^ (site + 1))
    drawn = _mixed(state + counter * -7046029254386353131)
    index = tl.arange(0, 4)
    draws = (drawn[:, None] >> (16 * index.to(tl.int64))[None, :]) & 0xFFFF
    draws = tl.where(draws >= 32768, draws - 65536, draws)
    column = (4 * block)[:, None] + index[None, :]
    rows_limit = (first < tl.load(limits + 3 * utterance)) & (second < tl.load(limits + 3 * utterance + 1))
    kept = (draws >= least) & rows_limit[:, None] & (column < tl.load(limits + 3 * utterance + 2))
    there = (row < outer * middle)[:, None] & (column < inner)
    place_in_memory = utterance * outer * middle * inner + (row * inner)[:, None] + column
    value = tl.load(x + place_in_memory, mask=there, other=0.0).to(tl.float32)
    tl.store(out + place_in_memory, (value * tl.where(kept, scale, 0.0)).to(out.dtype.element_ty), mask=there)


class _Dropped(torch.autograd.Function):
    """x times a mask that is drawn anew in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, seeds: Tensor, limits: Tensor, site: int, least: int, scale: float) -> Tensor:
        """See `drop`."""
        ctx.save_for_backward(seeds, limits)
        ctx.drawn = site, least, scale
        return _launched(x, seeds, limits, site, least, scale)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        """The same mask on the derivative."""
        return _launched(slope, *ctx.saved_tensors, *ctx.drawn), None, None, None, None, None


def _launched(x: Tensor, seeds: Tensor, limits: Tensor, site: int, least: int, scale: float) -> Tensor:
    x = x.contiguous()
    out = torch.empty_like(x)
    outer, middle, inner = (1,) * (4 - x.ndim) + tuple(x.shape[1:])
    if x.numel():
        grid = (triton.cdiv(outer * middle * -(-inner // 4), _WORDS), len(x))
        _drop[grid](x, out, seeds, limits, site, least, scale, outer, middle, inner, WORDS=_WORDS)
    return out


def drop(x: Tensor, seeds: Tensor, limits: Tensor, site: int, least: int, scale: float) -> Tensor:
    """Drop entries of x [B, ...] and scale the others, in one kernel, also in the backward pass.

    Args:
        x: of two to four axes, in one of `FLOATS`.
        seeds: int64 [B].
        limits: int32 [B, 3], size of each utterance's leading block on the last three axes, 1 where there are fewer;
            what lies beyond becomes 0.
        site: the dropout site.
        least: the smallest draw, of -32768 to 32767, that keeps an entry.
        scale: what kept entries are multiplied by.
    """
    assert 2 <= x.ndim <= 4, f"two to four axes, not {x.ndim}"
    assert x.dtype in FLOATS, f"{x.dtype} isn't one of {FLOATS}"
    dropped: Tensor = _Dropped.apply(x, seeds, limits, site, least, scale)
    return dropped
