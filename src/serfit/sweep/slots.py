"""Where runs may compute: GPUs, or shares of a CPU; each slot is held by one run at a time on the whole machine."""

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from serfit.errors import UserError
from serfit.system.lock import take


@dataclass(frozen=True, slots=True)
class Slots:
    """The resources that a sweep may use on this machine.

    Attributes:
        gpus: identifiers for CUDA_VISIBLE_DEVICES, or empty to compute on the CPU.
        count: number of runs at a time, where there are no GPUs.
    """

    gpus: tuple[str, ...] = ()
    count: int = 1

    @property
    def total(self) -> int:
        """Number of slots."""
        return len(self.gpus) or self.count


def choose_slots(gpus: Sequence[int] | None, count: int | None, environment: Mapping[str, str] = os.environ) -> Slots:
    """The slots a sweep may use: the GPUs named, else all visible ones, else so many shares of the CPU.

    Args:
        gpus: indices among the visible GPUs; None takes all.
        count: runs at a time on the CPU; None is one. Only without GPUs.
        environment: may say CUDA_VISIBLE_DEVICES.

    Raises:
        UserError: a GPU that doesn't exist, both kinds of slots asked for, or no GPU where the environment names some.
    """
    if gpus is not None and count is not None:
        raise UserError("--gpus and --slots both say where to compute; give one of them")
    import torch

    from serfit.system.runtime import check_cpu_is_meant

    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if there == 0:
        check_cpu_is_meant(environment)
    if count is not None:  # on the CPU, whatever GPUs there are
        return Slots(count=count)
    missing = [index for index in gpus or () if index >= there]
    if missing:
        raise UserError(
            f"GPU {missing[0]} doesn't exist: {there} are visible to torch; leave --gpus out to take them all, "
            "or use --slots to share the CPU"
        )
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(index) for index in range(there)]
    return Slots(gpus=tuple(names[index] for index in (range(there) if gpus is None else gpus)))


def on_gpus(gpus: Sequence[str]) -> dict[str, str]:
    """Return the environment of a process that computes on these GPUs; on the CPU without any."""
    return {**os.environ, "CUDA_VISIBLE_DEVICES": ",".join(gpus)}


@contextmanager
def held(gpus: Sequence[str], stopped: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Hold GPUs against every other sweep on this machine, waiting until they are free.

    Ray and Slurm book GPUs within themselves only; two launches on one machine would book the same GPU twice.
    """
    folder = Path(tempfile.gettempdir()) / f"serfit-gpus-{os.getuid() if hasattr(os, 'getuid') else 'all'}"
    folder.mkdir(mode=0o700, exist_ok=True)
    with ExitStack() as stack:
        for gpu in sorted(gpus):
            while not stopped():
                lock = take(folder / f"{gpu.replace('/', '_')}.lock")
                if isinstance(lock, ExitStack):
                    stack.enter_context(lock)
                    break
                time.sleep(1.0)
        yield
