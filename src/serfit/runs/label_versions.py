"""Runs on corpora of one name, told apart by the labels that they were made from.

Corrected labels, or another corpus in a file of the same name, make another experiment: a mean over folds of which some
were trained and tested on other labels is no result, and neither is a test between them.

Runs of older versions recorded no labels. They count with the others where all those have the same labels and nothing
that they did record contradicts these; otherwise they stand alone.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from serfit.corpus.identity import Labels, agree, differences, short
from serfit.errors import counted, listed
from serfit.runs.directory import read_labels
from serfit.runs.finished import FinishedRun

ROUNDING = 1e-6
"""How far a rating in predictions.csv (six decimals) may be from the one that was read."""


@dataclass(frozen=True, slots=True)
class Version:
    """Runs that may be of one and the same corpus.

    Attributes:
        title: what tells their labels from others.
        runs: at least one.
    """

    title: str
    runs: tuple[FinishedRun, ...]

    def __str__(self) -> str:
        """The title, and which runs."""
        folds = sorted({f"{run.name} fold {run.fold}" for run in self.runs})
        return f"{self.title} ({listed(folds, most=6)})"


def told_apart(runs: Sequence[FinishedRun]) -> tuple[dict[Path, str], list[str]]:
    """The name of each run's corpus, by directory, and sentences about corpora of one name that differ.

    Where all runs of a corpus may be of the same labels, the name is the corpus's own.
    """
    by_corpus: dict[str, list[FinishedRun]] = defaultdict(list)
    for run in runs:
        by_corpus[run.corpus].append(run)
    names: dict[Path, str] = {}
    said: list[str] = []
    for corpus, among in by_corpus.items():
        versions = _versions(among)
        for version in versions:
            name = corpus if len(versions) == 1 else f"{corpus}, {version.title}"
            names |= {run.directory: name for run in version.runs}
        said += [_difference(corpus, versions)] if len(versions) > 1 else _taken_on_trust(corpus, among)
    return names, said


def _versions(runs: Iterable[FinishedRun]) -> list[Version]:
    """Runs on corpora of one name by the labels they were made from."""
    known: list[tuple[dict[str, str], list[FinishedRun]]] = []
    unknown: list[FinishedRun] = []
    for run in sorted(runs, key=lambda run: (-len(run.labels), sorted(run.labels.items()))):
        if not run.labels:
            unknown.append(run)
            continue
        digests, group = next((one for one in known if agree(run.labels, one[0])), ({}, []))
        if not group:
            known.append((digests, group))
        digests |= run.labels
        group.append(run)
    alone = unknown
    if len(known) == 1:
        alone = []
        ours = known[0][1]
        size, labels = ours[0].utterances, read_labels(ours[0].directory)
        for run in unknown:
            fits = run.utterances == size and (labels is None or not contradicted(run, labels))
            (ours if fits else alone).append(run)
    found = [Version(f"labels {short(group[0].labels)}", tuple(group)) for _, group in known]
    sizes: dict[int, list[FinishedRun]] = defaultdict(list)
    for run in alone:
        sizes[run.utterances].append(run)
    for size, group in sorted(sizes.items(), reverse=True):
        found.append(Version(f"labels not recorded, {counted(size, 'utterance')}", tuple(group)))
    return found


def contradicted(run: FinishedRun, labels: Labels) -> bool:
    """Whether a run of an older version has another number of utterances, or tested ratings, than these labels."""
    predicted = run.predictions
    for column, name in enumerate(predicted.dimensions):
        given = labels.ratings.get(name)
        tested = zip(predicted.ids, predicted.targets[:, column].tolist(), strict=True)
        if given is not None and any(one not in given or abs(given[one] - value) > ROUNDING for one, value in tested):
            return True
    return run.utterances != len(labels.cuts)


def _difference(corpus: str, versions: Sequence[Version]) -> str:
    """Describe how corpora of one name differ, and which runs to repeat with the labels used last."""
    last = max(versions, key=lambda version: max(run.finished for run in version.runs))
    others = [run.directory.name for version in versions if version is not last for run in version.runs]
    return (
        f"runs on {corpus} were made from different labels: {'; '.join(map(str, versions))}. "
        f"{''.join(_details(versions))}They are never averaged, pooled or tested against each other; the latest run "
        f"has {last.title}; to have one result with these, train again {listed(sorted(others), most=6)}"
    )


def _details(versions: Sequence[Version]) -> Iterator[str]:
    first, *others = versions
    before = read_labels(first.runs[0].directory)
    for other in others:
        after = read_labels(other.runs[0].directory)
        if before is not None and after is not None and (what := differences(before, after)):
            yield f"Between {first.title} and {other.title}, {what}. "


def _taken_on_trust(corpus: str, runs: Sequence[FinishedRun]) -> list[str]:
    """A sentence about runs of older versions among others."""
    old = [run.directory.name for run in runs if not run.labels]
    if not old or len(old) == len(runs):
        return []
    return [
        f"{listed(old)}: written by an older version, which didn't record the labels of {corpus}; taken to be of the "
        "same labels as the other runs, because their sizes and test ratings agree"
    ]
