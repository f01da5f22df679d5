"""How much speech fits into one pass: a first guess from arithmetic; the executor corrects it when it is wrong.

The guess uses the machine's total memory and the model's shape, never what happens to be free, so that the same
machine always makes the same plan (and thereby the same bytes).
"""

import os
from typing import Any

import torch

from serfit.config.schema import Train
from serfit.nn.encoder import CNN, WAVEFORM
from serfit.nn.model import EmotionModel

TYPICAL_SECONDS = 15.0
"""Length at which the quadratic memory of attention is reckoned for a budget."""

FRAMES_PER_SECOND = 50.0

HEADROOM = 0.3
"""Share of the memory left to the CUDA context, workspaces, transient gradients and errors of these formulas."""


def state_bytes(model: EmotionModel, *, half: bool) -> int:
    """Bytes of weights, and of gradients and AdamW's two moments where they are trained, all in float32.

    Under mixed precision the trained weights' 16-bit copies come on top.
    """
    everything = sum(parameter.numel() for parameter in model.parameters())
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return 4 * everything + (14 if half else 12) * trained


def activation_bytes(model: EmotionModel, stage: int, seconds: float, *, half: bool, checkpointing: bool) -> float:
    """About how many bytes an utterance in a batch keeps alive from the forward to the backward pass.

    Counted from what autograd saves (tests/test_memory.py measures it), with H the width and F the feed-forward width.
    Per frame a trained layer keeps 9 H + 2 F numbers in float32, or 11 H + 2 F in 16 bits (its residual stream stays in
    float32), 2 H bytes of dropout masks, and one row of attention weights (or of the gated bias) per head; with
    checkpointing its input, and once the rest of a layer. Below the layers, projection and positional convolution keep
    14 H. The CNN keeps 3.5 tensors of each of its layers' outputs; with checkpointing one, and once its first layer's.
    """
    config: Any = model.encoder.config
    if stage > model.encoder.last_stage:
        return 0.0
    word = 2 if half else 4
    frames = FRAMES_PER_SECOND * seconds
    width, inner = config.hidden_size, config.intermediate_size
    layer = word * ((11 if half else 9) * width + 2 * inner) + 2 * width
    layer += (3 if half else 4) * config.num_attention_heads * frames
    layers = max(0, model.encoder.last_stage - max(stage, CNN + 1))
    total = frames * (4 * width * layers + layer if checkpointing and layers else layer * layers)
    if stage <= CNN:
        total += 14 * word * width * frames
    if stage == WAVEFORM:
        total += seconds * word * _cnn_entries_per_second(config, checkpointing=checkpointing)
    return float(total)


def _cnn_entries_per_second(config: Any, *, checkpointing: bool) -> float:
    """Numbers that the CNN keeps for the backward pass, per second."""
    rate, made = 16_000.0, []
    for channels, stride in zip(config.conv_dim, config.conv_stride, strict=True):
        rate /= stride
        made.append(channels * rate)
    return float(sum(made) + 2.5 * made[0] if checkpointing else 3.5 * sum(made))


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
        cost = activation_bytes(model, stage, TYPICAL_SECONDS, half=half, checkpointing=train.gradient_checkpointing)
        usable = usable_bytes(model, device, half=half)
        seconds = max(1.0, TYPICAL_SECONDS * usable / cost) if cost else None
    return None if seconds is None else round(seconds * entries_per_second)


def memory_warning(
    model: EmotionModel, stage: int, longest: float, device: torch.device, train: Train, *, half: bool
) -> str | None:
    """What to say where the longest utterance alone will hardly fit; None where it does.

    Args:
        model: the network.
        stage: where training starts.
        longest: seconds of the longest training utterance, after cropping.
        device: where it computes.
        train: says whether activations are recomputed.
        half: whether activations are kept in 16 bits.
    """
    cost = activation_bytes(model, stage, longest, half=half, checkpointing=train.gradient_checkpointing)
    if cost <= usable_bytes(model, device, half=half):
        return None
    need = (state_bytes(model, half=half) + cost) / 1024**3
    return (
        f"warning: about {need:.1f} GiB are needed for the longest utterance ({longest:.1f} s), and {device} has "
        f"{total_memory(device) / 1024**3:.1f} GiB; if memory runs out, set train.gradient_checkpointing=true or "
        "data.loader.crop_seconds=12, or freeze more (model.params.freeze_layers)"
    )


def total_memory(device: torch.device) -> int:
    """Bytes of memory of a GPU, or half of the computer's (the CPU's is shared with everything else)."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
