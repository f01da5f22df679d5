"""What people see while it runs: lines on the terminal and in train.log, and a progress bar on a terminal."""

import time
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from typing import IO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.segment import Segment

from serfit.errors import visible


class Terminal(Console):
    """A rich console that shows control characters instead of obeying them, wherever the text comes from.

    rich drops some of them and lets escape sequences pass. What it writes itself, colours and movements, passes by
    whatever guards the stream against what is printed.
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """As rich does, with the text made visible."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else visible(text), style, control)

    @property
    def file(self) -> IO[str]:
        """The stream behind the guard of printed text, see `serfit.cli.boundary.Shown`."""
        found = super().file
        return getattr(found, "rich_proxied_file", found)

    @file.setter
    def file(self, stream: IO[str]) -> None:
        self._file = stream


class Log:
    """Says each line on the terminal and, once attached, into a file with the time before it.

    The date stands once, before the first line and after midnight. Lines said before `attach` are kept and written to
    the file then. A terminal that is gone, or a pipe that nobody reads any more, is no reason to stop: the file goes on
    alone.
    """

    QUIET_SECONDS = 30.0
    """Least time to the first plain progress line of something; each further one takes half as long again."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._file: FileIO | None = None
        self._waiting: list[str] = []
        self._failed = False
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._last_plain = time.monotonic()
        self._quiet = self.QUIET_SECONDS
        self._day: tuple[int, ...] = ()

    def say(self, line: str) -> None:
        """One line (or several) for the terminal and the file."""
        line = visible(line)
        self._show(lambda: self._console.print(line, markup=False, highlight=False, soft_wrap=True))
        self.record(line)

    def record(self, line: str) -> None:
        """One line (or several) for the file alone."""
        line = visible(line)
        now = time.localtime()
        today = time.strftime("%Y-%m-%d ", now) if now[:3] != self._day else ""
        self._day = now[:3]
        for index, part in enumerate(line.splitlines()):
            self._waiting.append(f"{'' if index else today}{time.strftime('%H:%M:%S', now)} {part}\n")
        self._write_waiting()

    def attach(self, path: Path) -> None:
        """Go on in a file (appending), beginning with what was said before."""
        self._file = path.open("ab", buffering=0)
        self._write_waiting()

    def _write_waiting(self) -> None:
        """Write what waits; on a full disk it goes on waiting, for a log is no reason to stop."""
        if self._file is None or not self._waiting:
            return
        text = "".join(self._waiting).encode(errors="backslashreplace")  # as names of files may be any bytes
        try:
            written = self._file.write(text) or 0
        except OSError as error:
            if not self._failed:
                self._failed = True
                told = f"warning: can't write {self._file.name}: {error.strerror or error}"
                self._show(lambda: self._console.print(told, markup=False))
            return
        rest = text[written:]
        self._waiting[:] = [rest.decode(errors="replace")] if rest else []
        self._failed = bool(rest)

    def advance(self, what: str, done: int, total: int, text: str = "") -> None:
        """Show that `done` of `total` is done: a bar on a terminal, and elsewhere a plain line now and then."""
        terminal = self._console.is_terminal
        what, text = visible(what), visible(text)
        if terminal:
            self._show(lambda: self._move_bar(what, done, total, text))
        if time.monotonic() - self._last_plain >= self._quiet:
            self._last_plain = time.monotonic()
            self._quiet *= 1.5
            line = f"{what}: {done}/{total} {text}".rstrip()
            if terminal:
                self.record(line)
            else:
                self.say(line)

    def _show(self, shown: Callable[[], object]) -> None:
        try:
            shown()
        except (OSError, SystemExit):  # the latter is rich's answer to a broken pipe
            self._console.quiet = True

    def _move_bar(self, what: str, done: int, total: int, text: str) -> None:
        if self._progress is None:
            self._progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[text]}", markup=False),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._task = self._progress.add_task(what, total=total, text=text)
            self._progress.start()
        assert self._task is not None
        self._progress.update(self._task, description=what, completed=done, total=total, text=text)

    def settle(self) -> None:
        """Take the progress bar away."""
        if self._progress is not None:
            self._show(self._progress.stop)
            self._progress = None
        self._last_plain = time.monotonic()
        self._quiet = self.QUIET_SECONDS

    def close(self) -> None:
        """Close the file; the terminal stays usable."""
        self.settle()
        if self._file is not None:
            self._file.close()
            self._file = None


def silent_log() -> Log:
    """A log that shows and writes nothing."""
    return Log(Terminal(quiet=True))
