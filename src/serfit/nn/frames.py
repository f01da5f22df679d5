"""Frame arithmetic of a convolutional front end, and which entries of a padded batch are real."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

Samples = TypeVar("Samples", int, Tensor)


def frame_count(samples: Samples, kernels: Sequence[int], strides: Sequence[int]) -> Samples:
    """Frames that a chain of unpadded convolutions makes of a waveform; 0 where the waveform is too short.

    Every convolution turns n entries into (n - kernel) // stride + 1. For WavLM's seven layers the chain amounts to
    (samples - 400) // 320 + 1.

    Args:
        samples: number of samples, an int or an integer tensor of any shape.
        kernels: kernel width of each convolution, in the order of the chain.
        strides: stride of each convolution, as many as kernels.

    >>> frame_count(16000, (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2))
    49
    """
    for kernel, stride in zip(kernels, strides, strict=True):
        samples = (samples - kernel) // stride + 1
        samples = samples.clamp(min=0) if isinstance(samples, Tensor) else max(samples, 0)
    return samples


def shortest_input(kernels: Sequence[int], strides: Sequence[int]) -> int:
    """Fewest samples that give one frame.

    >>> shortest_input((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2))
    400
    """
    samples = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        samples = (samples - 1) * stride + kernel
    return samples


def valid_mask(lengths: Tensor, frames: int) -> Tensor:
    """Bool [B, T], true on the first lengths[b] of T = frames entries."""
    return torch.arange(frames, device=lengths.device) < lengths[:, None]


@dataclass(frozen=True, slots=True)
class Layout:
    """The valid part of a padded batch [B, T, ...].

    Attributes:
        counts: valid entries of each utterance, on the host.
        frames: T, the padded length.
        lengths: the counts as a tensor [B] on the batch's device.
        valid: bool [B, T], or None where nothing is padded, which lets fast paths be taken.
    """

    counts: tuple[int, ...]
    frames: int
    lengths: Tensor
    valid: Tensor | None

    @classmethod
    def of(cls, counts: Sequence[int], frames: int, device: torch.device) -> "Layout":
        """The layout of a batch from its counts, all of which must lie in 1..frames."""
        assert all(1 <= count <= frames for count in counts), f"lengths {tuple(counts)} outside 1..{frames}"
        lengths = torch.tensor(counts, device=device)
        padded = any(count < frames for count in counts)
        return cls(tuple(counts), frames, lengths, valid_mask(lengths, frames) if padded else None)
