"""How fast training is, side by side with what people do otherwise, in one process and one run.

    uv run python benchmarks/speed/run.py [--device cpu|cuda] [--size tiny|base|large] [--json FILE]

Sixteen utterances of noise, four of about each of four lengths (IEMOCAP's 12.5, 37.5, 62.5 and 87.5 % quantiles), in
batches of four: at random they waste as much on padding as IEMOCAP does, sorted as little. Every row makes the same
network learn the same utterances once per round; the rows take turns, so that a busy machine is busy for all.
Weights are random. What the rows have in common: dropout 0.1, AdamW, mean pooling, one head, all layers trained.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from durations import iemocap_durations
from torch import Tensor, nn
from transformers import WavLMConfig, WavLMModel

from serfit.config.schema import ModelParams
from serfit.nn.encoders.source import random_settings
from serfit.nn.losses import ccc_loss
from serfit.nn.model import EmotionModel, Head, build_model
from serfit.system.precision import Precision, computes_bf16
from serfit.training.batches import Example
from serfit.training.executor import Executor

BATCH = 4
RATE = 16_000
Work = Callable[..., None]
"""Trains on a plan's batches, or on so many of them."""

FOLD_HOURS = 7.43
"""What a fold of IEMOCAP trains on (`durations.py` prints it)."""


@dataclass
class Row:
    """One way to train and what it took."""

    name: str
    padding: float
    seconds: list[float]
    wall: list[float]
    utterances_per_second: float = 0.0
    audio_seconds_per_second: float = 0.0
    share_of_ceiling: float = 0.0
    peak_memory_gib: float | None = None
    epoch_minutes: float = 0.0


def untrained(size: str) -> Any:
    """Transformers' WavLM with random weights."""
    return WavLMModel(WavLMConfig.from_dict(random_settings(f"random:{size}")))


class PlainWavLM(nn.Module):
    """transformers' WavLM, mean pooling over valid frames, and our head: the usual public fine-tuning model."""

    def __init__(self, size: str) -> None:
        super().__init__()
        self.hf = untrained(size)
        for key, value in {"layerdrop": 0.0, "mask_time_prob": 0.0, "apply_spec_augment": False}.items():
            setattr(self.hf.config, key, value)
        for module in self.hf.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.1
        for layer in self.hf.encoder.layers:
            layer.attention.dropout = 0.0
            layer.feed_forward.intermediate_dropout.p = 0.0
        self.head = Head(self.hf.config.hidden_size, 256, 2, 0.2, "linear")

    def forward(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Predictions [B, 2] of padded waveforms [B, S]."""
        mask = torch.arange(waveforms.shape[1], device=waveforms.device) < lengths[:, None]
        hidden = self.hf(waveforms, attention_mask=mask.long()).last_hidden_state
        frames = self.hf._get_feat_extract_output_lengths(lengths)
        valid = (torch.arange(hidden.shape[1], device=hidden.device) < frames[:, None])[..., None]
        return self.head((hidden * valid).sum(1).float() / valid.sum(1))


def material(alike: int = 4) -> tuple[list[Tensor], Tensor]:
    """Waveforms and targets, so many of about each of four lengths."""
    random = np.random.default_rng(7)
    levels = np.quantile(iemocap_durations(), [0.125, 0.375, 0.625, 0.875])
    seconds = np.concatenate([level * random.uniform(0.98, 1.02, alike) for level in levels])
    waveforms = [torch.from_numpy(random.standard_normal(int(s * RATE)).astype(np.float32)) for s in seconds]
    return waveforms, torch.from_numpy(random.uniform(size=(len(seconds), 2)).astype(np.float32))


def padding(lengths: Sequence[int], plan: Sequence[Sequence[int]]) -> float:
    padded = sum(len(batch) * max(lengths[n] for n in batch) for batch in plan)
    return 1.0 - sum(lengths) / padded


def hugging_face(
    size: str,
    device: torch.device,
    plan: list[list[int]],
    data: tuple[list[Tensor], Tensor],
    *,
    single: bool = False,
    half: bool = False,
) -> Work:
    """A pass of the usual loop: padded batches, or one utterance after another with an update every second batch."""
    torch.manual_seed(1)
    model = PlainWavLM(size).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-5, fused=device.type == "cuda")
    waveforms, targets = data

    def batch_predictions(batch: list[int]) -> Tensor:
        groups = [[n] for n in batch] if single else [batch]
        rows = []
        for group in groups:
            padded = nn.utils.rnn.pad_sequence([waveforms[n] for n in group], batch_first=True).to(device)
            lengths = torch.tensor([len(waveforms[n]) for n in group], device=device)
            with torch.autocast(device.type, torch.bfloat16) if half else nullcontext():
                rows.append(model(padded, lengths))
        return torch.cat(rows)

    def work(batches: int | None = None) -> None:
        for number, batch in enumerate(plan[:batches], start=1):
            ccc_loss(batch_predictions(batch), targets[batch].to(device))[0].backward()
            if not single or number % 2 == 0:
                optimizer.step()
                optimizer.zero_grad()

    return work


def ours(
    params: dict[str, Any],
    device: torch.device,
    plan: list[list[int]],
    data: tuple[list[Tensor], Tensor],
    *,
    half: bool = False,
    stored: bool = True,
    compiled: bool = False,
    checkpointing: bool = False,
) -> Work:
    """A pass of serfit's executor; stored features are computed here, before the clock runs."""
    model: EmotionModel = build_model(ModelParams(pooling="mean", **params), 2, 1, checkpointing).to(device)
    stage = model.frozen_stages if stored else 0
    waveforms, targets = data
    inputs = [model.prefix(waveform, stage).cpu() if stage else waveform for waveform in waveforms]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, 1e-5, fused=True)
    executed: Any = torch.compile(model, dynamic=True) if compiled else model
    precision = Precision("bf16" if half else "fp32", device.type)
    executor = Executor(executed, stage, device, precision.autocast)

    def work(batches: int | None = None) -> None:
        for batch in plan[:batches]:
            examples = [Example(str(n), inputs[n], targets[n], dropout_seed=n) for n in batch]
            executor.gradients(examples, lambda predictions, wanted: ccc_loss(predictions, wanted)[0])
            optimizer.step()

    return work


