"""What a comparison is: everything the tables, files and pages about finished runs are made from, computed once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from serfit.errors import UserError
from serfit.labels import Dimension
from serfit.report.breakdown import (
    GroupScore,
    Miscalibration,
    TestPredictions,
    breakdown,
    miscalibration,
    predicted,
    together,
)
from serfit.report.evidence import Evidence
from serfit.runs.experiments import ExperimentResult
from serfit.scores.metrics import Correlation


@dataclass(frozen=True, slots=True)
class Details:
    """The test predictions of an experiment, and what they show beyond one score.

    Attributes:
        table: the predictions.
        groups: scores per speaker, session, gender, duration, emotion class and style.
        miscalibration: bias, slope and spread per dimension.
        together: how every two dimensions go together.
    """

    table: TestPredictions
    groups: Sequence[GroupScore]
    miscalibration: Mapping[Dimension, Miscalibration]
    together: Sequence[Correlation]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Experiments beside each other.

    Attributes:
        directories: the run directories that were looked at, those that couldn't be read among them.
        experiments: ordered by label.
        evidence: how sure their scores are, and which is better.
        details: per label of an experiment.
        warnings: sentences about what was left out and what keeps numbers from being comparable.
    """

    directories: tuple[Path, ...]
    experiments: tuple[ExperimentResult, ...]
    evidence: Evidence
    details: Mapping[str, Details]
    warnings: tuple[str, ...]

    @property
    def corpora(self) -> dict[str, list[ExperimentResult]]:
        """The experiments on each corpus, corpora by name."""
        names = sorted({result.corpus for result in self.experiments})
        return {name: [result for result in self.experiments if result.corpus == name] for name in names}


def check_any(comparison: Comparison) -> None:
    """Raise a UserError where there is no finished run to compare or report on, saying what was left out."""
    if not comparison.experiments:
        reasons = "; ".join(comparison.warnings) or "no run directory was given or found"
        raise UserError(f"there is no finished run to look at ({reasons}); name finished runs, or their folder")


def only(comparison: Comparison, label: str) -> Comparison:
    """One experiment of a comparison, with the intervals it has there and no tests.

    >>> only(Comparison((), (), Evidence({}, {}, (), ()), {}, ("a warning",)), "alpha").warnings
    ('a warning',)
    """
    chosen = tuple(result for result in comparison.experiments if result.label == label)
    return replace(comparison, experiments=chosen, evidence=replace(comparison.evidence, pairs=()))


def look_into(result: ExperimentResult) -> Details:
    """The details of an experiment."""
    table = predicted(result)
    return Details(table, breakdown(table), miscalibration(table), together(table))
