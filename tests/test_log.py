"""Lines for people: they never stop a training, whatever became of who reads them."""

import errno
import io
from pathlib import Path

import pytest
from rich.console import Console

from serfit.log import Log


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
    assert [line[20:] for line in (tmp_path / "train.log").read_text().splitlines()] == ["first", "second"]
