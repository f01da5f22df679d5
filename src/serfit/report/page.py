"""One self-contained HTML page about finished runs, the same bytes for the same runs."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from statistics import fmean, median
from typing import Any

from serfit.errors import UserError
from serfit.labels import Dimension
from serfit.report.answers import (
    HOW_SURE,
    MOST_GROUPS,
    ONE_AXIS_WORDS,
    answers,
    group_rows,
    heading,
    holds_for,
    how_to_read_groups,
    interval_rows,
    interval_text,
    miscalibration_rows,
    pair_rows,
    together_rows,
)
from serfit.report.breakdown import GROUPINGS, GroupScore, TestPredictions, worst
from serfit.report.clips import clips
from serfit.report.comparison import Comparison, check_any, only
from serfit.report.context import NO_RATERS, baseline_rows, rater_rows, what_stands_beside
from serfit.report.drawing import figures
from serfit.report.evidence import Evidence
from serfit.report.markdown import ABSENT, UNDEFINED, Rows, number
from serfit.report.tables import HOW_TO_READ
from serfit.runs.experiments import IRRELEVANT, ExperimentResult, ranges
from serfit.scores.reference import FROZEN, Measure, measure
from serfit.system.files import write_text

MOST_DRAWN = 6
"""Most experiments of a corpus that are drawn; of more, those with the highest average."""

WORST = 8
"""Worst utterances listed per experiment."""

TEMPLATE = "page.html.jinja"
STYLE = "style.css"
"""What this page and that of `serfit watch` look like alike."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One of the worst utterances.

    Attributes:
        cells: what the table says of it.
        clip: data URL of its sound, or "".
    """

    cells: Sequence[str]
    clip: str


def write_report(comparison: Comparison, path: Path, *, players: bool = False) -> Path:
    """Write the page about finished runs, atomically.

    Args:
        comparison: of one experiment or of several.
        path: the page.
        players: embed short clips of the worst utterances, where the audio is at hand.

    Raises:
        UserError: there is no finished run among them, or the page can't be written.
    """
    check_any(comparison)
    if not path.parent.is_dir():
        raise UserError(f"there is no folder {path.parent} for the report; name a page in an existing folder")
    write_text(path, to_html(comparison, players=players))
    return path


def write_each(comparison: Comparison, path: Path, *, players: bool = False) -> list[Path]:
    """Write a page for each experiment beside the page about all of them, named after both.

    Raises:
        UserError: a page can't be written.
    """
    names: dict[str, str] = {}
    for result in comparison.experiments:
        plain = re.sub(r"[^\w.=-]+", "_", result.label).strip("_")[:100]
        while plain in names.values():
            plain += "_"
        names[result.label] = plain
    return [
        write_report(only(comparison, label), path.with_name(f"{path.stem}_{name}{path.suffix}"), players=players)
        for label, name in names.items()
    ]


def to_html(comparison: Comparison, *, players: bool = False) -> str:
    """The page; equal runs give equal text."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["svg"] = Markup
    template = environment.from_string((files("serfit.report") / TEMPLATE).read_text(encoding="utf-8"))
    corpora = [_corpus(experiments, comparison, players) for experiments in comparison.corpora.values()]
    reading = [*HOW_TO_READ, *HOW_SURE, *how_to_read_groups()]
    reading += what_stands_beside(comparison.experiments)
    style = Markup((files("serfit.report") / STYLE).read_text(encoding="utf-8"))
    return (
        template.render(
            style=style, corpora=corpora, warnings=comparison.warnings, reading=reading, one_axis=ONE_AXIS_WORDS
        )
        + "\n"
    )


