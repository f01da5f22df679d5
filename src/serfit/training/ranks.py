"""Several processes that compute one run together, each on a device of its own: plain torch.distributed.

Started by `torchrun`, or by the first process itself (`--gpus 0,1`). All run the same program; the first one writes the
run and reports how it ended. The optimisation batch stays what it is: its utterances are dealt over the processes,
predictions are gathered, the loss is that of the whole batch, and one sum of all gradients follows. Numbers on the host
travel through gloo, gradients on CUDA through NCCL.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from serfit.errors import NumericalError, UserError, counted, visible
from serfit.system.interrupt import KILL, Interrupted, StopRequest, die_with_parent
from serfit.system.log import Log, silent_log
from serfit.system.runtime import choose_device

Value = TypeVar("Value")

OVER, STOPPED, FAILED = "over", "stopped", "failed"
"""What processes leave in the store where they meet: the first has ended in an error, another one was asked to stop,
another one ended in this error. Written before the connection closes, which wakes up whoever waits."""

LAST_WORDS_SECONDS = 20.0
"""How long a process whose connection was lost waits for the other one to end, so as to report why."""

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

    def from_first(self, value: Value) -> Value:
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

    def check(self, stop: StopRequest) -> None:
        """Raise Interrupted in all processes, at the same place, when any of them was asked to stop."""
        if self.any(stop.asked()):
            stop.received = stop.received or "a signal to another process"
            stop.check()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Do what may fail in any process: where it does, all leave at its end, and the first one reports why.

        Nothing inside may wait for other processes.

        Raises:
            UserError: in the first process, with its own words or those of another one.
            Interrupted: in the others.
        """
        if self.count == 1:
            yield
            return
        failed: Exception | None = None
        try:
            yield
        except Exception as error:
            failed = error
        said: list[str | None] = [None] * self.count
        dist.all_gather_object(said, None if failed is None else str(failed))
        if failed is not None and (self.first or not isinstance(failed, UserError)):
            raise failed
        for index, words in enumerate(said):
            if words is not None:
                raise (
                    UserError(f"in process {index} of this run: {words}")
                    if self.first
                    else Interrupted(f"process {index} of this run can't begin")
                )


ALONE = Ranks()
"""One process by itself."""


Work = Callable[..., Value]
"""What each process of a run does, called as work(log=..., gpu=..., ranks=...)."""


def in_company(work: Work[Value], log: Log, gpus: Sequence[int] | None, gpu: int | None = None) -> Value | None:
    """Do the same work in every process of a run: those that torchrun started, or one per GPU, or this one alone.

    Args:
        work: what they do; it can be pickled where `gpus` are given.
        log: where the first one says what happens.
        gpus: the GPU of each process, to be started here; None where torchrun or nobody starts others.
        gpu: of this process, where it computes alone.

    Returns:
        What the first process returns; None in another one that torchrun started.

    Raises:
        UserError: a GPU that doesn't exist, or another process died.
    """
    if started_by_torchrun():
        with torchrun_ranks() as ranks:
            return take_part(work, log, _gpu_of(ranks, gpus, gpu), ranks)
    for index in gpus or ():
        choose_device(index)
    with leading(len(gpus or (0,)), work, gpus or ()) as ranks:
        return take_part(work, log, gpus[0] if gpus else gpu, ranks)


def take_part(work: Work[Value], log: Log, gpu: int | None, ranks: Ranks) -> Value | None:
    """Do one process's part; only the first one logs, and reports why all ended where they ended together."""
    if ranks.first:
        return work(log=log, gpu=gpu, ranks=ranks)
    with suppress(NumericalError, Interrupted, KeyboardInterrupt):
        work(log=silent_log(), gpu=gpu, ranks=ranks)
    return None


def _gpu_of(ranks: Ranks, gpus: Sequence[int] | None, gpu: int | None) -> int | None:
    """The GPU of a process that torchrun started: as listed, or by its place on its machine. Raises UserError."""
    if gpus is not None:
        if len(gpus) != ranks.count:
            raise UserError(
                f"--gpus names {counted(len(gpus), 'GPU')}, and torchrun started {ranks.count} processes; "
                "name one for each, or leave --gpus out"
            )
        return gpus[ranks.index]
    if gpu is not None and ranks.first:
        return gpu
    return int(os.environ["LOCAL_RANK"]) if torch.cuda.is_available() else None


def parsed_gpus(text: str) -> tuple[int, ...]:
    """GPU indices from text such as "0,1". Raises UserError."""
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts) or len({int(part) for part in parts}) < len(parts):
        raise UserError(f"--gpus is {text}, but it takes different GPU indices with commas between, for example 0,1")
    return tuple(int(part) for part in parts)


