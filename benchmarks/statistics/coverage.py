"""How often 95 % intervals contain the true CCC, and how often a test finds a difference where there is none.

Corpora like IEMOCAP are made up, with known truth: sessions of 2 speakers who share their dialogues. Ratings and errors
have parts that belong to speakers, to dialogues, and to the trained model of a fold.

    uv run python benchmarks/statistics/coverage.py --corpora 500
"""

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from serfit.scores.statistics.contrast import Contrast, minus
from serfit.scores.statistics.interval import estimate
from serfit.system.counters import generator
from simulated import Corpus, Design, System, as_good, draw, grouped, over_folds, pooled, predict, true_ccc

SMALL = Design(size=20)
NOTHING_ALIKE = Design(speaker=0.0, dialogue=0.0, size=20)
FOLDS = System(slope_by_fold=0.1, fold=0.1)

WORLDS: Mapping[str, tuple[Design, System]] = {
    "folds alike": (SMALL, System()),
    "folds differ a little (slope 0.6 ± 0.05)": (SMALL, System(slope_by_fold=0.05, fold=0.05)),
    "folds differ (0.6 ± 0.10)": (SMALL, FOLDS),
    "folds differ much (0.6 ± 0.20)": (SMALL, System(slope_by_fold=0.2, fold=0.2)),
    "10,000 utterances, folds alike": (Design(), System()),
    "10,000 utterances, folds differ": (Design(), FOLDS),
    "mostly speakers differ": (
        replace(SMALL, dialogue=0.05),
        System(slope_by_speaker=0.15, speaker=0.2, dialogue=0.05),
    ),
    "mostly dialogues differ": (
        replace(SMALL, speaker=0.1, dialogue=0.6),
        System(slope_by_speaker=0.05, speaker=0.05, dialogue=0.2),
    ),
    "nothing but noise differs": (NOTHING_ALIKE, System(slope_by_speaker=0.0, speaker=0.0, dialogue=0.0)),
    "uneven sessions and speakers, folds alike": (replace(SMALL, uneven=True), System()),
    "uneven sessions and speakers, folds differ": (replace(SMALL, uneven=True), FOLDS),
    "3 dialogues a session, folds differ": (replace(SMALL, dialogues=3), FOLDS),
    "true CCC 0, folds differ": (SMALL, replace(FOLDS, slope=0.0)),
    "true CCC 0.99, folds differ": (
        SMALL,
        System(0.98, slope_by_fold=0.02, slope_by_speaker=0.02, fold=0.02, speaker=0.05, dialogue=0.05, noise=0.1),
    ),
    "3 folds that differ": (replace(SMALL, sessions=3), FOLDS),
    "4 folds that differ": (replace(SMALL, sessions=4), FOLDS),
    "10 folds that differ": (replace(SMALL, sessions=10), FOLDS),
    "every speaker in all of 5 folds that differ": (SMALL, FOLDS),
    "folds differ, and models have a quarter of that in common": (SMALL, replace(FOLDS, common=0.25)),
    "folds differ, and models have half of that in common": (SMALL, replace(FOLDS, common=0.5)),
}
CROSSED = "every speaker in all of 5 folds that differ"

FEW: Mapping[tuple[int, int], Design] = {
    (1, 2): Design(sessions=1, size=20),
    (1, 4): Design(sessions=2, size=20),
    (1, 6): Design(sessions=3, size=20, dialogues=15),
    (1, 10): Design(sessions=5, size=20, dialogues=10),
    (1, 40): Design(sessions=20, size=20, dialogues=5),
    (2, 4): Design(sessions=2, size=20),
    (2, 8): Design(sessions=4, size=20, dialogues=15),
    (2, 40): Design(sessions=20, size=20, dialogues=5),
    (5, 2): Design(sessions=1, size=20),
    (5, 4): Design(sessions=2, size=20),
}
"""Few folds or speakers, some of which an interval takes as given: by number of folds and of speakers."""

RESAMPLES = 400
PEOPLE = 25
"""Corpora per set of trained models and speakers, where these are taken as given."""


def wider_bootstrap(score: Contrast, random: np.random.Generator) -> tuple[float, float]:
    """The wider of two percentile bootstraps that resample whole speakers or whole dialogues inside folds."""
    found = []
    for kind in ("speaker", "dialogue"):
        clusters = score.clustering.groups[kind]
        sums = score.clustered(clusters)
        folds = np.zeros(sums.shape[1], dtype=int)
        folds[clusters] = score.clustering.groups["fold"]
        weights = np.zeros((RESAMPLES, sums.shape[1]))
        for fold in np.unique(folds):
            inside = np.flatnonzero(folds == fold)
            weights[:, inside] = random.multinomial(len(inside), np.full(len(inside), 1 / len(inside)), RESAMPLES)
        found.append(np.quantile(score.of(np.tensordot(weights, sums, (1, 1))), [0.025, 0.975]))
    low, high = max(found, key=lambda two: two[1] - two[0])
    return float(low), float(high)


