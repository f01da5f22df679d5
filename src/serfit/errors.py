"""The two ways a run may end badly, what means that memory ran out, and the search for the word the user meant."""

import difflib
import re
from collections.abc import Iterable, Sequence


class UserError(Exception):
    """Something the user can put right: one message (what, where, what is allowed, what to do), exit code 2."""

    exit_code = 2


class NumericalError(Exception):
    """Training met a number that is not finite; nothing was updated with it. Exit code 3."""

    exit_code = 3


_OUT_OF_MEMORY = (
    "out of memory",
    "cublas_status_alloc_failed",
    "cublas_status_not_initialized",
    "cudnn_status_alloc_failed",
    "unable to find an engine",
    "can't allocate memory",
    "can't start new thread",
)
"""Parts of messages by which torch and its libraries say that memory ran out, in small letters."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, in whatever words Python, torch or its libraries put it.

    >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("CUDA error: out of memory"))
    (True, True)
    """
    if isinstance(error, ImportError):  # of a library for which there is no room under `ulimit -v`
        return "failed to map segment" in str(error)
    said = str(error).lower()
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's; no need to import it
        return True
    return isinstance(error, RuntimeError) and any(part in said for part in _OUT_OF_MEMORY)


def error_line(error: BaseException) -> str:
    """The first line of an error to quote in a sentence, of 200 characters at most, without those that control."""
    line = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    return "".join(sign for sign in line if sign.isprintable())[:200].rstrip(".")


def nearest(word: str, allowed: Iterable[str]) -> str | None:
    """The allowed word closest to a misspelt one, or None when nothing comes close.

    >>> nearest("batchsize", ["batch_size", "epochs"])
    'batch_size'
    """
    found = difflib.get_close_matches(word, list(allowed), n=1, cutoff=0.6)
    return found[0] if found else None


def counted(count: int, name: str) -> str:
    """A number of things, for sentences.

    >>> counted(1, "speaker"), counted(1024, "dialogue")
    ('1 speaker', '1,024 dialogues')
    """
    return f"{count:,} {name}{'' if count == 1 else 's'}"


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first few names and how many more there are, for error sentences.

    >>> listed(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    shown = ", ".join(names[:most])
    rest = len(names) - most
    return f"{shown} and {rest} more" if rest > 0 else shown


def below(complaints: Sequence[str], most: int = 10) -> str:
    r"""The first few complaints, a line each, and how many more there are, for messages of several lines.

    >>> below(["a", "b", "c"], most=2)
    '  a\n  b\n  and 1 more'
    """
    rest = len(complaints) - most
    return "\n".join(f"  {line}" for line in [*complaints[:most], *([f"and {rest} more"] if rest > 0 else [])])


_OBEYED = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069]")
"""Characters that a terminal obeys instead of showing them, line feed and tab apart; the last ones turn text round."""


def visible(text: str) -> str:
    r"""Text with control characters as escapes: names from files may hold any, and a terminal would obey them.

    >>> visible("a\x1b]0;title\x07b")
    'a\\x1b]0;title\\x07b'
    """
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