def deal(lengths: Sequence[int], count: int) -> list[list[int]]:
    """Deal examples over so many processes, the longest first, each to the one with the least to do.

    Returns:
        The indices of each process's examples, in ascending order; together 0..len(lengths)-1 once each.

    >>> deal([5, 9, 4, 8], 2)
    [[1, 2], [0, 3]]
    """
    shares: list[list[int]] = [[] for _ in range(count)]
    loads = [0] * count
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        least = min(range(count), key=lambda rank: (loads[rank], rank))
        shares[least].append(index)
        loads[least] += lengths[index]
    return [sorted(share) for share in shares]


def started_by_torchrun() -> bool:
    """Whether this process is one of several that torchrun started."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextmanager
def torchrun_ranks() -> Iterator[Ranks]:
    """Join the processes that torchrun started. When its agent is killed, they stop as if asked to."""
    ranks = Ranks(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    die_with_parent(signal.SIGTERM)
    with _joined(ranks, "env://"):
        yield ranks


@contextmanager
def leading(count: int, work: Work[object], gpus: Sequence[int] = ()) -> Iterator[Ranks]:
    """Start all other processes of a run, of which this one is the first.

    Args:
        count: how many processes in all.
        work: what the others do; it can be pickled.
        gpus: the GPU of each process; empty for the CPU.

    Raises:
        UserError: another process died, or ended in an error that this one didn't meet.
        Interrupted: another process was asked to stop where this one waits for it.
    """
    if count == 1:
        yield Ranks()
        return
    store = dist.TCPStore(  # type: ignore[attr-defined]
        "127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=PATIENCE
    )
    context = mp.get_context("spawn")
    others = [
        context.Process(
            target=_followed,
            args=(Ranks(index, count), store.port, work, gpus[index] if gpus else None),
            daemon=True,
        )
        for index in range(1, count)
    ]
    for process in others:
        process.start()
    done = threading.Event()
    threading.Thread(target=_watch, args=(others, store, done), daemon=True).start()
    try:
        with _joined(Ranks(0, count), store):
            try:
                yield Ranks(0, count)
            except BaseException:
                store.set(OVER, "1")
                raise
    except RuntimeError as error:
        ends = time.monotonic() + LAST_WORDS_SECONDS
        while all(process.exitcode is None for process in others) and time.monotonic() < ends:
            time.sleep(0.1)
        if (words := _obituary(others, store)) is not None:
            raise UserError(words) from error
        if store.check([STOPPED]):
            raise Interrupted("stopped by a signal to another process; go on with --resume") from error
        raise
    finally:
        done.set()
        for process in others:
            process.join(timeout=10)
            if process.is_alive():
                process.kill()


def _followed(ranks: Ranks, port: int, work: Work[object], gpu: int | None) -> None:
    """The life of a process that `leading` started; what stops it stops the first process too, which reports it."""
    die_with_parent(KILL)
    store = dist.TCPStore(  # type: ignore[attr-defined]
        "127.0.0.1", port, is_master=False, timeout=PATIENCE
    )
    with _joined(ranks, store):
        try:
            work(log=silent_log(), gpu=gpu, ranks=ranks)
        except UserError as error:
            store.set(FAILED, f"in process {ranks.index} of this run: {error}")
            sys.exit(error.exit_code)
        except (NumericalError, Interrupted, KeyboardInterrupt):
            store.set(STOPPED, "1")
        except RuntimeError:
            if not store.check([OVER]):  # else the first process has gone, and reports why
                raise


@contextmanager
def _joined(ranks: Ranks, where: Any) -> Iterator[None]:
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    how: dict[str, Any] = {"init_method": where} if isinstance(where, str) else {"store": where}
    dist.init_process_group(backend, rank=ranks.index, world_size=ranks.count, timeout=PATIENCE, **how)
    try:
        yield
    finally:
        dist.destroy_process_group()


def _watch(others: Sequence[Any], store: Any, done: threading.Event) -> None:
    """End this process soon after another one has died, should it be waiting for that one."""
    while not done.wait(0.5):
        words = _obituary(others, store)
        if words is not None and not done.wait(20.0):
            print(f"error: {visible(words)}", file=sys.stderr, flush=True)
            os._exit(UserError.exit_code)


def _obituary(others: Sequence[Any], store: Any) -> str | None:
    """The message about a process that ended in an error; None while all are well."""
    ended = {index: one.exitcode for index, one in enumerate(others, start=1) if one.exitcode not in (None, 0)}
    if not ended:
        return None
    if store.check([FAILED]):
        words: str = store.get(FAILED).decode()
        return words
    index, code = next(iter(ended.items()))
    return (
        f"process {index} of this run died (exit code {code}; it may have said why above), so it can't go on; start "
        "again from the last checkpoint with --resume"
    )
