"""The tables of a probe, and the scores behind them."""

import csv
import io
import re
from statistics import fmean

import numpy as np
import pytest
from rich.console import Console

from report.layers_made import encoder_lines, made_probe, predictions, utterances
from serfit.report.layers import COLUMNS, Line, Probed, console_tables, contrasts, grouped, to_csv, to_markdown
from serfit.scores.metrics import ccc
from serfit.scores.statistics.interval import estimate
from serfit.system.log import Terminal


def printed(probed: Probed, width: int = 80) -> str:
    stream = io.StringIO()
    console: Console = Terminal(file=stream, width=width)
    for table in console_tables(probed):
        console.print(table)
    return stream.getvalue()


def test_a_score_is_the_mean_over_folds_of_the_ccc_and_of_its_mean_over_dimensions() -> None:
    tests = [predictions(fold, 0.5) for fold in range(5)]
    found = contrasts(grouped([utterances(fold) for fold in range(5)]), tests)
    columns = {"valence": 0, "arousal": 1}
    means = {
        name: fmean(float(ccc(one.targets[:, column], one.values[:, column]) or 0.0) for one in tests)
        for name, column in columns.items()
    }
    assert list(found) == ["valence", "arousal", "average"]
    for name, value in means.items():
        assert found[name].value == pytest.approx(value, abs=1e-12)  # type: ignore[index]
    assert found["average"].value == pytest.approx(fmean(means.values()), abs=1e-12)
    interval = estimate(found["valence"]).interval
    assert interval is not None
    assert interval.low < means["valence"] < interval.high
    assert interval.degrees == 4


def test_the_terminal_has_a_table_for_each_encoder_that_fits_eighty_columns() -> None:
    text = printed(made_probe(["one", "two [bold]"]))
    assert max(len(line) for line in text.splitlines()) <= 80
    assert text.count("hand-made") == 2
    assert "two [bold] on EMO-DB (proxy targets): test CCC" in text
    rows = [line.split()[:2] for line in text.splitlines() if line.strip().startswith("layer")]
    assert rows == [["layer", "0"], ["layer", "0"], ["layer", "1"], ["layer", "1"]] * 2
    assert re.search(r"all layers +mean \+ SD +0\.\d{3} \[0\.\d{2}, 0\.\d{2}\]", text)


def test_markdown_holds_scores_answers_costs_and_how_they_were_come_by() -> None:
    text = to_markdown(made_probe(["one", "<b>|x"]))
    for wanted in ("# Layers of one, &lt;b&gt;\\|x on EMO-DB", "an answer", "time: little", "fold 1 of 5: tests on a"):
        assert wanted in text
    assert "95% CIs hold for other trained models and speakers" in text
    assert text.count("| layer 1 | mean + SD |") == 2
    assert "minus" not in text.split("## How to read this")[0].replace("an answer", "")
    assert "<b>" not in text


def test_the_csv_file_has_every_number_differences_too() -> None:
    probed = made_probe(["=one"])
    rows = list(csv.DictReader(io.StringIO(to_csv(probed))))
    assert list(rows[0]) == [*COLUMNS, "holds_for"]
    assert len(rows) == 3 * len(probed.lines)
    (difference,) = [row for row in rows if row["minus"] == "hand-made" and row["measure"] == "valence"]
    chosen, base = (
        next(float(row["value"]) for row in rows if row["features"] == features and row["measure"] == "valence")
        for features in ("chosen layer", "hand-made")
    )
    assert float(difference["value"]) == pytest.approx(chosen - base, abs=2e-6)
    assert all(row["encoder"] in ("", "./=one") or not row["encoder"].startswith("=") for row in rows)


def test_an_undefined_score_is_no_number() -> None:
    flat = [predictions(fold, 0.5) for fold in range(5)]
    constant = [type(one)(one.ids, one.dimensions, np.ones_like(one.targets), np.ones_like(one.values)) for one in flat]
    scores = contrasts(grouped([utterances(fold) for fold in range(5)]), constant)
    line = Line("", "hand-made", "", None, {name: estimate(one) for name, one in scores.items()})
    probed = Probed("x", (line, *encoder_lines("one")), (), {}, ())
    assert "n/a" in printed(probed)
    assert "| hand-made |  | n/a | n/a | n/a |" in to_markdown(probed)
    assert next(csv.DictReader(io.StringIO(to_csv(probed))))["value"] == ""
