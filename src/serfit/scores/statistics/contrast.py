"""A score as a function of sums per cluster, so that leaving clusters out costs a subtraction.

CCC depends on six sums over utterances: n, x, y, x^2, y^2 and xy. Everything that is estimated here is a weighted sum
of CCCs: the mean over folds and seeds, the mean over dimensions, the difference between two experiments.

In shapes: N utterances, C atoms, K cells, G clusters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]

MOMENTS = 6
"""Sums behind a CCC: n, x, y, x^2, y^2, xy."""


Kind = Literal["fold", "speaker", "dialogue"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True, eq=False)
class Clustering:
    """The test utterances of an experiment, grouped by fold, speaker and dialogue.

    An atom is all utterances of one speaker in one dialogue in one fold, the finest group that is ever left out.

    Attributes:
        atoms: [N] atom of each utterance.
        groups: [C] fold, speaker and dialogue of each atom, numbered from 0; only what is known of every utterance.
        unknown: number of utterances whose speaker or dialogue is unknown.
    """

    atoms: Integers
    groups: Mapping[Kind, Integers]
    unknown: Mapping[Kind, int]

    @property
    def count(self) -> int:
        """Number of atoms."""
        return len(self.groups["fold"])


def clustering(speakers: Sequence[str], dialogues: Sequence[str], folds: Sequence[int]) -> Clustering:
    """Group utterances.

    Args:
        speakers: [N] names; "" where unknown.
        dialogues: [N] names; "" likewise.
        folds: [N] fold whose trained model predicted the utterance.
    """
    columns = [np.unique(np.asarray(names), return_inverse=True)[1] for names in (folds, speakers, dialogues)]
    distinct, atoms = np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)
    unknown = dict(zip(KINDS, (0, list(speakers).count(""), list(dialogues).count("")), strict=True))
    groups = {kind: distinct[:, column] for column, kind in enumerate(KINDS) if not unknown[kind]}
    return Clustering(atoms.reshape(-1).astype(np.intp), groups, unknown)


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """One CCC that takes part in a score.

    Attributes:
        rows: [n] which utterances of the clustering.
        targets: [n].
        values: [n] predictions.
        fold: fold that the CCC belongs to, or one number for all where folds are pooled.
        dimension: anything that tells dimensions apart.
        weight: share in the score of its fold; the weights of a fold's cells add up to 1.
    """

    rows: Integers
    targets: Floats
    values: Floats
    fold: int
    dimension: int
    weight: float


@dataclass(frozen=True, slots=True, eq=False)
class Contrast:
    """The mean over folds of a weighted sum of CCCs.

    Attributes:
        clustering: of the utterances.
        sums: [K, C, 6] n, x, y, x^2, y^2 and xy of each cell's utterances in each atom.
        weights: [K] weights inside the fold.
        folds: [K] fold of each cell.
        dimensions: [K] dimension of each cell.
        bounded: whether the value lies between -1 and 1 as a CCC does (else it is a difference).
    """

    clustering: Clustering
    sums: Floats
    weights: Floats
    folds: Integers
    dimensions: Integers
    bounded: bool

    @property
    def value(self) -> float:
        """The score; NaN where undefined."""
        return float(self.of(self.sums.sum(axis=1)))

    def of(self, totals: Floats) -> Floats:
        """The score of other sums: [..., K, 6] to [...]. A fold without utterances drops out of the mean."""
        parts = concordance(totals) * self.weights
        scores, present = [], []
        for fold in np.unique(self.folds):
            inside = self.folds == fold
            there = (totals[..., inside, 0] > 0.5).all(axis=-1)
            scores.append(np.where(there, parts[..., inside].sum(axis=-1), 0.0))
            present.append(there)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.sum(scores, axis=0) / np.sum(present, axis=0), dtype=np.float64)

    def clustered(self, clusters: Integers) -> Floats:
        """Sums per cluster, [K, G, 6], of clusters given per atom [C] and numbered from 0."""
        return _added(self.sums, clusters)


def contrast(where: Clustering, cells: Sequence[Cell]) -> Contrast:
    """Add up the sums of cells. Targets and values are both shifted by the mean target, which leaves CCC as it is."""
    shift = float(np.concatenate([cell.targets for cell in cells]).mean())
    sums = np.zeros((len(cells), where.count, MOMENTS))
    for row, cell in enumerate(cells):
        x, y = cell.targets - shift, cell.values - shift
        for column, moment in enumerate((np.ones_like(x), x, y, x * x, y * y, x * y)):
            sums[row, :, column] = np.bincount(where.atoms[cell.rows], moment, where.count)
    return Contrast(
        clustering=where,
        sums=sums,
        weights=np.array([cell.weight for cell in cells]),
        folds=np.array([cell.fold for cell in cells], dtype=np.intp),
        dimensions=np.array([cell.dimension for cell in cells], dtype=np.intp),
        bounded=True,
    )


def minus(first: Contrast, second: Contrast) -> Contrast:
    """The difference of two scores on the same utterances."""
    assert first.clustering is second.clustering, "a paired difference needs one clustering"
    return replace(
        first,
        sums=np.concatenate([first.sums, second.sums]),
        weights=np.concatenate([first.weights, -second.weights]),
        folds=np.concatenate([first.folds, second.folds]),
        dimensions=np.concatenate([first.dimensions, second.dimensions]),
        bounded=False,
    )


def concordance(sums: Floats) -> Floats:
    """CCC of sums [..., 6], NaN where undefined; the formula of `serfit.scores.metrics.ccc` in moments."""
    with np.errstate(invalid="ignore", divide="ignore"):
        means = sums[..., 1:] / sums[..., :1]
        x, y, xx, yy, xy = np.moveaxis(means, -1, 0)
        # var(x) + var(y) + (mean(x) - mean(y))^2, the squares of the means cancelled
        return np.asarray(2.0 * (xy - x * y) / (xx + yy - 2.0 * x * y), dtype=np.float64)


def _added(sums: Floats, clusters: Integers) -> Floats:
    """[K, C, 6] to [K, G, 6]."""
    order = np.argsort(clusters, kind="stable")
    starts = np.flatnonzero(np.diff(clusters[order], prepend=-1))
    return np.asarray(np.add.reduceat(sums[:, order], starts, axis=1), dtype=np.float64)
