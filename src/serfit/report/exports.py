"""A comparison as a tidy CSV file and as LaTeX tables (booktabs)."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from serfit.corpus.rows import inert
from serfit.errors import visible
from serfit.labels import Dimension, letter
from serfit.report.answers import heading, holds_for
from serfit.report.comparison import Comparison, Details
from serfit.report.evidence import Evidence, Pair, seed_deviation
from serfit.runs.experiments import ExperimentResult, Summary
from serfit.scores.reference import FROZEN, Measure
from serfit.scores.statistics.interval import Estimate

COLUMNS = (
    "corpus",
    "experiment",
    "against",
    "what",
    "group",
    "measure",
    "value",
    "low",
    "high",
    "degrees",
    "holds_for",
    "deviation",
    "p",
    "p_corrected",
    "count",
)
"""Columns of the CSV file, one number per row.

`what` is mean_over_folds, seed_deviation, pooled, difference, run (group: fold and seed), scenario_baseline,
within_scenario, one_rater and in_raters_place (see `report.beside`), bias, slope, spread, or the grouping that `group`
belongs to; `measure` is a dimension or average; `low` and `high` end the 95% CI of `degrees` degrees of
freedom, which holds for `holds_for`.
"""

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def to_csv(comparison: Comparison) -> str:
    """Every number of a comparison in one table, see `COLUMNS`; undefined ones are empty cells."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for result in comparison.experiments:
        for row in _experiment_rows(result, comparison.evidence, comparison.details[result.label]):
            writer.writerow(written({"corpus": result.corpus, "experiment": result.label} | row))
    for pair in comparison.evidence.pairs:
        row = {"what": "difference", "measure": pair.measure, "p": pair.p, "p_corrected": pair.corrected}
        row |= estimate_columns(pair.difference) | {"count": pair.utterances}
        row |= {"corpus": pair.corpus, "experiment": pair.first, "against": pair.second}
        writer.writerow(written(row))
    return text.getvalue()


def to_latex(comparison: Comparison) -> str:
    r"""Two tables per corpus for a paper, results and differences; they need \usepackage{booktabs}."""
    blocks = [r"% Needs \usepackage{booktabs}. Means +- standard deviations over folds; 95 % CIs in brackets."]
    for corpus, among in comparison.corpora.items():
        blocks.append(_results_latex(corpus, among, comparison.evidence))
        pairs = [pair for pair in comparison.evidence.pairs if pair.corpus == corpus]
        if pairs:
            blocks.append(_pairs_latex(corpus, pairs))
    return "\n\n".join(blocks) + "\n"


def _experiment_rows(result: ExperimentResult, evidence: Evidence, details: Details) -> Iterable[dict[str, Any]]:
    for name, one in evidence.over_folds[result.label].items():
        deviation = result.test[name].deviation
        count = sum({run.fold: len(run.predictions.ids) for run in result.runs}.values())
        yield {"what": "mean_over_folds", "measure": name, "deviation": deviation, "count": count} | estimate_columns(
            one
        )
        yield {"what": "seed_deviation", "measure": name, "value": seed_deviation(result.runs, name)}
    for name, one in evidence.pooled[result.label].items():
        yield {"what": "pooled", "measure": name} | estimate_columns(one)
    for run in result.runs:
        for dimension in result.dimensions:
            where = f"fold {run.fold} seed {run.seed}"
            row = {"what": "run", "group": where, "measure": dimension, "value": run.scores.test.ccc(dimension)}
            yield row | {"count": len(run.predictions.ids)}
    beside = {"scenario_baseline": result.baseline, "within_scenario": result.within}
    beside |= {"one_rater": result.rater, "in_raters_place": result.as_rater}
    for what, summaries in beside.items():
        for name, summary in summaries.items():
            yield {"what": what, "measure": name, "value": summary.mean, "deviation": summary.deviation}
    for dimension, found in details.miscalibration.items():
        for what in ("bias", "slope", "spread"):
            yield {"what": what, "measure": dimension, "value": getattr(found, what)}
    for score in details.groups:
        for dimension in result.dimensions:
            row = {"what": score.grouping, "group": score.group, "measure": dimension, "value": score.ccc[dimension]}
            yield row | {"count": score.count}


