"""Requests to stop."""

import os
import signal

import pytest

from serfit.system.interrupt import Interrupted, StopRequest


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"])
def test_a_signal_is_noted_and_stops_where_stopping_is_possible(name: str) -> None:
    def unnoticed(number: int, frame: object) -> None:
        pytest.fail(f"{name} wasn't noted")

    before = signal.signal(getattr(signal, name), unnoticed)
    try:
        with StopRequest("; go on") as stop:
            stop.check()
            os.kill(os.getpid(), getattr(signal, name))
            with pytest.raises(Interrupted, match=f"stopped by {name}; go on"):
                stop.check()
    finally:
        signal.signal(getattr(signal, name), before)


def test_a_closed_terminal_stops_nothing_under_nohup() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            stop.check()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
