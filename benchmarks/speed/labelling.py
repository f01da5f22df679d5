"""How fast speech is labelled, side by side with what people do otherwise, and what a stream and hours cost.

    uv run python benchmarks/speed/labelling.py [--size tiny|base|large] [--device cpu|cuda] [--rounds 3] [--json FILE]

Utterances of noise with IEMOCAP's quantiles of length, in random order; one network with random weights. The rows take
turns, so that a busy machine is busy for all; each ends with its values on the CPU, so a GPU has done its work then.
Then windows of 3 s one by one, as `serfit stream` hears them, and the memory of a whole process that labels 10 minutes
and 3 hours in windows with a tiny network, on the CPU.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from durations import iemocap_durations
from torch import Tensor

from serfit.config.schema import ModelParams
from serfit.inference.about import About
from serfit.inference.bundle import Member
from serfit.inference.labelling.inputs import Item
from serfit.inference.labelling.labelling import Windows, label
from serfit.inference.networks import TorchNetwork
from serfit.inference.recogniser import Recogniser
from serfit.inference.stream import Samples, listen
from serfit.labels import LabelScale
from serfit.nn.model import EmotionModel, build_model
from serfit.system.precision import Precision

RATE = 16_000
SCALES = {"valence": LabelScale(1, 5), "arousal": LabelScale(1, 5)}


def member(size: str) -> Member:
    """A network with random weights and mean pooling."""
    torch.manual_seed(1)
    params = ModelParams(speech_encoder=f"random:{size}", pooling="mean", layers="last")
    model: EmotionModel = build_model(params, 2, 1, False).requires_grad_(False).eval()
    encoder = model.encoder
    about = About("benchmark", tuple(SCALES), SCALES, encoder.normalise, encoder.shortest_input, model.embedding_width)
    return Member(about, params, model)


def recogniser(one: Member, device: torch.device) -> Recogniser:
    return Recogniser((TorchNetwork(one.about, one.model.to(device), device, Precision().autocast),))


def utterances(count: int) -> list[np.ndarray]:
    random = np.random.default_rng(3)
    seconds = random.permutation(np.quantile(iemocap_durations(), (np.arange(count) + 0.5) / count))
    return [(0.1 * random.standard_normal(int(RATE * length))).astype(np.float32) for length in seconds]


def hugging_face(one: Member, device: torch.device) -> Callable[[list[np.ndarray], int], Any]:
    """The usual loop: feature extractor, padded batches with an attention mask, mean over valid frames, head."""
    from transformers import Wav2Vec2FeatureExtractor

    extract = Wav2Vec2FeatureExtractor(do_normalize=one.about.normalise, return_attention_mask=True)
    encoder, head = one.model.encoder.hf.eval(), one.model.head

    def heard(waveforms: list[np.ndarray], batch: int) -> list[Tensor]:
        said = []
        with torch.inference_mode():
            for begin in range(0, len(waveforms), batch):
                inputs = extract(
                    waveforms[begin : begin + batch], sampling_rate=RATE, padding=True, return_tensors="pt"
                ).to(device)
                hidden = encoder(**inputs).last_hidden_state
                frames = encoder._get_feat_extract_output_lengths(inputs["attention_mask"].sum(1))
                valid = (torch.arange(hidden.shape[1], device=device) < frames[:, None])[..., None]
                said.append(head((hidden * valid).sum(1) / valid.sum(1)).cpu())
        return said

    return heard


def pipeline(one: Member, device: torch.device) -> Callable[[list[np.ndarray], int], Any]:
    """The audio-classification pipeline of transformers around the same encoder, as a regression."""
    from transformers import Wav2Vec2FeatureExtractor, WavLMForSequenceClassification
    from transformers import pipeline as make

    config = one.model.encoder.config
    config.num_labels, config.problem_type = 2, "regression"
    model = WavLMForSequenceClassification(config)
    model.wavlm = one.model.encoder.hf
    extract = Wav2Vec2FeatureExtractor(do_normalize=one.about.normalise, return_attention_mask=True)
    asked = make("audio-classification", model=model.eval(), feature_extractor=extract, device=device)

    def heard(waveforms: list[np.ndarray], batch: int) -> Any:
        return asked(
            [{"raw": one, "sampling_rate": RATE} for one in waveforms], batch_size=batch, function_to_apply="none"
        )

    return heard


def onnx_recognisers(one: Member, folder: Path) -> dict[str, Recogniser]:
    """The exported network in fp32 and int8, where onnxruntime is there."""
    if find_spec("onnxruntime") is None or find_spec("onnxscript") is None:
        return {}
    from serfit.inference.onnx import open_onnx
    from serfit.inference.publish.export import write_onnx

    written = write_onnx([one], [None], folder / "model.onnx", int8=True)
    names = ("ONNX fp32, batched by length", "ONNX int8, batched by length")
    return {
        name: Recogniser((open_onnx(made.path, torch.device("cpu")),))
        for name, made in zip(names, written, strict=True)
    }


def rows(one: Member, device: torch.device, folder: Path) -> dict[str, Callable[[list[np.ndarray]], Any]]:
    ours, loop, asked = recogniser(one, device), hugging_face(one, device), pipeline(one, device)
    found: dict[str, Callable[[list[np.ndarray]], Any]] = {
        "Hugging Face's loop, one by one": lambda waveforms: loop(waveforms, 1),
        "Hugging Face's loop, padded batches of 8": lambda waveforms: loop(waveforms, 8),
        "Hugging Face's pipeline, one by one": lambda waveforms: asked(waveforms, 1),
        "Hugging Face's pipeline, batches of 8": lambda waveforms: asked(waveforms, 8),
        "serfit, one by one": lambda waveforms: [ours.estimate([waveform]) for waveform in waveforms],
        "serfit, batched by length": ours.estimate,
    }
    if device.type == "cpu":
        found |= {name: exported.estimate for name, exported in onnx_recognisers(one, folder).items()}
    return found


def labelling(
    size: str, device: torch.device, count: int, rounds: int, clock: Callable[[], float]
) -> list[dict[str, Any]]:
    """Medians of audio seconds per second, all rows in turn."""
    waveforms = utterances(count)
    seconds = sum(map(len, waveforms)) / RATE
    with tempfile.TemporaryDirectory() as folder:
        todo = rows(member(size), device, Path(folder))
        times: dict[str, list[float]] = {name: [] for name in todo}
        for work in todo.values():  # whatever is prepared at the first call; on a GPU, for every shape there is
            work(waveforms if device.type == "cuda" else waveforms[:2])
        for _ in range(rounds):
            for name, work in todo.items():
                began = clock()
                work(waveforms)
                times[name].append(clock() - began)
    base = statistics.median(times["Hugging Face's loop, one by one"])
    return [
        {
            "row": name,
            "audio seconds per second": seconds / statistics.median(taken),
            "x Hugging Face's loop, one by one": base / statistics.median(taken),
            "slowest / fastest round": max(taken) / min(taken),
        }
        for name, taken in times.items()
    ]


def streaming(size: str, device: torch.device, window: float, count: int) -> dict[str, float]:
    """Seconds that one window takes in `serfit stream`, fed as fast as it listens."""
    pieces = iter([bytes(2 * RATE)] * int(window + count))
    random = np.random.default_rng(1)

    def read() -> bytes:
        return random.integers(-3000, 3000, RATE).astype("<i2").tobytes() if next(pieces, b"") else b""

    heard = listen(recogniser(member(size), device), Samples(read, RATE, "s16le"), window=window, hop=1.0)
    next(heard)
    began = time.process_time()
    taken = [one.seconds for one in heard]
    cpu = (time.process_time() - began) / len(taken)
    return {
        "window": window,
        "windows": len(taken),
        "CPU time": cpu,
        "median": statistics.median(taken),
        "95 %": float(np.quantile(taken, 0.95)),
        "worst": max(taken),
    }


def hours(seconds: int) -> None:
    """Label a file of so many seconds in windows with a tiny network, and print the process's peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "long.wav")
        random = np.random.default_rng(1)
        with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16") as file:
            for _ in range(0, seconds, 60):
                file.write(0.1 * random.standard_normal(60 * RATE))
        began, found = time.perf_counter(), 0
        for piece in label(recogniser(member("tiny"), torch.device("cpu")), [Item("long", path)], Windows(3.0, 3.0)):
            found += len(piece.rows)
        taken = time.perf_counter() - began
    print(f"{seconds} s of audio: {found} windows, {seconds / taken:.0f} x real time, peak {peak_memory()}", flush=True)


