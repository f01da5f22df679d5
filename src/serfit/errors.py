"""The two ways a run may end badly, and the search for the word the user meant."""

import difflib
from collections.abc import Iterable, Sequence


class UserError(Exception):
    """Something the user can put right: one message (what, where, what is allowed, what to do), exit code 2."""

    exit_code = 2


class NumericalError(Exception):
    """Training met a number that is not finite; nothing was updated with it. Exit code 3."""

    exit_code = 3


def nearest(word: str, allowed: Iterable[str]) -> str | None:
    """The allowed word closest to a misspelt one, or None when nothing comes close.

    >>> nearest("batchsize", ["batch_size", "epochs"])
    'batch_size'
    """
    found = difflib.get_close_matches(word, list(allowed), n=1, cutoff=0.6)
    return found[0] if found else None


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first few names and how many more there are, for error sentences.

    >>> listed(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    shown = ", ".join(names[:most])
    rest = len(names) - most
    return f"{shown} and {rest} more" if rest > 0 else shown
