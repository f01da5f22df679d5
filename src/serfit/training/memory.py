"""How much speech fits into one pass: a first guess from arithmetic; the executor corrects it when it is wrong.

The guess uses the machine's total memory and the model's shape, never what happens to be free, so that the same
machine always makes the same plan (and thereby the same bytes).
"""

from dataclasses import dataclass
from typing import Any

import torch

from serfit.config.schema import Train
from serfit.nn.encoder import CNN, EMBEDDING, WAVEFORM
from serfit.nn.model import EmotionModel
from serfit.system.runtime import computer_memory

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
    trained, layers = _trained(model), _trained_layers(model, stage)
    cost = activation_bytes(model, stage, seconds, half=half, checkpointing=checkpointing, gpu=gpu)
    copies = 2 * trained if half else 0
    if checkpointing and layers:
        held = max(batch * cost.kept, 4 * trained * (1 - 1 / layers)) + copies / layers
    else:
        held = max(batch * cost.kept + copies, 4 * trained)
    return (
        state_bytes(model, half=False)
        - 4 * trained
        + held
        + batch * cost.passing
        + _shared_bytes(model, stage, seconds, half=half)
    )


@dataclass(frozen=True, slots=True)
class Activations:
    """What one utterance in a batch takes besides the network.

    Attributes:
        kept: bytes that stay from its forward to its backward pass.
        passing: bytes on top while the backward pass goes through one layer.
    """

    kept: float
    passing: float


def activation_bytes(
    model: EmotionModel, stage: int, seconds: float, *, half: bool, checkpointing: bool, gpu: bool
) -> Activations:
    """About how many bytes an utterance in a batch takes.

    Counted from what autograd saves (tests/training/test_memory.py does, with what the kernels on a GPU save). With H
    the width and F the feed-forward width, a trained layer keeps per frame: 8 H bytes of its residual stream in
    float32, 6 H + 2 F numbers in the precision of the pass, and one row of the gated bias per head (on CPUs of the
    attention weights, and 2 H bytes of dropout masks; on GPUs both are computed again). Checkpointing keeps a layer's
    input, and one layer while it is computed again. Below the layers, projection and positional convolution keep 6 H
    bytes and 2.5 H numbers, above them pooling with deviations 12 H bytes. The CNN keeps 3.5 tensors of each of its
    layers' outputs; with checkpointing one, and once its first layer's. A layer's backward pass holds up to 2 F + 1.5 H
    numbers more, or two masks less what it has freed.
    """
    config: Any = model.encoder.config
    if stage > model.encoder.last_stage:
        return Activations(0.0, 0.0)
    word = 2 if half else 4
    frames = FRAMES_PER_SECOND * seconds
    width, inner, heads = config.hidden_size, config.intermediate_size, config.num_attention_heads
    row = -(-frames // 16) * 16 if gpu else frames
    layer = 8 * width + word * (6 * width + 2 * inner)
    layer += heads * (word * row + 20) if gpu else heads * (3 if half else 4) * row + 2 * width
    layers = _trained_layers(model, stage)
    states = (stage - 1 if model.encoder.keep_all else 1) * width if stage > CNN else config.conv_dim[-1]
    kept = 4.0 * states * frames if stage > WAVEFORM else 4.0 * 16_000 * seconds
    kept += frames * (4 * width if checkpointing else layer) * layers
    kept += frames * width * (12.0 if model.pooling is not None and model.pooling.deviation else 4.0)
    passing = 0.0
    if layers:
        passing = frames * word * max(2 * inner + 1.5 * width, 2 * heads * row - 2 * inner - width)
        passing += frames * layer if checkpointing else 0.0
    if stage <= CNN:
        kept += (6 + 2.5 * word) * width * frames
    if stage == WAVEFORM:
        kept += seconds * word * _cnn_entries_per_second(config, checkpointing=checkpointing)
    return Activations(kept, passing)


def _shared_bytes(model: EmotionModel, stage: int, seconds: float, *, half: bool) -> float:
    """What a pass keeps once, whatever its batch: position bias, and the weights of the positional convolution."""
    config: Any = model.encoder.config
    if stage >= model.encoder.last_stage:
        return 0.0
    frames = FRAMES_PER_SECOND * seconds
    bias = (6 if half else 4) * config.num_attention_heads * frames**2 if config.model_type == "wavlm" else 0.0
    position = config.hidden_size**2 // config.num_conv_pos_embedding_groups * config.num_conv_pos_embeddings
    return bias + (4.0 * position if stage <= CNN and not half else 0.0)


def _trained_layers(model: EmotionModel, stage: int) -> int:
    """Transformer layers above a stage."""
    return max(0, model.encoder.last_stage - max(stage, EMBEDDING))


def _trained(model: EmotionModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


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
        cost = _pass_bytes(model, stage, TYPICAL_SECONDS, device, train, half=half)
        usable = usable_bytes(model, device, half=half)
        seconds = max(1.0, TYPICAL_SECONDS * usable / cost) if cost else None
    return None if seconds is None else round(seconds * entries_per_second)


def _pass_bytes(
    model: EmotionModel, stage: int, seconds: float, device: torch.device, train: Train, *, half: bool
) -> float:
    """What an utterance takes in a pass in all."""
    on_gpu, checkpointing = device.type == "cuda", train.gradient_checkpointing
    cost = activation_bytes(model, stage, seconds, half=half, checkpointing=checkpointing, gpu=on_gpu)
    return cost.kept + cost.passing


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
