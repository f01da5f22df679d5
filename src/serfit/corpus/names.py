"""Names of speakers, sessions and dialogues in tables: which of them mean "unknown", and which are one name twice."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from serfit.corpus.spelling import comparable
from serfit.corpus.utterance import Utterance
from serfit.errors import counted, listed

UNKNOWN = frozenset(
    {"", "unknown", "unk", "unspecified", "undefined", "missing", "nan", "na", "n/a", "n.a.", "#n/a", "<na>", "null"}
    | {"nil", "none", "-", "--", "?", ".", "_"}
)
"""Spellings, in lower case, of a speaker, session or dialogue that isn't known."""

_LEADING_ZEROS = re.compile(r"(?<![\d.])0+(?=\d)")

KINDS = ("speaker", "session", "dialogue")


def known(cell: str) -> str | None:
    """A name, or None where the cell says that it isn't known."""
    return None if comparable(cell) in UNKNOWN else cell


def spelled_twice(utterances: Iterable[Utterance]) -> list[str]:
    """Names that differ only in case, invisible characters, Unicode form or leading zeros: they would count as two."""
    spellings: dict[tuple[str, str], set[str]] = {}
    for utterance in utterances:
        for kind in KINDS:
            name: str | None = getattr(utterance, kind)
            if name is not None:
                spellings.setdefault((kind, _LEADING_ZEROS.sub("", comparable(name))), set()).add(name)
    return [
        f"{kind} "
        + " and ".join(
            ascii(name) if name != name.strip() or not name.isprintable() else f'"{name}"' for name in sorted(names)
        )
        for (kind, _), names in spellings.items()
        if len(names) > 1
    ]


def unknown_notes(unknown: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """What to say of cells, by kind, that are taken for "unknown" though they aren't empty."""
    for kind, cells in unknown.items():
        spelled = listed(sorted({f'"{cell}"' for cell in cells}), most=5)
        utterances = counted(len(cells), "utterance")
        yield f"the {kind} of {utterances} is {spelled}, which is taken for an unknown {kind} each"
