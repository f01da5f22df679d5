"""Confidence intervals by leaving out clusters: jackknife standard errors with t quantiles.

Utterances of one speaker are alike, so are those of one dialogue, and all test utterances of a fold are predicted by
the same trained model. Intervals that take utterances as independent are far too narrow.
`benchmarks/statistics/coverage.py` measures the candidates; docs/statistics.md shows what it printed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from serfit.scores.statistics import t_distribution
from serfit.scores.statistics.contrast import KINDS, Clustering, Contrast, Integers, Kind

CONFIDENCE = 0.95

ROUNDING = 1e-12
"""Difference of scores below which two systems count as equal; a CCC is rounded in its 16th digit."""

FEWEST: Mapping[Kind, int] = {"fold": 3, "speaker": 5, "dialogue": 5}
"""Fewest clusters that an interval varies; fewer are taken as given, and the interval holds for them alone."""


@dataclass(frozen=True, slots=True)
class Scope:
    """The scope of an interval.

    Attributes:
        varied: what it varies; everything else is taken as given.
        counts: number of folds, speakers and dialogues, where they are known of every utterance.
        unknown: number of utterances whose speaker or dialogue is unknown.
    """

    varied: tuple[Kind, ...]
    counts: Mapping[Kind, int]
    unknown: Mapping[Kind, int]

    @property
    def testable(self) -> bool:
        """Whether a difference can be tested: a test is about other speakers, so these must be varied."""
        return "speaker" in self.varied

    def __str__(self) -> str:
        """In words.

        >>> str(Scope(("dialogue",), {"fold": 1, "speaker": 2, "dialogue": 30}, {}))
        'other dialogues, with these trained models and these 2 speakers'
        """
        names = {"fold": "trained models", "speaker": "speakers", "dialogue": "dialogues"}
        varied = ["other " + _listed([names[kind] for kind in self.varied])] if self.varied else []
        given = [_these(kind, count) for kind, count in self.counts.items() if kind not in self.varied]
        given += ["unknown speakers"] if self.unknown.get("speaker") else []
        return ", with ".join([*varied, *([_listed(given)] if given else [])])


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval.

    Attributes:
        low: lower end.
        high: upper end.
        p: two-sided p of the value being 0, by the same standard error: below 0.05 where the interval excludes 0.
        degrees: degrees of freedom.
    """

    low: float
    high: float
    p: float
    degrees: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """A score and how sure one can be of it.

    Attributes:
        value: the score; None where undefined.
        interval: None where there are too few clusters or the score is undefined without one of them.
        scope: what the interval holds for.
    """

    value: float | None
    interval: Interval | None
    scope: Scope


def estimate(score: Contrast) -> Estimate:
    """A score with its interval, clustered by fold, speaker and dialogue.

    The jackknife variance of G clusters is (G - 1) / G times the sum of (s_g - mean of s)^2, where s_g is the score
    without cluster g (Shao and Tu, The Jackknife and Bootstrap, 1995, section 6.2). A clustering inside another is
    covered by it: where speakers and dialogues have a fold of their own, folds alone count, and the interval of a
    difference is that of the paired t test. Clusterings that cross are put together as V_1 + V_2 - V_12, or with a
    third likewise (Cameron, Gelbach and Miller, Robust inference with multiway clustering, 2011), never less than
    the largest of them. A CCC is treated on Fisher's z scale.

    Degrees of freedom are one less than the effective number of clusters, the smallest of all clusterings (`_degrees`).
    """
    value = score.value
    scope, groups = _scope(score.clustering)
    if not math.isfinite(value):
        return Estimate(None, None, scope)
    if not groups:
        return Estimate(value, None, scope)
    alone = [_variance(score, group) for group in groups]
    variance = sum(alone)
    for size in range(2, len(groups) + 1):
        for some in combinations(groups, size):
            variance -= (-1) ** size * _variance(score, _crossed(*some))
    variance = max(*alone, variance) if len(alone) > 1 else variance
    degrees = min(_degrees(score, group) for group in groups)
    return Estimate(value, _interval(score, value, variance, degrees) if math.isfinite(variance) else None, scope)


def _scope(where: Clustering) -> tuple[Scope, list[Integers]]:
    """What can be varied, and the clusterings to do it by, those inside another left out."""
    counts = {kind: int(where.groups[kind].max()) + 1 for kind in KINDS if kind in where.groups}
    coarse: dict[Kind, Integers] = {}
    varied: list[Kind] = []
    for kind in counts:
        group = where.groups[kind]
        if any(_inside(group, other) for other in coarse.values()):
            varied.append(kind)
        elif counts[kind] >= FEWEST[kind]:
            varied.append(kind)
            coarse = {name: other for name, other in coarse.items() if not _inside(other, group)} | {kind: group}
    return Scope(tuple(varied), counts, where.unknown), list(coarse.values())


def _inside(fine: Integers, coarse: Integers) -> bool:
    """Whether each cluster of one clustering lies in a single cluster of the other."""
    return bool(_crossed(fine, coarse).max() == fine.max())


def _crossed(*groups: Integers) -> Integers:
    """[C] clusters that are alike in all of several clusterings."""
    return np.unique(np.stack(groups, axis=1), axis=0, return_inverse=True)[1].reshape(-1).astype(np.intp)


def _interval(score: Contrast, value: float, variance: float, degrees: int) -> Interval:
    error = math.sqrt(variance)
    if not score.bounded and abs(value) < ROUNDING:  # of equal predictions: what is left is the order of additions
        value = 0.0
    reach = t_distribution.quantile(CONFIDENCE, degrees) * error
    centre = math.atanh(max(-1.0 + 1e-12, min(1.0 - 1e-12, value))) if score.bounded else value
    ends = (centre - reach, centre + reach)
    low, high = (math.tanh(end) for end in ends) if score.bounded else ends
    p = t_distribution.two_sided_p(centre / error, degrees) if error > 0.0 else float(centre == 0.0)
    return Interval(low, high, p, degrees)


def _variance(score: Contrast, clusters: Integers) -> float:
    """Jackknife variance of leaving out one cluster at a time; NaN where undefined."""
    sums = score.clustered(clusters)
    without = score.of(np.moveaxis(sums.sum(axis=1, keepdims=True) - sums, 1, 0))
    if score.bounded:
        without = np.arctanh(np.clip(without, -1.0 + 1e-12, 1.0 - 1e-12))
    return (len(without) - 1) / len(without) * float(((without - without.mean()) ** 2).sum())


def _degrees(score: Contrast, clusters: Integers) -> int:
    """Effective number of clusters minus 1, rounded and at least 1: the number of clusters minus 1 if they are even.

    1 / (sum of squared shares) clusters count where some have a larger share in the score than others (Kish, Survey
    Sampling, 1965, section 11.7; Carter, Schnepel and Steigerwald, Asymptotic behavior of a t-test robust to cluster
    heterogeneity, 2017). In a mean over folds every fold has the same share, in a pooled CCC that of its utterances.
    """
    counts = score.clustered(clusters)[..., 0]
    shares = np.abs(score.weights) @ (counts / counts.sum(axis=1, keepdims=True))
    return max(1, round(float(shares.sum() ** 2 / (shares**2).sum()) - 1))


def _these(kind: Kind, count: int) -> str:
    if kind == "fold":
        return "these trained models"
    return f"this {kind}" if count == 1 else f"these {count:,} {kind}s"


def _listed(names: list[str]) -> str:
    """For example "trained models, speakers and dialogues"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
