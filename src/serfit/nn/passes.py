"""Cutting a batch into the passes that cost least, and padding one."""

from collections.abc import Sequence

import numpy as np
import torch

PASS_SECONDS = {"cpu": 1.0, "cuda": 200.0}
"""What one more pass costs beside its own padded speech, in seconds of speech: launches and small products. Thirty
milliseconds of launches are worth about as much as 200 s of speech on a GPU that computes WavLM-Large near its peak."""


def padded(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Tensors [T, ...] as one batch [B, T, ...], padded with zeros at the end."""
    return torch.nn.utils.rnn.pad_sequence(list(tensors), batch_first=True)


def plan_passes(
    lengths: Sequence[int], budget: int | None = None, *, overhead: float = 0.0, again: float = 0.0
) -> list[list[int]]:
    """Cut a batch into the passes (micro-batches) that cost least, each of at most `budget` padded entries.

    A pass costs its padded entries and an overhead, and all passes but the last the share `again` on top. Utterances of
    similar length share a pass, so the least cost over all ways of cutting is found by going through the utterances
    from the longest to the shortest (dynamic programming).

    Args:
        lengths: entries on the time axis of each of the N utterances.
        budget: most padded entries of a pass; None is no limit. A longer utterance is a pass of its own.
        overhead: cost of a pass besides its padded entries, in entries (see `PASS_SECONDS`).
        again: share of its cost that every pass but the last is charged on top.

    Returns:
        The utterances of each pass, longest first but for the last pass; together they hold 0..N-1 once each.

    >>> plan_passes([5, 9, 4, 8], budget=18, overhead=2)
    [[0, 2], [1, 3]]
    >>> plan_passes([5, 9, 4, 8], overhead=30)
    [[1, 3, 0, 2]]
    >>> plan_passes([30, 2, 2, 2], overhead=30, again=1 / 3)
    [[1, 2, 3], [0]]
    """
    if not lengths:
        return []
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    whole = len(order) * lengths[order[0]]
    most = whole if budget is None else min(whole, budget)
    if whole <= most and whole - sum(lengths) <= overhead:  # no way of cutting can save more than it costs
        return [order]
    # In this order a pass is a stretch of neighbours: mixing lengths never makes padding less. So the best way to cut
    # the first `stop` ends with a stretch [start, stop) after the best way to cut the first `start`, and each entry of
    # the stretch is padded to its first, the longest. One pass is spared the share `again` (its graph is still there
    # when the backward pass begins). Which one is best isn't known beforehand, so there are two tables: row 0 before
    # that pass was chosen, row 1 after.
    longest_first = np.array([lengths[index] for index in order], dtype=np.float64)
    begun = np.full((2, len(order) + 1), np.inf)  # least cost of the first utterances
    begun[0, 0] = 0.0
    # Where the last stretch begins; its complement ~start marks that this stretch is the pass that is spared.
    origin = np.zeros((2, len(order) + 1), dtype=np.int64)
    for stop in range(1, len(order) + 1):
        padded_entries = np.arange(stop, 0, -1) * longest_first[:stop]
        fits = padded_entries <= most
        fits[-1] = True  # an utterance alone must go through, whatever the budget
        cost = np.where(fits, padded_entries + overhead, np.inf)
        plain, with_last = begun[:, :stop] + (1.0 + again) * cost
        as_last = begun[0, :stop] + cost
        origin[0, stop] = plain.argmin()
        begun[0, stop] = plain.min()
        joined = np.minimum(with_last, as_last)
        start = int(joined.argmin())
        begun[1, stop] = joined[start]
        origin[1, stop] = start if with_last[start] <= as_last[start] else ~start
    passes, last, stop, has_last = [], [], len(order), 1
    while stop > 0:
        start = int(origin[has_last, stop])
        if start < 0:
            start, has_last = ~start, 0
            last = order[start:stop]
        else:
            passes.append(order[start:stop])
        stop = start
    return [*reversed(passes), last]
