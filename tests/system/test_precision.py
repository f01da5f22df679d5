"""Which precision is taken where, and that nothing but facts of machine and encoder decide."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from serfit.system import precision
from serfit.system.precision import (
    NARROWEST,
    TRIES,
    bf16_instructions,
    bf16_line,
    choose_precision,
    computes_bf16,
    outruns_fp32,
)
from serfit.system.runtime import machine_lines

CPU = torch.device("cpu")
Machine = Callable[..., None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A function that makes this machine another one."""

    def become(platform: str = "linux", capabilities: dict[str, Any] | None = None, faster: bool = True) -> None:
        monkeypatch.setattr(sys, "platform", platform)
        given = {"amx_bf16": True, "avx512_bf16": True} if capabilities is None else capabilities
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: given, raising=False)
        monkeypatch.setattr(precision, "outruns_fp32", lambda: faster)

    return become


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_auto_takes_bf16_where_the_gpu_computes_in_it_itself(
    capability: tuple[int, int], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As torch answers: emulation counts unless it is left out, and a Turing GPU has nothing else."""

    def supported(including_emulation: bool = True) -> bool:
        return including_emulation or capability >= (8, 0)

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    chosen = choose_precision("auto", torch.device("cuda", 0), width=64)
    assert (chosen.name, chosen.frozen) == (expected, "fp32")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (2**33, 2**34))
    card = type("Card", (), {"name": "a card", "total_memory": 2**34})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card)
    assert f"bf16 mixed precision: {'yes' if expected == 'bf16' else 'no'}" in machine_lines()


@pytest.mark.parametrize(
    "other",
    [
        {"platform": "darwin", "capabilities": {"architecture": "arm64", "bf16": True}},
        {"platform": "linux", "capabilities": {"architecture": "aarch64", "bf16": True}},
        {"platform": "win32"},
        {"capabilities": {"avx512_f": True, "amx_bf16": False}},
        {"capabilities": {}},
        {"faster": False},
    ],
)
def test_auto_stays_in_float32_on_cpus_without_bf16(other: dict[str, Any], machine: Machine) -> None:
    machine(**other)
    for width in (64, 4096):
        assert choose_precision("auto", CPU, width) == precision.Precision()
    asked = choose_precision("bf16", CPU, 64)
    assert (asked.name, asked.frozen) == ("bf16", "fp32")  # as asked; what is kept stays in the store as it was
    assert "bf16 mixed precision: no" in bf16_line(CPU)


def test_a_torch_that_does_not_know_the_cpu_is_no_trouble(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine()
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert choose_precision("auto", CPU, 4096).name == "fp32"


@pytest.mark.parametrize("width", [64, NARROWEST - 1, NARROWEST, 768])
@pytest.mark.parametrize("instructions", [("amx_bf16",), ("avx512_bf16",), ("amx_bf16", "avx512_bf16")])
def test_on_cpus_with_bf16_the_width_decides(width: int, instructions: tuple[str, ...], machine: Machine) -> None:
    machine(capabilities=dict.fromkeys(instructions, True))
    chosen = choose_precision("auto", CPU, width)
    expected = "bf16" if width >= NARROWEST else "fp32"
    assert (chosen.name, chosen.frozen) == (expected, expected)
    assert (str(width) in chosen.reason) == (expected == "bf16")
    for wanted in ("fp32", "bf16"):
        asked = choose_precision(wanted, CPU, width)
        assert (asked.name, asked.frozen, asked.reason) == (wanted, wanted, "")


def test_processes_of_one_run_can_be_told_what_all_can(machine: Machine) -> None:
    machine()
    assert choose_precision("auto", CPU, 768, able=False).name == "fp32"
    machine(faster=False)
    assert choose_precision("auto", CPU, 768, able=True).name == "bf16"


def test_contexts_are_those_of_the_precision() -> None:
    x, weight = torch.ones(2, 3), torch.ones(4, 3)
    mixed = precision.Precision("bf16", "cpu", "fp32")
    for context, expected in ((mixed.autocast(), torch.bfloat16), (mixed.autocast_frozen(), torch.float32)):
        with context:
            assert torch.nn.functional.linear(x, weight).dtype == expected


@pytest.mark.parametrize(("half", "expected"), [(0.1, True), (0.99, True), (1.01, False), (10.0, False)])
def test_the_check_takes_the_best_of_several_and_leaves_the_threads_alone(
    half: float, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Products in float32 take 1, others half; all rounds but the last are disturbed, as by a first use."""

    def clock() -> Iterator[float]:
        now = 0.0
        for number in range(TRIES):
            for taken in (1.0, half):
                yield now
                now += taken + 50.0 * (number < TRIES - 1)
                yield now

    times = clock()
    monkeypatch.setattr("serfit.system.precision.time.thread_time", lambda: next(times))
    before = torch.get_num_threads()
    assert outruns_fp32.__wrapped__() == expected
    assert torch.get_num_threads() == before


@pytest.mark.slow
def test_instructions_that_the_environment_forbids_are_not_counted_on() -> None:
    """Then torch emulates them, at a tenth of the speed."""
    if sys.platform != "linux" or not bf16_instructions():
        pytest.skip("this CPU has no instructions for bf16")
    code = "import torch; from serfit.system.precision import computes_bf16; print(computes_bf16(torch.device('cpu')))"
    forbidden = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    said = subprocess.run([sys.executable, "-c", code], env=forbidden, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"


def test_the_answer_is_the_same_whenever_it_is_asked_for() -> None:
    assert len({computes_bf16(CPU) for _ in range(3)}) == 1
    assert bf16_line(CPU) in machine_lines() or torch.cuda.is_available()