def estimate_columns(one: Estimate) -> dict[str, Any]:
    """A score with its interval, as columns of a table (see `COLUMNS`)."""
    interval = one.interval
    if interval is None:
        return {"value": one.value}
    ends = {"low": interval.low, "high": interval.high, "degrees": interval.degrees}
    return {"value": one.value, **ends, "holds_for": str(one.scope)}


def written(row: Mapping[str, Any]) -> dict[str, str]:
    """Numbers with six decimals, undefined ones as empty text, names as no spreadsheet executes them."""
    return {
        key: "" if value is None else f"{value:.6f}" if isinstance(value, float) else inert(visible(str(value)))
        for key, value in row.items()
    }


def _results_latex(corpus: str, experiments: Sequence[ExperimentResult], evidence: Evidence) -> str:
    dimensions: list[Dimension] = []
    for result in experiments:
        dimensions += [name for name in result.dimensions if name not in dimensions]
    measures: list[Measure] = [*dimensions, "average"]
    rows = []
    for result in experiments:
        found = evidence.over_folds[result.label]
        rows.append([_latex(result.label), *(_latex_mean(result.test.get(name)) for name in measures)])
        rows.append(["", *(_latex_interval(found.get(name), ".3f") for name in measures)])
    if any(result.difference for result in experiments):
        known = [FROZEN.value(name, dimensions) for name in measures]
        rows.append(["published result", *("--" if value is None else f"${value:.4f}$" for value in known)])
    header = ["experiment", *(f"CCC-{'Avg' if name == 'average' else letter(name)}" for name in measures)]
    caption = f"Test CCC on {_latex(corpus)}, mean $\\pm$ standard deviation over folds. "
    caption += _latex(holds_for(experiments, evidence))
    return _tabular(header, rows, caption, f"tab:{corpus}-results")


def _pairs_latex(corpus: str, pairs: Sequence[Pair]) -> str:
    header = ["first -- second", "difference", "95\\,\\% CI", "$p$", "corrected $p$"]
    rows: list[list[str]] = []
    said: tuple[str, str] | None = None
    for pair in pairs:
        if said != (pair.first, pair.second):
            said = (pair.first, pair.second)
            rows.append([f"\\multicolumn{{{len(header)}}}{{l}}{{{_latex(pair.first)} -- {_latex(pair.second)}}}"])
        value = pair.difference.value
        size = "--" if value is None else f"${value:+.4f}$"
        ps = ["--" if p is None else "$<0.0001$" if p < 0.0001 else f"${p:.4f}$" for p in (pair.p, pair.corrected)]
        rows.append([f"\\quad {heading(pair.measure)}", size, _latex_interval(pair.difference, "+.3f"), *ps])
    scopes = dict.fromkeys(str(pair.difference.scope) for pair in pairs if pair.difference.interval is not None)
    caption = (
        f"Differences in mean CCC over folds on the same test utterances of {_latex(corpus)}. 95\\,\\% CIs hold for "
        f"{_latex(' / '.join(scopes) or 'none')}; $p$ of paired $t$ tests, corrected by Holm's method."
    )
    return _tabular(header, rows, caption, f"tab:{corpus}-differences")


def _latex_mean(summary: Summary | None) -> str:
    if summary is None or summary.mean is None:
        return "--"
    spread = "" if summary.deviation is None else f" \\pm {summary.deviation:.4f}"
    return f"${summary.mean:.4f}{spread}$"


def _latex_interval(one: Estimate | None, form: str) -> str:
    interval = None if one is None else one.interval
    return "" if interval is None else f"$[{interval.low:{form}}, {interval.high:{form}}]$"


def _tabular(header: Sequence[str], rows: Iterable[Sequence[str]], caption: str, label: str) -> str:
    lines = [r"\begin{table}", r"  \centering\small", f"  \\caption{{{caption}}}", f"  \\label{{{label}}}"]
    lines += [f"  \\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}", r"    \toprule"]
    lines += [f"    {' & '.join(header)} \\\\", r"    \midrule"]
    lines += [f"    {' & '.join(row)} \\\\" for row in rows]
    return "\n".join([*lines, r"    \bottomrule", r"  \end{tabular}", r"\end{table}"])


def _latex(text: str) -> str:
    """Text that stands for itself in LaTeX."""
    return "".join(_SPECIAL.get(character, character) for character in text)
