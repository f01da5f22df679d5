"""Everything about GPUs that was foretold and never measured, in one call of under ten minutes.

    python benchmarks/speed/gpu.py [--size large] [--json FILE]

It begins with correctness, for a fast wrong number is worth nothing, and goes on when a part fails. Each part prints
what it found beside what docs/performance.md foretells. Nothing is trained on real speech; weights are random.
`--device cpu --size tiny` tries the program itself.
"""

import argparse
import json
import statistics
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from durations import iemocap_durations
from run import ceiling, flops, hugging_face, markdown, material, measure, ours
from torch import Tensor

from serfit.config.schema import ExperimentConfig, ModelParams
from serfit.nn.dropout import trouble_with_kernels
from serfit.nn.losses import ccc_loss
from serfit.nn.model import EmotionModel, build_model
from serfit.system.precision import Precision
from serfit.training.batches import Example, plan_epoch
from serfit.training.executor import Executor
from serfit.training.forecast import measured_pace
from serfit.training.memory import peak_bytes
from serfit.training.optim import build_optimizer

GIB = 1024**3
PARAMS: dict[str, Any] = {"layers": "last", "pooling": "attention"}
"""The network of configs/finetune.yaml."""


@dataclass(frozen=True)
class Machine:
    """Where and how large."""

    size: str
    device: torch.device

    @property
    def on_gpu(self) -> bool:
        """Whether its memory and its clock are a GPU's."""
        return self.device.type == "cuda"

    def wait(self) -> None:
        """Until everything asked for is computed."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def model(self, checkpointing: bool = False, **params: Any) -> EmotionModel:
        """A network there, with random weights."""
        chosen = ModelParams(speech_encoder=f"random:{self.size}", **(PARAMS | params))
        return build_model(chosen, 2, 1, checkpointing).to(self.device)

    def executor(self, model: EmotionModel, precision: Any = "bf16", budget: int | None = None) -> Executor:
        """What computes its gradients."""
        autocast = Precision(precision, self.device.type).autocast
        return Executor(model, model.frozen_stages, self.device, autocast, budget)


def loss_of(predictions: Tensor, targets: Tensor) -> Tensor:
    return ccc_loss(predictions, targets)[0]


def examples_of(model: EmotionModel, seconds: list[float]) -> list[Example]:
    """Features of noise, as the store gives them, with made-up targets."""
    random = torch.Generator().manual_seed(3)
    made = []
    for index, length in enumerate(seconds):
        shape = model.feature_shape(round(16_000 * length), model.frozen_stages)
        target = torch.rand(2, generator=random)
        made.append(Example(str(index), torch.randn(shape, generator=random), target, dropout_seed=index))
    return made


def gradients_are_right(machine: Machine) -> Iterator[str]:
    """The gradient of a ragged batch, with dropout, against other ways to compute it on the same device."""
    yield f"dropout in one kernel: {trouble_with_kernels(machine.device.index or 0) or 'yes'}"
    small = Machine("tiny", machine.device)
    model = small.model(layers="weighted", pooling="attentive_statistics")
    examples = examples_of(model, [4.0, 2.5, 1.3, 1.28, 3.9])  # 64 frames more than a multiple of 128 among them

    def gradient(executor: Executor) -> Tensor:
        executor.gradients(examples, loss_of)
        found = [p.grad.flatten().double() for p in executor.model.parameters() if p.grad is not None]
        return torch.cat(found).cpu()

    exact = gradient(small.executor(model.double(), "fp32"))
    model.float()
    for name, executor in {
        "fp32": small.executor(model, "fp32"),
        "fp32, in micro-batches": small.executor(model, "fp32", budget=300),
        "bf16": small.executor(model, "bf16"),
        "bf16, in micro-batches": small.executor(model, "bf16", budget=300),
    }.items():
        found = gradient(executor)
        error = float((found - exact).norm() / exact.norm())
        bad = " <- NOT FINITE" if not found.isfinite().all() else ""
        yield f"{name}: relative error of the gradient against float64 {error:.1e}{bad}"
    model.encoder.gradient_checkpointing = True
    error = float((gradient(small.executor(model, "fp32")) - exact).norm() / exact.norm())
    yield f"fp32, gradient checkpointing: {error:.1e}"


def memory_is_as_foretold(machine: Machine) -> Iterator[str]:
    """Peak memory of a training step against `serfit.training.memory.peak_bytes`."""
    if not machine.on_gpu:
        yield "left out: the CPU's allocator doesn't count"
        return
    worst = 0.0
    for precision, checkpointing in (("bf16", False), ("bf16", True), ("fp32", False)):
        model = machine.model(checkpointing)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-6, fused=True)
        executor = machine.executor(model, precision)
        for batch, seconds in ((2, 3.5), (4, 3.5), (8, 3.5), (16, 3.5), (4, 10.5), (8, 10.5)):
            examples = examples_of(model, [seconds] * batch)
            for _ in range(2):
                model.zero_grad(set_to_none=True)
                torch.cuda.reset_peak_memory_stats(machine.device)
                executor.gradients(examples, loss_of)
                optimizer.step()
            found = torch.cuda.max_memory_allocated(machine.device)
            how: dict[str, Any] = {"half": precision == "bf16", "checkpointing": checkpointing, "gpu": True}
            foretold = peak_bytes(model, executor.stage, batch, seconds, **how)
            worst = max(worst, abs(foretold / found - 1.0))
            yield (
                f"{precision}{', computed again' if checkpointing else ''}, {batch} x {seconds} s: "
                f"{found / GIB:.2f} GiB, foretold {foretold / GIB:.2f} ({foretold / found - 1.0:+.1%})"
            )
        del model, optimizer, executor
        torch.cuda.empty_cache()
    yield f"largest error {worst:.1%} (wanted: 10 %)"


def a_small_card_is_enough(machine: Machine) -> Iterator[str]:
    """Optimisation batches of 8 with 6 GB and of 32 with 24 GB, by a limit on what torch may allocate."""
    if not machine.on_gpu:
        yield "left out: there is no GPU"
        return
    total = torch.cuda.get_device_properties(machine.device).total_memory
    for gigabytes, batch in ((6.0, 8), (24.0, 32)):
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(min(1.0, gigabytes * 1e9 / total), machine.device)
        try:
            model = machine.model()
            optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-6, fused=True)
            executor = machine.executor(model)
            seconds = np.quantile(iemocap_durations(), np.linspace(0.02, 0.999, batch)).tolist()
            examples = examples_of(model, seconds)
            for _ in range(2):
                executor.gradients(examples, loss_of)
                optimizer.step()
            machine.wait()
            peak = torch.cuda.max_memory_allocated(machine.device) / 1e9
            notes = "; ".join(executor.take_notes()) or "at once"
            longest = max(seconds)
            yield f"{batch} utterances, longest {longest:.1f} s, within {gigabytes:.0f} GB: {peak:.2f} GB ({notes})"
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, machine.device)
            model = optimizer = executor = None  # type: ignore[assignment]
            torch.cuda.empty_cache()


def speed_by_batch(machine: Machine) -> Iterator[str]:
    """Optimisation batches of 8 and 32: serfit against padded random batches of the same size, both in bf16."""
    peak = ceiling(machine.device, time.perf_counter, half=machine.on_gpu)
    yield f"matrix products: {peak / 1e12:.1f} TFLOP/s"
    for size in (8, 32):
        yield from speed_at(machine, size, peak)


def speed_at(machine: Machine, size: int, peak: float) -> Iterator[str]:
    """The rows of one batch size."""
    half, data = machine.on_gpu, material(alike=size)
    lengths = [len(waveform) for waveform in data[0]]
    seconds = [length / 16_000 for length in lengths]
    shuffled = np.random.default_rng(3).permutation(len(lengths)).reshape(-1, size).tolist()
    bucketed = np.argsort(lengths, kind="stable").reshape(-1, size).tolist()
    stored = {"speech_encoder": f"random:{machine.size}", "layers": "last"}
    mine = partial(ours, stored, machine.device, bucketed, data, half=half)
    rows: dict[str, tuple[Callable[[], Any], float]] = {
        "Hugging Face padded": (partial(hugging_face, machine.size, machine.device, shuffled, data, half=half), 3),
        "serfit": (mine, 0),
        "serfit, computed again": (partial(mine, checkpointing=True), 0),
    }
    base = None
    for name, (build, cnn) in rows.items():
        try:
            median = seconds_of(machine, build())
        except RuntimeError as error:
            yield f"{size} per update, {name}: {type(error).__name__}: {str(error).splitlines()[0]}"
            continue
        finally:
            if machine.on_gpu:
                torch.cuda.empty_cache()
        base = base or median
        share = flops(machine.size, seconds, cnn=cnn, layers=3) / median / peak
        yield (
            f"{size} per update, {name}: {len(lengths) / median:.1f} utterances/s, {sum(seconds) / median:.0f} s of "
            f"speech/s, {share:.0%} of the ceiling, {base / median:.2f} x the first row"
        )


def seconds_of(machine: Machine, work: Callable[[], object]) -> float:
    """Median of three, after one to warm up."""
    taken = []
    for _ in range(4):
        machine.wait()
        began = time.perf_counter()
        work()
        machine.wait()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:])


def an_epoch_is_as_foretold(machine: Machine) -> Iterator[str]:
    """Time of 60 optimisation batches of an epoch of IEMOCAP's lengths against the probe of `serfit check`."""
    config = ExperimentConfig.model_validate({"experiment": {"name": "probed"}, "data": {"root": "."}})
    precision = "bf16" if machine.on_gpu else "fp32"
    seconds = np.random.default_rng(1).permutation(iemocap_durations())[:6023]
    plan = plan_epoch(seconds, config.optimisation_batch, seed=1, epoch=1, bucketing=True)
    pace = measured_pace(machine.executor(machine.model(), precision), config, plan, seconds)
    tried = plan[: 60 if machine.on_gpu else 4]
    executor = machine.executor(machine.model(), precision)
    optimizer = build_optimizer(executor.model, config.train.optimizer)
    batches = [examples_of(executor.model, seconds[batch].tolist()) for batch in tried]
    executor.gradients(batches[0], loss_of)
    optimizer.step()
    machine.wait()
    began = time.perf_counter()
    for examples in batches:
        executor.gradients(examples, loss_of)
        optimizer.step()
    machine.wait()
    taken = time.perf_counter() - began
    foretold = pace.seconds(len(tried), sum(len(batch) * float(seconds[batch].max()) for batch in tried))
    yield (
        f"{len(tried)} updates of {config.optimisation_batch}: {taken:.2f} s, foretold {foretold:.2f} s "
        f"({foretold / taken - 1.0:+.0%}, wanted: 20 %); an epoch of {len(plan)} updates about "
        f"{taken * len(plan) / len(tried):.0f} s"
    )


