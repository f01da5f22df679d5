"""How sure the scores of a comparison are, and which experiment is better than which."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean, variance

import numpy as np

from serfit.errors import counted, listed
from serfit.labels import DIMENSIONS, Dimension
from serfit.runs.experiments import ExperimentResult, complete_seeds
from serfit.runs.finished import FinishedRun
from serfit.scores.reference import Measure, measure
from serfit.scores.statistics.contrast import Cell, Clustering, Contrast, clustering, contrast, minus
from serfit.scores.statistics.holm import holm
from serfit.scores.statistics.interval import Estimate, estimate

LEVEL = 0.05
"""Corrected p below which a difference counts as shown."""

MOST_FOR_ALL_PAIRS = 5
"""Most experiments on one corpus of which every pair is tested; of more, all are tested against one."""

Key = tuple[int, str]
"""Fold and id of a test utterance."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two experiments on the same test utterances, in one measure.

    Attributes:
        corpus: name of the corpus.
        first: label of the one whose average is higher.
        second: label of the other.
        measure: a dimension, or the average over those that both predict.
        dimensions: those that both predict.
        folds: folds that both were tested on.
        utterances: number of test utterances in them.
        seeds: fewest seeds behind a fold of either.
        difference: mean over these folds, first minus second.
        corrected: p after Holm's correction for all tests on the corpus; None where there is none.
    """

    corpus: str
    first: str
    second: str
    measure: Measure
    dimensions: tuple[Dimension, ...]
    folds: tuple[int, ...]
    utterances: int
    seeds: int
    difference: Estimate
    corrected: float | None = None

    @property
    def p(self) -> float | None:
        """That of the t test that belongs to the interval; None where it is undefined or can't be tested."""
        interval = self.difference.interval
        return interval.p if interval is not None and self.difference.scope.testable else None

    @property
    def shown(self) -> bool:
        """Whether the difference counts as shown."""
        return self.corrected is not None and self.corrected < LEVEL


@dataclass(frozen=True, slots=True)
class Evidence:
    """Uncertainty of the scores of a comparison.

    Attributes:
        over_folds: the mean over folds and seeds, per experiment and measure.
        pooled: the CCC over all folds together, likewise; empty where `ExperimentResult.pooled` has none.
        pairs: differences between experiments on the same corpus.
        remarks: sentences about pairs that were not tested.
    """

    over_folds: Mapping[str, Mapping[Measure, Estimate]]
    pooled: Mapping[str, Mapping[Measure, Estimate]]
    pairs: tuple[Pair, ...]
    remarks: tuple[str, ...]


def weigh(experiments: Sequence[ExperimentResult]) -> Evidence:
    """Intervals of all experiments, and tests between those on the same utterances."""
    pairs: list[Pair] = []
    remarks: list[str] = []
    for corpus in sorted({result.corpus for result in experiments}):
        among = [result for result in experiments if result.corpus == corpus]
        tested: list[Pair] = []
        apart: list[str] = []
        for first, second in _opponents(among):
            found = _compared(first, second)
            tested += found
            apart += [] if found else [f"{first.label} and {second.label}"]
        if apart:
            remarks.append(
                f"{counted(len(apart), 'pair')} of experiments on {corpus} can't be tested, because no fold has the "
                f"same test utterances and ratings in both: {listed(apart)}"
            )
        pairs += _corrected(tested)
    return Evidence(
        over_folds={result.label: _estimates(result, pool=False) for result in experiments},
        pooled={result.label: _estimates(result, pool=True) for result in experiments},
        pairs=tuple(pairs),
        remarks=tuple(remarks),
    )


def seed_deviation(runs: Iterable[FinishedRun], name: Measure) -> float | None:
    """Standard deviation between the seeds of a fold: root of the mean variance over folds; None with one seed each."""
    by_fold: dict[int, list[float | None]] = defaultdict(list)
    for run in runs:
        by_fold[run.fold].append(measure(run.scores.test, name))
    several = [scores for scores in by_fold.values() if len(scores) > 1]
    if not several or any(score is None for scores in several for score in scores):
        return None
    variances = [variance([score for score in scores if score is not None]) for scores in several]
    return float(np.sqrt(fmean(variances)))


def _opponents(experiments: Sequence[ExperimentResult]) -> list[tuple[ExperimentResult, ExperimentResult]]:
    """All pairs; of many experiments, each with the frozen one (or the first)."""
    if len(experiments) <= MOST_FOR_ALL_PAIRS:
        return list(combinations(experiments, 2))
    frozen = [one for one in experiments if one.runs[0].settings.get("model.params.freeze_speech_encoder")]
    against = (frozen or list(experiments))[0]
    return [(one, against) for one in experiments if one is not against]


