"""The terminal view and the page: what they show, when they end, and what nobody can get from them."""

import io
import json
import re
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from rich.console import Console

from report.histories import recorded, rising, simulate
from report.live.written import write
from serfit.cli import main
from serfit.errors import UserError
from serfit.report.diagnosis.finding import Kind
from serfit.report.live.board import look
from serfit.report.live.serve import WatchServer, plain_board
from serfit.report.live.terminal import watch
from serfit.runs import directory as runs
from serfit.runs.live import History, Reader
from serfit.runs.records import Stopped
from serfit.scores.records import EpochTime, Progress
from serfit.system.records import plain
from support import PATIENCE

GIB = 2**30


def fold(number: int, epochs: int, **changes: object) -> History:
    courses = [rising(0.63, 1.5), rising(0.68, 1.0)]
    history = simulate(np.random.default_rng(number), epochs, courses, courses, count=300, data__split={"fold": number})
    twenty = history.config.model_copy(update={"train": history.config.train.model_copy(update={"epochs": 20})})
    return replace(history, config=twenty, **changes)  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished fold, one in progress, one that met a NaN, and a ruined one of another experiment."""
    so_far = EpochTime(7, 260.0, 26.0, 230.0, 0.0, 4.0, 350, 2800, {}, 21 * GIB, 80 * GIB, 0.93)
    write(fold(1, 20), tmp_path / "runs" / "one", "finished")
    write(fold(2, 6), tmp_path / "runs" / "two", "running", Progress(7, 350, 700, 0.4, 0.0, so_far))
    met = Stopped("NumericalError", "epoch 3, step 5: loss nan; and more")
    write(fold(3, 2, stopped=met), tmp_path / "runs" / "three", "stopped")
    ruined = recorded("rate_too_high")
    write(replace(ruined, times=[EpochTime(r.epoch, 5.0) for r in ruined.records]), tmp_path / "runs" / "four", "died")
    return tmp_path / "runs"


def shown(folder: Path, **options: object) -> str:
    console = Console(file=io.StringIO(), width=300, **options)  # type: ignore[arg-type]
    watch([folder], console, once=True)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_table_says_how_far_every_run_is(folder: Path) -> None:
    text = shown(folder)
    running = next(line for line in text.splitlines() if line.startswith("fold 2 seed 1"))
    assert running.split()[4:10] == ["running", "7/20", "350/700", "2", "h", "15"]
    for part in ("10.9", "10 %", "93 %", "21.0/80 GiB"):
        assert part in running
    assert re.search(r"fold 1 seed 1 +finished +20/20 +0\.6", text)
    assert "stopped (not finite)" in text
    assert re.search(r"fold 1 seed 1 +died +8/8 +-?0\.000", text)
    assert "not finite: epoch 3, step 5: loss nan; clip harder" in text
    assert f"uv run serfit train --config {folder / 'four' / 'config.json'} train.optimizer.encoder_lr=0.01" in text


def test_an_error_that_ended_a_run_is_told_in_its_own_words(tmp_path: Path) -> None:
    ended = Stopped("WriteError", "can't write metrics.jsonl: no room")
    write(fold(1, 3, stopped=ended), tmp_path / "runs" / "one", "stopped")
    text = shown(tmp_path / "runs")
    assert "stopped (error)" in text
    assert "simulated fold 1 seed 1 stopped: can't write metrics.jsonl: no room" in text
    assert ended.message in str(plain_board(look([tmp_path / "runs"], Reader()))["troubles"])


def test_narrow_terminals_lose_columns_and_not_letters(folder: Path) -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    watch([folder], console, once=True)
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    table = [line for line in lines if line.startswith(("run", "fold"))]
    assert all(len(line) <= 80 and "…" not in line for line in table)
    assert "CCC-V" in table[0]
    assert "memory" not in table[0]


def test_plain_lines_tell_what_is_new_and_end_with_the_last_run(folder: Path) -> None:
    """While it is watched, the run in progress finishes an epoch, explodes, and stops."""
    later = fold(2, 7)
    exploded = [replace(later.records[-1], epoch=epoch, train_loss=5.0, best=False) for epoch in (8, 9)]
    moves = iter(
        [
            lambda: (folder / "two" / runs.METRICS).write_text(
                "".join(json.dumps(plain(record)) + "\n" for record in [*later.records, *exploded])
            ),
            lambda: (folder / "two" / runs.LOCK).unlink(),
        ]
    )
    console = Console(file=io.StringIO(), width=300)
    watch([folder], console, sleep=lambda _: next(moves)() and None)
    said = console.file.getvalue().split("\n")  # type: ignore[attr-defined]
    new = [line for line in said if re.match(r"\d\d:\d\d:\d\d ", line)]
    assert any("simulated fold 2 seed 1: epoch 9/20" in line and "CCC-V" in line for line in new)
    assert any("exploding: the training loss rose" in line for line in new)
    assert new[-1].endswith("simulated fold 2 seed 1: stopped")


def test_a_live_terminal_is_refreshed_until_nothing_runs(folder: Path) -> None:
    console = Console(file=io.StringIO(), width=160, force_terminal=True)
    naps = []

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        (folder / "two" / runs.LOCK).unlink()

    watch([folder], console, sleep=sleep)
    assert len(naps) == 1
    assert console.file.getvalue().count("CCC-V") >= 2  # type: ignore[attr-defined]


def test_watch_from_the_command_line(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    with pytest.raises(SystemExit):
        main(["watch", "--help"])
    example = re.search(r"Example: serfit (.*)", capsys.readouterr().out)
    assert example is not None
    with pytest.raises(SystemExit) as end:
        main(example[1].split())
    assert not end.value.code
    assert "fold 2 seed 1" in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        main(["watch", "nowhere"])
    assert end.value.code == 2
    assert "there is no folder nowhere" in capsys.readouterr().err


@pytest.fixture
def server(folder: Path) -> Iterator[WatchServer]:
    with WatchServer([folder]) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def answer(server: WatchServer, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
    connection = HTTPConnection("127.0.0.1", server.server_address[1], timeout=PATIENCE)
    connection.request(method, path, headers=headers)
    found = connection.getresponse()
    body = found.read()
    connection.close()
    return found.status, body


def test_the_page_and_its_data(server: WatchServer, folder: Path) -> None:
    with urllib.request.urlopen(server.url) as page:
        policy = page.headers["Content-Security-Policy"]
        assert "script-src 'self'" in policy
        html = page.read().decode()
    (icon,) = re.findall(r'<link rel="icon" href="(\w+:)', html)
    assert f"img-src {icon};" in policy, "the page's own icon would be blocked"
    for address in re.findall(r'(?:href|src)="(/[^"]*)"', html):
        assert answer(server, address)[0] == 200
    assert not re.search(r"https?://", html)
    board = json.loads(answer(server, "/board.json")[1])
    assert board["alive"]
    assert {row["state"] for row in board["rows"]} == {"running", "stopped", "died", "finished"}
    assert {one["kind"] for one in board["said"]} == {"not finite", "collapsed"}
    charts = [chart for one in board["experiments"] for chart in one["charts"]]
    assert len(charts) == 6
    valence = next(chart for chart in charts if "valence" in chart and "band" in chart)
    assert valence.count("fold ") >= 3
    assert "expected in epochs 1 to 5: 0.45 to 0.55" in valence


def test_a_run_on_everything_is_no_fold_and_shows_no_validation(tmp_path: Path) -> None:
    history = fold(1, 3)
    split = history.config.data.split.model_copy(update={"scheme": "everything"})
    data = history.config.data.model_copy(update={"split": split})
    train = history.config.train.model_copy(update={"early_stopping": None})
    config = history.config.model_copy(update={"data": data, "train": train})
    write(replace(history, config=config), tmp_path / "runs" / "all", "finished")
    write(fold(1, 3), tmp_path / "runs" / "one", "finished")
    board = plain_board(look([tmp_path / "runs"], Reader()))
    everything, one = (dict(zip(board["columns"], row["cells"], strict=True)) for row in board["rows"])
    assert everything["run"].endswith("scheme=everything) everything seed 1")
    assert one["run"].endswith("scheme=leave_one_session_out) fold 1 seed 1")
    assert (everything["CCC-V"], everything["best"]) == ("", "")
    assert one["CCC-V"]


def test_only_the_boards_own_addresses_answer(server: WatchServer, folder: Path) -> None:
    for path in (
        "/one/config.json",
        "/../runs/one/config.json",
        "/..%2f..%2fetc/passwd",
        "//etc/passwd",
        str(folder / "one" / "config.json"),
        "/page.css",
        "/serve.py",
    ):
        assert answer(server, path)[0] == 404, path
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert answer(server, "/board.json", method)[0] == 501
    assert answer(server, "/", "HEAD") == (200, b"")
    assert answer(server, "/board.json", Host="evil.example")[0] == 403
    assert answer(server, "/board.json", Host=f"localhost:{server.server_address[1]}")[0] == 200
    assert server.server_address[0] == "127.0.0.1"


def test_names_cannot_become_markup(tmp_path: Path) -> None:
    """A corpus or an error may say anything; what goes into the page as markup is charts, and those are escaped."""
    nasty = "<img src=x onerror=alert(1)>"
    history = fold(1, 3, stopped=Stopped("NumericalError", nasty))
    write(history, tmp_path / "runs" / nasty.replace("/", ""), "stopped")
    board = plain_board(look([tmp_path / "runs"], Reader()))
    assert all("<img" not in chart for one in board["experiments"] for chart in one["charts"])
    assert nasty in board["said"][0]["evidence"]  # as JSON text, which the page shows as text
    script = (Path(look.__code__.co_filename).parent / "page.js").read_text()
    assert script.count("innerHTML") == 1


def test_a_folder_that_vanishes_is_told_and_a_taken_port_refused(server: WatchServer, folder: Path) -> None:
    with pytest.raises(UserError, match="choose another --port"):
        WatchServer([folder], port=server.server_address[1])
    with pytest.raises(UserError, match="there is no folder"):
        WatchServer([folder / "nowhere"])
    server._kept = None
    folder.rename(folder.with_name("elsewhere"))
    assert "there is no folder" in json.loads(answer(server, "/board.json")[1])["error"]


def test_the_documentation_knows_every_diagnosis_and_its_commands_work(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (Path(__file__).parents[3] / "docs" / "watching.md").read_text()
    table = text.partition("## The diagnoses")[2]
    assert re.findall(r"^\| ([a-z ]+) \|", table, flags=re.M)[1:] == list(get_args(Kind))
    commands = re.findall(r"^uv run serfit (.*)$", text, flags=re.M)
    assert commands == ["watch runs", "watch runs --serve"]
    (folder / "two" / runs.LOCK).unlink()
    monkeypatch.chdir(folder.parent)
    monkeypatch.setattr(WatchServer, "serve_forever", lambda self: None)
    for command in commands:
        with pytest.raises(SystemExit) as end:
            main([*command.split(), *(["--port", "0"] if "--serve" in command else [])])
        assert not end.value.code
    said = capsys.readouterr().out
    assert "fold 2 seed 1" in said
    assert re.search(r"watching runs: http://127\.0\.0\.1:\d+/", said)
