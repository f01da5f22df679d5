"""A training state to and from the checkpoints of its run, and the question whether it is still the same run."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch

from serfit.errors import UserError, counted, listed
from serfit.inference.origin import Origin
from serfit.nn.encoders.build import encoder_differences
from serfit.nn.model import EmotionModel
from serfit.nn.saved import load_weights, save_weights, trainable
from serfit.runs import directory as runs
from serfit.runs.directory import Run
from serfit.runs.records import NOT_RECORDED, Environment
from serfit.scores.records import EpochRecord
from serfit.system.files import WriteError, link
from serfit.system.precision import Precision, Wanted, choose_precision, computes_bf16
from serfit.system.records import plain
from serfit.system.tensors import Shapes
from serfit.training.checkpoint import (
    latest_checkpoint,
    model_and_optimizer,
    restore_model_and_optimizer,
    save_checkpoint,
)
from serfit.training.ranks import Ranks
from serfit.training.trainer import EpochSoFar, TrainingState

MOST_GATHERED = 1 << 26
"""Most numbers that an epoch may have gathered in a checkpoint; beyond, it is no checkpoint of ours."""


def save_state(state: TrainingState, run: Run) -> None:
    """Write everything `fit` needs to go on from here. Raises WriteError; earlier checkpoints are untouched then."""
    tensors, numbers = _snapshot(state)
    save_checkpoint(run / runs.CHECKPOINTS, state.step, tensors, {"run": run.fingerprint, **numbers})


def save_if_possible(state: TrainingState, run: Run) -> str | None:
    """Save a state without which training can go on; returns what to say where that failed."""
    try:
        save_state(state, run)
    except WriteError as error:
        return f"warning: no checkpoint of step {state.step}, training goes on without it: {error}"
    return None


def save_best(record: EpochRecord, state: TrainingState, run: Run, frozen: str) -> None:
    """Write the weights of an epoch that was the best so far; to be called after the checkpoint of its end.

    In that order the files never run ahead of the checkpoint: `restore` writes what is missing from it.
    """
    if record.best:
        save_weights(run / runs.BEST_WEIGHTS, state.model, frozen, record.epoch)
    if record.best_valence and not (record.best and link(run / runs.BEST_WEIGHTS, run / runs.BEST_VALENCE_WEIGHTS)):
        save_weights(run / runs.BEST_VALENCE_WEIGHTS, state.model, frozen, record.epoch)


def restore(state: TrainingState, run: Run, frozen: str) -> list[str]:
    """Bring a fresh state, and the run's records, to the newest whole checkpoint, if there is one.

    Returns:
        What there is to say about it.

    Raises:
        UserError: there are checkpoints, and none of them is whole and of this run.
    """
    # The checkpoint decides. An epoch's record is written before its checkpoint, so a killed run may have records of an
    # epoch too many: they are dropped, and come again, the same to the byte. Its best weights are written after its
    # checkpoint, so they may be missing, but are never ahead: they are made from the checkpoint.
    found = latest_checkpoint(run / runs.CHECKPOINTS, _fits(state, run))
    if found is None:
        run.forget_after(0)
        return []
    tensors, numbers, notes = found
    _go_back_to(state, tensors, numbers)
    run.forget_after(state.epoch - 1)
    if len(run.records) != state.epoch - 1:
        raise UserError(
            f"{run / runs.METRICS} holds {counted(len(run.records), 'epoch')}, and the checkpoint of step {state.step} "
            f"comes after {state.epoch - 1}; the file was changed, and the run can't go on; start a new one"
        )
    if state.so_far.steps == 0 and run.records:
        save_best(run.records[-1], state, run, frozen)
    return [*notes, f"going on after step {state.step}, in epoch {state.epoch}"]


def share_state(state: TrainingState, run: Run, ranks: Ranks) -> None:
    """Bring every process's training state and records to those of the first, which may have restored them."""
    if ranks.count == 1:
        return
    held = None
    if ranks.first and state.step > 0:
        tensors, numbers = _snapshot(state)
        held = {name: tensor.detach().cpu() for name, tensor in tensors.items()}, numbers
    held, run.records, run.times = ranks.from_first((held, run.records, run.times))
    if held is not None and not ranks.first:
        _go_back_to(state, *held)


def load_best(model: EmotionModel, run: Run, frozen: str, ranks: Ranks) -> EpochRecord:
    """Put the weights of the best epoch into every process's model, and return that epoch's record.

    Raises:
        UserError: no epoch is the best one, see `Run.best`.
    """
    best = run.best()
    if ranks.first:
        load_weights(run / runs.BEST_WEIGHTS, model, frozen, best.epoch)
    ranks.share(model.parameters())
    return best


def precision_as_begun(
    begun: Environment | Origin | None, wanted: Wanted, device: torch.device, width: int, able: bool | None = None
) -> Precision:
    """The precision that a run was begun with, where the device computes in it; else as `choose_precision`.

    Args:
        begun: what the run, or the network that it left, has on record; None for a new one.
        wanted: as configured.
        device: where it computes.
        width: of the encoder.
        able: whether all processes of the run compute in bf16 themselves; None asks the device.
    """
    if begun is None or begun.precision not in ("fp32", "bf16"):
        return choose_precision(wanted, device, width, able)
    able = computes_bf16(device) if able is None else able
    if wanted == "auto":
        wanted = "bf16" if begun.precision == "bf16" and able else "fp32"
    chosen = choose_precision(wanted, device, width, able)
    return chosen if begun.frozen_precision == "bf16" else replace(chosen, frozen="fp32")