def _estimates(result: ExperimentResult, *, pool: bool) -> dict[Measure, Estimate]:
    if pool and all(value is None for value in result.pooled.values()):
        return {}
    runs = [run for same in complete_seeds(result.runs) for run in same] if pool else list(result.runs)
    where, rows = _clustering(runs)
    measures: list[Measure] = [*result.dimensions, "average"]
    return {name: estimate(_score(runs, where, rows, name, result.dimensions, pool)) for name in measures}


def _compared(one: ExperimentResult, other: ExperimentResult) -> list[Pair]:
    """Tests of two experiments in every measure they share."""
    folds = [fold for fold in one.folds if fold in other.folds and _same_test(one, other, fold)]
    dimensions = tuple(name for name in one.dimensions if name in other.dimensions)
    if not folds or not dimensions:
        return []
    ours, theirs = ([run for run in result.runs if run.fold in folds] for result in (one, other))
    where, rows = _clustering([*ours, *theirs])
    measures: list[Measure] = [*dimensions] if len(dimensions) == 1 else [*dimensions, "average"]
    scores = {
        name: tuple(_score(runs, where, rows, name, dimensions, pool=False) for runs in (ours, theirs))
        for name in measures
    }
    ahead = [a.value - b.value for a, b in scores.values()]
    if ahead[-1] < 0.0:
        one, other = other, one
        scores = {name: (b, a) for name, (a, b) in scores.items()}
    seeds = min(min(Counter(run.fold for run in runs).values()) for runs in (ours, theirs))
    pairs = []
    for name, (a, b) in scores.items():
        found = (dimensions, tuple(folds), len(rows), seeds, estimate(minus(a, b)))
        pairs.append(Pair(one.corpus, one.label, other.label, name, *found))
    return pairs


def _corrected(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs with p corrected for all of them that have one."""
    adjusted = iter(holm([pair.p for pair in pairs if pair.p is not None]))
    return [pair if pair.p is None else replace(pair, corrected=next(adjusted)) for pair in pairs]


def _same_test(one: ExperimentResult, other: ExperimentResult, fold: int) -> bool:
    """Whether all runs of a fold were tested on the same utterances with the same ratings."""
    shared = [name for name in one.dimensions if name in other.dimensions]
    runs = [run for result in (one, other) for run in result.runs if run.fold == fold]
    first, *others = (_ratings(run, shared) for run in runs)
    return all(
        found.keys() == first.keys() and all(np.allclose(found[name], first[name], atol=1e-5) for name in found)
        for found in others
    )


def _ratings(run: FinishedRun, dimensions: Sequence[Dimension]) -> dict[str, list[float]]:
    columns = [run.dimensions.index(name) for name in dimensions]
    return dict(zip(run.predictions.ids, run.predictions.targets[:, columns].tolist(), strict=True))


def _clustering(runs: Sequence[FinishedRun]) -> tuple[Clustering, dict[Key, int]]:
    """The test utterances of all runs, grouped, and the row of each."""
    rows: dict[Key, int] = {}
    speakers: list[str] = []
    dialogues: list[str] = []
    folds: list[int] = []
    for run in runs:
        described = zip(run.predictions.ids, run.described["speaker"], run.described["dialogue"], strict=True)
        for name, speaker, dialogue in described:
            row = rows.setdefault((run.fold, name), len(rows))
            if row == len(folds):
                speakers.append("")
                dialogues.append("")
                folds.append(run.fold)
            speakers[row] = speakers[row] or speaker  # an older run may not know it
            dialogues[row] = dialogues[row] or dialogue
    return clustering(speakers, dialogues, folds), rows


def _score(
    runs: Sequence[FinishedRun],
    where: Clustering,
    rows: Mapping[Key, int],
    name: Measure,
    dimensions: Sequence[Dimension],
    pool: bool,
) -> Contrast:
    """The mean over folds and seeds of the CCC of a dimension, or of the mean over dimensions."""
    names = [name] if name != "average" else list(dimensions)
    groups = complete_seeds(runs) if pool else [[run] for run in runs]
    seeds = Counter(0 if pool else group[0].fold for group in groups)
    cells = []
    for group in groups:
        fold = 0 if pool else group[0].fold
        where_from = [[rows[run.fold, one] for one in run.predictions.ids] for run in group]
        indices = np.concatenate([np.array(one, dtype=np.intp) for one in where_from])
        for dimension in names:
            columns = [run.dimensions.index(dimension) for run in group]
            targets, values = (
                np.concatenate([table[:, column] for table, column in zip(tables, columns, strict=True)])
                for tables in (
                    [run.predictions.targets for run in group],
                    [run.predictions.values for run in group],
                )
            )
            weight = 1.0 / (seeds[fold] * len(names))
            cells.append(Cell(indices, targets, values, fold, DIMENSIONS.index(dimension), weight))
    return contrast(where, cells)
