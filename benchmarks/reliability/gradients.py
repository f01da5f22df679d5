"""R6 to R8: exact gradients, memory that runs out, numbers that aren't finite."""

import itertools
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import torch.distributed as dist
from common import EVERYTHING, Place, Timer, contents, ended, forked, train
from safetensors.torch import load_file, save_file

from serfit.config.schema import ModelParams
from serfit.nn.losses import ccc_loss
from serfit.nn.model import EmotionModel, build_model
from serfit.runs import directory as runs
from serfit.training.batches import Example
from serfit.training.executor import Executor
from serfit.training.ranks import Ranks, _joined

LENGTHS = {
    "equal": [3000] * 8,
    "ragged": [3000, 5200, 2100, 4100, 6000, 1800, 2600, 3300],
    "one long": [800, 900, 700, 16000, 850, 950, 800, 900],
}

MESSAGES = (
    "CUDA out of memory. Tried to allocate 2.00 GiB",
    "CUDA error: out of memory",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate",
    "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling cublasCreate",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "Unable to find an engine to execute this computation",
    "FIND was unable to find an engine to execute this computation",
    "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes",
    "NCCL error: unhandled cuda error 'out of memory'",
    "HIP out of memory. Tried to allocate 64.00 MiB",
)
"""Ten ways in which torch and its libraries say that memory ran out."""


def _loss(predictions: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return ccc_loss(predictions, targets, mse_share=0.2).value


def _examples(kind: str) -> list[Example]:
    random = torch.Generator().manual_seed(1)
    made = []
    for number, length in enumerate(LENGTHS[kind]):
        inputs = torch.randn(length, generator=random, dtype=torch.float64)
        made.append(Example(str(number), inputs, torch.rand(2, generator=random, dtype=torch.float64), number))
    return made


def _network() -> EmotionModel:
    params = ModelParams(
        speech_encoder="random:tiny", freeze_cnn=False, encoder_dropout=0.2, head_dropout=0.3, attention_dropout=0.1
    )
    return build_model(params, dimensions=2, seed=3).double()


def _gradient(kind: str, cut: int, ranks: Ranks, model: Any = None) -> tuple[float, torch.Tensor, int]:
    """Loss, gradient, and how many tensors of the gradient's size were summed over ranks."""
    model = model or _network()
    longest = max(LENGTHS[kind])
    budget = None if cut == 1 else max(longest, 8 // cut * longest)
    executor = Executor(model, 0, torch.device("cpu"), nullcontext, budget, ranks)
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    real, large = dist.all_reduce, 0

    def counted(tensor: torch.Tensor, *rest: Any, **named: Any) -> Any:
        nonlocal large
        large += tensor.numel() >= parameters // 2
        return real(tensor, *rest, **named)

    dist.all_reduce = counted
    try:
        value, _ = executor.gradients(_examples(kind), _loss)
    finally:
        dist.all_reduce = real
    return value, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]), large


def _in_ranks(folder: Path, count: int, work: Callable[[Ranks], dict[str, torch.Tensor]]) -> list[dict[str, Any]] | str:
    """What each of several ranks computes; words when one of them failed or hung."""

    def joined(index: int) -> None:
        us = Ranks(index, count)
        with _joined(us, f"file://{folder}/meeting"):
            save_file(work(us), folder / f"rank{index}.safetensors")

    children = [forked(lambda index=index: joined(index), folder / "errors") for index in range(count)]
    codes = [ended(child, 60) for child in children]
    if codes != [0] * count:
        return f"exit codes {codes}: {(folder / 'errors').read_text()[-500:]}"
    return [load_file(folder / f"rank{index}.safetensors") for index in range(count)]


