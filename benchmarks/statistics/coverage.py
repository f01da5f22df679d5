"""How often 95 % intervals hold the true CCC, and how often tests find a difference where there is none.

Corpora like IEMOCAP are made up, with known truth: 5 sessions of 2 speakers and 30 dialogues, about 10,000 utterances;
both speakers of a session share its dialogues. Ratings and errors have parts that belong to speakers and to dialogues.

    uv run python benchmarks/statistics/coverage.py --corpora 1000
"""

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import NormalDist

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from serfit.counters import generator
from serfit.statistics import student
from serfit.statistics.contrast import Contrast, minus
from serfit.statistics.interval import estimate
from serfit.statistics.swaps import swap_test
from simulated import (
    Design,
    System,
    as_good,
    draw,
    layouts,
    over_folds,
    pooled,
    predict,
    true_ccc,
)

WORLDS: Mapping[str, tuple[Design, System]] = {
    "speakers and dialogues": (Design(), System()),
    "mostly dialogues": (Design(speaker=0.1, dialogue=0.6), System(slope_by_speaker=0.05, speaker=0.05, dialogue=0.2)),
    "mostly speakers": (Design(dialogue=0.05), System(slope_by_speaker=0.15, speaker=0.2, dialogue=0.05)),
    "neither": (Design(speaker=0.0, dialogue=0.0), System(slope_by_speaker=0.0, speaker=0.0, dialogue=0.0)),
}
RESAMPLES = 1_000


def bootstraps(score: Contrast, random: np.random.Generator, kind: str) -> dict[str, tuple[float, float]]:
    """Ends of the usual bootstrap intervals, resampling whole clusters inside folds."""
    where = score.layout
    clusters = where.speakers if kind == "speaker" else where.dialogues
    assert clusters is not None
    sums = score.clustered(clusters)
    folds = np.zeros(sums.shape[1], dtype=int)
    folds[clusters] = where.folds
    weights = np.zeros((RESAMPLES, sums.shape[1]))
    for fold in np.unique(folds):
        inside = np.flatnonzero(folds == fold)
        weights[:, inside] = random.multinomial(len(inside), np.full(len(inside), 1 / len(inside)), RESAMPLES)
    found = score.of(np.tensordot(weights, sums, (1, 1)))
    value = score.value
    low, high = np.quantile(found, [0.025, 0.975])
    without = score.of(np.moveaxis(sums.sum(axis=1, keepdims=True) - sums, 1, 0))
    pulls = without.mean() - without
    acceleration = float((pulls**3).sum() / (6 * (pulls**2).sum() ** 1.5))
    normal = NormalDist()
    shift = normal.inv_cdf(float(np.clip((found < value).mean(), 1e-3, 1 - 1e-3)))
    levels = [normal.cdf(shift + (shift + z) / (1 - acceleration * (shift + z))) for z in (-1.96, 1.96)]
    stretch = student.quantile(0.95, len(folds) - len(np.unique(folds))) / 1.96
    stretch *= np.sqrt(len(folds) / (len(folds) - len(np.unique(folds))))
    ends = np.tanh(np.arctanh(value) + stretch * (np.arctanh([low, high]) - np.arctanh(value)))
    return {
        f"percentile bootstrap by {kind}": (low, high),
        f"BCa bootstrap by {kind}": tuple(np.quantile(found, levels)),
        f"t-stretched percentile by {kind}": tuple(ends),
    }  # type: ignore[dict-item]


