"""Ridge regression in closed form: ratings as a straight line of features, each penalty chosen by validation."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serfit.scores.metrics import better, ccc

PENALTIES = tuple(float(penalty) for penalty in 10.0 ** np.arange(-1.0, 6.0, 0.5))
"""Penalties to choose from by the validation CCC of each dimension."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Ridge:
    """A straight line from standardised features to the ratings of each of D dimensions.

    Attributes:
        means: [F] of the training part, which also stand for what is undefined.
        deviations: [F] of the training part.
        weights: [F, D].
        levels: [D] mean ratings of the training part.
        penalties: the chosen one of each dimension.
    """

    means: Floats
    deviations: Floats
    weights: Floats
    levels: Floats
    penalties: tuple[float, ...]

    def predict(self, features: Floats) -> Floats:
        """[N, F] to [N, D]."""
        return standardised(features, self.means, self.deviations) @ self.weights + self.levels


def fit_ridge(
    features: Floats, ratings: Floats, validation: Floats, wanted: Floats, penalties: Sequence[float] = PENALTIES
) -> Ridge:
    """Ridge regression in closed form, the penalty of each dimension chosen by the CCC of the validation part.

    The weights are (X'X + penalty I)^-1 X'y of the standardised features X and the ratings y less their means (Hastie,
    Tibshirani and Friedman, The Elements of Statistical Learning, 2009, equation 3.44). X'X, or where features
    outnumber utterances XX', is decomposed once for all dimensions and penalties.

    Args:
        features: [N, F] of the training part; NaN where undefined.
        ratings: [N, D].
        validation: [M, F] features of the validation part.
        wanted: [M, D] its ratings.
        penalties: to choose from; the largest is taken among equals.
    """
    means, deviations = moments(features)
    x = standardised(features, means, deviations)
    levels = ratings.mean(axis=0)
    wide = x.shape[1] > x.shape[0]
    squares, vectors = np.linalg.eigh(x @ x.T if wide else x.T @ x)
    squares = squares.clip(min=0.0)  # rounding makes some negative
    turned = vectors.T @ (ratings - levels if wide else x.T @ (ratings - levels))
    new = standardised(validation, means, deviations)
    new = (new @ x.T if wide else new) @ vectors
    chosen: list[float] = []
    for column in range(ratings.shape[1]):
        best, reached = max(penalties), None
        for penalty in sorted(penalties, reverse=True):
            values = new @ (turned[:, column] / (squares + penalty)) + levels[column]
            score = ccc(wanted[:, column], values)
            if better(score, reached):
                best, reached = penalty, score
        chosen.append(best)
    weights = vectors @ (turned / (squares[:, None] + np.array(chosen)))
    return Ridge(means, deviations, x.T @ weights if wide else weights, levels, tuple(chosen))


def moments(features: Floats) -> tuple[Floats, Floats]:
    """Means and standard deviations [F] of features [N, F], of what is defined; infinite deviations of constants.

    A feature that is undefined in all utterances has the mean 0.
    """
    counted = np.where(np.isnan(features), 0.0, features)
    defined = np.maximum((~np.isnan(features)).sum(axis=0), 1)
    means = counted.sum(axis=0) / defined
    squares = np.where(np.isnan(features), 0.0, (features - means) ** 2).sum(axis=0) / defined
    deviations = np.sqrt(squares)
    deviations[deviations < 1e-9] = np.inf
    return means, deviations


def standardised(features: Floats, means: Floats, deviations: Floats) -> Floats:
    """[N, F] features in units of deviations from the means; what is undefined lies at the mean."""
    return np.nan_to_num((features - means) / deviations, nan=0.0)