def r6(index: Place, scale: int) -> Timer:
    """Micro-batches 1, 2, 4, 8 x ranks 1, 2 x equal and ragged lengths and one long: relative error in float64."""
    timer = Timer("R6")
    worst = 0.0
    for kind in LENGTHS:
        _, whole, _ = _gradient(kind, 1, Ranks())
        cuts = (1, 2, 4, 8)
        alone = [_gradient(kind, cut, Ranks()) for cut in cuts]

        def work(us: Ranks, kind: str = kind, cuts: tuple[int, ...] = cuts) -> dict[str, torch.Tensor]:
            found = {cut: _gradient(kind, cut, us) for cut in cuts}
            return {f"g{cut}": found[cut][1] for cut in cuts} | {f"n{cut}": torch.tensor(found[cut][2]) for cut in cuts}

        both = _in_ranks(index.fresh("ranks"), 2, work)
        for cut, (_, gradient, _) in zip(cuts, alone, strict=True):
            error = float((gradient - whole).norm() / whole.norm())
            worst = max(worst, error)
            timer.case(f"{kind}, cut in {cut}, 1 rank", error <= 1e-12, f"{error:.1e}")
            if isinstance(both, str):
                timer.case(f"{kind}, cut in {cut}, 2 ranks", False, both)
                continue
            errors = [float((rank[f"g{cut}"] - whole).norm() / whole.norm()) for rank in both]
            sums = [int(rank[f"n{cut}"]) for rank in both]
            worst = max(worst, *errors)
            timer.case(f"{kind}, cut in {cut}, 2 ranks", max(errors) <= 1e-12 and sums == [1, 1], f"{errors}, {sums}")
    timer.notes.append(f"largest relative error {worst:.1e}; dropout everywhere; one sum of all gradients per step")
    return timer


