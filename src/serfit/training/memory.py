"""How much speech fits into one pass: a first guess from arithmetic; the executor corrects it when it is wrong.

The guess uses the machine's total memory and the model's shape, never what happens to be free, so that the same
machine always makes the same plan (and thereby the same bytes).
"""

import torch

from serfit.config.schema import Train
from serfit.nn.encoders.sizes import Activations
from serfit.nn.model import EmotionModel
from serfit.system.runtime import computer_memory

TYPICAL_SECONDS = 15.0
"""Length at which the quadratic memory of attention is reckoned for a budget."""

HEADROOM = 0.3
"""Share of the memory left to the CUDA context, workspaces, transient gradients and errors of these formulas."""


def state_bytes(model: EmotionModel, *, half: bool) -> int:
    """Bytes of weights, and of gradients and AdamW's two moments where they are trained, all in float32.

    Under mixed precision the trained weights' 16-bit copies come on top.
    """
    everything = sum(parameter.numel() for parameter in model.parameters())
    trained = _trained(model)
    return 4 * everything + (14 if half else 12) * trained


def peak_bytes(
    model: EmotionModel, stage: int, batch: int, seconds: float, *, half: bool, checkpointing: bool, gpu: bool
) -> float:
    """Most bytes that a training step takes at once, where the whole batch goes through the network in one pass.

    Gradients come while activations go, so that the larger of the two counts, and the other doesn't.

    Args:
        model: the network; what is trainable in it is trained.
        stage: where training starts.
        batch: utterances in the pass.
        seconds: length of each.
        half: whether activations are kept in 16 bits.
        checkpointing: whether activations are computed again in the backward pass.
        gpu: whether it runs on a GPU, with its fused kernels.
    """
    trained, layers = _trained(model), model.encoder.layers_above(stage)
    cost = activation_bytes(model, stage, seconds, half=half, checkpointing=checkpointing, gpu=gpu)
    copies = 2 * trained if half else 0
    if checkpointing and layers:
        held = max(batch * cost.kept, 4 * trained * (1 - 1 / layers)) + copies / layers
    else:
        held = max(batch * cost.kept + copies, 4 * trained)
    shared = 0.0
    if stage < model.encoder.last_stage:
        shared = model.encoder.shared_bytes(stage, model.encoder.computed_frames(seconds), half=half)
    return state_bytes(model, half=False) - 4 * trained + held + batch * cost.passing + shared


def activation_bytes(
    model: EmotionModel, stage: int, seconds: float, *, half: bool, checkpointing: bool, gpu: bool
) -> Activations:
    """About how many bytes an utterance in a batch takes: see `Encoder.activations`, with what the pooling keeps."""
    if stage > model.encoder.last_stage:
        return Activations(0.0, 0.0)
    encoder = model.encoder.activations(stage, seconds, half=half, checkpointing=checkpointing, gpu=gpu)
    pooled = model.encoder.computed_frames(seconds) * model.pooling.frame_bytes
    return Activations(encoder.kept + pooled, encoder.passing)


def _trained(model: EmotionModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def usable_bytes(model: EmotionModel, device: torch.device, *, half: bool) -> float:
    """Memory that is left for activations; negative where not even weights and optimiser fit."""
    return (1.0 - HEADROOM) * total_memory(device) - state_bytes(model, half=half)


def first_budget(
    model: EmotionModel, stage: int, entries_per_second: float | None, device: torch.device, train: Train, *, half: bool
) -> int | None:
    """Most padded entries (samples or frames, as the features have) of one pass, or None where anything fits.

    Args:
        model: the network, on its device.
        stage: where training starts.
        entries_per_second: of the features; None once pooled.
        device: where it computes.
        train: says micro_batch_seconds, if the user decides.
        half: whether activations are kept in 16 bits.
    """
    if entries_per_second is None:
        return None
    seconds = train.micro_batch_seconds
    if seconds is None:
        cost = _pass_bytes(model, stage, TYPICAL_SECONDS, device, train, half=half)
        usable = usable_bytes(model, device, half=half)
        seconds = max(1.0, TYPICAL_SECONDS * usable / cost) if cost else None
    return None if seconds is None else round(seconds * entries_per_second)


def _pass_bytes(
    model: EmotionModel, stage: int, seconds: float, device: torch.device, train: Train, *, half: bool
) -> float:
    """Bytes of an utterance in a pass, in all."""
    on_gpu, checkpointing = device.type == "cuda", train.gradient_checkpointing
    cost = activation_bytes(model, stage, seconds, half=half, checkpointing=checkpointing, gpu=on_gpu)
    return cost.kept + cost.passing


def memory_warning(
    model: EmotionModel, stage: int, longest: float, device: torch.device, train: Train, *, half: bool
) -> str | None:
    """Return a warning if the longest utterance alone will hardly fit; None if it does.

    Args:
        model: the network.
        stage: where training starts.
        longest: seconds of the longest training utterance, after cropping.
        device: where it computes.
        train: says whether activations are recomputed.
        half: whether activations are kept in 16 bits.
    """
    cost = _pass_bytes(model, stage, longest, device, train, half=half)
    if cost <= usable_bytes(model, device, half=half):
        return None
    need = (state_bytes(model, half=half) + cost) / 1024**3
    remedies = [] if train.gradient_checkpointing else ["train.gradient_checkpointing=true"]
    remedies += ["data.loader.crop_seconds=12"] if longest > 12.0 else []
    remedies.append("a larger model.params.freeze_layers")
    return (
        f"warning: about {need:.1f} GiB are needed for the longest utterance ({longest:.1f} s), and {device} has "
        f"{total_memory(device) / 1024**3:.1f} GiB; if memory runs out, try {' or '.join(remedies)}"
    )


def total_memory(device: torch.device) -> int:
    """Bytes of memory of a GPU, or half of the computer's (the CPU's is shared with everything else)."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return computer_memory() // 2
