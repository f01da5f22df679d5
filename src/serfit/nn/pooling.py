"""From frames to one vector per utterance, in float32 or float64 and blind to padding."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from serfit.nn.frames import Layout
from serfit.nn.variant import TRAINED, Variant


def mean_weights(layout: Layout, dtype: torch.dtype) -> Tensor:
    """Weights [B, T] of the mean over valid frames: 1 / length on them, 0 on padding."""
    share = layout.lengths.to(dtype).reciprocal()[:, None].expand(-1, layout.frames)
    return share if layout.valid is None else share.masked_fill(~layout.valid, 0.0)


def weighted_mean(frames: Tensor, weights: Tensor) -> Tensor:
    """Sum of frames [B, T, H] weighted by [B, T], as [B, H]."""
    return (frames * weights[..., None]).sum(dim=1)


class LayerMix(nn.Module):
    """Softmax-weighted sum of K hidden states, each normalised over H without parameters of its own.

    Hidden states of different depth differ in scale by orders of magnitude; without the norm the weights would mean
    little, but public models have learnt theirs so. A single state passes unchanged.
    """

    def __init__(self, states: int, *, norm: bool = True) -> None:
        """A mix of so many states (K), equal at first; without norm, states enter the sum as they are."""
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(states)) if states > 1 else None
        self.norm = norm

    def forward(self, states: tuple[Tensor, ...]) -> Tensor:
        """K states [B, T, H] to one."""
        if self.weights is None:
            return states[0]
        shares = self.weights.softmax(0)
        assert len(states) == len(shares), f"{len(states)} hidden states for a mix of {len(shares)}"
        mixed = self._share(states[0], shares[0])
        for state, share in zip(states[1:], shares[1:], strict=True):
            mixed = mixed + self._share(state, share)
        return mixed

    def _share(self, state: Tensor, share: Tensor) -> Tensor:
        """As the norm's scale, the share costs neither a pass nor a stored copy of the normalised state."""
        width = state.shape[-1]
        return F.layer_norm(state, (width,), share.expand(width)) if self.norm else state * share

    def normalised(self, state: Tensor) -> Tensor:
        """One state [B, T, H] as it enters the sum."""
        return state if self.weights is None or not self.norm else F.layer_norm(state, state.shape[-1:])

    def pooled(self, means: Tensor) -> Tensor:
        """Mix of states [B, K, H] that were normalised and averaged over time before: the mean commutes with it."""
        return means[:, 0] if self.weights is None else torch.einsum("k,bkh->bh", self.weights.softmax(0), means)


class Pooling(nn.Module):
    """From frames [B, T, H] to one vector [B, P] per utterance.

    Attributes:
        width: P.
        frame_bytes: bytes that it keeps of each frame for the backward pass.
        linear: whether it commutes with the mix of layers, so that frozen layers may be pooled once and for all; only
            the mean does.
    """

    def __init__(self, width: int, frame_bytes: float, *, linear: bool = False) -> None:
        """Keep what others ask about; arguments as the attributes."""
        super().__init__()
        self.width, self.frame_bytes, self.linear = width, frame_bytes, linear

    def forward(self, frames: Tensor, layout: Layout) -> Tensor:
        """The mean [B, H] of frames [B, T, H]."""
        return weighted_mean(frames, mean_weights(layout, frames.dtype))


class ProjectedMean(Pooling):
    """Mean over frames of what three layers, with ReLU between them, make of each."""

    def __init__(self, width: int, hidden: int) -> None:
        """Pool states of a width H into as many values as each layer has units."""
        super().__init__(hidden, 4.0 * width + 12.0 * hidden)
        self.layers = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, hidden)
        )

    def forward(self, frames: Tensor, layout: Layout) -> Tensor:
        """[B, T, H] to [B, P]."""
        return super().forward(self.layers(frames), layout)


class AttentionPooling(Pooling):
    """Attention-weighted mean over frames, and standard deviation where asked for.

    Okabe et al., "Attentive statistics pooling for deep speaker embedding", Interspeech 2018. The scores have no
    output bias: softmax would cancel it.
    """

    def __init__(self, width: int, deviation: bool, variant: Variant = TRAINED) -> None:
        """Pool states of a width H into H values, or 2 H with the standard deviation."""
        super().__init__(2 * width if deviation else width, (12.0 if deviation else 4.0) * width)
        self.hidden = nn.Linear(width, variant.attention_width)
        self.score = nn.Linear(variant.attention_width, 1, bias=False)
        self.deviation, self.least_variance = deviation, variant.least_variance

    def forward(self, frames: Tensor, layout: Layout) -> Tensor:
        """[B, T, H] to [B, H], or [B, 2 H]: mean, then standard deviation."""
        scores = self.score(torch.tanh(self.hidden(frames))).squeeze(-1)
        if layout.valid is not None:
            scores = scores.masked_fill(~layout.valid, -math.inf)
        weights = scores.softmax(dim=1)
        mean = weighted_mean(frames, weights)
        if not self.deviation:
            return mean
        variance = weighted_mean((frames - mean[:, None]).square(), weights)
        return torch.cat([mean, variance.clamp(min=self.least_variance).sqrt()], dim=-1)


def build_pooling(
    kind: Literal["mean", "attention", "attentive_statistics"], width: int, variant: Variant = TRAINED
) -> Pooling:
    """The pooling of a kind, for states of a width H."""
    match kind:
        case "mean" if variant.projection is not None:
            return ProjectedMean(width, variant.projection)
        case "mean":
            return Pooling(width, 4.0 * width, linear=True)
        case "attention":
            return AttentionPooling(width, deviation=False, variant=variant)
        case "attentive_statistics":
            return AttentionPooling(width, deviation=True, variant=variant)
