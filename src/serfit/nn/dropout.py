"""Dropout whose masks belong to the utterance, not to the batch it happens to travel in."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from serfit.counters import address

_DRAWS = 2**16
"""Dropout probabilities are whole multiples of 1 / 65536."""


@dataclass(frozen=True, slots=True)
class Noise:
    """The seeds behind one forward pass with dropout.

    Attributes:
        seeds: one per utterance of the batch, made of whatever the mask should depend on (run, epoch, utterance).
    """

    seeds: tuple[int, ...]

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

    The block's mask is drawn from a generator seeded with (seed of the utterance, site) and has the utterance's own
    size, so neither padding nor the rest of the batch has any influence. Outside its block x becomes 0.
    """
    assert len(x) == len(shapes) == len(noise.seeds), f"{len(noise.seeds)} noise seeds for {len(x)} utterances"
    generator = torch.Generator(x.device)
    masks = torch.zeros(x.shape, dtype=torch.bool, device=x.device)
    for mask, shape, seed in zip(masks, shapes, noise.seeds, strict=True):
        generator.manual_seed(address("dropout", seed, site))
        mask[tuple(slice(size) for size in shape)] = keep_mask(shape, p, generator)
    return x * masks * (1.0 / (1.0 - _dropped_draws(p) / _DRAWS))


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
