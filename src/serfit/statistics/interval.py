"""Confidence intervals by leaving out clusters: jackknife standard errors with t quantiles.

Utterances of one speaker are alike, and so are those of one dialogue; intervals that take utterances as independent
are far too narrow. Corpora have few speakers (IEMOCAP ten), where percentile and BCa bootstraps are too narrow as
well: `benchmarks/statistics/coverage.py` measures the candidates, docs/statistics.md shows what it printed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from serfit.statistics import student
from serfit.statistics.contrast import Contrast, Integers

Kind = Literal["speaker", "dialogue", "speaker and dialogue", "utterance"]

CONFIDENCE = 0.95

LEAST_DEGREES = 4
"""Fewest degrees of freedom for which an interval is given: with fewer, it would say next to nothing."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval.

    Attributes:
        low: lower end.
        high: upper end.
        p: two-sided p of the value being 0, by the same standard error.
        degrees: degrees of freedom: clusters less strata.
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
        headline: which interval counts; None where there is none.
        intervals: by what was taken as independent; those that can't be had are left out.
        clusters: number of speakers and dialogues, where known.
    """

    value: float | None
    headline: Kind | None
    intervals: Mapping[Kind, Interval]
    clusters: Mapping[Kind, int]

    @property
    def interval(self) -> Interval | None:
        """The interval that counts."""
        return None if self.headline is None else self.intervals[self.headline]


def estimate(score: Contrast) -> Estimate:
    """A score with its intervals, clustered by speaker, by dialogue and, as the headline, by both.

    The jackknife variance of a clustering, with strata f of G_f clusters each (Shao and Tu, The Jackknife and
    Bootstrap, 1995, section 6.2), is the sum over f of (G_f - 1) / G_f * sum over g of (s_fg - mean of s_f)^2, where
    s_fg is the score without cluster g. Strata are the folds (where one CCC is taken over all folds there is one
    stratum); all are merged where a cluster is in several folds, or alone in its own. The two-way variance is
    V_speaker + V_dialogue - V_both (Cameron, Gelbach and Miller, Robust inference with multiway clustering, 2011), and
    never less than the larger of the first two. A score that lies in [-1, 1] is treated on Fisher's z scale.
    """
    value = score.value
    where = score.layout
    groups: dict[Kind, Integers] = {}
    if where.speakers is not None:
        groups["speaker"] = where.speakers
    if where.dialogues is not None:
        groups["dialogue"] = where.dialogues
    if not groups:
        groups["utterance"] = np.arange(where.count)
    clusters: dict[Kind, int] = {kind: int(group.max()) + 1 for kind, group in groups.items()}
    if not math.isfinite(value):
        return Estimate(None, None, {}, clusters)
    found = {kind: _variance(score, group) for kind, group in groups.items()}
    usable = {kind: pair for kind, pair in found.items() if pair[1] >= LEAST_DEGREES and math.isfinite(pair[0])}
    intervals = {kind: _interval(score, value, *pair) for kind, pair in usable.items()}
    headline = next(iter(usable), None)
    if {"speaker", "dialogue"} <= set(usable):
        headline = "speaker and dialogue"
        (speaker, few), (dialogue, many) = usable["speaker"], usable["dialogue"]
        both, _ = _variance(score, np.arange(where.count))
        variance = max(speaker, dialogue, speaker + dialogue - both)
        intervals[headline] = _widest(_interval(score, value, variance, min(few, many)), *intervals.values())
    return Estimate(value, headline, intervals, clusters)


def _interval(score: Contrast, value: float, variance: float, degrees: int) -> Interval:
    error = math.sqrt(variance)
    reach = student.quantile(CONFIDENCE, degrees) * error
    centre = _scaled(score, value)
    ends = (centre - reach, centre + reach)
    low, high = (math.tanh(end) for end in ends) if score.bounded else ends
    p = student.two_sided_p(centre / error, degrees) if error > 0.0 else float(centre == 0.0)
    return Interval(low, high, p, degrees)


def _widest(first: Interval, *others: Interval) -> Interval:
    """An interval that holds all of them; its p is the largest."""
    every = (first, *others)
    low, high = min(one.low for one in every), max(one.high for one in every)
    return Interval(low, high, max(one.p for one in every), first.degrees)


def _scaled(score: Contrast, value: float) -> float:
    return math.atanh(max(-1.0 + 1e-12, min(1.0 - 1e-12, value))) if score.bounded else value


def _variance(score: Contrast, clusters: Integers) -> tuple[float, int]:
    """Jackknife variance of leaving out one cluster at a time, and its degrees of freedom; NaN where undefined."""
    sums = score.clustered(clusters)
    count = sums.shape[1]
    without = score.of(np.moveaxis(sums.sum(axis=1, keepdims=True) - sums, 1, 0))
    if score.bounded:
        without = np.arctanh(np.clip(without, -1.0 + 1e-12, 1.0 - 1e-12))
    strata = _strata(clusters, score.layout.folds, count)
    variance = 0.0
    for stratum in np.unique(strata):
        left_out = without[strata == stratum]
        variance += (len(left_out) - 1) / len(left_out) * float(((left_out - left_out.mean()) ** 2).sum())
    return variance, count - len(np.unique(strata))


def _strata(clusters: Integers, folds: Integers, count: int) -> Integers:
    """[G] fold of each cluster, or one for all where folds don't divide the clusters into groups of two or more."""
    lowest, highest = np.full(count, folds.max()), np.full(count, folds.min())
    np.minimum.at(lowest, clusters, folds)
    np.maximum.at(highest, clusters, folds)
    sizes = np.unique(lowest, return_counts=True)[1]
    nested = bool((lowest == highest).all()) and int(sizes.min()) >= 2
    return lowest if nested else np.zeros(count, dtype=np.intp)
