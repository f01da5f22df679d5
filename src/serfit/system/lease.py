"""Who is at work on what: files that processes on one machine or on many leave for each other.

A claim is a small file that appears with its content or not at all: it is written under another name and linked to its
own, which fails where one is there already. That is atomic on every file system with hard links, NFS included; no
byte-range locks are asked for. Where there are no links it is created with O_EXCL and then written; a process that is
killed in between leaves a claim that names nobody.

The holder touches its claim every `HEARTBEAT` seconds. A claim whose holder is known to be dead, or that nobody has
touched while one watched it for `PATIENCE` seconds, may be taken over; clocks of different machines are never compared.
"""

import json
import os
import platform
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ASKABLE = hasattr(os, "killpg")
"""Whether signal 0 asks if a process lives. On Windows it is Ctrl-C, so there only signs of life count."""

HEARTBEAT = 5.0
"""Seconds between two signs of life of a holder."""

PATIENCE = 60.0
"""Seconds without a sign of life after which a claim of another machine counts as abandoned. Longer than the time for
which NFS clients remember a file's attributes by default."""


@dataclass(frozen=True, slots=True)
class Holder:
    """The holder of a claim.

    Attributes:
        host: machine and process namespace; process numbers mean something only within it.
        pid: process number.
        token: distinguishes claims of one process.
    """

    host: str
    pid: int
    token: str = field(default_factory=lambda: secrets.token_hex(8))

    @classmethod
    def me(cls) -> "Holder":
        """The present process."""
        return cls(_host(), os.getpid())

    def dead(self) -> bool:
        """Whether the process is known not to run any more; False where one can't ask, as of other machines."""
        if not ASKABLE or self.host != _host():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return _is_zombie(self.pid)

    def __str__(self) -> str:
        """The process in words."""
        return f"process {self.pid} on {self.host.split(' ')[0]}"

    def to_bytes(self) -> bytes:
        """The content of a claim file."""
        return json.dumps({"host": self.host, "pid": self.pid, "token": self.token}).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Holder | None":
        """The inverse of `to_bytes`; None for anything else."""
        try:
            content = json.loads(data)
            return cls(str(content["host"]), int(content["pid"]), str(content["token"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            return None


@dataclass(slots=True)
class Watch:
    """When somebody's claim was last seen to change, by one's own clock."""

    seen: tuple[bytes, int] | None = None
    since: float = 0.0

    def abandoned(self, path: Path) -> bool:
        """Look once; whether the claim at `path` may be taken over."""
        found = _look(path)
        if found is None:
            return False
        if found != self.seen:  # touched since the last look; only one's own clock says how long it wasn't
            self.seen, self.since = found, time.monotonic()
        holder = Holder.from_bytes(found[0])
        return (holder is not None and holder.dead()) or time.monotonic() - self.since > PATIENCE


@contextmanager
def claimed(path: Path, watch: Watch | None = None) -> Iterator[bool]:
    """Hold a claim while entered, or find that somebody else does; never waits.

    Args:
        path: the claim file; its folder must exist.
        watch: what earlier attempts at the same claim have seen, so that an abandoned one is recognised.

    Yields:
        Whether the claim is held.
    """
    if watch is not None and watch.abandoned(path) and watch.seen is not None:
        _set_aside(path, watch.seen[0])
    me = Holder.me()
    if not _appear(path, me.to_bytes()):
        yield False
        return
    try:
        with heartbeat(path):
            yield True
    finally:
        found = _look(path)
        # A process that slept for longer than PATIENCE may have lost its claim: then the file is somebody else's and
        # stays. An empty one is its own, made where there are no links, before a full disk took the content.
        if found is not None and found[0] in (me.to_bytes(), b""):
            path.unlink(missing_ok=True)


@contextmanager
def heartbeat(path: Path) -> Iterator[None]:
    """Touch a file every `HEARTBEAT` seconds while entered."""
    done = threading.Event()

    def beat() -> None:
        while not done.wait(HEARTBEAT):
            try:
                os.utime(path)
            except OSError:
                continue

    thread = threading.Thread(target=beat, name="serfit-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _appear(path: Path, content: bytes) -> bool:
    """Create a file with its content, unless one of its name is there already; whether it was created."""
    if path.exists():
        return False
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        draft.write_bytes(content)
        try:
            os.link(draft, path)
        except FileExistsError:
            return draft.stat().st_nlink == 2  # NFS may have linked it and lost its answer
        except OSError:  # no hard links there
            return _created(path, content)
        return True
    finally:
        draft.unlink(missing_ok=True)


def _created(path: Path, content: bytes) -> bool:
    """The same without hard links: not atomic in its content."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    return True


def _look(path: Path) -> tuple[bytes, int] | None:
    """Content and time of the last touch; read through an open file, so that NFS asks its server."""
    try:
        with path.open("rb") as file:
            return file.read(4096), os.fstat(file.fileno()).st_mtime_ns
    except OSError:
        return None


def _set_aside(path: Path, abandoned: bytes) -> None:
    """Remove an abandoned claim; of several who try at the same time one succeeds.

    Since one's own look another process may have taken it over, and renaming doesn't ask what it renames. So what was
    set aside is looked at again, and a claim that isn't the abandoned one is put back.
    """
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.rename(aside)
        if aside.read_bytes() != abandoned:
            aside.rename(path)
        else:
            aside.unlink()
    except OSError:
        return


def _is_zombie(pid: int) -> bool:
    """Whether a process has ended and only waits for its parent to ask how; known on Linux alone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z"
    except (OSError, IndexError):
        return False


def _host() -> str:
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = "-"
    return f"{platform.node() or 'localhost'} {namespace}"
