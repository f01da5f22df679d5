import csv
import io
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from report.written import Written
from serfit.report.compare import COMPARISON_CSV, COMPARISON_LATEX, compare, to_csv, to_latex, write_comparison
from serfit.report.exports import COLUMNS

Write = Callable[..., Written]


@pytest.fixture
def runs(write_run: Write, tmp_path: Path) -> Path:
    for fold in range(1, 6):
        write_run("good_one", fold, noise=0.4, described=True, total=10_039)
        write_run("other", fold, noise=1.0, described=True, total=10_039)
    return tmp_path / "runs"


def test_every_number_of_the_comparison_is_in_the_csv(runs: Path) -> None:
    comparison = compare(runs)
    rows = list(csv.DictReader(io.StringIO(to_csv(comparison))))
    assert tuple(rows[0]) == COLUMNS
    by = {(r["experiment"], r["against"], r["what"], r["group"], r["measure"]): r for r in rows}
    assert len(by) == len(rows)
    for result in comparison.experiments:
        for name, summary in result.test.items():
            row = by[result.label, "", "mean_over_folds", "", name]
            assert float(row["value"]) == pytest.approx(summary.mean, abs=1e-6)
            assert float(row["deviation"]) == pytest.approx(summary.deviation, abs=1e-6)
            assert float(row["low"]) < float(row["value"]) < float(row["high"])
            assert row["holds_for"] == "other trained models, speakers and dialogues"
    for pair in comparison.evidence.pairs:
        row = by[pair.first, pair.second, "difference", "", pair.measure]
        assert float(row["p_corrected"]) == pytest.approx(pair.corrected, abs=1e-6)
    assert {row["what"] for row in rows} >= {
        "run",
        "speaker",
        "session",
        "gender",
        "duration",
        "emotion",
        "style",
        "slope",
    }


def test_the_files_lie_beside_the_markdown_and_repeat(runs: Path) -> None:
    write_comparison(runs)
    first = [(runs / name).read_bytes() for name in (COMPARISON_CSV, COMPARISON_LATEX)]
    write_comparison(runs)
    assert [(runs / name).read_bytes() for name in (COMPARISON_CSV, COMPARISON_LATEX)] == first


def test_latex_tables_are_closed_rectangular_and_escaped(runs: Path) -> None:
    text = to_latex(compare(runs))
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 2
    assert r"good\_one" in text
    assert not re.search(r"(?<!\\)_", text)
    for table in re.findall(r"\\midrule\n(.*?)\\bottomrule", text, flags=re.S):
        lines = [line for line in table.strip().splitlines() if "multicolumn" not in line]
        widths = {len(re.findall(r"(?<!\\)&", line)) for line in lines}
        assert len(widths) == 1
    assert "0.5896" in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="LaTeX is not installed")
def test_latex_compiles(runs: Path, tmp_path: Path) -> None:
    document = r"\documentclass{article}\usepackage{booktabs}\begin{document}" + to_latex(compare(runs))
    (tmp_path / "all.tex").write_text(document + r"\end{document}")
    done = subprocess.run(["pdflatex", "-halt-on-error", "all.tex"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