def _corpus(experiments: Sequence[ExperimentResult], comparison: Comparison, players: bool) -> dict[str, Any]:
    """Everything the template shows of one corpus."""
    drawn = sorted(experiments, key=lambda one: (-(one.test["average"].mean or -1.0), one.label))[:MOST_DRAWN]
    drawn.sort(key=lambda one: one.label)
    evidence = comparison.evidence
    details = {one.label: comparison.details[one.label] for one in drawn}
    tables = {label: one.table for label, one in details.items()}
    dimensions = list(dict.fromkeys(name for one in experiments for name in one.dimensions))
    measures: list[Measure] = [*dimensions, "average"]
    pairs = [pair for pair in evidence.pairs if pair.corpus == experiments[0].corpus]
    groups = {label: one.groups for label, one in details.items()}
    labels = [one.label for one in drawn]
    return {
        "name": experiments[0].corpus,
        "undrawn": len(experiments) - len(drawn),
        "answers": answers(pairs),
        "holds_for": holds_for(experiments, evidence),
        "scores": _scores(experiments, evidence, measures),
        "forests": [figures.forest(experiments, evidence, name) for name in measures],
        "differences": [chart for name in measures if (chart := figures.differences(pairs, name))],
        "curves": [chart for one in drawn for name in one.dimensions if (chart := figures.curves(one, name))],
        "scatters": _predictions(tables),
        "keys": [(f"e{index}", label) for index, label in enumerate(labels)],
        "errors": [charts for kinds in (("speaker",), GROUPINGS[1:]) if (charts := _errors(groups, kinds, dimensions))],
        "circumplex": _circumplexes(tables),
        "honesty": baseline_rows(experiments),
        "raters": rater_rows(experiments),
        "no_raters": NO_RATERS,
        "miscalibration": miscalibration_rows(drawn, {label: one.miscalibration for label, one in details.items()}),
        "together": together_rows(drawn, {label: one.together for label, one in details.items()}),
        "groups": group_rows(drawn, groups),
        "intervals": interval_rows(experiments, evidence),
        "pairs": pair_rows(pairs) if pairs else None,
        "failures": [(one.label, *_failures(one, tables[one.label], players)) for one in drawn],
        "costs": _costs(experiments),
        "settings": _settings(experiments),
        "protocols": sorted({run.environment.protocol for one in experiments for run in one.runs}),
        "notes": sorted({note for one in experiments for run in one.runs for note in run.environment.corpus.notes}),
        "runs": _runs(experiments, measures),
    }


def _scores(experiments: Sequence[ExperimentResult], evidence: Evidence, measures: Sequence[Measure]) -> Rows:
    header = ["experiment", "folds", *(text for name in measures for text in (heading(name), "95% CI"))]
    rows = []
    for one in experiments:
        missing = f", {ranges('fold', one.missing)} missing" if one.missing else ""
        seeds = len({run.seed for run in one.runs})
        row = [one.label, f"{ranges('fold', one.folds)} x {seeds} seed{'s' if seeds > 1 else ''}{missing}"]
        for name in measures:
            summary = one.test.get(name)
            if summary is None:
                row += [ABSENT, ABSENT]
                continue
            deviation = "" if summary.deviation is None else f" ± {summary.deviation:.3f}"
            row += [f"{number(summary.mean)}{deviation}", interval_text(evidence.over_folds[one.label].get(name))]
        rows.append(row)
    if any(one.difference for one in experiments):
        dimensions = [name for name in measures if name != "average"]
        known = [FROZEN.value(name, dimensions) for name in measures]
        cells = [text for value in known for text in (ABSENT if value is None else f"{value:.4f}", "")]
        rows.append([f"published result: {FROZEN.system}", FROZEN.protocol, *cells])
    return Rows(header, rows, left=2)


def _predictions(tables: dict[str, TestPredictions]) -> list[list[tuple[str, str]]]:
    """Density of predictions and residuals, per dimension and experiment; one dimension has one scale."""
    dimensions = dict.fromkeys(name for table in tables.values() for name in table.targets)
    charts = []
    for name in dimensions:
        having = {label: table for label, table in tables.items() if name in table.targets}
        every = [part for table in having.values() for part in (table.targets[name], table.values[name])]
        reach = figures.common_span(*every)
        charts.append(
            [
                (
                    figures.scatter(table, name, reach, label),
                    figures.residuals(table, name, "error by rating"),
                )
                for label, table in having.items()
            ]
        )
    return charts


