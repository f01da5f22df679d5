"""One self-contained HTML page about finished runs, the same bytes for the same runs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from statistics import fmean, median
from typing import Any

from serfit.errors import UserError
from serfit.files import write_text
from serfit.report import figures
from serfit.report.answers import FEW_SPEAKERS, HOW_SURE, answers, heading, how_to_read_groups, interval_text
from serfit.report.breakdown import GROUPINGS, Table, breakdown, calibration, predicted, worst
from serfit.report.clips import clips
from serfit.report.compare import compare
from serfit.report.evidence import Comparison, Evidence
from serfit.report.experiments import IRRELEVANT, ExperimentResult, ranges
from serfit.report.markdown import ABSENT, UNDEFINED, number
from serfit.report.reference import FROZEN, Measure
from serfit.report.tables import HOW_TO_READ, HOW_TO_READ_SCENARIOS

MOST_DRAWN = 6
"""Most experiments of a corpus that are drawn; of more, those with the highest average."""

WORST = 8
"""Worst utterances listed per experiment."""

TEMPLATE = "page.html.jinja"


@dataclass(frozen=True, slots=True)
class Rows:
    """A table: names of the columns, and rows of text; the first `left` columns are aligned to the left."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1


@dataclass(frozen=True, slots=True)
class Failure:
    """One of the worst utterances.

    Attributes:
        cells: what the table says of it.
        clip: data URL of its sound, or "".
    """

    cells: Sequence[str]
    clip: str


def write_report(directories: Sequence[Path], path: Path, *, players: bool = False) -> Path:
    """Write the page about run directories, atomically.

    Args:
        directories: finished runs, of one experiment or of several.
        path: the page.
        players: embed short clips of the worst utterances, where the audio is at hand.

    Raises:
        UserError: there is no finished run among them, or the page can't be written.
    """
    comparison = compare(directories)
    if not comparison.experiments:
        reasons = "; ".join(comparison.warnings) or "no run directory was given or found"
        raise UserError(f"there is no finished run to report on ({reasons}); name finished runs, or their folder")
    if not path.parent.is_dir():
        raise UserError(f"there is no folder {path.parent} for the report; name a page in an existing folder")
    write_text(path, to_html(comparison, players=players))
    return path