@contextmanager
def told(name: str, found: dict[str, list[str]]) -> Iterator[Callable[[str], None]]:
    """Print and keep the lines of a part; what fails is printed and kept too."""
    began = time.perf_counter()
    lines = found.setdefault(name, [])
    print(f"\n## {name.replace('_', ' ')}", flush=True)

    def say(line: str) -> None:
        lines.append(line)
        print(f"- {line}", flush=True)

    try:
        yield say
    except Exception as error:
        traceback.print_exc()
        say(f"FAILED: {type(error).__name__}: {error}")
    print(f"({time.perf_counter() - began:.0f} s)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cpu", "cuda"])
    parser.add_argument("--size", default="large", choices=["tiny", "base", "large"])
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the table against the others")
    parser.add_argument("--json", type=Path, help="file to write everything to")
    given = parser.parse_args()
    machine = Machine(given.size, torch.device(given.device, 0) if given.device == "cuda" else torch.device("cpu"))
    if machine.on_gpu:
        torch.cuda.set_device(machine.device)
        torch.backends.cuda.matmul.allow_tf32 = False
    named = torch.cuda.get_device_name(machine.device) if machine.on_gpu else "CPU"
    print(f"{given.size}, {named}, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}", flush=True)
    found: dict[str, list[str]] = {}
    parts = (
        gradients_are_right,
        memory_is_as_foretold,
        a_small_card_is_enough,
        speed_by_batch,
        an_epoch_is_as_foretold,
    )
    for part in parts:
        with told(part.__name__, found) as say:
            for line in part(machine):
                say(line)
    table: dict[str, Any] = {}
    with told("side_by_side", found):
        table = measure(given.size, machine.device, given.rounds, time.perf_counter, lambda line: None)
        print(markdown(table))
    if given.json:
        given.json.write_text(json.dumps({"machine": named, "parts": found, "table": table}, indent=2))


if __name__ == "__main__":
    main()
