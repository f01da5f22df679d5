"""From utterances to optimisation batches: which utterances, in which order, padded how, read when."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from serfit.nn.passes import padded
from serfit.system import counters

POOL_BATCHES = 125
"""Optimisation batches, about, per pool within which utterances are sorted by length. Larger pools pad less and leave
less to chance about who meets whom; docs/performance.md has the figures."""


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
    dropout_seed: int = 0
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
        noise_seeds=tuple(example.dropout_seed for example in examples),
        time_mask=_to(padded(frames), device) if some_mask else None,
    )


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
    for indices in np.array_split(np.arange(count), max(1, round(count / POOL_BATCHES))):
        pool = batches[indices[0] : indices[-1] + 1]
        members = np.concatenate(pool)
        members = members[np.argsort(duration[members], kind="stable")]
        bucketed += np.split(members, np.cumsum([len(batch) for batch in pool])[:-1])
    return [bucketed[index].tolist() for index in random.permutation(count)]


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
