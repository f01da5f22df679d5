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

TYPICAL_FRAMES = 750
"""Length in frames (15 s) at which the quadratic memory of attention is reckoned."""


def activation_bytes_per_second(model: EmotionModel, stage: int, *, half: bool, checkpointing: bool) -> float:
    """Roughly how many bytes a second of padded speech keeps alive from the forward to the backward pass.

    Per frame and trained layer: twelve vectors of the layer's width (norms, queries, keys, values, residuals), two of
    its feed-forward width, and one row of the gated position bias per head; the CNN, when trained, four tensors of
    each layer's output. Measured against the tensors autograd saves, in tests/test_memory.py.
    """
    config: Any = model.encoder.config
    word = 2 if half else 4
    frames_per_second = 50.0
    layer = word * (
        12 * config.hidden_size + 2 * config.intermediate_size + config.num_attention_heads * TYPICAL_FRAMES
    )
    if checkpointing:
        layer = word * config.hidden_size
    trained_layers = max(0, model.encoder.last_stage - max(stage, CNN + 1))
    total: float = frames_per_second * layer * trained_layers
    if stage == WAVEFORM:
        rate = 16_000.0
        for channels, stride in zip(config.conv_dim, config.conv_stride, strict=True):
            rate /= stride
            total += 4.0 * word * channels * rate
    return total


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
        states = 16 * sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        usable = 0.7 * total_memory(device) - states
        cost = activation_bytes_per_second(model, stage, half=half, checkpointing=train.gradient_checkpointing)
        seconds = max(1.0, usable / cost) if cost else None
    return None if seconds is None else round(seconds * entries_per_second)


def total_memory(device: torch.device) -> int:
    """Bytes of memory of a GPU, or half of the computer's (the CPU's is shared with everything else)."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
