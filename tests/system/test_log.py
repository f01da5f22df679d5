"""Lines for people: they never stop a training, whatever became of who reads them."""

import errno
import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from serfit.system.log import Log


class Gone(io.StringIO):
    """A terminal that was closed (EIO), or a pipe that nobody reads (EPIPE)."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def write(self, text: str) -> int:
        raise OSError(self.number, "gone")


@pytest.mark.parametrize("number", [errno.EIO, errno.EPIPE])
def test_a_terminal_that_is_gone_leaves_the_file_to_go_on(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.dup2", lambda *_: None)  # rich's answer to EPIPE would silence the test's own output
    log = Log(Console(file=Gone(number), force_terminal=True))
    log.attach(tmp_path / "train.log")
    log.say("first")
    log.advance("epoch", 1, 2)
    log.settle()
    log.say("second")
    log.close()
    lines = [line.split()[-1] for line in (tmp_path / "train.log").read_text().splitlines()]
    assert lines == ["first", "second"]


def test_the_date_stands_once_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = time.mktime((2026, 11, 25, 23, 59, 58, 0, 0, -1))
    log = Log(Console(file=io.StringIO()))
    for seconds, line in ((0, "before"), (1, "attached\nof two"), (3, "next day"), (4, "later")):
        monkeypatch.setattr(
            "serfit.system.log.time.localtime", lambda at=clock + seconds: time.gmtime(at - time.timezone)
        )
        log.say(line)
    log.attach(tmp_path / "train.log")
    log.close()
    assert (tmp_path / "train.log").read_text().splitlines() == [
        "2026-11-25 23:59:58 before",
        "23:59:59 attached",
        "23:59:59 of two",
        "2026-11-26 00:00:01 next day",
        "00:00:02 later",
    ]


def test_progress_lines_grow_rarer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first after half a minute; an epoch of an hour gets ten of them, not 120."""
    clock = [0.0]
    monkeypatch.setattr("serfit.system.log.time.monotonic", lambda: clock[0])
    shown = io.StringIO()
    log = Log(Console(file=shown))
    for second in range(3600):
        clock[0] = float(second)
        log.advance("epoch 1/20", second, 3600)
    lines = shown.getvalue().splitlines()
    assert lines[0] == "epoch 1/20: 30/3600"
    assert 8 <= len(lines) <= 12
    log.settle()
    clock[0] += 31.0
    log.advance("epoch 2/20", 1, 3600)
    assert shown.getvalue().splitlines()[-1] == "epoch 2/20: 1/3600"
