"""Finished runs, gathered into experiments and summarised over folds and seeds. Pure computation."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean, stdev
from typing import Any

import numpy as np

from serfit.config.load import WITHOUT_EFFECT, without_added
from serfit.config.schema import UNTRAINED
from serfit.corpus.utterance import Style
from serfit.errors import counted, listed
from serfit.labels import DIMENSIONS, Dimension
from serfit.runs.finished import FinishedRun
from serfit.runs.label_versions import told_apart
from serfit.runs.records import Environment
from serfit.scores.metrics import Scores
from serfit.scores.records import Predictions
from serfit.scores.reference import FROZEN, Measure, difference, measure, obstacle

IRRELEVANT = WITHOUT_EFFECT | {"experiment.seed", "data.name", "data.root", "data.split.fold"}
"""Settings in which the runs of one experiment may differ: they say which run it is, where things lie, or how a
computation is executed. The name of the corpus counts as it is recorded."""

STARTS = frozenset({"model.start_from", "model.start_part"})
"""Settings that name the network that training goes on from. What it is stands in the records, by its digest."""

MADE_OF: Mapping[str, Callable[[Environment], object]] = {
    "encoder weights": lambda about: about.encoder.sha256,
    "normalisation of waveforms": lambda about: about.encoder.normalise,
    "encoder architecture": lambda about: about.encoder.architecture or None,
    "precision": lambda about: about.precision,
    "precision of the frozen part": lambda about: about.frozen_precision or "fp32",
    "source code": lambda about: about.commit,
    "torch": lambda about: about.packages.get("torch"),
}
"""What else should be the same in all runs of an experiment, and where their records have it."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Mean and sample standard deviation over folds; None where undefined, the deviation also for a single fold."""

    mean: float | None
    deviation: float | None


@dataclass(frozen=True, slots=True)
class ExperimentResult:
    """The finished runs of one experiment, summarised.

    Attributes:
        label: name, followed by the settings that tell it from others of the same name.
        corpus: name of the corpus, followed by which labels where runs of several have that name.
        runs: one per fold and seed, by fold and seed.
        missing: folds of the experiment without a run.
        test: test CCC.
        baseline: CCC of the audio-free scenario baseline; empty where the corpus has no scenarios.
        within: CCC of deviations from the scenario means; empty likewise.
        styles: CCC on improvised and scripted speech; each empty likewise.
        rater: CCC of one rater against the others; empty where single ratings aren't known.
        as_rater: CCC of the system on the same targets; empty likewise.
        pooled: CCC over the predictions of all folds together, mean over the seeds that have all folds; None where
            folds are missing, overlap, or don't cover the corpus.
        difference: mean test CCC minus that of the published result, None where undefined; empty where that was
            measured on something else.
        incomplete: runs that count nowhere, because their seed lacks a fold that another seed has.
    """

    label: str
    corpus: str
    runs: tuple[FinishedRun, ...]
    missing: tuple[int, ...]
    test: Mapping[Measure, Summary]
    baseline: Mapping[Measure, Summary]
    within: Mapping[Measure, Summary]
    styles: Mapping[Style, Mapping[Measure, Summary]]
    rater: Mapping[Measure, Summary]
    as_rater: Mapping[Measure, Summary]
    pooled: Mapping[Measure, float | None]
    difference: Mapping[Measure, float | None]
    incomplete: tuple[FinishedRun, ...] = ()

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """Predicted dimensions."""
        return self.runs[0].dimensions

    @property
    def folds(self) -> tuple[int, ...]:
        """Folds with at least one run, in order."""
        return tuple(sorted({run.fold for run in self.runs}))

    @property
    def tested_on(self) -> tuple[tuple[int, frozenset[str]], ...]:
        """Folds and the ids of their test utterances: only experiments that agree in this are comparable."""
        ids: dict[int, frozenset[str]] = {}
        for run in self.runs:
            ids[run.fold] = ids.get(run.fold, frozenset()) | frozenset(run.predictions.ids)
        return tuple(sorted(ids.items()))