def _errors(
    groups: Mapping[str, Sequence[GroupScore]], groupings: Iterable[str], dimensions: Sequence[Dimension]
) -> list[str]:
    """Charts of the error per group, of groupings that aren't too many to be read."""
    return [
        chart
        for grouping in groupings
        for name in dimensions
        if len({one.group for scores in groups.values() for one in scores if one.grouping == grouping}) <= MOST_GROUPS
        and (chart := figures.errors(groups, grouping, name))
    ]


def _circumplexes(tables: dict[str, TestPredictions]) -> list[str]:
    """Ratings and predictions on the plane of valence and arousal, where both are predicted."""
    both = {label: table for label, table in tables.items() if {"valence", "arousal"} <= set(table.targets)}
    if not both:
        return []
    parts = [part for table in both.values() for columns in (table.targets, table.values) for part in columns.values()]
    reach = figures.common_span(*parts)
    rated = next(iter(both.values())).targets
    middle = sum(figures.common_span(rated["valence"], rated["arousal"])) / 2
    charts = [figures.circumplex(rated["valence"], rated["arousal"], reach, middle, "ratings")]
    for label, table in both.items():
        valence, arousal = (table.values[name].reshape(-1) for name in ("valence", "arousal"))
        charts.append(figures.circumplex(valence, arousal, reach, middle, label))
    return charts


def _failures(result: ExperimentResult, table: TestPredictions, players: bool) -> tuple[list[Failure], str]:
    """The worst utterances, and a remark about their players."""
    found = worst(table, WORST)
    names = [table.ids[row] for row, _, _ in found]
    sounds, remark = clips(result.runs, names) if players else ({}, "")
    failures = []
    for row, name, error in found:
        about = [table.described[column][row] or "?" for column in ("speaker", "emotion", "seconds")]
        target = float(table.targets[name][row])
        cells = [table.ids[row], *about, name, f"{target:.2f}", f"{target + error:.2f}", f"{error:+.2f}"]
        failures.append(Failure(cells, sounds.get(table.ids[row], "")))
    return failures, remark


def _costs(experiments: Sequence[ExperimentResult]) -> Rows:
    header = ["experiment", "device", "trained parameters", "epochs", "seconds per epoch", "time in all"]
    rows = []
    for one in experiments:
        devices = sorted({run.environment.device or "?" for run in one.runs})
        trained = one.runs[0].environment.trained_parameters
        times = [spent.seconds for run in one.runs for spent in run.times]
        row = [one.label, ", ".join(devices), UNDEFINED if trained is None else f"{trained:,}"]
        row += [f"{fmean(len(run.records) for run in one.runs):.1f}"]
        row += [f"{median(times):.1f}" if times else UNDEFINED, _lasted(sum(times)) if times else UNDEFINED]
        rows.append(row)
    return Rows(header, rows, left=2)


def _lasted(seconds: float) -> str:
    """A time in the unit that suits it.

    >>> _lasted(42.4), _lasted(600.0), _lasted(9000.0)
    ('42 s', '10.0 min', '2.5 h')
    """
    if seconds < 100.0:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000.0 else f"{seconds / 3600:.1f} h"


def _settings(experiments: Sequence[ExperimentResult]) -> Rows | None:
    """Settings in which the experiments that have them differ."""
    keys = sorted({key for one in experiments for key in one.runs[0].settings} - IRRELEVANT)
    rows = []
    for key in keys:
        values = [str(one.runs[0].settings.get(key, ABSENT)) for one in experiments]
        if len({value for value in values if value != ABSENT}) > 1:
            rows.append([key, *values])
    return Rows(["setting", *(one.label for one in experiments)], rows) if rows and len(experiments) > 1 else None


def _runs(experiments: Iterable[ExperimentResult], measures: Sequence[Measure]) -> Rows:
    header = ["experiment", "fold", "seed", *map(heading, measures), "best epoch", "utterances", "directory"]
    rows = []
    for one in experiments:
        for run in one.runs:
            scores = [measure(run.scores.test, name) for name in measures]
            epoch = f"{run.scores.best_epoch} of {len(run.records)}" if run.records else ABSENT
            row = [one.label, str(run.fold), str(run.seed), *map(number, scores), epoch]
            rows.append([*row, f"{len(run.predictions.ids):,}", run.directory.name])
    return Rows(header, rows)