def peak_memory() -> str:
    """Most memory that this process ever held; getrusage would count what the one before it held."""
    status = Path("/proc/self/status")
    if not status.exists():
        return "n/a"
    return next(line.split(":")[1].strip() for line in status.read_text().splitlines() if line.startswith("VmHWM"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="base", choices=["tiny", "base", "large"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--utterances", type=int, help="default: 16 on the CPU, 128 on a GPU")
    parser.add_argument("--threads", type=int, help="threads on the CPU; default: torch's own choice")
    parser.add_argument("--cpu-time", action="store_true", help="count the process's CPU time instead of the clock's")
    parser.add_argument("--json", type=Path, help="file to write all figures to")
    parser.add_argument("--hours", type=int, metavar="SECONDS", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    if given.hours:
        hours(given.hours)
        return
    if given.device == "cuda" and (given.cpu_time or not torch.cuda.is_available()):
        parser.error("--device cuda needs a GPU that torch can use, and the clock (no --cpu-time)")
    device = torch.device(given.device)
    count = given.utterances or (128 if device.type == "cuda" else 16)
    named = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    clock = time.process_time if given.cpu_time else time.perf_counter
    print(
        f"{given.size}, {named}, {torch.get_num_threads()} threads, torch {torch.__version__}, {clock.__name__}, "
        f"{count} utterances, {given.rounds} rounds, load average at the start {os.getloadavg()[0]:.1f}\n",
        flush=True,
    )
    table = labelling(given.size, device, count, given.rounds, clock)
    print("| " + " | ".join(table[0]) + " |\n|" + "---|" * len(table[0]))
    for row in table:
        print("| " + " | ".join(cell if isinstance(cell, str) else f"{cell:.2f}" for cell in row.values()) + " |")
    stream = [streaming(given.size, device, window, 20) for window in (2.0, 3.0)]
    for told in stream:
        print(f"\nstream: {told}; load average {os.getloadavg()[0]:.1f}", flush=True)
    for seconds in (600, 10_800):
        subprocess.run([sys.executable, __file__, "--hours", str(seconds), "--threads", "1"], check=True)
    if given.json:
        given.json.write_text(json.dumps({"labelling": table, "stream": stream}, indent=2))


if __name__ == "__main__":
    main()
