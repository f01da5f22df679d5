"""Work is counted once, for itself alone, and over threads."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from serfit.system.timer import Timer


def test_work_inside_other_work_counts_for_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("serfit.system.timer.time.perf_counter", lambda: clock[0])
    timer = Timer()
    with timer.timing("store"):
        clock[0] += 1.0
        with timer.timing("frozen part"):
            clock[0] += 2.0
            with timer.timing("decoding"):
                clock[0] += 4.0
        clock[0] += 8.0
    assert timer.so_far() == {"store": (1, 9.0), "frozen part": (1, 2.0), "decoding": (1, 4.0)}


def test_threads_add_up_and_what_fails_counts_too() -> None:
    timer, together = Timer(), threading.Barrier(4)

    def work(_: int) -> None:
        together.wait()
        for _ in range(250):
            try:
                with timer.timing("store"):
                    raise OSError
            except OSError:
                continue

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert timer.so_far()["store"][0] == 1000
    timer.reset()
    assert timer.so_far() == {}
