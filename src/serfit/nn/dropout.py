"""Dropout whose masks belong to the utterance, not to the batch it happens to travel in."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from serfit.counters import address

_DRAWS = 2**16
"""Dropout probabilities are whole multiples of 1 / 65536."""

_GOLDEN, _FIRST, _SECOND = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15
"""SplitMix64's increment and multipliers as signed integers."""

_AXIS_BITS = 22
"""Bits of a position on one axis in the counter of `hashed_masks`; positions must be below 2**22."""


@dataclass(frozen=True, slots=True)
class Noise:
    """The seeds behind one forward pass with dropout.

    Attributes:
        seeds: one per utterance of the batch, made of whatever the mask should depend on (run, epoch, utterance).
    """

    seeds: tuple[int, ...]
    _tensors: dict[torch.device, Tensor] = field(default_factory=dict, repr=False, compare=False)

    def tensor(self, device: torch.device) -> Tensor:
        """The seeds as int64 [B] on a device, sent there once for all dropout sites."""
        if device not in self._tensors:
            self._tensors[device] = torch.tensor(self.seeds, dtype=torch.int64, device=device)
        return self._tensors[device]

    def __getitem__(self, rows: slice) -> "Noise":
        """The noise of some rows of the batch, for micro-batches."""
        return Noise(self.seeds[rows])


def _dropped_draws(p: float) -> int:
    """How many of the 65536 possible draws drop an entry; never all of them."""
    return min(round(p * _DRAWS), _DRAWS - 1)


def keep_mask(shape: Sequence[int], p: float, generator: torch.Generator) -> Tensor:
    """Bool tensor of a shape, false with probability `_dropped_draws(p)` / 65536.

    Four draws are cut from every 64 random bits, several times faster than Bernoulli draws of torch.
    """
    count = math.prod(shape)
    words = torch.empty(-(-count // 4), dtype=torch.int64, device=generator.device)
    draws = words.random_(-(2**63), None, generator=generator).view(torch.int16)
    return draws[:count].view(tuple(shape)) >= _dropped_draws(p) - _DRAWS // 2


def dropped(x: Tensor, shapes: Sequence[Sequence[int]], p: float, noise: Noise, site: int) -> Tensor:
    """Drop entries of x [B, ...] inside each utterance's leading block shapes[b], and scale the kept ones.

    A block's mask depends on the utterance's seed, the site and the position in the block alone, so neither padding nor
    the rest of the batch has any influence. Outside its block x becomes 0. CPU and CUDA draw different masks: on the
    CPU a generator per utterance is fastest, on CUDA it would launch several kernels for each (see
    docs/performance.md), so there one hash runs over the whole batch.
    """
    assert len(x) == len(shapes) == len(noise.seeds), f"{len(noise.seeds)} noise seeds for {len(x)} utterances"
    if x.device.type == "cuda":
        masks = hashed_masks(x.shape[1:], shapes, p, noise.tensor(x.device), site)
    else:
        masks = _drawn_masks(x.shape, shapes, p, noise, site, x.device)
    return x * masks * (1.0 / (1.0 - _dropped_draws(p) / _DRAWS))


def _drawn_masks(
    shape: Sequence[int], shapes: Sequence[Sequence[int]], p: float, noise: Noise, site: int, device: torch.device
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
    device, rank = seeds.device, len(own)
    counter = torch.arange(-(-own[-1] // 4), device=device)
    for axis, size in enumerate(reversed(own[:-1]), start=1):
        rows = torch.arange(size, device=device) << (_AXIS_BITS * axis)
        counter = counter + rows.view(-1, *([1] * axis))
    state = _mixed(_mixed(seeds) ^ (site + 1)).view(-1, *([1] * rank))
    words = _mixed(state + counter * _GOLDEN)
    kept = words.view(torch.int16)[..., : own[-1]] >= _dropped_draws(p) - _DRAWS // 2
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


def dropout(x: Tensor, p: float, noise: Noise | None, site: int, counts: Sequence[int] | None = None) -> Tensor:
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
