"""Dropout whose masks belong to the utterance, not to the batch it happens to travel in."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor

from serfit.system.counters import address

_DRAWS = 2**16
"""Dropout probabilities are whole multiples of 1 / 65536."""

_GOLDEN, _FIRST, _SECOND = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15
"""SplitMix64's increment and multipliers as signed integers."""

_AXIS_BITS = 22
"""Bits of a position on one axis in the counter of `hashed_masks`; positions must be below 2**22."""


@dataclass(frozen=True, slots=True)
class DropoutSeeds:
    """The seeds behind one forward pass with dropout.

    Attributes:
        seeds: one per utterance of the batch, made of whatever the mask should depend on (run, epoch, utterance).
    """

    seeds: tuple[int, ...]
    _tensors: dict[torch.device, Tensor] = field(default_factory=dict, repr=False, compare=False)
    _limits: dict[tuple[torch.device, tuple[tuple[int, ...], ...]], Tensor] = field(
        default_factory=dict, repr=False, compare=False
    )

    def tensor(self, device: torch.device) -> Tensor:
        """The seeds as int64 [B] on a device, sent there once for all dropout sites."""
        if device not in self._tensors:
            self._tensors[device] = torch.tensor(self.seeds, dtype=torch.int64, device=device)
        return self._tensors[device]

    def limits(self, shapes: Sequence[Sequence[int]], device: torch.device) -> Tensor:
        """Shapes of up to three axes, with 1 for the missing leading ones, as int32 [B, 3], sent there once."""
        key = device, tuple(tuple(shape) for shape in shapes)
        if key not in self._limits:
            whole = [(1,) * (3 - len(shape)) + shape for shape in key[1]]
            self._limits[key] = torch.tensor(whole, dtype=torch.int32, device=device)
        return self._limits[key]

    def __getitem__(self, rows: slice) -> "DropoutSeeds":
        """The noise of some rows of the batch, for micro-batches."""
        return DropoutSeeds(self.seeds[rows])


def _dropped_draws(p: float) -> int:
    """Return the number of the 65536 possible draws that drop an entry; never all of them."""
    return min(round(p * _DRAWS), _DRAWS - 1)


def _least_kept(p: float) -> int:
    """The smallest draw, of -32768 to 32767, that keeps an entry."""
    return _dropped_draws(p) - _DRAWS // 2


def keep_mask(shape: Sequence[int], p: float, generator: torch.Generator) -> Tensor:
    """Bool tensor of a shape, false with probability `_dropped_draws(p)` / 65536.

    Four draws are cut from every 64 random bits, several times faster than Bernoulli draws of torch.
    """
    count = math.prod(shape)
    words = torch.empty(-(-count // 4), dtype=torch.int64, device=generator.device)
    draws = words.random_(-(2**63), None, generator=generator).view(torch.int16)
    return draws[:count].view(tuple(shape)) >= _least_kept(p)


def dropped(x: Tensor, shapes: Sequence[Sequence[int]], p: float, noise: DropoutSeeds, site: int) -> Tensor:
    """Drop entries of x [B, ...] inside each utterance's leading block shapes[b], and scale the kept ones.

    A block's mask depends on the utterance's seed, the site and the position in the block alone, so neither padding nor
    the rest of the batch has any influence. Outside its block x becomes 0. CPU and CUDA draw different masks: on the
    CPU a generator per utterance is fastest, on CUDA it would launch several kernels for each (see
    docs/performance.md), so there one hash runs over the whole batch, in one kernel where that is to be had.
    """
    assert len(x) == len(shapes) == len(noise.seeds), f"{len(noise.seeds)} noise seeds for {len(x)} utterances"
    scale = 1.0 / (1.0 - _dropped_draws(p) / _DRAWS)
    if x.device.type != "cuda":
        return x * _drawn_masks(x.shape, shapes, p, noise, site, x.device) * scale
    if x.dtype != torch.float64 and trouble_with_kernels(x.device.index) is None:
        from serfit.nn.kernels import drop

        limits = noise.limits(shapes, x.device)
        return drop(x, noise.tensor(x.device), limits, site, _least_kept(p), scale)
    return x * hashed_masks(x.shape[1:], shapes, p, noise.tensor(x.device), site) * scale


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
@cache
def trouble_with_kernels(gpu: int) -> str | None:
    """Why `serfit.nn.kernels` can't be used on a GPU, or None: it is tried once against `hashed_masks`.

    Triton comes with torch on Linux and needs a C compiler. Without it dropout computes the same with torch's own
    operations, several times as slowly.
    """
    device = torch.device("cuda", gpu)
    try:
        from serfit.nn.kernels import drop

        noise, shapes = DropoutSeeds((5, -7)), [(9, 70), (4, 70)]
        seeds, limits = noise.tensor(device), noise.limits(shapes, device)
        with torch.cuda.device(device):
            found = drop(torch.ones(2, 9, 70, device=device), seeds, limits, 3, _least_kept(0.5), 2.0)
        same = bool((found == 2.0 * hashed_masks((9, 70), shapes, 0.5, seeds, 3)).all())
    except Exception as error:  # of Triton, of the compiler that it calls, of the driver
        return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), 'no reason given')}"
    return None if same else "what it drops isn't what was asked for"


