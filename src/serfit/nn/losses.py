"""The training loss: one minus the concordance correlation coefficient, over a whole optimisation batch."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from serfit.config import schema
from serfit.labels import Dimension

_EPS = 1e-8


LossFunction = Callable[[Tensor, Tensor], Tensor]
"""Predictions [B, D] and targets [B, D] -> scalar."""


class Loss(NamedTuple):
    """A loss and what was odd about its batch.

    Attributes:
        value: scalar to minimise.
        constant: bool [D], true where all targets of a dimension are equal, so that its CCC teaches nothing.
    """

    value: Tensor
    constant: Tensor


def batch_ccc(predictions: Tensor, targets: Tensor) -> Tensor:
    """CCC [D] of predictions and targets [B, D], differentiable, in the precision of its input.

    Population moments as in `serfit.scores.metrics.ccc`; 1e-8 added to the denominator makes 0/0 a 0.
    """
    predicted_mean, target_mean = predictions.mean(0), targets.mean(0)
    p, t = predictions - predicted_mean, targets - target_mean
    spread = p.square().mean(0) + t.square().mean(0) + (predicted_mean - target_mean).square()
    return 2.0 * (p * t).mean(0) / (spread + _EPS)


def ccc_loss(predictions: Tensor, targets: Tensor, weights: Tensor | None = None, mse_share: float = 0.0) -> Loss:
    """Weighted mean over dimensions of (1 - CCC) + mse_share * MSE.

    A dimension whose targets are all equal counts 1 for its CCC, without gradient, and is flagged.

    Args:
        predictions: [B, D] on [0, 1].
        targets: [B, D] on [0, 1].
        weights: [D], not negative and not all 0; None weighs all dimensions alike.
        mse_share: weight of the mean squared error.
    """
    assert predictions.shape == targets.shape, f"predictions {predictions.shape} for targets {targets.shape}"
    assert predictions.ndim == 2, f"predictions [B, D], not {predictions.shape}"
    if predictions.dtype != torch.float64:
        predictions = predictions.float()
    targets = targets.to(predictions.dtype)
    constant = (targets == targets[:1]).all(0)
    term = torch.where(constant, 1.0, 1.0 - batch_ccc(predictions, targets))
    if mse_share > 0.0:
        term = term + mse_share * (predictions - targets).square().mean(0)
    weights = torch.ones_like(term) if weights is None else weights.to(term)
    return Loss((weights * term).sum() / weights.sum(), constant)


def build_loss(settings: schema.LossSettings, dimensions: Sequence[Dimension]) -> LossFunction:
    """The training loss that a configuration describes, for predictions of these dimensions."""
    weights = [settings.weights.get(name, 1.0) for name in dimensions]

    def loss(predictions: Tensor, targets: Tensor) -> Tensor:
        return ccc_loss(predictions, targets, predictions.new_tensor(weights), settings.mse_share).value

    return loss
