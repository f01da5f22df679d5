"""The precision of an encoder's passes: as asked for, or bf16 where the device computes in it and that pays.

On CPUs nothing but facts decide: the instructions of the machine and the width of the encoder. So folds and seeds of an
experiment, and a run that is resumed, don't differ by the luck of a measurement. The one measurement there is,
`outruns_fp32`, finds out whether the instructions are used and good for anything, and its answers lie far apart: on a
busy machine 300 repetitions gave 1.8 to 2.0 times the speed of float32 with AMX, 0.5 without it, and 0.1 emulated.
"""

import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
import torch.nn.functional as F

Name = Literal["fp32", "bf16"]
Wanted = Literal["auto", "fp32", "bf16"]

BF16_INSTRUCTIONS = ("amx_bf16", "avx512_bf16")
"""Instructions of x86 processors, as `torch.cpu.get_capabilities` calls them. Nothing else was measured."""

TRIES = 50
"""Products in each precision of which the fastest counts. The first few are slow, and others use the machine."""

NARROWEST = 384
"""Least width from which an encoder is computed in bf16 on such CPUs: even one second of speech takes less time there
(see docs/performance.md). Below, what surrounds the matrix products takes most of it."""


@dataclass(frozen=True, slots=True)
class Precision:
    """The precision of an encoder's passes on a device.

    Attributes:
        name: of passes in training and labelling.
        device_type: "cpu" or "cuda".
        frozen: of passes whose outputs are kept as features: float32 on GPUs.
        reason: what decided, in words, where that wants saying.
    """

    name: Name = "fp32"
    device_type: str = "cpu"
    frozen: Name = "fp32"
    reason: str = ""

    @property
    def half(self) -> bool:
        """Whether activations of training are in 16 bits."""
        return self.name == "bf16"

    def autocast(self) -> AbstractContextManager[object]:
        """A context for passes in training and labelling."""
        return _autocast(self.name, self.device_type)

    def autocast_frozen(self) -> AbstractContextManager[object]:
        """A context for passes whose outputs are kept as features."""
        return _autocast(self.frozen, self.device_type)


def _autocast(name: Name, device_type: str) -> AbstractContextManager[object]:
    """Keeps no 16-bit weights: each is used once in a pass, and kept copies would be 2 bytes a parameter."""
    return nullcontext() if name == "fp32" else torch.autocast(device_type, torch.bfloat16, cache_enabled=False)


def choose_precision(wanted: Wanted, device: torch.device, width: int, able: bool | None = None) -> Precision:
    """The precision in force for an encoder.

    Args:
        wanted: as configured.
        device: where it computes.
        width: of the encoder.
        able: whether bf16 is computed there; None asks the device. Processes of one run must all be given the same.
    """
    on_cpu = device.type == "cpu"
    if wanted == "fp32" or (wanted == "auto" and on_cpu and width < NARROWEST):
        return Precision("fp32", device.type)
    able = computes_bf16(device) if able is None else able
    frozen: Name = "bf16" if able and on_cpu else "fp32"
    if wanted == "bf16":
        return Precision("bf16", device.type, frozen)
    reason = f"the CPU computes in it, and the encoder is {width} wide" if frozen == "bf16" else ""
    return Precision("bf16" if able else "fp32", device.type, frozen, reason)


def computes_bf16(device: torch.device) -> bool:
    """Whether a device computes in bf16 itself. Older GPUs (compute capability 7.5) and CPUs emulate it, slowly."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(bf16_instructions()) and outruns_fp32()


def bf16_line(device: torch.device) -> str:
    """One line on bf16 and this machine."""
    able = computes_bf16(device)
    if device.type == "cuda" or not bf16_instructions():
        return f"bf16 mixed precision: {'yes' if able else 'no'}"
    if able:
        return f"bf16 mixed precision: yes, precision auto takes it for encoders that are {NARROWEST} wide or wider"
    return "bf16 mixed precision: no, the CPU has instructions for it, but products are no faster with them"


def bf16_instructions() -> tuple[str, ...]:
    """The instructions for bf16 that the CPU has; none where that can't be asked or wasn't measured."""
    if sys.platform != "linux":
        return ()
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return tuple(name for name in BF16_INSTRUCTIONS if capabilities.get(name))


@cache
def outruns_fp32() -> bool:
    """Whether products are faster in bf16 than in float32; the environment may forbid the instructions."""
    threads = torch.get_num_threads()
    x, weight = torch.ones(128, 512), torch.ones(512, 512)
    taken: dict[Name, list[float]] = {"fp32": [], "bf16": []}
    torch.set_num_threads(1)  # several that wait for each other on a busy machine spend CPU time at random
    try:
        for _ in range(TRIES):
            for name, times in taken.items():
                began = time.thread_time()
                with torch.inference_mode(), _autocast(name, "cpu"):
                    F.linear(x, weight)
                times.append(time.thread_time() - began)
    finally:
        torch.set_num_threads(threads)
    return min(taken["bf16"]) < min(taken["fp32"])
