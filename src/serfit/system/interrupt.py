"""Requests to stop: signals set a flag, the training saves itself between two steps, and the exit code is 75."""

import ctypes
import os
import signal
import sys
from types import FrameType, TracebackType

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")

SIGNALS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))
"""SIGHUP comes when the terminal is closed, or the connection to it is lost."""

KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
"""Ends a process that won't end itself; Windows knows only one way."""

_PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of prctl(2)."""


class Interrupted(Exception):  # noqa: N818 - nothing went wrong
    """Training stopped because it was asked to, with everything saved. Exit code 75 (try again later)."""

    exit_code = 75


class StopRequest:
    """While entered, the first stop signal only sets a flag; a second SIGINT (Ctrl-C) interrupts at once.

    SIGHUP stays ignored where it is: `nohup` asked for that.

    Attributes:
        received: name of the signal that asked for a stop, or None.
        advice: how to go on, for the message.
    """

    def __init__(self, advice: str = "") -> None:
        self.received: str | None = None
        self.advice = advice
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        for number in SIGNALS:
            if number == getattr(signal, "SIGHUP", None) and signal.getsignal(number) == signal.SIG_IGN:
                continue
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def asked(self) -> bool:
        """Whether a signal has asked for a stop."""
        return self.received is not None

    def check(self) -> None:
        """Raise Interrupted when a stop was asked for; called where stopping is possible."""
        if self.received is not None:
            raise Interrupted(f"stopped by {self.received}{self.advice}")

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number).name


def die_with_parent(number: int, parent: int | None = None) -> None:
    """On Linux, receive a signal when the process that started this one ends, however it ends.

    Args:
        number: the signal.
        parent: process id of the parent, where it was noted before this process began; else the present one.
    """
    if sys.platform != "linux":
        return
    parent = os.getppid() if parent is None else parent
    ctypes.CDLL(None, use_errno=True).prctl(_PARENT_DEATH_SIGNAL, int(number), 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)
