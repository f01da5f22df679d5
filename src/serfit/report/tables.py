"""A comparison as Markdown and as a table for the terminal."""

from collections.abc import Iterable, Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from serfit.labels import DIMENSIONS, Dimension, letter
from serfit.report.answers import (
    HOW_SURE,
    evidence_blocks,
    group_rows,
    how_to_read_groups,
    miscalibration_rows,
    together_rows,
)
from serfit.report.comparison import Comparison
from serfit.report.context import NO_RATERS, PARTIAL, baseline_rows, rater_rows, summary_cell, what_stands_beside
from serfit.report.markdown import ABSENT, UNDEFINED, as_markdown, bullets, code, escaped, markdown_table, number
from serfit.runs.experiments import ExperimentResult, best, ranges
from serfit.runs.finished import FinishedRun
from serfit.scores.reference import FROZEN, Measure, measure, obstacle

HOW_TO_READ = (
    "All numbers are concordance correlation coefficients (CCC) on the test part, computed once over all utterances "
    "of it with the weights of the epoch whose mean validation CCC was best; the test part had no say in that choice.",
    "Mean ± sample standard deviation over folds; where a fold was run with several seeds, their mean counts as the "
    "fold's value; seeds that lack a fold which another seed has are left out everywhere. CCC-Avg is the mean over the "
    "predicted dimensions; the published one is given only for experiments that predict the same dimensions.",
    "Pooled: one CCC over the test predictions of all folds together (with several seeds, the mean over those that "
    "have all folds), given only when the folds' test parts are disjoint and make up the whole corpus.",
    "Bold: the best among experiments that were tested on the same utterances of the same folds.",
    f"{UNDEFINED}: undefined or not to be had. {ABSENT}: not predicted. {PARTIAL}: over part of the folds.",
)

_REFERENCE_WORDS = (
    "The published result is a mean over five folds, measured by others with their own code; a difference to it from "
    "fewer folds is an indication, not a result."
)


def to_markdown(comparison: Comparison) -> str:
    """The whole comparison as a Markdown document; equal comparisons give equal text."""
    experiments = comparison.experiments
    blocks = ["# Comparison of all finished runs"]
    if not experiments:
        blocks.append("There is no finished run yet.")
    if comparison.warnings:
        blocks += ["## Warnings", bullets(comparison.warnings)]
    for corpus, among in comparison.corpora.items():
        blocks += _corpus_blocks(among, corpus, comparison)
    if experiments:
        words = (*HOW_TO_READ, *HOW_SURE, *how_to_read_groups(), *what_stands_beside(experiments))
        blocks += ["## How to read this", bullets(words)]
    return "\n\n".join(blocks) + "\n"


def console_table(comparison: Comparison) -> Table:
    """The main table for a terminal, warnings beneath it."""
    experiments = comparison.experiments
    dimensions = _dimensions(experiments)
    compared = any(result.difference for result in experiments)
    several = len({result.corpus for result in experiments}) > 1
    table = Table(title="finished runs: test CCC, mean ± SD over folds", box=SIMPLE_HEAD, pad_edge=False)
    table.caption_justify = "left"
    table.add_column("experiment", overflow="fold", min_width=12)
    for heading in _ccc_headings(dimensions):
        table.add_column(heading, justify="right", no_wrap=True)
    if compared:
        table.add_column("to frozen\nreference", justify="right", no_wrap=True)
    table.add_column("best\nepoch", justify="right", no_wrap=True)
    winners = {name: best(experiments, name) for name in _measures(dimensions)}
    for result in experiments:
        row = [escape("\n".join([result.label, *([result.corpus] if several else []), _runs_cell(result)]))]
        for name in _measures(dimensions):
            cell = summary_cell(result, result.test, name, break_before="\n")
            row.append(f"[bold]{cell}[/bold]" if result.label in winners[name] else cell)
        row += [_difference_lines(result)] if compared else []
        table.add_row(*row, _epochs_cell(result))
    if compared:
        numbers = [_reference_cell(name, dimensions) for name in _measures(dimensions)]
        row = [
            "\n".join(["published result", *([FROZEN.corpus] if several else []), "5 folds"]),
            *numbers,
            "",
            "",
        ]
        table.add_row(*row, style="dim")
    captions = [f"{PARTIAL} over part of the folds"] if any(result.missing for result in experiments) else []
    captions += [f"warning: {line}" for line in comparison.warnings]
    table.caption = escape("\n".join(captions)) if captions else None
    return table


