"""Randomness by counters: every draw is a pure function of (seed, epoch, utterance, purpose, ...).

There is no generator state to carry along, so nothing depends on worker count, on batch layout or on
where a run was interrupted. Streams are numpy's Philox, a counter-based generator (Salmon et al.,
"Parallel random numbers: as easy as 1, 2, 3", SC 2011), keyed by a hash of the address.
"""

import hashlib

import numpy as np


def address(*parts: int | str) -> int:
    """A 63-bit integer that names one stream of random numbers.

    Parts are integers or strings; (1, 23) and (12, 3) are different addresses.

    >>> address(1, 23) == address(1, 23), address(1, 23) == address(12, 3)
    (True, False)
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*parts: int | str) -> np.random.Generator:
    """A numpy generator whose whole stream is determined by its address."""
    return np.random.Generator(np.random.Philox(key=address(*parts)))
