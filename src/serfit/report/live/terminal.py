"""The terminal view: one live table, plain lines where there is no terminal."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from serfit.report.live.board import Board, look, name_of, part_of, state_words, table_of
from serfit.runs.live import History, Reader
from serfit.system.log import Terminal

SECONDS_BETWEEN_LOOKS = 2.0
"""Seconds between two looks at the run directories."""

_PLAIN_WIDTH = 160
"""Characters in a line where there is no terminal."""

_DISPENSABLE = ("memory", "GPU", "card", "best", "waiting", "expected", "utt/s", "left", "step")
"""Columns that are left out of narrow terminals, the first first."""

CAPTION = "CCC-V, CCC-A, CCC-D: of the validation part after the latest epoch; best: the epoch with the best mean"
"""What stands below the tables; a test score they are not."""

_STYLES = {"running": "green", "died": "red", "stopped": "yellow", "finished": "dim"}


def watch(
    paths: Sequence[Path], console: Console, *, once: bool = False, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Show runs until none is in progress any more.

    Args:
        paths: run directories and folders of them.
        console: where. On a terminal the table is refreshed in place; elsewhere the whole is printed at first and then
            a line for everything new.
        once: print once and return.
        sleep: waits so many seconds.

    Raises:
        UserError: a path doesn't exist.
    """
    reader = Reader()
    first = look(paths, reader)

    def looks() -> Iterator[Board]:
        board = first
        while board.alive and not once:
            sleep(SECONDS_BETWEEN_LOOKS)
            board = look(paths, reader)
            yield board

    if console.is_terminal and first.alive and not once:
        with Live(shown(first, console.width), console=console, auto_refresh=False) as live:
            for board in looks():
                live.update(shown(board, console.width), refresh=True)
        return
    if not console.is_terminal:
        console = Terminal(file=console.file, width=max(console.width, _PLAIN_WIDTH))
    for table in tables(first, console.width):
        console.print(table)
    for line in remarks(first):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    before = first
    for board in looks():
        for line in news(before, board):
            console.print(f"{time.strftime('%H:%M:%S')} {line}", markup=False, highlight=False, soft_wrap=True)
        before = board


def shown(board: Board, width: int) -> Group:
    """The tables, and the remarks below them."""
    return Group(*tables(board, width), *map(Text, remarks(board)))


def tables(board: Board, width: int) -> list[Table | Text]:
    """A table per experiment, a row per run; `width` characters wide at most where that can be had."""
    made: list[Table | Text] = []
    for label, group in board.experiments.items():
        headings, rows = table_of(group)
        for history, cells in zip(group, rows, strict=True):
            cells[0] = part_of(history)
        headings, rows = fitting(headings, rows, width)
        table = Table(box=None, padding=(0, 2, 0, 0), title=Text(f"\n{label}", style="bold"), title_justify="left")
        for heading in headings:
            table.add_column(heading, justify="left" if heading in ("run", "state", "expected") else "right")
        for history, cells in zip(group, rows, strict=True):
            table.add_row(*map(Text, cells), style=_STYLES[history.state])
        made.append(table)
    return [*made, Text(CAPTION, style="dim")] if made else [Text("no runs there yet")]


def fitting(headings: list[str], rows: list[list[str]], width: int) -> tuple[list[str], list[list[str]]]:
    """The table without those of its columns that one can do without, as far as they don't fit."""
    for dispensable in _DISPENSABLE:
        widths = [max(map(len, column)) + 2 for column in zip(headings, *rows, strict=True)]
        if sum(widths) > width and dispensable in headings:
            index = headings.index(dispensable)
            headings = headings[:index] + headings[index + 1 :]
            rows = [cells[:index] + cells[index + 1 :] for cells in rows]
    return headings, rows


def remarks(board: Board) -> list[str]:
    """Findings, what couldn't be read, and what isn't shown."""
    lines = [f"can't be read: {words}" for words in board.troubles.values()]
    lines += [*board.endings, *(str(said) for said in board.said)]
    if board.left_out:
        lines.append(f"and {board.left_out} older finished runs")
    if board.histories and not board.said:
        lines.append("nothing to complain about")
    return lines


def news(before: Board, now: Board) -> list[str]:
    """List what is new since the last look, one line each: runs, states, epochs, findings."""
    known = {one.directory: one for one in before.histories}
    lines = []
    for one in now.histories:
        old = known.get(one.directory)
        if old is None or state_words(old) != state_words(one):
            lines.append(f"{name_of(one)}: {state_words(one)}")
        if len(one.records) > (0 if old is None else len(old.records)):
            lines.append(f"{name_of(one)}: {_epoch(one)}")
    said = {str(one) for one in before.said}
    return [*lines, *(str(one) for one in now.said if str(one) not in said)]


def _epoch(history: History) -> str:
    headings, (cells,) = table_of([history])
    named = zip(headings, cells, strict=True)
    return ", ".join(f"{heading} {cell}" for heading, cell in named if cell and heading not in ("run", "state"))
