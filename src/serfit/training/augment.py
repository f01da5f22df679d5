"""Random changes to training utterances. Every draw is keyed by seed, epoch and utterance (see `counters`)."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from serfit.config.schema import Augmentation
from serfit.system import counters
from serfit.training.batches import Example


def changes_waveform(augmentation: Augmentation) -> bool:
    """Whether any augmentation acts on waveforms, so that nothing downstream of them can be stored."""
    return bool(augmentation.gain_db or augmentation.noise_snr_db or augmentation.mixup_alpha)


def crop(inputs: torch.Tensor, longest: int, random: np.random.Generator) -> torch.Tensor:
    """A random stretch of at most `longest` entries along the time axis (axis 0)."""
    if len(inputs) <= longest:
        return inputs
    first = int(random.integers(len(inputs) - longest + 1))
    return inputs[first : first + longest]


def change_waveform(waveform: torch.Tensor, augmentation: Augmentation, random: np.random.Generator) -> torch.Tensor:
    """Add white noise at a random signal-to-noise ratio, then apply a random gain, to a waveform [S].

    The noise is relative to the waveform's own power; a silent waveform stays silent.
    """
    if augmentation.noise_snr_db is not None:
        low, high = augmentation.noise_snr_db
        ratio = random.uniform(low, high)
        noise = torch.from_numpy(random.standard_normal(len(waveform), dtype=np.float32))
        waveform = waveform + noise * waveform.square().mean().sqrt() * 10 ** (-ratio / 20)
    if augmentation.gain_db:
        waveform = waveform * 10 ** (random.uniform(-augmentation.gain_db, augmentation.gain_db) / 20)
    return waveform


def time_mask(frames: int, share: float, span: int, random: np.random.Generator) -> NDArray[np.bool_]:
    """SpecAugment's time mask (Park et al., Interspeech 2019): bool [frames], True where hidden.

    Spans start at evenly drawn places and may overlap, so `share` is an upper bound; their number is rounded at
    random so that its mean is exact. At least one frame stays visible, however short the utterance.
    """
    mask = np.zeros(frames, dtype=bool)
    length = min(span, frames - 1)
    if length < 1:
        return mask
    spans = int(share * frames / length + random.uniform())
    for first in random.integers(frames - length + 1, size=spans):
        mask[first : first + length] = True
    if mask.all():
        mask[int(random.integers(frames))] = False
    return mask


def mixup(examples: Sequence[Example], alpha: float, *address: int | str) -> list[Example]:
    """Mix each waveform and its target with another one of the same optimisation batch.

    Zhang et al., "mixup: beyond empirical risk minimization", ICLR 2018. The share of an utterance itself is
    max(u, 1 - u) with u from Beta(alpha, alpha), so that it keeps its own length and mostly its own voice; the
    partner is repeated or cut to that length.

    Args:
        examples: the whole optimisation batch, inputs [S] and targets [D].
        alpha: parameter of the Beta distribution.
        address: address of the random draws (seed, epoch, step).
    """
    random = counters.generator(*address, "mixup")
    partners = random.permutation(len(examples))
    shares = random.beta(alpha, alpha, size=len(examples))
    mixed = []
    for example, partner, share in zip(examples, partners, np.maximum(shares, 1.0 - shares), strict=True):
        other = examples[int(partner)]
        repeats = -(-example.length // other.length)
        stretch = other.inputs.repeat(repeats)[: example.length]
        mixed.append(
            Example(
                id=example.id,
                inputs=torch.lerp(stretch, example.inputs, float(share)),
                target=torch.lerp(other.target, example.target, float(share)),
                dropout_seed=example.dropout_seed,
                time_mask=example.time_mask,
            )
        )
    return mixed
