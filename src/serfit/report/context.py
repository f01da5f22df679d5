"""What a score stands beside: what can be predicted without any audio, and how well people agree with each other."""

from collections.abc import Mapping, Sequence

from serfit.report.markdown import ABSENT, UNDEFINED, Rows, number
from serfit.runs.experiments import ExperimentResult, Summary
from serfit.scores.reference import Measure

PARTIAL = "†"
"""Marks means over part of the folds."""

HOW_TO_READ_SCENARIOS = (
    "Scenario baseline: each scenario's mean rating in the other parts, predicted without any audio. A score means "
    "something in so far as it exceeds this. Within scenario: CCC of deviations from the scenario means, so that "
    "guessing the scenario earns nothing.",
)

HOW_TO_READ_RATERS = (
    "Raters' agreement: one rater is the CCC of every single rating with the mean of the other ratings of the same "
    "utterance; in a rater's place is the system on exactly these targets. Compare these two, and not the test score, "
    "whose targets are means over all raters and so less noisy.",
    "Raters' agreement is no ceiling: single ratings scatter more than a mean does, so a system near the consensus "
    "agrees with the others better than any one rater. It says how well people agree, for these raters and this "
    "question alone.",
)

NO_RATERS = (
    "Raters' agreement: not available. The corpus as it was read gives no two single ratings of an utterance (a CSV "
    "corpus does where data.table names several columns for a dimension), or the runs are older than this score."
)


def what_stands_beside(experiments: Sequence[ExperimentResult]) -> tuple[str, ...]:
    """Sentences about baseline and raters, where these are shown."""
    scenarios = HOW_TO_READ_SCENARIOS if any(result.baseline for result in experiments) else ()
    return (*scenarios, *(HOW_TO_READ_RATERS if any(result.rater for result in experiments) else ()))


def baseline_rows(experiments: Sequence[ExperimentResult]) -> Rows | None:
    """Test CCC beside the audio-free scenario baseline and its companions; None where no corpus has scenarios."""
    header = ["experiment", "dimension", "test", "scenario baseline", "test - baseline", "within scenario"]
    header += ["improvised", "scripted"]
    rows = []
    for result in experiments:
        for name in result.dimensions if result.baseline else ():
            columns = (result.within, result.styles["improvised"], result.styles["scripted"])
            rows.append(
                [
                    result.label,
                    name,
                    summary_cell(result, result.test, name),
                    summary_cell(result, result.baseline, name),
                    _above(result.test, result.baseline, name),
                    *(summary_cell(result, column, name) for column in columns),
                ]
            )
    return Rows(header, rows, left=2) if rows else None


def rater_rows(experiments: Sequence[ExperimentResult]) -> Rows | None:
    """One rater against the others, and the system in a rater's place; None where no single ratings are known."""
    header = ["experiment", "dimension", "single ratings", "one rater", "in a rater's place", "system - rater"]
    rows = []
    for result in experiments:
        for name in result.dimensions if result.rater else ():
            raters = {run.fold: run.scores.rater for run in result.runs}
            counts = [
                one.dimensions[name].count for one in raters.values() if one is not None and name in one.dimensions
            ]
            cells = [summary_cell(result, column, name) for column in (result.rater, result.as_rater)]
            row = [result.label, name, f"{sum(counts):,}", *cells]
            rows.append([*row, _above(result.as_rater, result.rater, name)])
    return Rows(header, rows, left=2) if rows else None


def summary_cell(
    result: ExperimentResult, summaries: Mapping[Measure, Summary], name: Measure, break_before: str = " "
) -> str:
    """Mean and deviation, marked where folds are missing."""
    if name != "average" and name not in result.dimensions:
        return ABSENT
    summary = summaries.get(name)
    if summary is None or summary.mean is None:
        return UNDEFINED
    deviation = "" if summary.deviation is None else f"{break_before}± {summary.deviation:.4f}"
    return f"{summary.mean:.4f}{' ' + PARTIAL if result.missing else ''}{deviation}"


def _above(first: Mapping[Measure, Summary], second: Mapping[Measure, Summary], name: Measure) -> str:
    ours, theirs = (side[name].mean if name in side else None for side in (first, second))
    return number(None if ours is None or theirs is None else ours - theirs, "+.4f")
