"""Files that are either wholly there or not there at all.

A file is written to a temporary name in its own folder, flushed to the disk, renamed over the target, and the
folder is flushed too: after a crash or a power cut one finds the old content or the new, never a mixture.
"""

import errno
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TextIO

from serfit.errors import UserError

_NO_FOLDER_FLUSH = {errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EBADF}
"""What file systems answer that can't flush folders at all; anything else means that the disk failed."""


_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


class WriteError(UserError):
    """A file couldn't be written; what stood under its name before is untouched."""


def write_atomically(
    path: Path, write: Callable[[IO[bytes]], object], *, size: int | None = None, durable: bool = True
) -> None:
    """Create or replace a file with what `write` puts into the open binary file it is given.

    Args:
        path: the file.
        write: writes the whole content.
        size: bytes it will write, for the message, where known.
        durable: wait until the disk has it. False leaves that to the system: after a power cut the file may be torn,
            which is enough where the reader checks its content and can do without it.

    Raises:
        WriteError: naming path and bytes when the disk is full or fails, or the folder can't be written.
    """
    temporary: Path | None = None
    try:
        path = _target(path)
        temporary = _temporary(path)
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
        if durable:
            _flush_folder(path.parent)
    except OSError as error:
        raise WriteError(_failed(path, size, error)) from error
    finally:
        if temporary is not None:
            _remove(temporary)


def link(source: Path, path: Path) -> bool:
    """Give a whole file a second name, atomically and durably, so that its content takes no more room.

    Safe because files are replaced and never written in place: replacing one name leaves the other as it is.

    Returns:
        Whether it was done; False if the file system can't, and `path` is untouched then.
    """
    temporary = _temporary(path)
    try:
        os.link(source, temporary)
        temporary.replace(path)
        _flush_folder(path.parent)
    except OSError:
        return False
    finally:
        _remove(temporary)  # also if both names were of one file already: then a rename does nothing
    return True


def refuse_lfs_pointer(path: Path) -> None:
    """Raise UserError where a file holds only the name of what Git LFS should have put in its place.

    That is what a clone without Git LFS leaves (https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md).
    """
    try:
        with path.open("rb") as file:
            pointer = file.read(len(_LFS_POINTER)) == _LFS_POINTER
    except OSError:
        return
    if pointer:
        raise UserError(
            f"{path} is a Git LFS pointer, a few lines of text in place of the file; fetch the file with "
            "`git lfs pull` in the folder that was cloned, or download it by itself"
        )


def write_bytes(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write bytes atomically."""
    write_atomically(path, lambda file: file.write(data), size=len(data), durable=durable)


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Write UTF-8 text atomically, line ends as they are; bytes of file names that aren't UTF-8 as escapes."""
    write_bytes(path, text.encode(errors="backslashreplace"), durable=durable)


def write_json(path: Path, data: Any, *, durable: bool = True) -> None:
    """Write indented JSON atomically; numbers that aren't finite are refused."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n", durable=durable)


def open_text(path: Path, *, encoding: str = "utf-8-sig") -> TextIO:
    """Open a text file for reading, line ends as they are. Raises OSError also for devices, which may never end."""
    if path.is_char_device() or path.is_block_device():
        raise OSError(errno.EINVAL, "it is a device and no file", str(path))
    return path.open(encoding=encoding, newline="")


def read_start(descriptor: int, count: int) -> bytes:
    """The first bytes of an open file, whose position stays as it is."""
    before = os.lseek(descriptor, 0, os.SEEK_CUR)
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        return os.read(descriptor, count)
    finally:
        os.lseek(descriptor, before, os.SEEK_SET)


def is_utf8(text: str) -> bool:
    """Whether text can be written as UTF-8, as half of a surrogate pair can't."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def sweep(folder: Path, *, older_than: float = 0.0, pattern: str = ".*.tmp") -> int:
    """Remove the temporary files that a killed process left in a folder (not below it).

    Args:
        folder: where to look; may be absent.
        older_than: seconds since the last write; above 0 spares files that somebody is just writing.
        pattern: names to remove.

    Returns:
        How many there were.
    """
    swept = 0
    for leftover in folder.glob(pattern):
        try:
            if time.time() - leftover.stat().st_mtime >= older_than:
                leftover.unlink()
                swept += 1
        except OSError:
            continue
    return swept


def free_bytes(folder: Path) -> int:
    """Bytes that may still be written to the file system of a folder, or of the nearest one above that exists."""
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def check_room(folder: Path, needed: int, what: str, remedy: str) -> None:
    """Raise a UserError when `needed` bytes clearly don't fit on the disk of a folder."""
    free = free_bytes(folder)
    if needed > free:
        raise UserError(f"{what} need about {gigabytes(needed)}, and {folder} has {gigabytes(free)} free; {remedy}")


def gigabytes(size: float) -> str:
    """Bytes in words.

    >>> gigabytes(3_870_000_000), gigabytes(1_500_000), gigabytes(12)
    ('3.87 GB', '1.50 MB', '12 bytes')
    """
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if size >= unit:
            return f"{size / unit:.2f} {name}"
    return f"{int(size)} bytes"


def _temporary(path: Path) -> Path:
    """A name beside a file that nobody else takes, and that `sweep` finds."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def _target(path: Path) -> Path:
    """The file that a name stands for, behind its links. Raises WriteError for what no file can take the place of."""
    if not os.path.lexists(path):
        return path
    if path.is_symlink():
        path = Path(os.path.realpath(path))
    if path.is_dir():
        raise WriteError(f"can't write {path}: it is a folder; name a file in it")
    if path.exists() and not path.is_file():
        raise WriteError(f"can't write {path}: it is a device or a pipe; name a file")
    return path


def _failed(path: Path, size: int | None, error: OSError) -> str:
    bytes_of = "" if size is None else f" ({size:,} bytes)"
    try:
        free = f" ({free_bytes(path.parent):,} bytes are free there)"
    except OSError:
        free = ""
    return (
        f"can't write {path}{bytes_of}: {error.strerror or error}{free}; what stood there before is untouched; make "
        "room, or see to the permissions of that folder, and give the command again (a run that has begun goes on with "
        "--resume)"
    )


def _remove(temporary: Path) -> None:
    """Remove what a failed write left; a disk so broken that it can't be removed has been complained of already."""
    try:
        temporary.unlink(missing_ok=True)
    except OSError:
        return


def _flush_folder(folder: Path) -> None:
    """Make a rename durable; file systems that can't flush folders are left alone."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # a folder that may be written but not listed, or Windows
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_FLUSH:
            raise
    finally:
        os.close(descriptor)
