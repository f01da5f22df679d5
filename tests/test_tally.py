"""Work is counted once, for itself alone, and over threads."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from serfit.tally import Tally


def test_work_inside_other_work_counts_for_itself_alone() -> None:
    tally = Tally()
    began = time.perf_counter()
    with tally.timing("store"):
        time.sleep(0.01)
        with tally.timing("frozen part"), tally.timing("decoding"):
            time.sleep(0.05)
    total = time.perf_counter() - began
    spent = tally.so_far()
    assert {kind: count for kind, (count, _) in spent.items()} == {"store": 1, "frozen part": 1, "decoding": 1}
    assert spent["decoding"][1] >= 0.05
    assert spent["frozen part"][1] < 0.04
    assert 0.01 <= spent["store"][1] < total - 0.04
    assert sum(seconds for _, seconds in spent.values()) == pytest.approx(total, abs=0.005)


def test_threads_add_up_and_what_fails_counts_too() -> None:
    tally, together = Tally(), threading.Barrier(4)

    def work(_: int) -> None:
        together.wait()
        for _ in range(250):
            try:
                with tally.timing("store"):
                    raise OSError
            except OSError:
                continue

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert tally.so_far()["store"][0] == 1000
    tally.reset()
    assert tally.so_far() == {}
