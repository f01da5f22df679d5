"""How often something was done and how long it took, added up over threads."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["decoding", "frozen part", "store"]
"""What loading an utterance consists of: decoding audio files; computing the frozen part of the encoder; reading and
writing the store (waiting for another process that computes the same included)."""


@dataclass(slots=True)
class Timer:
    """Counts and seconds per kind of work. Work inside other work counts for itself alone."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _spent: dict[str, tuple[int, float]] = field(default_factory=dict)
    _inside: threading.local = field(default_factory=threading.local)

    @contextmanager
    def timing(self, kind: Kind) -> Iterator[None]:
        """Count what happens while entered as one piece of work of a kind."""
        outer: float = getattr(self._inside, "seconds", 0.0)
        self._inside.seconds = 0.0
        began = time.perf_counter()
        try:
            yield
        finally:
            taken = time.perf_counter() - began
            with self._lock:
                count, seconds = self._spent.get(kind, (0, 0.0))
                self._spent[kind] = (count + 1, seconds + taken - self._inside.seconds)
            self._inside.seconds = outer + taken

    def so_far(self) -> dict[str, tuple[int, float]]:
        """Return count and seconds of each kind of work since `reset`."""
        with self._lock:
            return dict(self._spent)

    def reset(self) -> None:
        """Begin to count anew."""
        with self._lock:
            self._spent = {}
