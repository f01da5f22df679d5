"""The live page: a small HTTP server that answers four addresses, reads run directories and writes nothing.

    /            the page
    /watch.css, /watch.js
    /board.json  what the page shows, made anew from the records

No address becomes a path, so nothing but these can be read. Only GET and HEAD are answered.
"""

import json
import threading
import time
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any

from serfit.errors import UserError
from serfit.labels import Dimension
from serfit.report.drawing.figures import Course, learning_curves
from serfit.report.drawing.svg import Chart, ticks
from serfit.report.live.board import Board, dimensions, look, part_of, table_of
from serfit.report.page import STYLE
from serfit.runs.live import History, Reader

LOOPBACK = "127.0.0.1"

KEPT_SECONDS = 1.0
"""Answers younger than this are given again, so that many open pages read the directories no more often."""

_FILES = {
    "/": (("serfit.report.live/page.html",), "text/html; charset=utf-8"),
    "/watch.js": (("serfit.report.live/page.js",), "text/javascript; charset=utf-8"),
    "/watch.css": ((f"serfit.report/{STYLE}", "serfit.report.live/page.css"), "text/css; charset=utf-8"),
}
"""Address by address, the files that are sent one after the other, as package/name."""

_TEXT = "text/plain; charset=utf-8"

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def plain_board(board: Board) -> dict[str, Any]:
    """A board as plain data for the page: texts, and charts as SVG."""
    headings, rows = table_of(board.histories)
    named = [f"{label} {part_of(one)}" for label, group in board.experiments.items() for one in group]
    rows = [[name, *cells[1:]] for name, cells in zip(named, rows, strict=True)]  # "run" is the first column
    return {
        "at": time.strftime("%H:%M:%S"),
        "alive": board.alive,
        "columns": headings,
        "rows": [{"state": one.state, "cells": row} for one, row in zip(board.histories, rows, strict=True)],
        "said": [
            {
                "about": one.about,
                "kind": one.finding.kind,
                "evidence": one.finding.evidence,
                "advice": one.finding.advice,
                "command": one.command,
            }
            for one in board.said
        ],
        "experiments": [{"label": label, "charts": charts(group)} for label, group in board.experiments.items()],
        "troubles": [*board.troubles.values(), *board.endings],
        "left_out": board.left_out,
    }


def charts(group: Sequence[History]) -> list[str]:
    """The curves of an experiment: training and validation CCC per dimension, and the training loss."""
    courses = [Course(one.fold, one.seed, one.records, one.best_epoch, one.comparable) for one in group]
    named: list[Dimension] = dimensions(group)
    drawn = [learning_curves("CCC", courses, name, training=True) for name in named]
    return [chart for chart in (*drawn, loss_chart(group)) if chart]


def loss_chart(group: Sequence[History]) -> str:
    """Training loss by epoch, a line per run; "" without epochs."""
    runs = [one for one in group if one.records]
    if not runs:
        return ""
    last = max(len(one.records) for one in runs)
    highest = max(record.train_loss for one in runs for record in one.records)
    chart = Chart("training loss", (0.5, last + 0.5), (0.0, max(1.0, 1.05 * highest)), width=285, height=230)
    chart.x_axis("epoch", [tick for tick in ticks(1, last) if tick == int(tick)] or [1.0])
    chart.y_axis("loss")
    for one in runs:
        points = [(float(record.epoch), record.train_loss) for record in one.records]
        chart.line(points, "m thin" if len(runs) > 1 else "m", f"fold {one.fold}, seed {one.seed}")
        chart.dot(*points[-1], "m faint", f"epoch {points[-1][0]:.0f}: {points[-1][1]:.3f}", 2.5)
    return str(chart)


class WatchServer(ThreadingHTTPServer):
    """Serves the page about some runs until it is closed.

    Args:
        paths: run directories and folders of them.
        host: address to listen on.
        port: port to listen on; 0 takes any free one.

    Raises:
        UserError: a path doesn't exist, or the address can't be had.
    """

    daemon_threads = True

    def __init__(self, paths: Sequence[Path], host: str = LOOPBACK, port: int = 0) -> None:
        self.paths = paths
        self._reader = Reader()
        self._lock = threading.Lock()
        self._kept: tuple[float, bytes] | None = None
        look(paths, self._reader)
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"can't listen on {host} port {port}: {reason}; choose another --port or --host") from error

    @property
    def url(self) -> str:
        """Address of the page."""
        return f"http://{self.server_address[0]!s}:{self.server_address[1]}/"

    @property
    def hosts(self) -> frozenset[str] | None:
        """Names under which the page may be asked for; None where it listens to more than this machine.

        A page elsewhere that points its own name here (DNS rebinding) is refused by this.
        """
        if str(self.server_address[0]) != LOOPBACK:
            return None
        port = self.server_address[1]
        return frozenset({f"{LOOPBACK}:{port}", f"localhost:{port}"})

    def board(self) -> bytes:
        """The board as JSON, at most a second old."""
        with self._lock:
            if self._kept is None or time.monotonic() - self._kept[0] > KEPT_SECONDS:
                try:
                    data = plain_board(look(self.paths, self._reader))
                except UserError as error:
                    data = {"error": str(error)}
                self._kept = time.monotonic(), json.dumps(data, allow_nan=False).encode()
            return self._kept[1]


class _Handler(BaseHTTPRequestHandler):
    server: WatchServer
    server_version = "serfit"
    sys_version = ""
    timeout = 30

    def do_GET(self) -> None:
        """Answer one of the four addresses."""
        address = self.path.split("?")[0]
        allowed = self.server.hosts
        if allowed is not None and self.headers.get("Host") not in allowed:
            self._answer(HTTPStatus.FORBIDDEN, _TEXT, b"this page answers to this machine alone\n")
        elif address == "/board.json":
            self._answer(HTTPStatus.OK, "application/json", self.server.board())
        elif address in _FILES:
            names, kind = _FILES[address]
            parts = [name.split("/") for name in names]
            self._answer(HTTPStatus.OK, kind, b"".join((files(where) / name).read_bytes() for where, name in parts))
        else:
            self._answer(HTTPStatus.NOT_FOUND, _TEXT, b"there is nothing here; the page is at /\n")

    do_HEAD = do_GET  # noqa: N815

    def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        for name, value in {**_HEADERS, "Content-Type": kind, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing about requests."""