def made(random: np.random.Generator, world: str) -> Corpus:
    corpus = draw(random, WORLDS[world][0])
    return replace(corpus, session=corpus.dialogue % 1000 % 5) if world == CROSSED else corpus


def one_model(corpus: Corpus) -> Corpus:
    """The same test utterances, all of one trained model."""
    return replace(corpus, session=np.zeros_like(corpus.session))


def cell(pairs: list[tuple[float, float]], truth: float) -> str:
    """Coverage and mean width."""
    low, high = np.array(pairs).T
    return f"{100 * ((low <= truth) & (truth <= high)).mean():.1f} %, {(high - low).mean():.3f}"


def folds_row(world: str, corpora: int) -> str:
    """Coverage, level and power where each fold has a trained model of its own."""
    design, system = WORLDS[world]
    rivals = {"alike": system, "weaker": replace(system, noise=0.9 * system.noise)}
    if 0.0 < system.slope < 0.9:
        rivals["slope"] = as_good(design, system, 0.8 * system.slope)
    ends: dict[str, list[tuple[float, float]]] = defaultdict(list)
    values, found = [], defaultdict(list)
    for number in range(corpora):
        random = generator("coverage", world, number)
        corpus = made(random, world)
        ours = predict(random, corpus, system)
        where, models = grouped(corpus), grouped(one_model(corpus))
        mean = over_folds(where, corpus, ours)
        scores = {"mean": mean, "pooled": pooled(where, corpus, ours), "given": over_folds(models, corpus, ours)}
        for name, score in scores.items():
            interval = estimate(score).interval
            assert interval is not None
            ends[name].append((interval.low, interval.high))
        ends["bootstrap"].append(wider_bootstrap(mean, random))
        values.append(mean.value)
        for name, rival in rivals.items():
            interval = estimate(minus(mean, over_folds(where, corpus, predict(random, corpus, rival)))).interval
            assert interval is not None
            found[name].append(interval.p < 0.05)
    truth = float(np.mean(values))
    cells = [cell(ends["mean"], truth), cell(ends["pooled"], true_ccc(design, system))]
    cells += [f"{100 * np.mean(found[name]):.1f} %" if name in found else "" for name in ("alike", "slope", "weaker")]
    return " | ".join([world, *cells, cell(ends["given"], truth), cell(ends["bootstrap"], truth)])


def few_row(folds: int, speakers: int, corpora: int) -> str:
    """The same with few folds or speakers; those that are taken as given are drawn anew for every `PEOPLE` corpora."""
    design, system = FEW[folds, speakers], FOLDS if folds > 1 else System()
    held, widths, found, scopes = [], [], [], set()
    given = {"people": speakers < 5, "models": 1 < folds < 3}
    each = PEOPLE if any(given.values()) else corpora
    for group in range(corpora // each):
        low, high, values = [], [], []
        for number in range(each):
            random = generator("few", folds, speakers, group, number)
            people = [
                generator("people", folds, speakers, group, what) if given["people"] else None for what in range(3)
            ]
            corpus = draw(random, design, people[0])
            turns = corpus.dialogue % 1000 if speakers < folds else corpus.session
            corpus = replace(corpus, session=turns % folds)
            where = grouped(corpus)
            scores = []
            for whose in people[1:]:
                models = generator("models", folds, speakers, group) if given["models"] else None
                scores.append(over_folds(where, corpus, predict(random, corpus, system, whose, models)))
            known, difference = estimate(scores[0]), estimate(minus(*scores)).interval
            assert known.interval is not None
            assert difference is not None
            low.append(known.interval.low)
            high.append(known.interval.high)
            values.append(known.value)
            scopes.add(str(known.scope))
            found.append(difference.p < 0.05)
        truth = float(np.mean(values))
        held += list((np.array(low) <= truth) & (truth <= np.array(high)))
        widths += list(np.array(high) - np.array(low))
    level = "not tested" if given["people"] else f"{100 * np.mean(found):.1f} %"
    held_for = " / ".join(scopes)
    return f"{folds} | {speakers} | {held_for} | {100 * np.mean(held):.1f} %, {np.mean(widths):.3f} | {level}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", type=int, default=500, help="made-up corpora per world")
    parser.add_argument("--worlds", nargs="*", default=list(WORLDS), choices=list(WORLDS))
    given = parser.parse_args()
    began = time.monotonic()
    error = 100 * (0.95 * 0.05 / given.corpora) ** 0.5
    print(f"{given.corpora} corpora per world; standard error of 95 % and of 5 %: {error:.1f} points\n")
    print(
        "| world | mean over folds | pooled | p < 0.05, alike | p < 0.05, other slope | p < 0.05, less noise ", end=""
    )
    print(
        "| trained models given | wider of two bootstraps |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    )
    for world in given.worlds:
        print(f"| {folds_row(world, given.corpora)} |", flush=True)
    print(
        "\n| folds | speakers | holds for | covers, mean width | p < 0.05, alike |\n| ---: | ---: | --- | ---: | ---: |"
    )
    for folds, speakers in FEW:
        print(f"| {few_row(folds, speakers, given.corpora)} |", flush=True)
    print(f"\n{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
