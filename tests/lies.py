"""Descriptions that lie: a document of JSON with one key at a time taken away or given a value that it can't have."""

import copy
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

GONE = object()


def nested(depth: int) -> Any:
    """Lists in lists."""
    found: Any = 1
    for _ in range(depth):
        found = [found]
    return found


VALUES: tuple[Any, ...] = (
    GONE, None, True, 0, -1, 1.5, 10**12, 10**400, math.nan, math.inf, "", "64", "\x1b]0;x\x07", [], [0], [[1, 2]],
    {}, {"a": 1}, nested(50), ["x"] * 10_000,
)  # fmt: skip

FEW: tuple[Any, ...] = (GONE, None, -1, 10**400, math.inf, "64", {"a": 1}, nested(50))


def indices(document: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The addresses of all values in a document but for the whole; of a list, those of its first entry."""
    found: list[tuple[Any, ...]] = [above] if above else []
    inside = (
        document.items()
        if isinstance(document, dict)
        else enumerate(document[:1])
        if isinstance(document, list)
        else ()
    )
    for key, value in inside:
        found += indices(value, (*above, key))
    return found


def lies(document: Any, index: tuple[Any, ...], values: Sequence[Any] = VALUES) -> Iterator[Any]:
    """The document with every one of some values at a place."""
    for value in values:
        lying = copy.deepcopy(document)
        *above, last = index
        holder = lying
        for key in above:
            holder = holder[key]
        if value is GONE:
            del holder[last]
        else:
            holder[last] = value
        yield json.loads(json.dumps(lying))


def check_sentence(message: str) -> None:
    """A refusal is one sentence that fits on a screen."""
    assert "\n" not in message, message
    assert len(message) < 700, message
