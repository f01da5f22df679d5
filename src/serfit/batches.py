"""From utterances to optimisation batches: which utterances, in which order, padded how, read when."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from serfit import counters

POOL_BATCHES = 125
"""Optimisation batches, about, per pool within which utterances are sorted by length. Larger pools pad less and leave
less to chance about who meets whom; docs/performance.md has the figures."""

PASS_SECONDS = {"cpu": 1.0, "cuda": 200.0}
"""What one more pass costs beside its own padded speech, in seconds of speech: launches and small products. Thirty
milliseconds of launches are worth about as much as 200 s of speech on a GPU that computes WavLM-Large near its peak."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Example:
    """One utterance made ready for the model.

    Attributes:
        id: utterance id.
        inputs: feature with time on axis 0: waveform [S], frames [T, C] or [T, K, H], pooled [1, K, H].
        target: ratings [D] on [0, 1].
        noise_seed: seed of this utterance's dropout masks in this step.
        time_mask: frames hidden from the transformer, bool [T], or None.
    """

    id: str
    inputs: torch.Tensor
    target: torch.Tensor
    noise_seed: int = 0
    time_mask: torch.Tensor | None = None

    @property
    def length(self) -> int:
        """Length of the inputs on the time axis."""
        return len(self.inputs)


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples padded with zeros to the longest among them.

    Attributes:
        inputs: [B, T, ...], time on axis 1.
        lengths: [B] int64, valid entries on axis 1; always on the CPU, where the model wants them.
        targets: [B, D].
        noise_seeds: seed of each utterance's dropout masks.
        time_mask: bool [B, T'] over frames, or None when no example has one.
    """

    inputs: torch.Tensor
    lengths: torch.Tensor
    targets: torch.Tensor
    noise_seeds: tuple[int, ...]
    time_mask: torch.Tensor | None


def collate(examples: Sequence[Example], device: torch.device | str = "cpu") -> Batch:
    """Pad examples into one batch on a device."""
    masks = [example.time_mask for example in examples]
    some_mask = any(mask is not None for mask in masks)
    frames = [torch.zeros(0, dtype=torch.bool) if mask is None else mask for mask in masks]
    return Batch(
        inputs=_to(padded([example.inputs for example in examples]), device),
        lengths=torch.tensor([example.length for example in examples]),
        targets=_to(torch.stack([example.target for example in examples]), device),
        noise_seeds=tuple(example.noise_seed for example in examples),
        time_mask=_to(padded(frames), device) if some_mask else None,
    )


def padded(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Tensors [T, ...] as one batch [B, T, ...], padded with zeros at the end."""
    return torch.nn.utils.rnn.pad_sequence(list(tensors), batch_first=True)


def _to(tensor: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    if torch.device(device).type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def plan_epoch(seconds: ArrayLike, batch_size: int, *, seed: int, epoch: int, bucketing: bool) -> list[list[int]]:
    """Deal all utterances into optimisation batches for one epoch.

    Batches are as equal in size as can be and never larger than `batch_size`, so that no small rest batch with a
    meaningless CCC is left over; in pairs, one left over makes three of one pair, for alone it has no CCC. With
    bucketing, utterances are sorted by length within shuffled pools of about `POOL_BATCHES` batches each, and the
    batches are shuffled again.

    Args:
        seconds: duration of each of the N utterances.
        batch_size: utterances per optimisation batch, 2 or more.
        seed: seed of the run.
        epoch: from 1; every epoch has its own order.
        bucketing: whether batches gather utterances of similar length.

    Returns:
        The utterances of each batch; together they hold 0..N-1 once each.
    """
    duration = np.asarray(seconds, dtype=np.float64)
    random = counters.generator(seed, "order", epoch)
    order = random.permutation(len(duration))
    count = max(1, min(-(-len(order) // batch_size), len(order) // 2))
    batches = np.array_split(order, count)
    if not bucketing:
        return [batch.tolist() for batch in batches]
    bucketed: list[NDArray[np.int64]] = []
    for places in np.array_split(np.arange(count), max(1, round(count / POOL_BATCHES))):
        pool = batches[places[0] : places[-1] + 1]
        members = np.concatenate(pool)
        members = members[np.argsort(duration[members], kind="stable")]
        bucketed += np.split(members, np.cumsum([len(batch) for batch in pool])[:-1])
    return [bucketed[place].tolist() for place in random.permutation(count)]


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
    order = sorted(range(len(lengths)), key=lambda place: (-lengths[place], place))
    whole = len(order) * lengths[order[0]]
    most = whole if budget is None else min(whole, budget)
    if whole <= most and whole - sum(lengths) <= overhead:  # no way of cutting can save more than it costs
        return [order]
    longest_first = np.array([lengths[place] for place in order], dtype=np.float64)
    begun = np.full((2, len(order) + 1), np.inf)  # least cost of the first utterances, without and with the last pass
    begun[0, 0] = 0.0
    origin = np.zeros((2, len(order) + 1), dtype=np.int64)
    for stop in range(1, len(order) + 1):
        padded_entries = np.arange(stop, 0, -1) * longest_first[:stop]
        fits = padded_entries <= most
        fits[-1] = True
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


def prefetched(
    batches: Iterable[Sequence[Item]], prepare: Callable[[Item], Result], workers: int, ahead: int = 4
) -> Iterator[list[Result]]:
    """Prepare the items of each batch in threads, a few batches ahead, and yield them batch by batch in order.

    `prepare` must be a pure function of its item, so that the result is the same for any number of workers.
    What it raises is raised here, at the batch it belongs to. With 0 workers everything happens in this thread.
    """
    if workers == 0:
        for batch in batches:
            yield [prepare(item) for item in batch]
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="serfit-loader") as pool:
        waiting: deque[list[Future[Result]]] = deque()
        try:
            for batch in batches:
                waiting.append([pool.submit(prepare, item) for item in batch])
                if len(waiting) > ahead:
                    yield [future.result() for future in waiting.popleft()]
            while waiting:
                yield [future.result() for future in waiting.popleft()]
        finally:
            for futures in waiting:
                for future in futures:
                    future.cancel()