def to_html(comparison: Comparison, *, players: bool = False) -> str:
    """The page; equal runs give equal text."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["svg"] = Markup
    template = environment.from_string((files("serfit.report") / TEMPLATE).read_text(encoding="utf-8"))
    corpora = [
        _corpus([one for one in comparison.experiments if one.corpus == corpus], comparison.evidence, players)
        for corpus in sorted({one.corpus for one in comparison.experiments})
    ]
    scenarios = any(one.baseline for one in comparison.experiments)
    few = any(
        "speaker" not in found.intervals
        for one in comparison.experiments
        for found in comparison.evidence.over_folds[one.label].values()
    )
    reading = [*HOW_TO_READ, *HOW_SURE, *([FEW_SPEAKERS] if few else []), *how_to_read_groups()]
    reading += HOW_TO_READ_SCENARIOS if scenarios else []
    return template.render(corpora=corpora, warnings=comparison.warnings, reading=reading) + "\n"


def _corpus(experiments: Sequence[ExperimentResult], evidence: Evidence, players: bool) -> dict[str, Any]:
    """Everything the template shows of one corpus."""
    drawn = sorted(experiments, key=lambda one: (-(one.test["average"].mean or -1.0), one.label))[:MOST_DRAWN]
    drawn.sort(key=lambda one: one.label)
    tables = {one.label: predicted(one) for one in drawn}
    dimensions = list(dict.fromkeys(name for one in experiments for name in one.dimensions))
    measures: list[Measure] = [*dimensions, "average"]
    pairs = [pair for pair in evidence.pairs if pair.corpus == experiments[0].corpus]
    groups = {label: breakdown(table) for label, table in tables.items()}
    labels = [one.label for one in drawn]
    return {
        "name": experiments[0].corpus,
        "undrawn": len(experiments) - len(drawn),
        "answers": answers(pairs),
        "scores": _scores(experiments, evidence, measures),
        "forests": [figures.forest(experiments, evidence, name) for name in measures],
        "differences": [chart for name in measures if (chart := figures.differences(pairs, name))],
        "curves": [chart for one in drawn for name in one.dimensions if (chart := figures.curves(one, name))],
        "scatters": _predictions(tables),
        "keys": [(f"e{place}", label) for place, label in enumerate(labels)],
        "errors": [
            chart
            for grouping in GROUPINGS
            for name in dimensions
            if len({one.group for scores in groups.values() for one in scores if one.grouping == grouping}) <= 24
            and (chart := figures.errors(groups, grouping, name))
        ],
        "circumplex": _circumplexes(tables),
        "honesty": _honesty(experiments),
        "calibration": _calibration(tables),
        "failures": [(one.label, *_failures(one, tables[one.label], players)) for one in drawn],
        "costs": _costs(experiments),
        "settings": _settings(experiments),
        "protocols": sorted({str(run.environment.get("protocol")) for one in experiments for run in one.runs}),
        "notes": sorted(
            {n for one in experiments for run in one.runs for n in run.environment["corpus"].get("notes", [])}
        ),
        "runs": _runs(experiments, measures),
    }


def _scores(experiments: Sequence[ExperimentResult], evidence: Evidence, measures: Sequence[Measure]) -> Rows:
    header = ["experiment", "folds", *(text for name in measures for text in (heading(name), "95 % interval"))]
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
        known = [FROZEN.average if name == "average" else FROZEN.ccc.get(name) for name in measures]
        cells = [text for value in known for text in (ABSENT if value is None else f"{value:.4f}", "")]
        rows.append([f"frozen reference: {FROZEN.system}", FROZEN.protocol, *cells])
    return Rows(header, rows, left=2)


def _predictions(tables: dict[str, Table]) -> list[list[tuple[str, str]]]:
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
                    figures.scatter(table, name, reach, f"{label}: {name}"),
                    figures.residuals(table, name, "error by rating"),
                )
                for label, table in having.items()
            ]
        )
    return charts


def _circumplexes(tables: dict[str, Table]) -> list[str]:
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


def _honesty(experiments: Sequence[ExperimentResult]) -> Rows | None:
    header = ["experiment", "dimension", "test", "scenario baseline", "within scenario", "improvised", "scripted"]
    rows = []
    for one in experiments:
        for name in one.dimensions if one.baseline else ():
            columns = (one.test, one.baseline, one.within, one.styles["improvised"], one.styles["scripted"])
            means = [column[name].mean if name in column else None for column in columns]
            rows.append([one.label, name, *map(number, means)])
    return Rows(header, rows, left=2) if rows else None


def _calibration(tables: dict[str, Table]) -> Rows:
    rows = []
    for label, table in tables.items():
        for name, one in calibration(table).items():
            spread = number(one.spread, ".3f") + (" (collapsed)" if one.collapsed else "")
            rows.append([label, name, number(one.bias, "+.3f"), number(one.slope, ".3f"), spread])
    return Rows(["experiment", "dimension", "bias", "slope", "spread"], rows, left=2)


def _failures(result: ExperimentResult, table: Table, players: bool) -> tuple[list[Failure], str]:
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
    header = ["experiment", "device", "trained parameters", "epochs", "seconds per epoch", "hours in all"]
    rows = []
    for one in experiments:
        first = one.runs[0].environment
        devices = sorted({str(run.environment.get("device", "?")) for run in one.runs})
        trained = first.get("trained_parameters")
        times = [seconds for run in one.runs for seconds in run.timing]
        row = [one.label, ", ".join(devices), UNDEFINED if trained is None else f"{trained:,}"]
        row += [f"{fmean(len(run.records) for run in one.runs):.1f}"]
        row += [f"{median(times):.1f}" if times else UNDEFINED, f"{sum(times) / 3600:.2f}" if times else UNDEFINED]
        rows.append(row)
    return Rows(header, rows, left=2)


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
            scores = [run.test.average if name == "average" else run.test.ccc(name) for name in measures]
            epoch = f"{run.best_epoch} of {len(run.records)}" if run.records else ABSENT
            row = [one.label, str(run.fold), str(run.seed), *map(number, scores), epoch]
            rows.append([*row, f"{len(run.predictions.ids):,}", run.directory.name])
    return Rows(header, rows)
