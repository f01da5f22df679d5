"""Where the command line meets the system: an output that may fail, and the system's errors in one sentence."""

import errno
import functools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Any, ParamSpec, TextIO, TypeVar, cast

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

from serfit.errors import UserError, is_out_of_memory, visible

_REMEDIES = {
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "check its permissions and those of the folders above"),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room there"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "allow more open files (ulimit -n)"),
    errno.ENAMETOOLONG: "choose a shorter name",
}

TORCH_NEEDS = 5_000_000 * 1024
"""Least limit of address space, in bytes, under which verbs that import torch begin.

A training of the tests' network goes well from 4.2 million KiB (torch 2.13 for CUDA, two cores). Below that, libraries
end in the middle, some of them by aborting the process (`std::bad_alloc`, OpenBLAS), which no `except` can answer.
"""

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def needs_torch(verb: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Let a verb begin only where torch can: with address space for it, in a folder that exists; else UserError."""

    @functools.wraps(verb)
    def begun(*arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
        limit = resource.getrlimit(resource.RLIMIT_AS)[0] if hasattr(resource, "RLIMIT_AS") else -1
        if 0 <= limit < TORCH_NEEDS:
            raise UserError(
                f"memory is limited to {limit / 1e9:.1f} GB (ulimit -v {limit // 1024}), and torch needs "
                f"{TORCH_NEEDS / 1e9:.1f} GB of address space; raise the limit (ulimit -v unlimited)"
            )
        try:
            os.getcwd()
        except OSError as error:  # Intel's MKL would end the process
            raise UserError("the current folder isn't there any more; go to another one (cd)") from error
        return verb(*arguments, **options)

    return begun


class Outlet:
    """A text stream whose failures stop nobody: the first one is kept, and what follows is dropped.

    Attributes:
        error: the first failure, or None.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.error: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write text, as long as that is possible."""
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flush likewise."""
        self._try(self._stream.flush)

    def _try(self, act: Any) -> None:
        if self.error is None:
            try:
                act()
            except OSError as error:
                self.error = error


class Shown:
    """A text stream that shows control characters of what is printed instead of passing them to a terminal.

    Attributes:
        rich_proxied_file: the stream behind it; under this name rich (and `serfit.system.log.Terminal`, which guards
            its own text) finds it and writes past the guard.
    """

    def __init__(self, stream: Outlet) -> None:
        self.rich_proxied_file = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)

    def write(self, text: str) -> int:
        """Write text."""
        self.rich_proxied_file.write(visible(text))
        return len(text)


@contextmanager
def lasting_output() -> Iterator[None]:
    """Let no verb stop in the middle because standard output fails; complain at its end.

    A pipe that nobody reads any more (`serfit compare | head -1`) is no mistake.

    Raises:
        UserError: standard output is closed, or couldn't be written to, for a full disk for example.
    """
    closed = sys.stdout is None
    if closed or sys.stdin is None or sys.stderr is None:
        _occupy_standard_streams()
    if closed:
        raise UserError("standard output is closed; send it to a file, or to /dev/null")
    outlet = Outlet(sys.stdout)
    try:
        with redirect_stdout(cast(TextIO, Shown(outlet))):
            yield
    except SystemExit as leaving:
        outlet.flush()
        if not leaving.code and outlet.error is not None and not isinstance(outlet.error, BrokenPipeError):
            raise _unwritten(outlet.error) from leaving
        raise
    finally:
        outlet.flush()
        if outlet.error is not None:
            forget_output()


def forget_output() -> None:
    """Send what is still to be written nowhere, so that leaving doesn't fail at it once more."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def system_trouble(error: BaseException) -> str | None:
    """An error that the system answered with, as a sentence; None for any other, which is a mistake of serfit's."""
    if is_out_of_memory(error) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        first = (str(error).splitlines() or [""])[0][:200]
        said = f" ({first})" if first else ""
        return (
            f"memory ran out{said}; end other programs, raise the limit (ulimit -v, or the container's), or make the "
            "model or the batch smaller"
        )
    if not isinstance(error, OSError) or error.errno is None:
        return None
    reason = error.strerror or str(error)
    if error.filename is None:
        return f"{reason}; {_REMEDIES.get(error.errno, 'put that right')} and give the command again"
    return (
        f"can't use {os.fsdecode(error.filename)}: {reason}; "
        f"{_REMEDIES.get(error.errno, 'check that path and its disk')} and give the command again"
    )


def _unwritten(error: OSError) -> UserError:
    remedy = _REMEDIES.get(error.errno or 0, "send it elsewhere")
    return UserError(
        f"standard output couldn't be written to: {error.strerror or error}; {remedy} (files that the command wrote "
        "are whole)"
    )


def _occupy_standard_streams() -> None:
    """Open what is closed of descriptors 0 to 2, so that no file of ours gets a number that libraries print to."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) < 3:
        pass
    os.close(descriptor)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for as long as the process lasts
