"""Several processes that compute one run together, each on a device of its own: plain torch.distributed.

Started by `torchrun`, or by the first process itself (`--gpus 0,1`). The optimisation batch stays what it is: its
utterances are dealt over the processes, predictions are gathered, the loss is that of the whole batch, and one sum of
all gradients follows. Numbers on the host travel through gloo, gradients on CUDA through NCCL.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from serfit.errors import UserError, visible
from serfit.system.interrupt import KILL, die_with_parent

Value = TypeVar("Value")

PATIENCE = timedelta(hours=2)
"""How long a process waits for the others, which may be filling the store; one that dies ends all at once."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """The processes of one run, seen from one of them. Alone, everything here does nothing.

    All processes must make the same calls in the same order.

    Attributes:
        index: this process, from 0.
        count: how many there are.
    """

    index: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.index == 0

    def summed(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum of everyone's tensor, in place."""
        if self.count > 1:
            dist.all_reduce(tensor)
        return tensor

    def any(self, flag: bool) -> bool:
        """Whether the flag is true anywhere."""
        if self.count == 1:
            return flag
        word = torch.tensor([int(flag)])
        dist.all_reduce(word, dist.ReduceOp.MAX)
        return bool(word.item())

    def least(self, value: int | None) -> int | None:
        """The smallest of everyone's values; None counts as infinite."""
        if self.count == 1:
            return value
        word = torch.tensor([2**62 if value is None else value])
        dist.all_reduce(word, dist.ReduceOp.MIN)
        return None if word.item() == 2**62 else int(word.item())

    def told(self, value: Value) -> Value:
        """The first process's value, everywhere."""
        if self.count == 1:
            return value
        held: list[Any] = [value]
        dist.broadcast_object_list(held, src=0, device=torch.device("cpu"))
        received: Value = held[0]
        return received

    @torch.no_grad()
    def share(self, tensors: Iterable[torch.Tensor]) -> None:
        """Overwrite everyone's tensors with those of the first process."""
        if self.count > 1:
            for tensor in tensors:
                dist.broadcast(tensor.detach(), src=0)

    def wait(self) -> None:
        """Wait until everyone is here."""
        self.any(False)


ALONE = Ranks()
"""One process by itself."""


def deal(lengths: Sequence[int], count: int) -> list[list[int]]:
    """Deal examples over so many processes, the longest first, each to the one with the least to do.

    Returns:
        The places of each process's examples, in ascending order; together 0..len(lengths)-1 once each.

    >>> deal([5, 9, 4, 8], 2)
    [[1, 2], [0, 3]]
    """
    shares: list[list[int]] = [[] for _ in range(count)]
    loads = [0] * count
    for place in sorted(range(len(lengths)), key=lambda place: (-lengths[place], place)):
        least = min(range(count), key=lambda index: (loads[index], index))
        shares[least].append(place)
        loads[least] += lengths[place]
    return [sorted(share) for share in shares]


def started_by_torchrun() -> bool:
    """Whether this process is one of several that torchrun started."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def local_index() -> int:
    """This process's place among those that torchrun started on this machine."""
    return int(os.environ["LOCAL_RANK"])


@contextmanager
def torchrun_ranks() -> Iterator[Ranks]:
    """Join the processes that torchrun started. When its agent is killed, they stop as if asked to."""
    ranks = Ranks(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    die_with_parent(signal.SIGTERM)
    with _joined(ranks, "env://"):
        yield ranks


@contextmanager
def leading(count: int, follow: Callable[..., None], arguments: Sequence[object]) -> Iterator[Ranks]:
    """Start all other processes of a run, of which this one is the first.

    Args:
        count: how many processes in all.
        follow: what the others do, called as follow(ranks, *arguments); importable, arguments picklable.
        arguments: the same for all.

    Raises:
        UserError: another process died.
    """
    if count == 1:
        yield Ranks()
        return
    store = dist.TCPStore(  # type: ignore[attr-defined]
        "127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=PATIENCE
    )
    context = mp.get_context("spawn")
    others = [
        context.Process(target=_followed, args=(Ranks(index, count), store.port, follow, arguments), daemon=True)
        for index in range(1, count)
    ]
    for process in others:
        process.start()
    done = threading.Event()
    threading.Thread(target=_watch, args=(others, done), daemon=True).start()
    try:
        with _joined(Ranks(0, count), store):
            yield Ranks(0, count)
    except RuntimeError as error:
        others[0].join(timeout=2)  # it may take a moment until a lost connection is seen as a dead process
        if (words := _obituary(others)) is not None:
            raise UserError(words) from error
        raise
    finally:
        done.set()
        for process in others:
            process.join(timeout=10)
            if process.is_alive():
                process.kill()


def _followed(ranks: Ranks, port: int, follow: Callable[..., None], arguments: Sequence[object]) -> None:
    """The life of a process that `leading` started; what stops it stops the first process too, which says so."""
    die_with_parent(KILL)
    store = dist.TCPStore(  # type: ignore[attr-defined]
        "127.0.0.1", port, is_master=False, timeout=PATIENCE
    )
    with _joined(ranks, store):
        follow(ranks, *arguments)


@contextmanager
def _joined(ranks: Ranks, where: Any) -> Iterator[None]:
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    how: dict[str, Any] = {"init_method": where} if isinstance(where, str) else {"store": where}
    dist.init_process_group(backend, rank=ranks.index, world_size=ranks.count, timeout=PATIENCE, **how)
    try:
        yield
    finally:
        dist.destroy_process_group()


def _watch(others: Sequence[Any], done: threading.Event) -> None:
    """End this process soon after another one has died, should it be waiting for that one."""
    while not done.wait(0.5):
        words = _obituary(others)
        if words is not None and not done.wait(20.0):
            print(f"error: {visible(words)}", file=sys.stderr, flush=True)
            os._exit(UserError.exit_code)


def _obituary(others: Sequence[Any]) -> str | None:
    """What to say of a process that ended in an error; None while all are well."""
    for index, process in enumerate(others, start=1):
        if process.exitcode not in (None, 0):
            return (
                f"process {index} of this run died (exit code {process.exitcode}; it may have said why above), so it "
                "can't go on; start again from the last checkpoint with --resume"
            )
    return None
