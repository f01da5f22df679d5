"""One writer per run directory, claims between processes, and what is left when a process dies."""

import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from serfit.system import lease, lock
from serfit.system.lease import Holder, Watch, claimed
from serfit.system.lock import take
from support import eventually

HOLD = """
import sys, time
from pathlib import Path
from serfit.system.lock import take
held = take(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(10_000)
"""


def test_a_second_taker_is_told_who_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "LOCK"
    held = take(path)
    assert isinstance(held, ExitStack)
    other = take(path)
    assert isinstance(other, Holder)
    assert other.pid == os.getpid()
    assert str(other).startswith(f"process {os.getpid()} on ")
    held.close()
    assert not path.exists()
    again = take(path)
    assert isinstance(again, ExitStack)
    again.close()


def test_a_killed_process_leaves_a_lock_that_can_be_taken_at_once(tmp_path: Path) -> None:
    path = tmp_path / "LOCK"
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    holder = take(path)
    assert isinstance(holder, Holder)
    assert holder.pid == process.pid
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert path.exists()
    held = take(path)
    assert isinstance(held, ExitStack)
    held.close()


@pytest.mark.parametrize("alive", [True, False])
def test_a_lock_of_another_machine_is_watched(tmp_path: Path, alive: bool) -> None:
    """As on a file system whose flock doesn't reach other machines."""
    path = tmp_path / "LOCK"
    path.write_bytes(Holder("elsewhere x", 1).to_bytes())
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if alive:
            os.utime(path, (1.0, 1.0))

    held = take(path, sleep)
    assert slept == [lock.WATCHED]
    assert isinstance(held, Holder) is alive
    if isinstance(held, ExitStack):
        held.close()


def test_without_flock_the_claim_file_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_flock", lambda descriptor: None)
    path = tmp_path / "LOCK"
    held = take(path)
    assert isinstance(held, ExitStack)
    assert isinstance(take(path), Holder)
    held.close()
    dead = Holder(Holder.me().host, 2**22 + 1)
    (tmp_path / "LOCK.claim").write_bytes(dead.to_bytes())
    again = take(path)
    assert isinstance(again, ExitStack)
    again.close()
    assert not list(tmp_path.iterdir())


def test_claims_exclude_each_other_and_go_with_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.claim"
    with claimed(path) as first, claimed(path, Watch()) as second:
        assert (first, second) == (True, False)
    assert not path.exists()
    with pytest.raises(ZeroDivisionError), claimed(path):
        raise ZeroDivisionError
    assert not path.exists()


def test_claims_of_dead_or_silent_holders_are_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.claim"
    path.write_bytes(Holder(Holder.me().host, 2**22 + 1).to_bytes())
    with claimed(path, Watch()) as ours:
        assert ours
    clock = [0.0]
    monkeypatch.setattr("serfit.system.lease.time.monotonic", lambda: clock[0])
    path.write_bytes(Holder("elsewhere x", 1).to_bytes())
    watch = Watch()
    with claimed(path, watch) as ours:
        assert not ours
    os.utime(path, (1.0, 1.0))  # a sign of life
    clock[0] += lease.PATIENCE + 1
    with claimed(path, watch) as ours:
        assert not ours
    clock[0] += lease.PATIENCE + 1
    with claimed(path, watch) as ours:
        assert ours


def test_a_claim_that_somebody_took_over_since_the_look_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, theirs, real = tmp_path / "x.claim", Holder("elsewhere x", 1).to_bytes(), Path.rename
    path.write_bytes(Holder(Holder.me().host, 2**22 + 1).to_bytes())

    def late(source: Path, target: Path) -> Path:
        if source == path:
            path.write_bytes(theirs)
        return real(source, target)

    monkeypatch.setattr(Path, "rename", late)
    with claimed(path, Watch()) as ours:
        assert not ours
    assert path.read_bytes() == theirs
    assert list(tmp_path.iterdir()) == [path]


DIE_AT = """
import os, signal, sys
from pathlib import Path
from serfit.system.lease import claimed
setattr(os, sys.argv[2], lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
with claimed(Path(sys.argv[1])):
    os._exit(3)
"""


@pytest.mark.parametrize("call", ["link", "fdopen", "unlink"])
def test_a_process_killed_while_claiming_leaves_no_claim_that_names_nobody(tmp_path: Path, call: str) -> None:
    path = tmp_path / "x.claim"
    subprocess.run([sys.executable, "-c", DIE_AT, str(path), call])
    assert not path.exists() or Holder.from_bytes(path.read_bytes()) is not None
    with claimed(path, Watch()) as ours:
        assert ours, "what a dead process left is taken over at once"


@pytest.mark.parametrize("trouble", [None, PermissionError(1, "no hard links here")])
def test_of_many_who_claim_at_once_one_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: OSError | None
) -> None:
    if trouble is not None:

        def refused(*_: object) -> None:
            raise trouble

        monkeypatch.setattr(os, "link", refused)
    for number in range(20):
        path, start = tmp_path / f"{number}.claim", threading.Barrier(8)

        def claim(path: Path = path, start: threading.Barrier = start) -> bool:
            start.wait()
            return lease._appear(path, b"mine")

        with ThreadPoolExecutor(8) as pool:
            won = [future.result() for future in [pool.submit(claim) for _ in range(8)]]
        assert sum(won) == 1
        assert path.read_bytes() == b"mine"
    assert not list(tmp_path.glob(".*"))


def test_a_link_whose_answer_was_lost_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.link

    def lost(source: Path, target: Path) -> None:
        real(source, target)
        raise FileExistsError(17, "File exists")

    monkeypatch.setattr(os, "link", lost)
    assert lease._appear(tmp_path / "x.claim", b"mine")


def test_a_claim_is_kept_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT", 0.01)
    path = tmp_path / "x.claim"
    with claimed(path):
        os.utime(path, (1.0, 1.0))
        eventually(lambda: path.stat().st_mtime > 2.0)


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b'{"host": 1}', b"[" * 100_000, json.dumps("x").encode()])
def test_nonsense_in_a_claim_names_nobody(content: bytes) -> None:
    assert Holder.from_bytes(content) is None


@pytest.mark.skipif(sys.platform != "linux", reason="zombies are told from the living on Linux alone")
def test_a_process_that_ended_is_dead_before_its_parent_asks() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    holder = Holder(Holder.me().host, child)
    eventually(holder.dead)
    os.waitpid(child, 0)
    assert not Holder.me().dead()
    assert not Holder("elsewhere x", child).dead()