def _corpus_blocks(experiments: Sequence[ExperimentResult], corpus: str, comparison: Comparison) -> list[str]:
    """Everything about the experiments on one corpus."""
    dimensions = _dimensions(experiments)
    blocks = [f"## {escaped(corpus)}", _main_table(experiments, dimensions)]
    blocks += [f"{PARTIAL} {_partial_words(result)}." for result in experiments if result.missing]
    blocks += _reference_words(experiments)
    blocks += evidence_blocks(experiments, comparison.evidence)
    baseline, raters = baseline_rows(experiments), rater_rows(experiments)
    if baseline is not None:
        blocks += ["### Compared with the no-audio baseline", as_markdown(baseline)]
    blocks += ["### Compared with the raters", NO_RATERS if raters is None else as_markdown(raters)]
    details = comparison.details
    miscalibrations = {result.label: details[result.label].miscalibration for result in experiments}
    groups = {result.label: details[result.label].groups for result in experiments}
    blocks += ["### Calibration", as_markdown(miscalibration_rows(experiments, miscalibrations))]
    pairs = together_rows(experiments, {result.label: details[result.label].together for result in experiments})
    blocks += ["### Dimensions together", as_markdown(pairs)] if pairs else []
    blocks += ["### Groups of test utterances", as_markdown(group_rows(experiments, groups))]
    blocks += ["### Runs", _runs_table(experiments, dimensions)]
    blocks += ["### Models", bullets(sorted({_model_words(result.label, run) for result, run in _each(experiments)}))]
    blocks += ["### Protocol", bullets(_protocols(run for _, run in _each(experiments)))]
    notes = {note for _, run in _each(experiments) for note in run.environment.corpus.notes}
    if notes:
        blocks += ["### Notes on the corpus", bullets(sorted(notes))]
    return blocks


def _each(experiments: Iterable[ExperimentResult]) -> Iterator[tuple[ExperimentResult, FinishedRun]]:
    return ((result, run) for result in experiments for run in result.runs)


def _model_words(label: str, run: FinishedRun) -> str:
    """Return the encoder an experiment started from, and its precision."""
    encoder, start = run.environment.encoder, run.environment.training_starts_from
    revision = f" at {encoder.revision[:12]}" if encoder.revision else ""
    digest = f", weights sha256 {encoder.sha256[:12]}" if encoder.sha256 else ""
    trained = f", training starts from: {start}" if start else ""
    frozen = " (frozen part too)" if run.environment.frozen_precision == "bf16" else ""
    return f"{label}: {encoder.name}{revision}{digest}, {run.environment.precision}{frozen}{trained}"


def _main_table(experiments: Sequence[ExperimentResult], dimensions: Sequence[Dimension]) -> str:
    compared = any(result.difference for result in experiments)
    measures = _measures(dimensions)
    letters = _letters(dimensions)
    winners = {name: best(experiments, name) for name in measures}
    header = ["experiment", "runs", *_ccc_headings(dimensions)]
    header += [f"to published result {letters}"] if compared else []
    header += [f"pooled {letters}", "best epoch"]
    rows = []
    for result in experiments:
        row = [escaped(result.label), _runs_cell(result)]
        for name in measures:
            cell = summary_cell(result, result.test, name)
            row.append(f"**{cell}**" if result.label in winners[name] else cell)
        row += [_difference_cell(result, dimensions)] if compared else []
        row += [_pooled_cell(result, dimensions), _epochs_cell(result)]
        rows.append(row)
    if compared:
        row = [
            f"*{FROZEN.system}*",
            FROZEN.protocol,
            *(_reference_cell(name, dimensions) for name in measures),
            "",
            "",
            "",
        ]
        rows.append(row)
    return markdown_table(header, rows, left=2)


def _runs_table(experiments: Sequence[ExperimentResult], dimensions: Sequence[Dimension]) -> str:
    header = ["experiment", "fold", "seed", *_ccc_headings(dimensions), "validation CCC-Avg", "best epoch"]
    header += ["test utterances", "directory"]
    rows = []
    for result in experiments:
        for run in result.runs:
            row = [escaped(result.label), str(run.fold), str(run.seed)]
            for name in _measures(dimensions):
                predicted = name == "average" or name in run.dimensions
                row.append(number(measure(run.scores.test, name)) if predicted else ABSENT)
            row += [
                number(run.scores.validation.average),
                f"{run.scores.best_epoch} of {len(run.records)}" if run.records else ABSENT,
            ]
            row += [f"{len(run.predictions.ids):,}", code(run.directory.name)]
            rows.append(row)
    return markdown_table(header, rows, left=1)