def coverage(world: str, corpora: int, candidates: bool) -> None:
    """Print coverage, mean width and misses on either side of every interval."""
    design, system = WORLDS[world]
    truth = true_ccc(design, system)
    values, ends = defaultdict(list), defaultdict(list)
    for number in range(corpora):
        random = generator("coverage", world, number)
        corpus = draw(random, design)
        predicted = predict(random, corpus, system)
        for name, make, where in zip(("pooled", "mean over folds"), (pooled, over_folds), layouts(corpus), strict=True):
            score = make(where, corpus, predicted)
            found = estimate(score)
            values[name].append(found.value)
            for kind, interval in found.intervals.items():
                ends[name, f"jackknife by {kind}"].append((interval.low, interval.high))
            if candidates:
                plain = []
                for kind in ("speaker", "dialogue"):
                    tried = bootstraps(score, random, kind)
                    plain.append(tried[f"percentile bootstrap by {kind}"])
                    for method, pair in tried.items():
                        ends[name, method].append(pair)
                ends[name, "the wider of both percentile bootstraps"].append(
                    max(plain, key=lambda two: two[1] - two[0])
                )
    print(f"\n{world}: true CCC {truth:.4f}; expected mean over folds {np.mean(values['mean over folds']):.4f}")
    for (name, method), pairs in sorted(ends.items()):
        low, high = np.array(pairs).T
        wanted = truth if name == "pooled" else float(np.mean(values[name]))
        held = ((low <= wanted) & (wanted <= high)).mean()
        print(
            f"  {name:16}{method:40} covers {100 * held:5.1f} %  width {(high - low).mean():.3f}"
            f"  too high {100 * (low > wanted).mean():4.1f} %  too low {100 * (high < wanted).mean():4.1f} %"
        )


def level(world: str, corpora: int) -> None:
    """Print how often a difference is found between two systems that are equally good, and one that is better."""
    design, system = WORLDS[world]
    rivals = {
        "two alike": system,
        "as good, other slope": as_good(design, system, 0.8 * system.slope),
        "noise 10 % lower": System(**{**vars(system), "noise": 0.9 * system.noise}),
    }
    for what, rival in rivals.items():
        found = defaultdict(list)
        for number in range(corpora):
            random = generator("level", world, what, number)
            corpus = draw(random, design)
            one, other = (predict(random, corpus, which) for which in (system, rival))
            makers = zip(("pooled", "mean over folds"), (pooled, over_folds), layouts(corpus), strict=True)
            for name, make, where in makers:
                sides = make(where, corpus, one), make(where, corpus, other)
                difference = estimate(minus(*sides))
                for kind, interval in difference.intervals.items():
                    found[name, f"jackknife by {kind}"].append(interval.p)
                assert where.speakers is not None
                assert where.dialogues is not None
                tests = [swap_test(*sides, group, number) for group in (where.speakers, where.dialogues)]
                by = [test.p for test in tests if test is not None]
                for kind, p in zip(("speaker", "dialogue", "the larger"), (*by, max(by)), strict=True):
                    found[name, f"swaps by {kind}"].append(p)
                assert difference.interval is not None
                found[name, "largest of all"].append(max(*by, difference.interval.p))
        print(f"\n{world}, {what}: true difference {true_ccc(design, rival) - true_ccc(design, system):+.4f}")
        for (name, method), probabilities in sorted(found.items()):
            share = (np.array(probabilities) < 0.05).mean()
            print(f"  {name:16}{method:38} p < 0.05 in {100 * share:5.1f} %")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", type=int, default=1000, help="made-up corpora per world")
    parser.add_argument("--worlds", nargs="*", default=list(WORLDS), choices=list(WORLDS))
    parser.add_argument("--no-bootstraps", action="store_true", help="leave the candidates that were not chosen out")
    parser.add_argument("--only", choices=("coverage", "level"), help="one of both parts")
    given = parser.parse_args()
    began = time.monotonic()
    error = 100 * (0.95 * 0.05 / given.corpora) ** 0.5
    print(f"{given.corpora} corpora per world; standard error of 95 % and of 5 %: {error:.1f} points")
    for world in given.worlds:
        if given.only != "level":
            coverage(world, given.corpora, not given.no_bootstraps)
        if given.only != "coverage":
            level(world, given.corpora)
    print(f"\n{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
