"""What does unfreezing a pretrained encoder give? Every degree of it on real speech, over all folds and several seeds.

    uv run python benchmarks/real_speech/unfreezing.py EMODB ENCODER OUT [--seeds 1-3] [--epochs 8] [--only frozen top1]

EMODB is the folder of EMO-DB with utterances.csv, ENCODER a folder of a pretrained Whisper in hub layout. Everything
goes below OUT; a command that was interrupted is repeated and goes on. EMO-DB has emotion classes and no ratings: they
are placed on the circumplex. Such targets are a proxy: differences between systems mean something, a CCC doesn't.

Each way of training is tried at its learning rates with the first seed; the rate with the best mean validation CCC over
the folds is trained with the other seeds. Beside them stand ridge regression on hand-made features and on the frozen
layers (`serfit probe`), the same network from random weights, and targets dealt to the wrong utterances.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from emodb import CONFIG, write_table
from safetensors.torch import load_file, save_file

from serfit.runs.finished import finished_directories, read_run
from serfit.sweep.plan import numbers

RATES = {"frozen": (1e-5,), "random": (3e-4, 1e-3)}
"""Learning rates of the encoder that are tried; where nothing is trained in it one stands for all."""

PRETRAINED_RATES = (3e-5, 1e-4)


def ways(layers: int) -> dict[str, dict[str, Any]]:
    """What is trained, by name, of an encoder with so many layers."""
    top = {f"top{count}": {"freeze_layers": layers - count} for count in sorted({1, 2, layers // 2})}
    everything = {"freeze_cnn": False}
    return {"frozen": {"freeze_speech_encoder": True}, **top, "all": everything, "random": everything}


def random_twin(encoder: Path, folder: Path) -> Path:
    """A copy of Whisper's folder with the weights that transformers gives an untrained network."""
    if not (folder / "model.safetensors").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("config.json", "preprocessor_config.json"):
            (folder / name).write_bytes((encoder / name).read_bytes())
        random = torch.Generator().manual_seed(1)
        tensors = {}
        for key, tensor in load_file(encoder / "model.safetensors").items():
            if "embed_positions" in key:
                tensors[key] = tensor
            elif tensor.dim() == 1:
                tensors[key] = torch.full_like(tensor, float("norm.weight" in key))
            else:
                tensors[key] = (0.02 * torch.randn(tensor.shape, generator=random)).to(tensor.dtype)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def write_configuration(
    out: Path, name: str, table: str, encoder: Path, params: dict[str, Any], rate: float, epochs: int
) -> Path:
    """Write the configuration of one way of training at one rate."""
    plan = yaml.safe_load(CONFIG.read_text())
    plan["experiment"] = {"name": name, "runs_dir": str(out / "runs")}
    plan["data"] |= {"root": str(out), "loader": {"batch_size": 16, "workers": 1}}
    plan["data"]["table"]["path"] = table
    plan["features"] = {"store": str(out / "features")}
    plan["model"] = {"params": {"speech_encoder": str(encoder), "head_hidden": 128, **params}}
    plan["train"] = {
        "epochs": epochs,
        "accumulation_steps": 1,
        "optimizer": {"lr": 5e-4, "encoder_lr": rate},
        "schedule": {"warmup": 0.1},
    }
    path = out / "configs" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(plan))
    return path


def serfit(*arguments: str | Path) -> None:
    """Run a verb with one thread per process, and stop where it fails."""
    words = [str(argument) for argument in arguments]
    print("+ serfit", " ".join(words), flush=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "serfit", *words], check=True, env=environment)


def best_rate(out: Path, way: str, rates: tuple[float, ...], seed: int) -> float:
    """The rate whose runs of a seed have the best mean validation CCC, each in its best epoch."""
    runs = [read_run(directory) for directory in finished_directories(out / "runs")]
    means = {}
    for rate in rates:
        own = [run for run in runs if (run.name, run.seed) == (name_of(way, rate), seed)]
        means[rate] = np.mean([max(record.validation.average or -1.0 for record in run.records) for run in own])
    print(f"{way}: mean validation CCC by encoder_lr:", ", ".join(f"{rate:g}: {means[rate]:.3f}" for rate in rates))
    return max(means, key=lambda rate: means[rate])


def name_of(way: str, rate: float) -> str:
    """The name of an experiment."""
    return f"{way}_{rate:g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("encoder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", default="1-3")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--slots", default="2", help="runs at a time")
    parser.add_argument(
        "--only", nargs="*", help="frozen, top1, top2, ..., all, random, permuted; default: all of them"
    )
    arguments = parser.parse_args()
    out = arguments.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    for table, permute in (("proxy.csv", False), ("permuted.csv", True)):
        write_table(arguments.corpus, out / table, permute=permute)
    encoder = arguments.encoder.absolute()
    layers = json.loads((encoder / "config.json").read_text())["encoder_layers"]
    known = ways(layers) | {"permuted": ways(layers)[f"top{layers // 2}"]}
    chosen = arguments.only or list(known)
    first, *others = numbers(arguments.seeds, "--seeds")
    began, spent = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    base = write_configuration(out, "emodb", "proxy.csv", encoder, known["frozen"], 1e-5, arguments.epochs)
    serfit("baseline", "--config", base)
    serfit("probe", base)
    kept: list[Path] = []
    for way in chosen:
        source = random_twin(encoder, out / "random") if way == "random" else encoder
        rates = RATES.get(way, PRETRAINED_RATES)
        table = "permuted.csv" if way == "permuted" else "proxy.csv"
        configs = {
            rate: write_configuration(out, name_of(way, rate), table, source, known[way], rate, arguments.epochs)
            for rate in rates
        }
        serfit("cv", *configs.values(), "--cpu", "--slots", arguments.slots, "--seeds", str(first))
        kept.append(configs[best_rate(out, way, rates, first)])
    if others:
        serfit("cv", *kept, "--cpu", "--slots", arguments.slots, "--seeds", ",".join(map(str, others)))
    serfit("compare", out / "runs")
    taken = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - spent
    print(f"{(time.monotonic() - began) / 60:.1f} min on the clock, {taken / 60:.1f} min of CPU time in this call")


if __name__ == "__main__":
    main()
