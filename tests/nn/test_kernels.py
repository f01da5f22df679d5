"""The kernels for GPUs, without one: interpreted, they compute what their definition says; compiled, they assemble."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from serfit.nn.dropout import DropoutSeeds, dropped, hashed_masks, trouble_with_kernels

pytest.importorskip("triton")

INTERPRETED = """
import sys
import torch
from serfit.nn.dropout import DropoutSeeds, hashed_masks
from serfit.nn.kernels import FLOATS, drop

random = torch.Generator().manual_seed(1)
for precision in FLOATS:
    for shapes in ([(30, 9), (12, 9)], [(4, 11, 11), (4, 7, 7)], [(6,), (6,)], [(57, 64), (3, 64), (20, 64)]):
        seeds = tuple(range(-5, 2**62, 2**61))[: len(shapes)]
        noise = DropoutSeeds(seeds)
        x = torch.randn(len(shapes), *shapes[0], generator=random).to(precision).requires_grad_()
        slope = torch.randn(x.shape, generator=random).to(precision)
        out = drop(x, noise.tensor(x.device), noise.limits(shapes, x.device), 7, -20_000, 1.25)
        out.backward(slope)
        mask = hashed_masks(shapes[0], shapes, 12_768 / 65_536, noise.tensor(x.device), 7)
        assert 0.5 < mask.float().mean() < 0.99 or len(set(shapes)) > 1
        # the interpreter cuts where a GPU rounds to bfloat16
        tolerance = {"rtol": 2**-7 if precision is torch.bfloat16 else 0.0, "atol": 0.0}
        torch.testing.assert_close(out, x.detach() * mask * 1.25, **tolerance)
        torch.testing.assert_close(x.grad, slope * mask * 1.25, **tolerance)
print("same")
"""

ASSEMBLED = """
import itertools
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from serfit.nn.kernels import _drop

names = ["x", "out", "seeds", "limits", "site", "least", "scale", "outer", "middle", "inner"]
rest = dict(zip(names[2:], ["*i64", "*i32", "i32", "i32", "fp32", "i32", "i32", "i32"]))
aligned = {(names.index(name),): [["tt.divisibility", 16]] for name in ("x", "out", "seeds", "limits", "inner")}
for capability, kind in itertools.product((80, 86, 89, 90), ("bf16", "fp32")):
    signature = {"x": f"*{kind}", "out": f"*{kind}", **rest, "WORDS": "constexpr"}
    source = ASTSource(fn=_drop, signature=signature, constexprs={"WORDS": 256}, attrs=aligned)
    made = compile(source, target=GPUTarget("cuda", capability, 32))
    assert made.asm["cubin"]
    wide = "ld.global.v4.b32" if kind == "fp32" else "ld.global.v2.b32"
    assert wide in made.asm["ptx"], f"{kind} isn't read four entries at a time on {capability}"
print("assembled")
"""


def run(program: str, tmp_path: Path, **environment: str) -> str:
    settings = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path), **environment}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=settings, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_kernel_drops_what_the_hash_says_and_so_does_its_gradient(tmp_path: Path) -> None:
    assert run(INTERPRETED, tmp_path, TRITON_INTERPRET="1") == "same\n"


@pytest.mark.slow
def test_the_kernel_assembles_for_the_usual_cards(tmp_path: Path) -> None:
    assert run(ASSEMBLED, tmp_path) == "assembled\n"


def test_what_stands_in_its_way_is_told_and_not_fatal() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    trouble = trouble_with_kernels(0)
    assert trouble is not None
    assert ": " in trouble


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is visible")
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_on_a_gpu_as_on_the_cpu(precision: torch.dtype) -> None:
    assert trouble_with_kernels(0) is None
    shapes, noise = [(57, 768), (3, 768)], DropoutSeeds((3, -4))
    x = torch.randn(2, 57, 768).to(precision)
    found = dropped(x.cuda().requires_grad_(), shapes, 0.1, noise, 2)
    mask = hashed_masks(shapes[0], shapes, 0.1, torch.tensor(noise.seeds), 2)
    kept = round(0.1 * 2**16)
    assert torch.equal(found.detach().cpu(), x * mask * (1 / (1 - kept / 2**16)))
    found.sum().backward()
