"""Diagnoses across the runs of one experiment: how far its seeds and its folds lie apart."""

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean, median, stdev

from serfit.config.load import flatten
from serfit.corpus.identity import short
from serfit.report.diagnosis.finding import Finding, gentler, plain
from serfit.report.diagnosis.learning import noise
from serfit.runs.experiments import IRRELEVANT, label_of
from serfit.runs.live import History

SEEDS = 3
"""Least number of seeds of one fold, and of folds, from which a spread is judged."""

SEED_SPREAD = 0.05
"""Standard deviation of the best validation CCC over seeds of one fold that counts as unstable; usual is 0.01 to 0.02.
With three seeds and a true 0.02, a sample's is above 0.05 in 0.2 % of all cases (chi-square with two degrees)."""

FOLD_GAP = 0.15
"""How far the best validation CCC of one fold may lie below the median of the others without a word. Folds differ in
their speakers; the CCC of one has a standard error of 0.03 to 0.05."""


def experiments(histories: Sequence[History]) -> dict[str, list[History]]:
    """Runs by experiment, each named as in a comparison: by its name, and the settings that tell it from namesakes."""
    same: dict[str, list[History]] = defaultdict(list)
    for history in histories:
        same[_identity(history)].append(history)
    groups: dict[str, list[History]] = defaultdict(list)
    for key, group in same.items():
        known = {short(one.labels) for one in group if one.labels}
        for one in group:  # a run that has recorded none yet is taken for one of the others
            labels = short(one.labels) if one.labels else "not recorded" if len(known) > 1 else next(iter(known), None)
            groups[json.dumps(json.loads(key) | {"labels": labels}, sort_keys=True)].append(one)
    identities = {key: json.loads(key) for key in groups}
    found = {}
    for key, group in groups.items():
        name = group[0].config.experiment.name
        namesakes = [one for one in identities.values() if one["experiment.name"] == name]
        label = label_of(identities[key], namesakes)
        found[label] = sorted(group, key=lambda one: (one.fold, one.seed, one.directory.name))
    return dict(sorted(found.items()))


def of_runs(histories: Sequence[History]) -> Iterator[Finding]:
    """Diagnoses of the finished runs of one experiment; a repeated run counts by its last."""
    finished = {(one.fold, one.seed): one for one in histories if one.state == "finished" and one.records}
    scores = {key: value for key, one in finished.items() if (value := _best(one)) is not None}
    if not scores:
        return
    counts = next(iter(finished.values())).records[-1].validation.dimensions
    chance = noise(min(one.count for one in counts.values()))
    by_fold: dict[int, dict[int, float]] = defaultdict(dict)
    for (fold, seed), value in scores.items():
        by_fold[fold][seed] = value
    example = next(iter(finished.values()))
    yield from seed_spread(by_fold, example, chance)
    unused = 1 + max(one.seed for one in histories)
    yield from fold_spread({fold: fmean(seeds.values()) for fold, seeds in by_fold.items()}, unused, chance)


def seed_spread(by_fold: Mapping[int, Mapping[int, float]], example: History, chance: float) -> Iterator[Finding]:
    """Seeds of one fold lie far apart: the training is unstable."""
    apart = {fold: stdev(seeds.values()) for fold, seeds in by_fold.items() if len(seeds) >= SEEDS}
    if not apart:
        return
    fold = max(apart, key=lambda one: apart[one])
    if apart[fold] <= max(SEED_SPREAD, chance / 2):
        return
    shown = ", ".join(f"{value:.3f} (seed {seed})" for seed, value in sorted(by_fold[fold].items()))
    evidence = (
        f"on fold {fold} the best validation CCC has a standard deviation of {apart[fold]:.3f} over seeds: {shown}"
    )
    warmup = min(0.5, 2 * example.config.train.schedule.warmup or 0.1)
    overrides = (f"data.split.fold={fold}", gentler(example.config), f"train.schedule.warmup={plain(warmup)}")
    yield Finding("seed spread", evidence, "the training is unstable; smaller steps and a longer warm-up", overrides)


def fold_spread(means: Mapping[int, float], unused: int, chance: float) -> Iterator[Finding]:
    """One fold lies far below the others; `unused` is a seed that no run has had."""
    if len(means) < SEEDS:
        return
    worst = min(means, key=lambda fold: means[fold])
    others = median(value for fold, value in means.items() if fold != worst)
    if others - means[worst] <= max(FOLD_GAP, math.sqrt(2.0) * chance):
        return
    evidence = (
        f"the best validation CCC of fold {worst} is {means[worst]:.3f}, and the median of the other folds {others:.3f}"
    )
    advice = "look at its curves; a run that failed by chance succeeds with another seed"
    yield Finding("fold spread", evidence, advice, (f"data.split.fold={worst}", f"experiment.seed={unused}"))


def _best(history: History) -> float | None:
    averages = [value for record in history.records if (value := record.validation.average) is not None]
    return max(averages, default=None)


def _identity(history: History) -> str:
    settings = {key: value for key, value in flatten(history.config).items() if key not in IRRELEVANT}
    return json.dumps(settings, sort_keys=True)