def summarise(fold_means: Sequence[float | None]) -> Summary:
    """Mean and sample standard deviation; undefined as soon as one fold is.

    >>> summarise([0.5, 0.7]).mean, summarise([0.5]).deviation, summarise([0.5, None]).mean
    (0.6, None, None)
    """
    defined = [value for value in fold_means if value is not None]
    if not defined or len(defined) < len(fold_means):
        return Summary(None, None)
    return Summary(fmean(defined), stdev(defined) if len(defined) > 1 else None)


def over_folds(runs: Iterable[FinishedRun], pick: Callable[[FinishedRun], Scores | None]) -> dict[Measure, Summary]:
    """Summary per measure: mean over the seeds of each fold, then mean and deviation over folds.

    Args:
        runs: runs of one experiment.
        pick: which scores of a run; where it gives None for some run, the result is empty.
    """
    by_fold: dict[int, list[Scores]] = defaultdict(list)
    for run in runs:
        scores = pick(run)
        if scores is None:
            return {}
        by_fold[run.fold].append(scores)
    scored = {name for fold in by_fold.values() for scores in fold for name in scores.dimensions}
    names: list[Measure] = [name for name in DIMENSIONS if name in scored]
    return {
        name: summarise([summarise([measure(scores, name) for scores in fold]).mean for fold in by_fold.values()])
        for name in (*names, "average")
    }


def gather(runs: Iterable[FinishedRun]) -> tuple[tuple[ExperimentResult, ...], tuple[str, ...]]:
    """Runs as experiments, ordered by label, and what is to be said about repeated runs."""
    runs = list(runs)
    corpora, remarks = told_apart(runs)
    groups: dict[str, list[FinishedRun]] = defaultdict(list)
    for run in runs:
        groups[json.dumps(_identity(run, corpora[run.directory]), sort_keys=True)].append(run)
    identities = [json.loads(key) for key in groups]
    latest = []
    for identity, group in zip(identities, groups.values(), strict=True):
        label = label_of(identity, [other for other in identities if _name(other) == _name(identity)])
        kept, repeated = _latest(label, group)
        counted, unequal = _of_complete_seeds(label, kept)
        latest.append((label, str(identity["corpus"]), counted, tuple(run for run in kept if run not in counted)))
        remarks += [*repeated, *unequal]
    most: dict[str, int] = defaultdict(int)
    for _, corpus, kept, _ in latest:
        most[corpus] = max(most[corpus], *(run.fold for run in kept), 1)
    experiments = [
        replace(_experiment(label, corpus, kept, most[corpus]), incomplete=rest) for label, corpus, kept, rest in latest
    ]
    return tuple(sorted(experiments, key=lambda result: result.label)), tuple(sorted(remarks))


def complete_seeds(runs: Iterable[FinishedRun]) -> list[list[FinishedRun]]:
    """The runs of each seed that has all folds that any seed has; where none has, the lowest seed of each fold."""
    by_seed: dict[int, list[FinishedRun]] = defaultdict(list)
    for run in runs:
        by_seed[run.seed].append(run)
    folds = {run.fold for same in by_seed.values() for run in same}
    whole = [same for _, same in sorted(by_seed.items()) if {run.fold for run in same} == folds]
    if whole:
        return whole
    lowest = {run.fold: run for _, same in sorted(by_seed.items(), reverse=True) for run in same}
    return [[lowest[fold] for fold in sorted(lowest)]]


def disagreements(experiments: Sequence[ExperimentResult]) -> list[str]:
    """Sentences about everything that keeps numbers from being comparable."""
    said = []
    for corpus in sorted({result.corpus for result in experiments}):
        among = [result for result in experiments if result.corpus == corpus]
        if len({result.tested_on for result in among}) > 1:
            tested = "; ".join(f"{result.label}: {ranges('fold', result.folds)}" for result in among)
            said.append(
                f"experiments on {corpus} were not all tested on the same utterances ({tested}); "
                "bold marks the best only among those that were"
            )
    for result in experiments:
        for what, value_of in MADE_OF.items():
            if what == "encoder weights" and _random_encoder(result):
                continue  # untrained weights follow the seed
            values = {str(value_of(run.environment)) for run in result.runs}
            if what in ("encoder weights", "normalisation of waveforms", "encoder architecture"):
                values -= {"None"}  # not recorded by older versions
            if len(values) > 1:
                said.append(f"runs of {result.label} differ in {what}: {listed(sorted(values), most=5)}")
        said += _shared_test_utterances(result)
    return said


