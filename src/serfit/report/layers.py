"""What a probe of an encoder's layers found, as tables: terminal, Markdown, CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from serfit.corpus.utterance import Utterance
from serfit.report.answers import heading
from serfit.report.exports import estimate_columns, written
from serfit.report.markdown import Rows, as_markdown, bullets, escaped, number
from serfit.scores.records import Predictions
from serfit.scores.reference import Measure
from serfit.scores.statistics.contrast import Cell, Clustering, Contrast, clustering, contrast
from serfit.scores.statistics.interval import Estimate

COLUMNS = ("corpus", "encoder", "features", "pooling", "minus", "measure", "value", "low", "high", "degrees")
"""Columns of the CSV file, one number per row, with `holds_for` as the last; see `serfit.report.exports.COLUMNS`.

`minus` names what was subtracted where the value is a difference.
"""

HOW_TO_READ = (
    "Test CCC, mean over folds, with 95% CI; nothing was trained but ridge regression on standardised features. Its "
    "penalty is chosen for each dimension by the CCC on the validation part of each fold; the test parts have no say.",
    "Layer 0 is the input of the transformer, the last layer the output of the encoder. SD: standard deviation over "
    "time. Sum: of the layers' standardised features, with equal weights. All: all layers' features side by side.",
    "The best of many test scores is too good to be true. The lines that begin with “chosen” are what to expect of "
    "choosing: in each fold what has the best mean validation CCC, among single layers, or among all lines above.",
)


@dataclass(frozen=True, slots=True)
class Line:
    """What ratings were predicted from, and how well.

    Attributes:
        encoder: its name; "" for hand-made features.
        features: for example "layer 2" or "all layers".
        pooling: "mean" or "mean + SD"; "" where that has no sense.
        layer: number of a single layer, for the picture; None for all else.
        scores: mean test CCC over folds per measure, or the difference to another line's.
        minus: features of the line that was subtracted; "" where this is no difference.
    """

    encoder: str
    features: str
    pooling: str
    layer: int | None
    scores: Mapping[Measure, Estimate]
    minus: str = ""


@dataclass(frozen=True, slots=True)
class Probed:
    """A probe of one or several encoders on one corpus.

    Attributes:
        corpus: its name.
        lines: hand-made features first, then each encoder's lines.
        answers: sentences.
        costs: what fine-tuning would cost, by encoder.
        notes: sentences about corpus and protocol.
    """

    corpus: str
    lines: tuple[Line, ...]
    answers: tuple[str, ...]
    costs: Mapping[str, Sequence[str]]
    notes: tuple[str, ...]

    @property
    def measures(self) -> tuple[Measure, ...]:
        """Columns: the dimensions, and their average."""
        return tuple(self.lines[0].scores)

    @property
    def shown(self) -> list[Line]:
        """The lines of the tables for people: all but differences, which the answers give."""
        return [line for line in self.lines if not line.minus]


def grouped(tests: Sequence[Sequence[Utterance]]) -> Clustering:
    """The test utterances of all folds, fold after fold."""
    utterances = [utterance for test in tests for utterance in test]
    folds = [fold for fold, test in enumerate(tests) for _ in test]
    speakers, dialogues = ([getattr(one, kind) or "" for one in utterances] for kind in ("speaker", "dialogue"))
    return clustering(speakers, dialogues, folds)


def contrasts(where: Clustering, tests: Sequence[Predictions]) -> dict[Measure, Contrast]:
    """Mean CCC over folds of each dimension and of their average, from the test predictions of the folds.

    Args:
        where: made by `grouped` from the same utterances.
        tests: of each fold, in the same order.
    """
    starts = np.cumsum([0, *(len(one.ids) for one in tests)])
    names = tests[0].dimensions

    def score(columns: Sequence[int]) -> Contrast:
        cells = [
            Cell(rows, one.targets[:, column], one.values[:, column], fold, column, 1.0 / len(columns))
            for fold, one in enumerate(tests)
            for rows in [np.arange(starts[fold], starts[fold + 1])]
            for column in columns
        ]
        return contrast(where, cells)

    measures: dict[Measure, Contrast] = {name: score([column]) for column, name in enumerate(names)}
    return measures | {"average": score(range(len(names)))}


def console_tables(probed: Probed) -> list[Table]:
    """A table for the terminal for each encoder, each beginning with the hand-made features."""
    tables = []
    for encoder in dict.fromkeys(line.encoder for line in probed.shown if line.encoder):
        title = f"{encoder} on {probed.corpus}: test CCC, mean over folds, 95% CI"
        table = Table(title=escape(title), box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for name in ("features", "over time"):
            table.add_column(name, no_wrap=True)
        for measure in probed.measures:
            table.add_column(heading(measure), justify="right")
        for line in probed.shown:
            if line.encoder in ("", encoder):
                *dimensions, _ = _cells(line, reach=".2f")
                table.add_row(line.features, line.pooling, *dimensions, number(line.scores["average"].value, ".3f"))
        tables.append(table)
    return tables


def to_markdown(probed: Probed) -> str:
    """Everything as a Markdown document."""
    header = ["encoder", "features", "over time", *(f"{heading(name)} [95% CI]" for name in probed.measures)]
    rows = [[line.encoder or "-", line.features, line.pooling, *_cells(line)] for line in probed.shown]
    blocks = [f"# Layers of {escaped(_encoders(probed))} on {escaped(probed.corpus)}", bullets(probed.answers)]
    blocks += ["![CCC by layer](layers.svg)", as_markdown(Rows(header, rows, left=3))]
    blocks += ["## How to read this", bullets([*HOW_TO_READ, *dict.fromkeys(_scopes(probed))])]
    for encoder, lines in probed.costs.items():
        blocks += [f"## What fine-tuning {escaped(encoder)} would cost", "\n".join(["```", *lines, "```"])]
    blocks += ["## Protocol and notes on the corpus", bullets(probed.notes)]
    return "\n\n".join(blocks) + "\n"


def to_csv(probed: Probed) -> str:
    """Every number in one table, see `COLUMNS`; undefined ones are empty cells."""
    text = io.StringIO()
    writer = csv.DictWriter(text, (*COLUMNS, "holds_for"), restval="", lineterminator="\n")
    writer.writeheader()
    for line in probed.lines:
        about = {"corpus": probed.corpus, "encoder": line.encoder, "features": line.features, "pooling": line.pooling}
        for name, one in line.scores.items():
            writer.writerow(written(about | {"minus": line.minus, "measure": name} | estimate_columns(one)))
    return text.getvalue()


def scores_text(line: Line, form: str = ".3f") -> str:
    """The scores of a line in a sentence, with their intervals."""
    return ", ".join(f"{heading(name)} {cell}" for name, cell in zip(line.scores, _cells(line, form), strict=True))


def _cells(line: Line, form: str = ".3f", reach: str = ".3f") -> list[str]:
    """Scores and the ends of their intervals, each in a format."""
    cells = []
    for one in line.scores.values():
        ends = f" [{one.interval.low:{reach}}, {one.interval.high:{reach}}]" if one.interval else ""
        cells.append(number(one.value, form) + ends)
    return cells


def _encoders(probed: Probed) -> str:
    return ", ".join(dict.fromkeys(line.encoder for line in probed.lines if line.encoder))


def _scopes(probed: Probed) -> list[str]:
    estimates = [one for line in probed.lines for one in line.scores.values()]
    return [f"95% CIs hold for {one.scope}." for one in estimates if one.interval is not None]
