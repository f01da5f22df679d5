"""Files that are either wholly there or not there at all.

A file is written to a temporary name in its own folder, flushed to the disk, renamed over the target, and the
folder is flushed too: after a crash or a power cut one finds the old content or the new, never a mixture.
"""

import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from serfit.errors import UserError


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Create or replace a file with what `write` puts into the open binary file it is given.

    Raises UserError naming the path when the disk is full or the folder can't be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _flush_folder(path.parent)
    except OSError as error:
        raise UserError(
            f"can't write {path}: {error.strerror or error}; the file before it is untouched; "
            "free space or permissions in that folder, then start again"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes atomically."""
    write_atomically(path, lambda file: file.write(data))


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically, line ends as they are."""
    write_bytes(path, text.encode())


def write_json(path: Path, data: Any) -> None:
    """Write indented JSON atomically; numbers that aren't finite are refused."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _flush_folder(folder: Path) -> None:
    """Make a rename durable; file systems that can't flush folders are left alone."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)
