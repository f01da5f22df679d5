"""Names from files may hold control characters: no terminal, log, page or spreadsheet obeys them."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from contextlib import redirect_stdout
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from report.written import write_run as write_run_into
from serfit.cli.boundary import Outlet, Shown
from serfit.corpus.rows import inert
from serfit.errors import visible
from serfit.inference.labelling.table import line
from serfit.report.compare import compare, to_csv, to_markdown
from serfit.report.markdown import escaped
from serfit.report.page import write_report
from serfit.system.log import Log, Terminal
from support import PATIENCE

HOSTILE = "a\x1b]0;x\x07b\x1b[2J\x9bc\r\x08\u202e"
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@given(st.text())
def test_nothing_is_left_that_a_terminal_obeys_and_all_else_stays(text: str) -> None:
    shown = visible(text)
    assert not RAW.search(shown)
    assert visible(shown) == shown
    if not RAW.search(text) and shown != text:
        assert re.search("[\u061c\u200e\u200f\u2028\u2029]", text)


def test_a_terminal_shows_what_tables_texts_and_lines_hold() -> None:
    table = Table(title=escape(HOSTILE), caption=escape(HOSTILE))
    table.add_column(escape(HOSTILE), overflow="fold")
    table.add_row(escape(HOSTILE))
    for terminal in (True, False):
        shown = io.StringIO()
        console = Terminal(
            file=shown, force_terminal=terminal, width=200, color_system="truecolor", legacy_windows=False
        )
        for renderable in (table, HOSTILE, Text(HOSTILE), f"[bold]{escape(HOSTILE)}[/bold]"):
            console.print(renderable)
        plain = re.sub(r"\x1b\[[\d;]*m", "", shown.getvalue())  # rich's own colours
        assert not RAW.search(plain)
        assert "\\x1b" in plain


def test_log_and_train_log_show_them_whatever_the_console(tmp_path: Path) -> None:
    shown = io.StringIO()
    log = Log(Console(file=shown))
    log.attach(tmp_path / "train.log")
    log.say(HOSTILE)
    log.record(HOSTILE)
    log.QUIET_SECONDS = 0.0
    log.settle()
    log.advance(HOSTILE, 1, 2, HOSTILE)
    log.close()
    for text in (shown.getvalue(), (tmp_path / "train.log").read_text()):
        assert not RAW.search(text)
        assert "\\x1b]0;x\\x07" in text


def test_printed_text_is_guarded_and_a_terminal_writes_past_the_guard() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with redirect_stdout(Shown(Outlet(stream))):  # type: ignore[type-var]
        print(HOSTILE)
        Terminal(force_terminal=True, color_system="truecolor").print("[bold]name[/bold]")
    stream.flush()
    stream.buffer.seek(0)
    first, second = stream.buffer.read().decode().splitlines()
    assert first == visible(HOSTILE)
    assert second == "\x1b[1mname\x1b[0m"


def test_every_console_of_serfit_is_a_terminal_of_its_own() -> None:
    source = Path(__file__).parents[2] / "src" / "serfit"
    found = [path for path in source.rglob("*.py") if re.search(r"\bConsole\(", path.read_text(encoding="utf-8"))]
    assert found == []


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    name = "=x <img src=q onerror=alert(1)> [a](http://evil) | `c` " + HOSTILE
    for fold in (1, 2):
        environment: dict[str, Any] = {
            "protocol": f"<script>{HOSTILE}</script>",
            "encoder": {"name": "<b>", "sha256": "[x](y)"},
        }
        environment["corpus"] = {"name": name, "counts": {"train": 4, "validation": 4, "test": 4}, "notes": [name]}
        made = write_run_into(tmp_path / "runs", fold, "plain", fold, environment=environment)
        config = json.loads((made.directory / "config.json").read_text())
        config["experiment"]["name"] = name
        (made.directory / "config.json").write_text(json.dumps(config))
    return tmp_path / "runs"


class Tags(HTMLParser):
    """Counts the tags of a text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)


def test_names_are_no_markup_in_the_comparison(runs: Path) -> None:
    text = to_markdown(compare(runs))
    parser = Tags()
    parser.feed(text)
    assert parser.tags == []
    assert not RAW.search(text)
    assert not re.search(r"(?<!\\)\[a\]\(", text)


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["compare", "report", "watch", "verdict", "check"])
def test_no_verb_lets_them_reach_the_terminal(runs: Path, verb: str, tmp_path: Path) -> None:
    paths = [str(runs)] if verb in ("compare", "report", "watch") else [str(next(runs.iterdir()))]
    if verb == "check":
        (tmp_path / "c.yaml").write_text(json.dumps({"experiment": {"name": "x", HOSTILE: 1}}))
        paths = ["--config", str(tmp_path / "c.yaml")]
    options = ["--once"] if verb == "watch" else []
    command = [sys.executable, "-m", "serfit", verb, *paths, *options]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"FORCE_COLOR": "1"}, timeout=PATIENCE
    )
    said = done.stdout + done.stderr
    assert "Traceback" not in said
    assert not RAW.search(re.sub(r"\x1b\[[\d;]*m", "", said))
    assert verb not in ("compare", "check") or "\\x1b" in said


def test_cells_are_no_formulas(runs: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(compare(runs)))))
    assert rows
    assert not any(cell.startswith(("=", "+", "@")) for row in rows for cell in row.values())
    values = [row["value"] for row in rows if row["value"]]
    assert all(isinstance(float(value), float) for value in values)
    written = line(["=cmd()|x.wav", "@id", -0.5, None, "-bad"], ["file", "id", "valence", "arousal", "error"], "csv")
    assert next(csv.reader([written])) == ["./=cmd()|x.wav", "'@id", "-0.5", "", "'-bad"]
    plain = line(["=cmd()", "x"], ["file", "id"], "jsonl")
    assert json.loads(plain) == {"file": "=cmd()", "id": "x"}


@given(st.floats(allow_nan=False))
def test_numbers_stay_numbers(value: float) -> None:
    assert inert(str(value)) == str(value)


@given(st.text())
def test_escaped_markdown_holds_no_tag_and_no_cell_end(text: str) -> None:
    found = escaped(text)
    assert "<" not in found
    assert "\n" not in found
    assert not re.search(r"(?<!\\)(\\\\)*[|`]", found)


def test_the_report_forbids_scripts_and_sources(runs: Path, tmp_path: Path) -> None:
    text = write_report(compare(runs), tmp_path / "report.html").read_text()
    assert """http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'""" in text
    assert "<script" not in text