def _drawn_masks(
    shape: Sequence[int],
    shapes: Sequence[Sequence[int]],
    p: float,
    noise: DropoutSeeds,
    site: int,
    device: torch.device,
) -> Tensor:
    """Bool [B, ...], true where kept: one seeded generator per utterance."""
    generator = torch.Generator(device)
    masks = torch.zeros(tuple(shape), dtype=torch.bool, device=device)
    for mask, block, seed in zip(masks, shapes, noise.seeds, strict=True):
        generator.manual_seed(address("dropout", seed, site))
        mask[tuple(slice(size) for size in block)] = keep_mask(block, p, generator)
    return masks


def hashed_masks(own: Sequence[int], shapes: Sequence[Sequence[int]], p: float, seeds: Tensor, site: int) -> Tensor:
    """Bool [B, *own], true where kept: a hash of seed, site and position, with no state and no loop over utterances.

    Integers only, so every device computes the same masks. Four draws are cut from each 64-bit hash.

    Args:
        own: shape of one utterance's padded entries.
        shapes: each utterance's leading block; outside of it the mask is false.
        p: probability of dropping.
        seeds: int64 [B] on the device that is to draw.
        site: the dropout site.
    """
    # A position is written as one number, 22 bits for each axis, which doesn't depend on how wide the batch is padded:
    # the mask of an utterance is the same in every batch, and on every device, since nothing is drawn in sequence.
    device, rank = seeds.device, len(own)
    counter = torch.arange(-(-own[-1] // 4), device=device)
    for axis, size in enumerate(reversed(own[:-1]), start=1):
        rows = torch.arange(size, device=device) << (_AXIS_BITS * axis)
        counter = counter + rows.view(-1, *([1] * axis))
    state = _mixed(_mixed(seeds) ^ (site + 1)).view(-1, *([1] * rank))
    words = _mixed(state + counter * _GOLDEN)
    kept = words.view(torch.int16)[..., : own[-1]] >= _least_kept(p)
    for axis in range(rank):
        sizes = [shape[axis] for shape in shapes]
        if min(sizes) < own[axis]:
            inside = torch.arange(own[axis], device=device) < torch.tensor(sizes, device=device)[:, None]
            kept &= inside.view(len(sizes), *([1] * axis), own[axis], *([1] * (rank - axis - 1)))
    return kept


def _mixed(words: Tensor) -> Tensor:
    """The finaliser of SplitMix64 on int64 words, in a new tensor.

    Steele et al., "Fast splittable pseudorandom number generators", OOPSLA 2014; shifts are logical, so the sign's
    copies are masked off.
    """
    for shift, factor in ((30, _FIRST), (27, _SECOND)):
        words = (words ^ ((words >> shift) & ((1 << (64 - shift)) - 1))) * factor
    return words ^ ((words >> 31) & ((1 << 33) - 1))


def dropout(x: Tensor, p: float, noise: DropoutSeeds | None, site: int, counts: Sequence[int] | None = None) -> Tensor:
    """Drop entries of x with probability p and scale the others by 1 / (1 - p); the identity without noise.

    Args:
        x: [B, T, ...] with counts, [B, ...] without.
        p: probability of dropping, from 0 to below 1.
        noise: one seed per utterance; None, as p = 0, changes nothing.
        site: number of the place in the network; each place draws masks of its own.
        counts: valid entries of each utterance on axis 1; what lies beyond becomes 0.
    """
    if noise is None or p == 0.0:
        return x
    own = x.shape[1:]
    return dropped(x, [own] * len(x) if counts is None else [(count, *own[1:]) for count in counts], p, noise, site)
