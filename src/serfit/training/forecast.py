"""What a run will cost before it starts: memory and disk from arithmetic, time from a few steps on this device."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from serfit.config.schema import ExperimentConfig
from serfit.errors import counted
from serfit.inference.begun import begun
from serfit.inference.source import start_of
from serfit.labels import SAMPLE_RATE
from serfit.nn.losses import ccc_loss
from serfit.nn.model import EmotionModel
from serfit.system.files import check_room, free_bytes, gigabytes
from serfit.system.precision import choose_precision
from serfit.system.runtime import choose_device
from serfit.training.batches import Example, plan_epoch
from serfit.training.checkpoint import bytes_on_disk
from serfit.training.executor import Executor
from serfit.training.features import Features, features_of
from serfit.training.material import Material
from serfit.training.memory import first_budget, memory_warning, peak_bytes
from serfit.training.optim import build_optimizer
from serfit.training.start import kept_bytes

BATCHES = (2, 4, 8, 16)
"""Utterances in one pass for which memory is foretold."""

TIMED = 2
"""Utterances in a step that is timed on a CPU."""


def forecast(config: ExperimentConfig, material: Material) -> Iterator[str]:
    """The table of memory, the disk needed, and the expected time of an epoch and a run, line by line.

    The time is that of a few steps, scaled by updates and padded seconds; evaluation counts a third of training. It is
    that of one process on the present device and knows nothing of a disk that can't keep up.

    Raises:
        UserError: the encoder can't be loaded, or a disk is clearly too small.
    """
    device, _ = choose_device(None)
    model = begun(config, start_of(config))
    precision = choose_precision(config.train.precision, device, model.encoder.width)
    half = precision.half
    yield from memory_table(model, config, material)
    model.to(device)
    features = features_of(config, model, precision)
    yield from disk_lines(config, material, model, features)
    train, stage = material.train, features.stage
    crop = config.data.loader.crop_seconds
    lengths = np.minimum(np.asarray(train.seconds), np.inf if crop is None else crop)
    if (warning := memory_warning(model, stage, float(lengths.max()), device, config.train, half=half)) is not None:
        yield warning
    budget = first_budget(model, stage, features.entries_per_second, device, config.train, half=half)
    frozen = frozen_pace(features, train.seconds) if stage > 0 else 0.0
    executor = Executor(model, stage, device, precision.autocast, budget)
    plan = plan_epoch(lengths, config.optimisation_batch, seed=1, epoch=1, bucketing=config.data.loader.bucketing)
    pace = measured_pace(executor, config, plan, lengths)
    padded = sum(len(batch) * lengths[batch].max() for batch in plan)
    heard, scored = sum(train.seconds) + sum(material.validation.seconds), sum(material.test.seconds)
    anew = 0.0 if features.store is not None else frozen  # seconds of computing per second of speech, every time
    epoch = pace.seconds(len(plan), padded) + pace.seconds(0, sum(material.validation.seconds)) / 3.0 + anew * heard
    run = config.last_epoch * epoch + pace.seconds(0, scored) / 3.0 + anew * scored
    epochs = counted(config.last_epoch, "epoch")
    yield (
        f"time on {device} in {precision.name}, from a few steps: {pace.update:.3g} s per update and {pace.speech:.3g} "
        f"s per second of speech, an epoch about {_duration(epoch)}, {epochs} about {_duration(run)}; "
        f"{max(0.0, 1 - lengths.sum() / padded):.1%} of it is padding"
    )
    if stage > 0:
        yield frozen_line(material, features, frozen)


def frozen_line(material: Material, features: Features, pace: float) -> str:
    """Cost of the frozen part of the model, and when it is computed.

    Args:
        material: all parts.
        features: of a model with a frozen part.
        pace: seconds that it takes per second of speech.
    """
    seconds, name = material.seconds(), features.model.stage_name(features.stage)
    if features.store is None:
        return (
            f"of that, in every epoch: the {name} of all its utterances is computed anew, about "
            f"{_duration(pace * (sum(material.train.seconds) + sum(material.validation.seconds)))}, since "
            "features.store is null; name a folder to compute it once"
        )
    missing = features.missing([*material.split.train, *material.split.validation, *material.split.test])
    if not missing:
        return f"the {name} of all {len(seconds)} utterances is stored already"
    return (
        f"before the first epoch, once: the {name} of {len(missing)} of {len(seconds)} utterances is computed and "
        f"stored, about {_duration(pace * sum(seconds[utterance.id] for utterance in missing))}"
    )


def frozen_pace(features: Features, lengths: Sequence[float]) -> float:
    """Seconds that the frozen part of a model takes per second of speech where it lies, from an utterance of noise."""
    model = features.model
    length = min(max(float(np.median(lengths)), 0.1), 5.0)
    waveform, taken = torch.randn(round(SAMPLE_RATE * length)), []
    for _ in range(3):
        began = time.perf_counter()
        with features.precision.autocast_frozen():
            model.prefix(model.encoder.prepare(waveform), features.stage).cpu()  # which waits for a GPU
        taken.append(time.perf_counter() - began)
    return min(taken[1:]) / length


def disk_lines(config: ExperimentConfig, material: Material, model: EmotionModel, features: Features) -> Iterator[str]:
    """List what a run will write and the free space for it, one line per folder.

    Raises:
        UserError: a disk, or features.max_gb, is clearly too small.
    """
    runs, weights = config.experiment.runs_dir, bytes_on_disk(model) + kept_bytes(config, model)
    yield (
        f"disk: weights and checkpoints of a run take at most {gigabytes(weights)}, and {gigabytes(free_bytes(runs))} "
        f"are free for {runs}"
    )
    check_room(runs, weights, "weights and checkpoints", "make room, or move experiment.runs_dir")
    store = features.store
    if store is None:
        return
    seconds = material.seconds()
    everyone = [*material.split.train, *material.split.validation, *material.split.test]
    missing = features.missing(everyone)
    needed = sum(_feature_bytes(model, features, seconds[utterance.id]) for utterance in missing)
    yield (
        f"disk: frozen features of {len(missing)} of {len(everyone)} utterances are still to be stored, "
        f"{gigabytes(needed)}, and {gigabytes(free_bytes(store.folder))} are free for {config.features.store}"
    )
    if missing:
        store.check_room(needed, len(everyone) / len(missing))


def _feature_bytes(model: EmotionModel, features: Features, seconds: float) -> int:
    """Bytes of one utterance in the store."""
    assert features.store is not None, "there is a store"
    return math.prod(model.feature_shape(round(seconds * SAMPLE_RATE), features.stage)) * features.store.dtype.itemsize


def memory_table(model: EmotionModel, config: ExperimentConfig, material: Material) -> Iterator[str]:
    """Predicted GPU memory by utterances in one pass, with the encoder trained and frozen.

    What is trainable in the model is as the configuration says, before and after.
    """
    params = config.model.params
    crop = config.data.loader.crop_seconds
    seconds = np.minimum(np.asarray(material.train.seconds), np.inf if crop is None else crop)
    columns = [("median", float(np.median(seconds))), ("longest", float(seconds.max()))]
    names = "".join(f"  {name + f' {length:.1f} s':>16}" for name, length in columns)
    half = config.train.precision != "fp32"
    tables = {}
    for frozen in (False, True):
        model.encoder.freeze(params.model_copy(update={"freeze_speech_encoder": frozen}))
        tables["frozen" if frozen else "trained"] = {
            batch: [_bytes(model, config, batch, length, half=half) / 1024**3 for _, length in columns]
            for batch in BATCHES
        }
    model.encoder.freeze(params)
    most = max(max(cells) for table in tables.values() for cells in table.values())
    if most < 0.05:  # every cell would read 0.0
        yield f"predicted GPU memory: below 0.1 GiB, trained or frozen, with {BATCHES[-1]} utterances in one pass"
        return
    for words, table in tables.items():
        yield f"predicted GPU memory in GiB, encoder {words}, {'bf16' if half else 'fp32'}, by utterances in one pass:"
        yield f"    at once{names}"
        for batch, cells in table.items():
            yield f"    {batch:>7}" + "".join(f"  {cell:>16.1f}" for cell in cells)
    yield "    (what doesn't fit is cut into micro-batches, with the same result; the CUDA context adds about 0.5)"


def _bytes(model: EmotionModel, config: ExperimentConfig, batch: int, seconds: float, *, half: bool) -> float:
    checkpointing = config.train.gradient_checkpointing
    stage = model.frozen_stages
    return peak_bytes(model, stage, batch, seconds, half=half, checkpointing=checkpointing, gpu=True)


@dataclass(frozen=True, slots=True)
class Pace:
    """Forecast of training time on a device.

    Attributes:
        update: seconds per optimiser step, however little it has to compute.
        speech: seconds per second of padded speech that is trained on.
    """

    update: float
    speech: float

    def seconds(self, updates: int, padded: float) -> float:
        """Time of so many updates with so many padded seconds of speech in all."""
        return updates * self.update + padded * self.speech


def measured_pace(
    executor: Executor, config: ExperimentConfig, plan: Sequence[Sequence[int]], lengths: NDArray[np.float64]
) -> Pace:
    """Time a few steps of training, on noise. The model in the executor is no longer good for anything else.

    A CPU's time is in proportion to the speech, so that two utterances of the median length (at most 5 s) tell it. A
    GPU takes its time for each of thousands of operations however small they are, so there whole optimisation batches
    of two lengths are tried.

    Args:
        executor: with the model to be trained.
        config: says batch and optimiser.
        plan: optimisation batches of an epoch.
        lengths: seconds of each utterance.
    """
    optimizer = build_optimizer(executor.model, config.train.optimizer)
    if executor.device.type == "cpu":
        length = min(max(float(np.median(lengths)), 0.1), 5.0)
        speech = _fastest(executor, executor.gradients, _noise(executor, TIMED, length)) / (TIMED * length)
        return Pace(_fastest(executor, lambda *_: optimizer.step()), speech)
    size = config.optimisation_batch
    longest = [float(lengths[list(batch)].max()) for batch in plan]
    short, long = (max(float(np.quantile(longest, share)), 0.1) for share in (0.2, 0.8))
    brief, full = (_fastest(executor, executor.gradients, _noise(executor, size, length)) for length in (short, long))
    speech = max(0.0, full - brief) / (size * (long - short)) if long > short else full / (size * long)
    update = max(0.0, brief - speech * size * short) + _fastest(executor, lambda *_: optimizer.step())
    return Pace(update, speech)


def _fastest(executor: Executor, work: Callable[..., object], examples: Sequence[Example] = ()) -> float:
    """Seconds of the faster of two calls, after one to warm up."""
    taken = []
    for _ in range(3):
        began = time.perf_counter()
        work(examples, lambda predictions, targets: ccc_loss(predictions, targets)[0])
        if executor.device.type == "cuda":
            torch.cuda.synchronize(executor.device)
        taken.append(time.perf_counter() - began)
    return min(taken[1:])


def _noise(executor: Executor, count: int, seconds: float) -> list[Example]:
    """Examples of about so many seconds, of noise."""
    model, stage = executor.model, executor.stage
    shape = model.feature_shape(round(SAMPLE_RATE * max(seconds, 0.1)), stage)
    outputs = model.head.dimensions
    return [
        Example(str(index), torch.randn(shape), torch.full((outputs,), index / count), dropout_seed=index)
        for index in range(count)
    ]


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