def flops(size: str, seconds: Sequence[float], *, cnn: float, layers: float) -> float:
    """Useful floating-point operations of one pass; cnn and layers count forward passes (training is three)."""
    config = untrained(size).config
    width, inner, depth = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    conv, rate, channels = 0.0, float(RATE), 1
    for out, kernel, stride in zip(config.conv_dim, config.conv_kernel, config.conv_stride, strict=True):
        rate /= stride
        conv += 2.0 * kernel * channels * out * rate
        channels = out
    position = 2.0 * width * (width // config.num_conv_pos_embedding_groups) * config.num_conv_pos_embeddings
    total = 0.0
    for length in seconds:
        frames = 50.0 * length
        layer = 2.0 * (4 * width * width + 2 * width * inner) + 4.0 * frames * width
        total += cnn * conv * length + layers * frames * (depth * layer + position + 2.0 * channels * width)
    return total


def ceiling(device: torch.device, clock: Callable[[], float], *, half: bool) -> float:
    """Operations per second of plain matrix products, 2048 x 1024 by 1024 x 4096, the best of several."""
    dtype = torch.bfloat16 if half else torch.float32
    x = torch.randn(2048, 1024, device=device, dtype=dtype)
    w = torch.randn(1024, 4096, device=device, dtype=dtype)
    best, rounds = 0.0, 50 if device.type == "cuda" else 1
    for _ in range(8):
        began = clock()
        for _ in range(rounds):
            x @ w
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = max(best, rounds * 2.0 * x.shape[0] * w.numel() / (clock() - began))
    return best


def variants(size: str, device: torch.device, data: Any) -> dict[str, tuple[Callable[[], Work], Any]]:
    """Rows by name: how to build one, and (plan, precision, FLOPs)."""
    waveforms, _ = data
    lengths = [len(waveform) for waveform in waveforms]
    seconds = [length / RATE for length in lengths]
    shuffled = np.random.default_rng(3).permutation(len(lengths)).reshape(-1, BATCH).tolist()
    bucketed = np.argsort(lengths, kind="stable").reshape(-1, BATCH).tolist()
    name = f"random:{size}"
    whole = flops(size, seconds, cnn=3, layers=3)
    frozen_cnn = flops(size, seconds, cnn=1, layers=3)
    stored_cnn = flops(size, seconds, cnn=0, layers=3)
    trained, cnn = {"speech_encoder": name, "freeze_cnn": False}, {"speech_encoder": name}
    trained |= {"layers": "last"}
    cnn |= {"layers": "last"}
    nothing = cnn | {"freeze_speech_encoder": True}
    each = [[n] for n in range(len(lengths))]
    plain = partial(hugging_face, size, device, data=data)
    mine = partial(ours, device=device, plan=bucketed, data=data)
    rows: dict[str, Any] = {
        "plain loop: one utterance after another, fp32": (
            partial(plain, shuffled, single=True),
            (each, False, whole),
        ),
        "Hugging Face: padded random batches, fp32": (partial(plain, shuffled), (shuffled, False, whole)),
        "Hugging Face, bucketed": (partial(plain, bucketed), (bucketed, False, whole)),
        "serfit's encoder, bucketed": (partial(mine, trained), (bucketed, False, whole)),
        "+ CNN frozen": (partial(mine, cnn, stored=False), (bucketed, False, frozen_cnn)),
        "+ CNN from the store (serfit's default)": (partial(mine, cnn), (bucketed, False, stored_cnn)),
    }
    if computes_bf16(device):
        rows |= {
            "Hugging Face: padded random batches, bf16": (partial(plain, shuffled, half=True), (shuffled, True, whole)),
            "Hugging Face, bucketed, bf16": (partial(plain, bucketed, half=True), (bucketed, True, whole)),
            "serfit's default, bf16": (partial(mine, cnn, half=True), (bucketed, True, stored_cnn)),
        }
    if device.type == "cuda":
        rows |= {
            "+ torch.compile": (partial(mine, cnn, half=True, compiled=True), (bucketed, True, stored_cnn)),
            "serfit's default, bf16, gradient checkpointing": (
                partial(mine, cnn, half=True, checkpointing=True),
                (bucketed, True, stored_cnn),
            ),
        }
    rows["everything frozen, pooled features from the store"] = (partial(mine, nothing), (each, False, 0.0))
    return rows


def measure(
    size: str, device: torch.device, rounds: int, clock: Callable[[], float], log: Callable[[str], None]
) -> dict[str, Any]:
    """All rows, `rounds` times in turn."""
    data = material()
    seconds = sum(len(waveform) for waveform in data[0]) / RATE
    peaks = {half: ceiling(device, clock, half=half) for half in ({False, True} if computes_bf16(device) else {False})}
    table: list[Row] = []
    ready: list[tuple[Row, Work]] = []
    rows = variants(size, device, data)
    for name, (build, (plan, _, _)) in rows.items():
        work = build()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        work(None if device.type == "cuda" else 1)  # warm-up: on CUDA with everything, for the memory's peak
        row = Row(name, padding([len(waveform) for waveform in data[0]], plan), [], [])
        if device.type == "cuda":
            row.peak_memory_gib = torch.cuda.max_memory_allocated(device) / 1024**3
        table.append(row)
        ready.append((row, work))
        log(f"warm: {name}")
    for number in range(rounds):
        for row, work in ready:
            began, at = clock(), time.perf_counter()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            row.seconds.append(clock() - began)
            row.wall.append(time.perf_counter() - at)
            log(f"{row.seconds[-1]:8.2f} s  {row.name}")
        peaks = {half: max(peak, ceiling(device, clock, half=half)) for half, peak in peaks.items()}
        log(f"round {number + 1} of {rounds}, load {os.getloadavg()[0]:.1f}")
    for row in table:
        _, half, operations = rows[row.name][1]
        median = statistics.median(row.seconds)
        row.utterances_per_second = len(data[0]) / median
        row.audio_seconds_per_second = seconds / median
        row.share_of_ceiling = operations / median / peaks[half]
        row.epoch_minutes = FOLD_HOURS * 60 / row.audio_seconds_per_second
    return {
        "size": size,
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"CPU, {torch.get_num_threads()} threads",
        "machine": platform.platform(),
        "torch": torch.__version__,
        "load": os.getloadavg(),
        "clock": clock.__name__,
        "date": time.strftime("%Y-%m-%d"),
        "audio_seconds": seconds,
        "ceiling_gflops": {("bf16" if half else "fp32"): peak / 1e9 for half, peak in peaks.items()},
        "rows": [asdict(row) for row in table],
    }


def markdown(result: dict[str, Any]) -> str:
    """The table, as docs/performance.md holds it."""
    peaks = ", ".join(f"{name} {peak:,.0f} GFLOP/s" for name, peak in result["ceiling_gflops"].items())
    base, base_wall = (statistics.median(result["rows"][1][kind]) for kind in ("seconds", "wall"))
    lines = [
        f"{result['size']}, {result['device']}, torch {result['torch']}, {result['clock']}, {result['date']}; "
        f"matrix products: {peaks}; {result['audio_seconds']:.0f} s of audio a round; load average at the end "
        f"{result['load'][0]:.1f}",
        "",
        "| | utt/s | audio s/s | padding | of the ceiling | peak GiB | x Hugging Face padded | by the clock "
        "| slowest / fastest round | epoch of a fold |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        times = row["seconds"]
        memory = "n/a" if row["peak_memory_gib"] is None else f"{row['peak_memory_gib']:.1f}"
        lines.append(
            f"| {row['name']} | {row['utterances_per_second']:.2f} | {row['audio_seconds_per_second']:.1f} | "
            f"{row['padding']:.1%} | {row['share_of_ceiling']:.0%} | {memory} | "
            f"{base / statistics.median(times):.2f} | {base_wall / statistics.median(row['wall']):.2f} | "
            f"{max(times) / min(times):.2f} | {row['epoch_minutes']:.1f} min |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    parser.add_argument("--size", default="base", choices=["tiny", "base", "large"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", help="file to write all figures to")
    parser.add_argument("--threads", type=int, help="threads on the CPU; default: torch's own choice")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="count the process's CPU time instead of the clock's: with --threads 1, fair on a machine others use too",
    )
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    clock = time.process_time if given.cpu_time else time.perf_counter
    device = torch.device(given.device)
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = False
    result = measure(given.size, device, given.rounds, clock, lambda line: print(line, flush=True))
    print(markdown(result))
    if given.json:
        with open(given.json, "w") as file:
            json.dump(result, file, indent=2)


if __name__ == "__main__":
    main()