class _Tight(torch.nn.Module):
    """A model on a machine on which one place of the computation has room for so many padded entries."""

    def __init__(self, model: EmotionModel, where: str, message: str, room: int) -> None:
        super().__init__()
        self.model, self.where, self.message, self.room = model, where, message, room
        self.feature_shape, self.computed_entries = model.feature_shape, model.computed_entries
        self.hook: Any = None

    def _check(self, inputs: torch.Tensor) -> None:
        if inputs.shape[0] * inputs.shape[1] > self.room:
            kind = torch.OutOfMemoryError if self.message.startswith("HIP") else RuntimeError
            raise kind(self.message)

    def forward(self, inputs: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
        graph = torch.is_grad_enabled()
        if self.where == ("forward" if graph else "prediction"):
            self._check(inputs)
        outputs: torch.Tensor = self.model(inputs, *rest, **named)
        if self.where == "end of forward" and graph:
            self._check(inputs)
        if self.hook is not None:
            self.hook.remove()
        if self.where in ("backward", "end of backward") and graph:
            early = next(p for p in self.model.parameters() if p.requires_grad)
            self.hook = (outputs if self.where == "backward" else early).register_hook(lambda _: self._check(inputs))
        return outputs


PLACES = ("forward", "end of forward", "backward", "end of backward", "prediction")


def r7(index: Place, scale: int) -> Timer:
    """Ten messages x five places on one rank; on two ranks, memory running out on either or both."""
    timer = Timer("R7")
    kind, room = "ragged", 13_000
    examples = _examples(kind)
    for message, where in itertools.product(MESSAGES, PLACES):
        reference = Executor(_network(), 0, torch.device("cpu"), nullcontext, room)
        tight = Executor(_Tight(_network(), where, message, room), 0, torch.device("cpu"), nullcontext, None)
        if where == "prediction":
            again = tight.predict(examples)
            reference.budget = tight.budget
            same = bool(torch.equal(again, reference.predict(examples)))
        else:
            value, _ = tight.gradients(examples, _loss)
            reference.budget = tight.budget
            expected, _ = reference.gradients(examples, _loss)
            mine, theirs = (
                torch.cat([p.grad.flatten() for p in e.model.parameters() if p.grad is not None])
                for e in (tight, reference)
            )
            same = value == expected and bool(torch.equal(mine, theirs))
        said = "ran out" in " ".join(tight.take_notes())
        timer.case(f"{where}: {message[:40]}", same and said, f"same {same}, said {said}")
    for short in ((0,), (1,), (0, 1)):

        def work(us: Ranks, short: tuple[int, ...] = short) -> dict[str, torch.Tensor]:
            model: Any = _network()
            if us.index in short:
                model = _Tight(model, "forward", MESSAGES[1], 7_000)
            executor = Executor(model, 0, torch.device("cpu"), nullcontext, None, us)
            executor.gradients(examples, _loss)
            flat = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
            return {"g": flat, "budget": torch.tensor(executor.budget or 0)}

        _, whole, _ = _gradient(kind, 1, Ranks())
        both = _in_ranks(index.fresh("ranks"), 2, work)
        if isinstance(both, str):
            timer.case(f"out of memory on ranks {short}", False, both)
            continue
        error = max(float((rank["g"] - whole).norm() / whole.norm()) for rank in both)
        agreed = both[0]["budget"] == both[1]["budget"] != 0
        timer.case(f"out of memory on ranks {short}", error < 1e-12 and bool(agreed), f"{error:.1e}, {agreed}")
    return timer


def _poisoned_gradient(rank_wanted: int, value: float, call: int) -> Callable[[int], None]:
    """A trap: in one rank, the gradient of the call-th step isn't finite."""

    def set_trap(rank: int) -> None:
        real, calls = Executor._sum_gradients, 0

        def poisoned(self: Executor) -> None:
            nonlocal calls
            calls += 1
            if calls == call and rank == rank_wanted:
                grads = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
                grads[-1].view(-1)[0] = value
            real(self)

        Executor._sum_gradients = poisoned

    return set_trap


def _poisoned_forward(value: float, call: int, *, training: bool, where: str) -> Callable[[int], None]:
    """A trap: from the call-th pass on, an output or a weight isn't finite."""

    def set_trap(rank: int) -> None:
        real, calls = EmotionModel.forward, 0

        def poisoned(self: EmotionModel, *rest: Any, **named: Any) -> torch.Tensor:
            nonlocal calls
            outputs: torch.Tensor = real(self, *rest, **named)
            calls += self.training is training
            if calls >= call and self.training is training:
                outputs = outputs * value if where == "output" else outputs + value * 0.0
            return outputs

        EmotionModel.forward = poisoned

    return set_trap


def r8(index: Place, scale: int) -> Timer:
    """NaN and infinity from audio, labels, predictions and gradients (of one rank): never in weights, never best."""
    timer = Timer("R8")
    for value in (float("nan"), float("inf")):
        _bad_files(index, timer, value)
        traps: dict[str, tuple[Callable[[int], None], int]] = {
            "output in training": (_poisoned_forward(value, 3, training=True, where="output"), 1),
            "output in evaluation": (_poisoned_forward(value, 1, training=False, where="output"), 1),
            "gradient": (_poisoned_gradient(0, value, 2), 1),
            "gradient of rank 1": (_poisoned_gradient(1, value, 2), 2),
        }
        for name, (trap, ranks) in traps.items():
            folder = index.fresh("numbers")
            (folder / "runs").mkdir()
            config = index.config(folder, **EVERYTHING)
            run, whole, errors = folder / "runs" / "r", folder / "runs" / "whole", folder / "errors"
            codes = train(config, run, resume=False, before=trap, ranks=ranks, errors=errors)
            told = errors.read_text() if errors.exists() else ""
            saved = list((run / runs.CHECKPOINTS).glob("step-*.safetensors")) if run.exists() else []
            finite = bool(saved) and all(t.isfinite().all() for path in saved for t in load_file(path).values())
            named = "Ses0" in told and "NumericalError" in told
            train(config, run, resume=True, ranks=ranks, errors=errors)
            train(config, whole, resume=False, ranks=ranks, errors=errors)
            same = contents(run) == contents(whole) != {}
            why = f"codes {codes}, finite {finite}, named {named}, same {same}: {told[-300:]}"
            timer.case(f"{value} in {name}", codes[0] == 3 and finite and named and same, why)
    return timer


def _bad_files(index: Place, timer: Timer, value: float) -> None:
    """A sample or a label that isn't finite: refused or stopped, and named."""
    folder = index.fresh("files")
    random = np.random.default_rng(1)
    rows = []
    for number in range(12):
        samples = random.standard_normal(4000).astype(np.float32)
        if number == 7:
            samples[2000] = value
        soundfile.write(folder / f"{number}.wav", samples, 16_000, subtype="FLOAT")
        rows.append(f"{number}.wav,{1 + number % 5},s{number}\n")
    for name, header_row in {"sample": rows, "label": [*rows[:5], f"5.wav,{value},s5\n", *rows[6:]]}.items():
        (folder / "t.csv").write_text("path,v,speaker\n" + "".join(header_row))
        data = {
            "corpus": "csv",
            "root": str(folder),
            "dimensions": ["valence"],
            "table": {"path": "t.csv", "valence": "v", "speaker": "speaker"},
            "scales": {"valence": [1, 5]},
            "split": {"scheme": "grouped_kfold", "folds": 3},
            "loader": {"batch_size": 4, "workers": 0},
        }
        config = index.config(folder, train__epochs=1, data=data, features__store=None)
        (folder / "runs").mkdir(exist_ok=True)
        errors = folder / f"errors {name}"
        code = train(config, folder / "runs" / name, resume=False, errors=errors)[0]
        told = errors.read_text()
        fitting = "7.wav" in told if name == "sample" else "row 7" in told
        timer.case(f"{value} in a {name}", code == 2 and fitting, f"exit {code}: {told[-300:]}")
