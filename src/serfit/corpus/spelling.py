"""Names that nearly agree: the file that was meant, and two spellings of one person."""

import os
import unicodedata
from pathlib import Path

_MOST_FOLDERS = 200


def comparable(name: str) -> str:
    r"""A name without what people don't see or mean: case, Unicode form, invisible characters, repeated blanks.

    >>> comparable("S1 ") == comparable("s\u200b1")
    True
    """
    visible = "".join(letter for letter in name if unicodedata.category(letter) != "Cf")
    return " ".join(unicodedata.normalize("NFKC", visible).casefold().split())


def hint(path: Path) -> str:
    """A question to go behind "there is no such file", where a file of nearly that name is there; else nothing."""
    base = next((folder for folder in path.absolute().parents if _names(folder)), None)
    if base is None:
        return ""
    rest = str(path.absolute().relative_to(base)).replace("\\", "/").split("/")
    if (found := _below(base, rest)) is not None:
        return f"; did you mean {found}? ({_difference(path, found)})"
    folders = [base / name for name in _names(base)[:_MOST_FOLDERS] if (base / name).is_dir()]
    for folder, pieces in [*((folder, rest) for folder in folders), (base, rest[-1:])]:
        if (found := _below(folder, pieces)) is not None:
            lacking = (
                f" (the name given lacks {found.suffix})" if comparable(path.name) == comparable(found.stem) else ""
            )
            return f"; did you mean {found}?{lacking}"
    return ""


def _below(folder: Path, pieces: list[str]) -> Path | None:
    """The file or folder below `folder` whose path is comparable to the pieces, if there is just one."""
    for piece in pieces:
        names = _names(folder)
        alike = [name for name in names if comparable(name) == comparable(piece)]
        ended = [name for name in names if comparable(Path(name).stem) == comparable(piece)]
        same = [piece] if piece in names else alike or ended
        if len(same) != 1:
            return None
        folder = folder / same[0]
    return folder


def _difference(path: Path, found: Path) -> str:
    """Why a path isn't the one found, in the words of somebody who can't see it."""
    wanted, there = str(path.absolute()), str(found)
    if "\\" in wanted:
        return "folders are separated by /"
    if comparable(path.name) == comparable(found.stem):
        return f"the name given lacks {found.suffix}"
    if wanted.casefold() == there.casefold():
        return "upper and lower case count"
    if unicodedata.normalize("NFC", wanted) == unicodedata.normalize("NFC", there):
        return "the same letters, but in another Unicode form"
    return "the name given has invisible or other characters"


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (OSError, ValueError):
        return []
