"""What a C library writes to standard error by itself, caught, so that it can be said with the file's name."""

import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_MPG123 = re.compile(rb"\[[^\]\n]*libmpg123[^\]\n]*\] .*|(?:Note|Warning): .*")
"""Lines of libmpg123, which libsndfile decodes MPEG audio with and can't be told to be quiet."""

_ONE_AT_A_TIME = threading.Lock()


@contextmanager
def caught() -> Iterator[list[str]]:
    """The errors that libmpg123 writes within the block, in the list once the block is left.

    Standard error belongs to the whole process, so one thread at a time does this, and lines by others go where they
    were meant to go at the end of the block. Where there is no standard error nothing is caught.
    """
    found: list[str] = []
    with _ONE_AT_A_TIME:
        try:
            kept = os.dup(2)
        except OSError:
            yield found
            return
        with os.fdopen(kept, "wb", buffering=0) as real, tempfile.TemporaryFile() as file:
            os.dup2(file.fileno(), 2)
            try:
                yield found
            finally:
                os.dup2(kept, 2)
                file.seek(0)
                for line in file.read().splitlines(keepends=True):
                    if not _MPG123.fullmatch(line.rstrip()):
                        real.write(line)
                    elif b" error: " in line:
                        found.append(line.partition(b" error: ")[2].decode(errors="replace").strip())