def best(experiments: Sequence[ExperimentResult], name: Measure) -> set[str]:
    """Labels of the experiments with the highest mean in a column, one set of comparable experiments at a time.

    Experiments are comparable when they predict what the column is about and were tested on the same utterances in
    the same folds; an average only beside averages over the same dimensions. One without a rival is never the best.
    """
    groups: dict[Any, list[ExperimentResult]] = defaultdict(list)
    for result in experiments:
        if name in result.test and result.test[name].mean is not None:
            groups[result.corpus, result.tested_on, result.dimensions if name == "average" else ()].append(result)
    winners = set()
    for group in groups.values():
        top = max(result.test[name].mean or 0.0 for result in group) if len(group) > 1 else None
        winners |= {result.label for result in group if result.test[name].mean == top}
    return winners


def ranges(noun: str, numbers: Sequence[int]) -> str:
    """Sorted numbers in words.

    >>> ranges("fold", (1, 2, 3, 5)), ranges("seed", (7,))
    ('folds 1-3, 5', 'seed 7')
    """
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][-1] + 1:
            spans[-1] = [spans[-1][0], number]
        else:
            spans.append([number, number])
    text = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)
    return f"{noun}{'s' if len(numbers) != 1 else ''} {text}"


def _identity(run: FinishedRun, corpus: str) -> dict[str, Any]:
    """Everything that makes a run part of an experiment."""
    about, settings = run.environment, without_added(run.settings)
    identity = {"corpus": corpus} | {key: value for key, value in settings.items() if key not in IRRELEVANT | STARTS}
    if about.start is not None:
        identity["model.start_from"] = str(about.start)
    if about.evaluation is not None:
        identity |= {"model": about.evaluation.model, "part": about.evaluation.part}
        identity |= {} if about.evaluation.calibration is None else {"calibration": about.evaluation.calibration}
    return identity


def _name(identity: Mapping[str, Any]) -> str:
    return str(identity["experiment.name"])


def label_of(identity: Mapping[str, Any], namesakes: Sequence[Mapping[str, Any]]) -> str:
    """The name, and the settings in which its namesakes (itself included) differ.

    >>> one, other = ({"experiment.name": "ema", "train.epochs": epochs} for epochs in (10, 20))
    >>> label_of(one, [one, other]), label_of(one, [one])
    ('ema (train.epochs=10)', 'ema')
    """
    keys = sorted(set().union(*namesakes))
    differing = [key for key in keys if len({json.dumps(other.get(key, "absent")) for other in namesakes}) > 1]
    told = [
        f"{key}={value if isinstance(value, str) else json.dumps(value)}"
        for key, value in ((key, identity.get(key, "absent")) for key in differing)
    ]
    return f"{_name(identity)} ({', '.join(told)})" if told else _name(identity)


def _latest(label: str, runs: Iterable[FinishedRun]) -> tuple[tuple[FinishedRun, ...], list[str]]:
    """One run per fold and seed, the one that finished last, and remarks about those left out."""
    found: dict[tuple[int, int], list[FinishedRun]] = defaultdict(list)
    for run in runs:
        found[run.fold, run.seed].append(run)
    kept, remarks = [], []
    for (fold, seed), same in sorted(found.items()):
        same.sort(key=lambda run: (run.finished, run.directory.name))
        kept.append(same[-1])
        if len(same) > 1:
            others = listed(sorted(run.directory.name for run in same[:-1]), most=5)
            remarks.append(
                f"{label}, fold {fold}, seed {seed} was run {len(same)} times; the latest counts, "
                f"{same[-1].directory.name}, and not {others}"
            )
    return tuple(kept), remarks


