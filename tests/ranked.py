"""Work that tests do in several processes at once; forked from a server that has imported what it needs."""

import json
import multiprocessing as mp
import os
import signal
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import transformers.models.wavlm.modeling_wavlm

from serfit.config.schema import ExperimentConfig, ModelParams
from serfit.errors import UserError
from serfit.nn.losses import ccc_loss
from serfit.nn.model import EmotionModel, build_model
from serfit.system.interrupt import Interrupted
from serfit.system.log import Log, silent_log
from serfit.training.batches import Example
from serfit.training.executor import Executor
from serfit.training.experiment import run_experiment
from serfit.training.filling import fill_store
from serfit.training.material import prepare
from serfit.training.ranks import Ranks, leading, take_part
from serfit.training.trainer import fit

PRELOADED = transformers.models.wavlm.modeling_wavlm
LENGTHS = [3000, 5200, 2100, 4100, 6000, 1800, 2600, 3300]


def in_processes(count: int, folder: Path, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `work(ranks, *arguments)` returns in each of so many processes, or the error it raised there."""
    here = str(Path(__file__).parent)
    if here not in os.environ.get("PYTHONPATH", ""):  # the server looks for what it preloads nowhere else
        os.environ["PYTHONPATH"] = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(["ranked"])
    meeting = folder / f"meeting-{time.monotonic_ns()}"
    pipes, processes = [], []
    for index in range(count):
        mine, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(theirs, str(meeting), Ranks(index, count), work, arguments))
        process.start()
        theirs.close()
        pipes.append(mine)
        processes.append(process)
    found = [pipe.recv() for pipe in pipes]
    for process in processes:
        process.join()
    return found


def _work(pipe: Any, meeting: str, ranks: Ranks, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=ranks.index, world_size=ranks.count)
    try:
        pipe.send(work(ranks, *arguments))
    except Exception as error:
        traceback.print_exc()
        pipe.send(error)
    finally:
        dist.destroy_process_group()


def examples(count: int) -> list[Example]:
    random = torch.Generator().manual_seed(1)
    return [
        Example(
            str(n),
            torch.randn(s, generator=random, dtype=torch.float64),
            torch.rand(2, generator=random, dtype=torch.float64),
            n,
        )
        for n, s in enumerate(LENGTHS[:count])
    ]


def network() -> EmotionModel:
    """With dropout everywhere, and one trainable tensor that nothing uses."""
    params = ModelParams(
        speech_encoder="random:tiny", freeze_cnn=False, encoder_dropout=0.2, head_dropout=0.3, attention_dropout=0.1
    )
    model = build_model(params, dimensions=2, seed=3).double()
    model.unused = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    return model


class Tight(torch.nn.Module):
    """A model on a machine that holds no more than so many padded entries."""

    def __init__(self, model: EmotionModel, room: int) -> None:
        super().__init__()
        self.model, self.room, self.encoder = model, room, model.encoder
        self.feature_shape, self.computed_entries = model.feature_shape, model.computed_entries

    def forward(self, inputs: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        if inputs.shape[0] * inputs.shape[1] > self.room:
            raise RuntimeError("CUDA error: out of memory")
        return self.model(inputs, *args, **kwargs)


def gradient(
    ranks: Ranks, count: int, budget: int | None, rooms: tuple[int, ...] = ()
) -> tuple[float, np.ndarray, np.ndarray, int | None]:
    """Loss, predictions and gradient of a ragged batch, and the budget afterwards; rooms limit the ranks' memory."""
    model: Any = network()
    if rooms:
        model = Tight(model, rooms[ranks.index])
    executor = Executor(model, 0, torch.device("cpu"), nullcontext, budget, ranks)

    def loss(predictions: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return ccc_loss(predictions, targets, mse_share=0.2).value

    value, predictions = executor.gradients(examples(count), loss)
    assert all((p.grad is None) == name.endswith("unused") for name, p in model.named_parameters() if p.requires_grad)
    flat = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    return value, predictions.numpy(), flat.numpy(), executor.budget


def predict(ranks: Ranks, count: int) -> np.ndarray:
    return Executor(network(), 0, torch.device("cpu"), nullcontext, None, ranks).predict(examples(count)).numpy()


def experiment(ranks: Ranks, settings: dict[str, Any], directory: Path, resume: bool = False) -> None:
    """One run, led by the first process."""
    config = ExperimentConfig.model_validate(settings)
    take_part(partial(run_experiment, config, directory=directory, resume=resume), silent_log(), None, ranks)


def stopped_experiment(ranks: Ranks, settings: dict[str, Any], directory: Path, step: int) -> None:
    """The same, but the second process is asked to stop at a step."""
    import serfit.training.experiment

    if not ranks.first:
        real = serfit.training.experiment.fit

        def stopping(*arguments: Any) -> Any:
            for number, record in enumerate(real(*arguments), start=1):
                if number == step:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield record

        serfit.training.experiment.fit = stopping  # type: ignore[assignment]
    experiment(ranks, settings, directory)


def note_process(folder: str, seconds: float, *, ranks: Ranks, **_: Any) -> None:
    """Write this process's id and stay for a while."""
    (Path(folder) / str(ranks.index)).write_text(str(os.getpid()))
    ranks.any(False)
    time.sleep(seconds)


def leave_at_once(**_: Any) -> None:
    """Die as a process does that the kernel kills."""
    os._exit(9)


def trapped(
    settings: dict[str, Any], directory: str, trap: str, where: int, *, ranks: Ranks, log: Log, **_: Any
) -> None:
    """A run in which something happens to one of its processes."""
    import serfit.training.experiment as story

    real_fit, real_fill, real_prepare = fit, fill_store, prepare
    mistake = UserError("the disk is missing here")

    def fail(*_: Any) -> None:
        raise mistake

    def fit_and_die(*arguments: Any) -> Any:
        yield next(real_fit(*arguments))
        os._exit(9)

    def fit_and_fail(*arguments: Any) -> Any:
        yield next(real_fit(*arguments))
        raise mistake

    def fill_and_stop(*arguments: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        arguments[-1]()  # the check between two utterances

    story.fit, story.fill_store, story.prepare = real_fit, real_fill, real_prepare
    if ranks.index == where:
        traps = {"prepare": fail, "fill_store": fail, "die": fit_and_die, "fit": fit_and_fail, "stop": fill_and_stop}
        name = {"die": "fit", "stop": "fill_store"}.get(trap, trap)
        setattr(story, name, traps[trap])
    torch.set_num_threads(1)
    config = ExperimentConfig.model_validate(settings | {"features": {"store": f"{directory} store"}})
    run_experiment(config, log, directory=Path(directory), ranks=ranks)


def lead(settings: dict[str, Any], folder: str, cases: list[tuple[str, int]]) -> None:
    """Such runs with two processes, one after another, and how each ended, in a line; the others are forked."""
    import serfit.training.ranks

    context = mp.get_context("forkserver")
    context.set_forkserver_preload(["ranked"])
    serfit.training.ranks.mp.get_context = lambda method: context  # type: ignore[attr-defined]
    for trap, where in cases:
        directory = Path(folder) / f"{trap} {where}"
        work = partial(trapped, settings, str(directory), trap, where)
        ended: dict[str, Any] = {"code": 0, "words": ""}
        try:
            with leading(2, work) as ranks:
                work(ranks=ranks, log=silent_log())
        except (UserError, Interrupted) as error:
            ended = {"code": error.exit_code, "words": f"{type(error).__name__}: {error}"}
        print(json.dumps(ended | {"exists": directory.exists()}), flush=True)