def _reference_words(experiments: Sequence[ExperimentResult]) -> list[str]:
    """Describe the reference, or why an experiment on its corpus isn't compared with it."""
    words = []
    if any(result.difference for result in experiments):
        words.append(_REFERENCE_WORDS)
    for result in experiments:
        if result.runs[0].corpus != FROZEN.corpus or result.difference:
            continue
        reasons = (obstacle(FROZEN, run.corpus, run.utterances) for run in result.runs)
        reason = next((reason for reason in reasons if reason is not None), None)
        if reason is not None:
            words.append(f"No difference to the reference for {escaped(result.label)}: {reason}.")
    return words


def _protocols(runs: Iterable[FinishedRun]) -> list[str]:
    """Distinct protocol sentences, by fold."""
    return [sentence for _, sentence in sorted({(run.fold, run.environment.protocol) for run in runs})]


def _dimensions(experiments: Iterable[ExperimentResult]) -> list[Dimension]:
    """Dimensions that any experiment predicts."""
    predicted = {name for result in experiments for name in result.dimensions}
    return [name for name in DIMENSIONS if name in predicted]


def _measures(dimensions: Sequence[Dimension]) -> list[Measure]:
    return [*dimensions, "average"]


def _ccc_headings(dimensions: Sequence[Dimension]) -> list[str]:
    return [*(f"CCC-{letter(name)}" for name in dimensions), "CCC-Avg"]


def _letters(dimensions: Sequence[Dimension]) -> str:
    return " / ".join([*(letter(name) for name in dimensions), "Avg"])


def _runs_cell(result: ExperimentResult) -> str:
    """List the folds and seeds.

    For example "5 folds x 2 seeds", or "folds 1-3 x 1 seed, folds 4-5 missing".
    """
    seeds = [len([run for run in result.runs if run.fold == fold]) for fold in result.folds]
    low, high = min(seeds), max(seeds)
    often = f"{low} seed{'s' if low > 1 else ''}" if low == high else f"{low}-{high} seeds"
    if not result.missing:
        return f"{len(result.folds)} fold{'s' if len(result.folds) > 1 else ''} x {often}"
    return f"{ranges('fold', result.folds)} x {often}, {ranges('fold', result.missing)} missing"


def _partial_words(result: ExperimentResult) -> str:
    total = len(result.folds) + len(result.missing)
    return f"{escaped(result.label)}: {ranges('fold', result.folds)} of {total} only; not a result over all folds"


def _difference_cell(result: ExperimentResult, dimensions: Sequence[Dimension]) -> str:
    if not result.difference:
        return UNDEFINED
    cells = [number(result.difference[name], "+.4f") for name in _measures(dimensions)]
    return " / ".join(cells) + (f" {PARTIAL}" if result.missing else "")


def _difference_lines(result: ExperimentResult) -> str:
    """Differences to the reference beneath each other, those that are defined."""
    names: dict[Measure, str] = {**{name: letter(name) for name in DIMENSIONS}, "average": "Avg"}
    defined = ((names[name], value) for name, value in result.difference.items() if value is not None)
    return "\n".join(f"{name} {value:+.4f}" for name, value in defined) or UNDEFINED


def _pooled_cell(result: ExperimentResult, dimensions: Sequence[Dimension]) -> str:
    if all(value is None for value in result.pooled.values()):
        return UNDEFINED
    shown = [ABSENT if name not in result.pooled else number(result.pooled[name]) for name in _measures(dimensions)]
    return " / ".join(shown)


def _reference_cell(name: Measure, dimensions: Sequence[Dimension]) -> str:
    value = FROZEN.value(name, dimensions)
    return ABSENT if value is None else f"{value:.4f}"


def _epochs_cell(result: ExperimentResult) -> str:
    """The range of the runs' best epochs."""
    epochs = [run.scores.best_epoch for run in result.runs if run.records]
    if not epochs:
        return ABSENT
    return str(min(epochs)) if min(epochs) == max(epochs) else f"{min(epochs)}-{max(epochs)}"
