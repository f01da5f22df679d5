"""One writer per run directory: a lock that a killed process can't leave behind.

The lock is the kernel's (flock) on a file named in the run directory; it goes with the process, however that dies.
The file also says who holds it and is touched every few seconds, for two cases in which flock says too little:

- A file system without flock (some NFS and FUSE mounts): the claim file alone decides (see `serfit.system.lease`).
- A file system where flock holds on one machine only (NFS with local_lock, Lustre with localflock): a lock noted by
  another machine is watched for `WATCHED` seconds, and respected if it shows a sign of life in that time.
"""

import os
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from serfit.system.lease import ASKABLE, HEARTBEAT, PATIENCE, Holder, Watch, claimed, heartbeat

WATCHED = 2.5 * HEARTBEAT
"""Seconds for which a lock of another machine is watched for a sign of life."""


def take(path: Path, sleep: Callable[[float], None] = time.sleep) -> ExitStack | Holder:
    """Take the lock, or say who holds it. Waits only where another machine may hold it.

    Args:
        path: the lock file, in the directory that it guards; it exists while the lock is held.
        sleep: waits so many seconds.

    Returns:
        What gives the lock back when closed, or the holder.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        stack = ExitStack()
        stack.callback(os.close, descriptor)
        got = _flock(descriptor)
        if got is None:
            stack.close()
            return _take_without_flock(path, sleep)
        noted = Holder.from_bytes(os.pread(descriptor, 4096, 0))
        if not got:
            stack.close()
            return noted or Holder("another process", 0)
        if not _same_file(path, descriptor):  # whoever held it before has just removed it
            stack.close()
            continue
        if noted is not None and noted.host != Holder.me().host and _alive(path, sleep):
            stack.close()
            return noted
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, Holder.me().to_bytes(), 0)
        stack.callback(_remove, path)
        stack.enter_context(heartbeat(path))
        return stack


def _take_without_flock(path: Path, sleep: Callable[[float], None]) -> ExitStack | Holder:
    """The same by the existence of a claim file beside the lock file."""
    claim, watch = path.with_name(f"{path.name}.claim"), Watch()
    waited = 0.0  # until a holder who lives must have touched the claim, wherever it is; one here is asked at once
    while True:
        stack = ExitStack()
        if stack.enter_context(claimed(claim, watch)):
            stack.callback(_remove, path)
            return stack
        stack.close()
        try:
            holder = Holder.from_bytes(claim.read_bytes())
        except OSError:
            holder = None
        here = ASKABLE and holder is not None and holder.host == Holder.me().host and not holder.dead()
        if here or waited > PATIENCE + 2 * HEARTBEAT:
            return holder or Holder("another process", 0)
        sleep(HEARTBEAT)
        waited += HEARTBEAT


def _flock(descriptor: int) -> bool | None:
    """Whether the lock was got; None where there is no such thing."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _same_file(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError:
        return False


def _alive(path: Path, sleep: Callable[[float], None]) -> bool:
    """Whether a lock shows a sign of life while it is watched."""

    def last_touch() -> int:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_mtime_ns

    before = last_touch()
    sleep(WATCHED)
    return last_touch() != before


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