def check_unchanged(before: Environment | None, now: Environment, labels: str = "") -> list[str]:
    """Refuse to go on with a run on other data or another encoder than it was begun with.

    Args:
        before: what the run was begun with; None where it wasn't begun far enough.
        now: the same of the present process.
        labels: what differs between the labels then and now, where that is known.

    Returns:
        What is different and may change bytes, though not what is computed: versions, device, threads.

    Raises:
        UserError: naming what changed.
    """
    if before is None:
        return []
    for what, old, new in (
        ("the corpus", before.corpus.digest, now.corpus.digest),
        ("the split", before.protocol, now.protocol),
        ("the network of model.start_from", before.start and before.start.sha256, now.start and now.start.sha256),
        ("the encoder", before.encoder.sha256, now.encoder.sha256),
    ):
        if old not in (None, NOT_RECORDED, new):
            changed = labels if labels and what == "the corpus" else f"{_short(old)} then, {_short(new)} now"
            raise UserError(
                f"{what} has changed since this run was begun ({changed}), so going on would mix two experiments; "
                "bring it back, or start a new run"
            )
    differing = encoder_differences(plain(before.encoder), plain(now.encoder))
    if differing:
        raise UserError(
            f"the encoder's configuration has changed since this run was begun ({listed(differing)}), so going on "
            "would mix two experiments; bring its config.json and preprocessor_config.json back, or start a new run"
        )
    compared = ("packages", "device", "device_type", "threads", "precision", "frozen_precision")
    others = [name for name in compared if getattr(before, name) not in (None, {}, getattr(now, name))]
    if not others:
        return []
    return [
        f"warning: the run was begun with other {', '.join(others)} (see {runs.ENVIRONMENT}); going on computes the "
        "same up to rounding, but not the same bytes"
    ]


def _snapshot(state: TrainingState) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The whole of a training state: tensors by name, and the rest as JSON has it."""
    so_far = state.so_far
    tensors = model_and_optimizer(state.model, state.optimizer)
    tensors["so_far/places"] = torch.tensor(so_far.indices, dtype=torch.int64)
    tensors["so_far/values"] = torch.cat(so_far.values) if so_far.values else torch.zeros(0)
    return tensors, {
        "epoch": state.epoch,
        "step": state.step,
        "best": state.best,
        "best_valence": state.best_valence,
        "stale_epochs": state.stale_epochs,
        "so_far": {
            "steps": so_far.steps,
            "loss": so_far.loss,
            "gradient_norm": so_far.gradient_norm,
            "constant_batches": so_far.constant_batches,
            "learning_rates": so_far.learning_rates,
        },
    }


def _go_back_to(state: TrainingState, tensors: Mapping[str, torch.Tensor], numbers: Mapping[str, Any]) -> None:
    """The inverse of `_snapshot`, for a state of the same configuration."""
    restore_model_and_optimizer(tensors, state.model, state.optimizer)
    state.epoch, state.step = numbers["epoch"], numbers["step"]
    state.best, state.best_valence = _pair(numbers["best"]), _pair(numbers["best_valence"])
    state.stale_epochs = numbers["stale_epochs"]
    indices = tensors["so_far/places"].tolist()
    state.so_far = EpochSoFar(
        **numbers["so_far"], indices=indices, values=[tensors["so_far/values"]] if indices else []
    )


def _short(value: object) -> str:
    text = str(value)
    return text[:12] if len(text) == 64 else text


def _fits(state: TrainingState, run: Run) -> Callable[[Shapes, Mapping[str, Any]], bool]:
    """Whether a checkpoint belongs to this run: its configuration, its tensors by name and shape, its numbers."""
    shapes_of = {name: tuple(parameter.shape) for name, parameter in trainable(state.model).items()}

    def tensor_fits(key: str, shape: tuple[int, ...]) -> bool:
        kind, _, rest = key.partition("/")
        if kind == "so_far":
            size = 1
            for extent in shape:
                size *= extent
            return rest in ("places", "values") and size <= MOST_GATHERED
        if kind == "model":
            return shapes_of.get(rest) == shape
        moment, _, name = rest.partition("/")
        return kind == "optimizer" and bool(moment) and name in shapes_of and shape in ((), shapes_of[name])

    def fits(shapes: Shapes, numbers: Mapping[str, Any]) -> bool:
        wanted = {f"model/{name}" for name in shapes_of} | {"so_far/places", "so_far/values"}
        return (
            numbers.get("run") == run.fingerprint
            and wanted <= shapes.keys()
            and all(tensor_fits(key, shape) for key, shape in shapes.items())
            and _numbers_fit(numbers)
        )

    return fits


def _numbers_fit(numbers: Mapping[str, Any]) -> bool:
    try:
        so_far = numbers["so_far"]
        EpochSoFar(**so_far)
        _pair(numbers["best"]), _pair(numbers["best_valence"])
        counts = (numbers["epoch"], numbers["step"], numbers["stale_epochs"], so_far["steps"])
        sums = (so_far["loss"], so_far["gradient_norm"], *so_far["learning_rates"].values())
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        return False
    return all(isinstance(count, int) and count >= 0 for count in counts) and all(
        isinstance(value, int | float) for value in sums
    )


def _pair(value: Any) -> tuple[float, int] | None:
    return None if value is None else (float(value[0]), int(value[1]))
