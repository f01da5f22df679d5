"""Baseline and raters beside the scores: in the tables, the CSV file and the page."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev

import pytest

from report.reading import rows
from report.written import Written, change_json, scores_of
from serfit.report.compare import compare, to_csv, to_markdown
from serfit.report.page import to_html
from serfit.runs.directory import SCORES
from serfit.scores.agreement import Agreement

Write = Callable[..., Written]


def agreement(fold: int, seed: int = 1) -> Agreement:
    """The raters agree as they do, whatever the seed; the system depends on both."""
    rater = scores_of(valence=0.5 + 0.01 * fold, arousal=0.6)
    return Agreement(rater, scores_of(valence=0.4 + 0.01 * fold + 0.1 * seed, arousal=0.7))


def test_raters_stand_in_table_csv_and_page_as_means_over_folds(write_run: Write, tmp_path: Path) -> None:
    for fold in range(1, 6):
        for seed in (1, 2):
            write_run("alpha", fold, seed, raters=agreement(fold, seed))
    comparison = compare(tmp_path / "runs")
    raters = [0.5 + 0.01 * fold for fold in range(1, 6)]
    system = [0.4 + 0.01 * fold + 0.15 for fold in range(1, 6)]
    valence, arousal = rows(comparison, "### Compared with the raters")
    assert valence == [
        "alpha",
        "valence",
        "50",  # ten single ratings in each fold, however many seeds
        f"{fmean(raters):.4f} ± {stdev(raters):.4f}",
        f"{fmean(system):.4f} ± {stdev(system):.4f}",
        f"{fmean(system) - fmean(raters):+.4f}",
    ]
    assert arousal[3:] == ["0.6000 ± 0.0000", "0.7000 ± 0.0000", "+0.1000"]
    numbers = {(row["what"], row["measure"]): row["value"] for row in csv.DictReader(io.StringIO(to_csv(comparison)))}
    assert float(numbers["one_rater", "valence"]) == pytest.approx(fmean(raters), abs=1e-6)
    assert float(numbers["in_raters_place", "average"]) == pytest.approx((fmean(system) + 0.7) / 2, abs=1e-6)
    text = to_html(comparison)
    assert f'<td class="n">{valence[3]}</td>' in text
    assert "no ceiling" in to_markdown(comparison)
    assert "no ceiling" in text


def test_without_single_ratings_it_is_said_and_nothing_is_made_up(write_run: Write, tmp_path: Path) -> None:
    write_run("alpha", 1, raters=agreement(1))
    write_run("alpha", 2)
    comparison = compare(tmp_path / "runs")
    assert comparison.experiments[0].rater == {}  # not the mean over the folds that happen to have it
    for text in (to_markdown(comparison), to_html(comparison)):
        assert "agreement: not available" in text.replace("&#39;", "'")
        assert "no ceiling" not in text


def test_runs_from_before_are_read(write_run: Write, tmp_path: Path) -> None:
    written = write_run("alpha", 1)
    change_json(written.directory / SCORES, lambda data: data.pop("raters_agreement"))
    comparison = compare(tmp_path / "runs")
    assert comparison.warnings == ()
    assert comparison.experiments[0].runs[0].scores.rater is None