def _of_complete_seeds(label: str, runs: Sequence[FinishedRun]) -> tuple[tuple[FinishedRun, ...], list[str]]:
    """The runs that count in every table, by fold and seed, and a sentence about the others."""
    whole = complete_seeds(runs)
    counted = tuple(sorted((run for same in whole for run in same), key=lambda run: (run.fold, run.seed)))
    rest = [f"fold {run.fold} seed {run.seed}" for run in runs if run not in counted]
    if not rest:
        return counted, []
    rule = "these seeds lack a fold that another seed has"
    if len({run.seed for same in whole for run in same}) > len(whole):
        rule = "no seed has all folds, so of each fold the lowest seed counts"
    return counted, [f"{label}: {listed(rest, most=6)} left out of every mean, interval and test, for {rule}"]


def _experiment(label: str, corpus: str, runs: tuple[FinishedRun, ...], most: int) -> ExperimentResult:
    """Summarise the runs of one experiment; `most` is the number of folds where nothing else tells it."""
    expected = max(run.folds or most for run in runs)
    missing = tuple(sorted(set(range(1, expected + 1)) - {run.fold for run in runs}))
    test = over_folds(runs, lambda run: run.scores.test)
    styles: dict[Style, Mapping[Measure, Summary]] = {
        "improvised": over_folds(runs, lambda run: run.scores.styles.get("improvised")),
        "scripted": over_folds(runs, lambda run: run.scores.styles.get("scripted")),
    }
    means: dict[Dimension, float | None] = {name: test[name].mean for name in DIMENSIONS if name in test}
    compared = any(name in FROZEN.ccc for name in means) and all(
        obstacle(FROZEN, run.corpus, run.utterances) is None for run in runs
    )
    return ExperimentResult(
        label=label,
        corpus=corpus,
        runs=runs,
        missing=missing,
        test=test,
        baseline=over_folds(runs, lambda run: run.scores.scenario_baseline),
        within=over_folds(runs, lambda run: run.scores.within_scenario),
        styles=styles,
        rater=over_folds(runs, lambda run: run.scores.rater),
        as_rater=over_folds(runs, lambda run: run.scores.as_rater),
        pooled=_pooled(runs, missing),
        difference=difference(FROZEN, means) if compared else {},
    )


def _pooled(runs: Sequence[FinishedRun], missing: Sequence[int]) -> dict[Measure, float | None]:
    """CCC over all folds' predictions together, mean over the seeds that have every fold."""
    names: tuple[Measure, ...] = (*runs[0].dimensions, "average")
    folds = {run.fold for run in runs}
    by_seed: dict[int, list[FinishedRun]] = defaultdict(list)
    for run in runs:
        by_seed[run.seed].append(run)
    whole = [same for same in by_seed.values() if {run.fold for run in same} == folds]
    if missing or not whole or not all(_covers(same) for same in whole):
        return dict.fromkeys(names)
    scores = [concatenated([run.predictions for run in same]).scores() for same in whole]
    return {name: summarise([measure(one, name) for one in scores]).mean for name in names}


def _covers(runs: Sequence[FinishedRun]) -> bool:
    """Whether the test parts are disjoint and together are the whole corpus (or its official test part)."""
    ids = [name for run in runs for name in run.predictions.ids]
    if len(set(ids)) < len(ids):
        return False
    return runs[0].which.scheme == "official" or {len(ids)} == {run.utterances for run in runs}


def concatenated(parts: Sequence[Predictions]) -> Predictions:
    """Predictions of several parts as one."""
    return Predictions(
        ids=tuple(name for part in parts for name in part.ids),
        dimensions=parts[0].dimensions,
        targets=np.concatenate([part.targets for part in parts]),
        values=np.concatenate([part.values for part in parts]),
    )


def _shared_test_utterances(result: ExperimentResult) -> list[str]:
    said = []
    for (first, some), (second, others) in combinations(result.tested_on, 2):
        if shared := len(some & others):
            tested = counted(shared, "test utterance")
            said.append(f"folds {first} and {second} of {result.label} share {tested}; no pooled CCC")
    return said


def _random_encoder(result: ExperimentResult) -> bool:
    return result.runs[0].environment.encoder.name.startswith(UNTRAINED)
