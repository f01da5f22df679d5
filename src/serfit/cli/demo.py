"""The demo: the whole main job on synthetic speech, frozen against unfrozen, in a few minutes on a CPU."""

import json
import re
import time
from importlib.resources import as_file, files
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from serfit.config.load import load_config
from serfit.config.schema import ExperimentConfig
from serfit.corpus.synthetic.corpus import synthetic_corpus
from serfit.corpus.synthetic.release import write_release
from serfit.errors import UserError
from serfit.nn.model import model_of
from serfit.report.compare import read_run, write_comparison
from serfit.runs.finished import FinishedRun
from serfit.system.log import Log
from serfit.system.runtime import choose_device
from serfit.training.experiment import run_experiment

CORPUS_SEED = 1
COMPLETE = ".complete"
"""Marks a corpus folder that was written to its end."""


PRETRAINED = {"model.params.freeze_cnn": "true", "train.optimizer.encoder_lr": "0.00003"}
"""What the demo's configurations change for an encoder that has learnt something already, and must not lose it."""


def run_demo(folder: Path, console: Console, encoder: str | None = None) -> None:
    """Write a synthetic IEMOCAP release, train fold 1 frozen and unfrozen, and print both beside each other.

    Args:
        folder: gets `corpus`, `features` and `runs`; a corpus that is there already is used again.
        console: where to say what happens.
        encoder: hub id or folder of a pretrained encoder; None trains a tiny one from random weights.

    Raises:
        UserError: the folder can't be written, the encoder can't be had, or CUDA_VISIBLE_DEVICES asks for GPUs and
            there are none.
    """
    began = time.monotonic()
    choose_device(None)  # refuses where GPUs are asked for and missing, before anything is written
    configs = [demo_config(name, folder, encoder) for name in ("demo_frozen", "demo")]
    console.print("The demo trains on synthetic voices. Its numbers say nothing about people.", style="bold")
    if encoder is None:
        torch.set_num_threads(1)  # networks this small are slowed down by more, badly so on a busy machine
    else:
        model_of(configs[0])  # refuses an encoder that is damaged, before the corpus is written
    root = folder / "corpus"
    _write_corpus(root, console)
    finished: list[FinishedRun] = []
    for config in configs:
        console.print(f"\n{config.experiment.name}", style="bold")
        finished.append(read_run(run_experiment(config, Log(console))))
    console.print()
    console.print(_table(*finished))
    for run in finished:
        console.print(f"{run.directory}", highlight=False)
    console.print(f"{write_comparison(folder / 'runs')}", highlight=False)
    what = "Synthetic voices" if encoder else "Synthetic voices and an untrained encoder"
    console.print(
        f"\nDone in {time.monotonic() - began:.0f} s. {what}: the table shows that the path works and what unfreezing "
        "means, and nothing about people. Next: 'Your corpus' in README.md.",
        highlight=False,
    )


def demo_config(name: str, folder: Path, encoder: str | None = None) -> ExperimentConfig:
    """One of the demo's configurations, with everything below one folder; encoder as for `run_demo`."""
    below = {"data.root": "corpus", "features.store": "features", "experiment.runs_dir": "runs"}
    quoted = {key: json.dumps(str(folder / name).replace("$", "$$")) for key, name in below.items()}  # values are YAML
    if encoder is not None:
        known = Path(encoder).expanduser()
        name_or_folder = str(known.absolute()) if known.exists() else encoder
        kind = "frozen" if name == "demo_frozen" else "unfrozen"
        quoted |= PRETRAINED | {
            "model.params.speech_encoder": json.dumps(name_or_folder.replace("$", "$$")),
            "experiment.name": json.dumps(f"demo_{kind}_{re.sub(r'[^A-Za-z0-9._-]', '-', known.name)}"),
        }
    overrides = [f"{key}={value}" for key, value in quoted.items()]
    with as_file(files("serfit.cli") / f"{name}.yaml") as path:
        return load_config(path, overrides)


def _write_corpus(root: Path, console: Console) -> None:
    if (root / COMPLETE).exists():
        console.print(f"synthetic corpus: {root} (from before)", highlight=False)
        return
    try:
        root.mkdir(parents=True, exist_ok=True)
        write_release(root, synthetic_corpus(CORPUS_SEED))
        (root / COMPLETE).touch()
    except OSError as error:
        raise UserError(f"can't write the demo's corpus to {root}: {error.strerror}; choose a --folder") from error
    console.print(f"synthetic corpus written in the IEMOCAP release layout: {root}", highlight=False)


def _table(frozen: FinishedRun, unfrozen: FinishedRun) -> Table:
    """CCC on the test session: frozen, unfrozen, difference."""
    table = Table(title="Demo, fold 1, CCC on the test session")
    for heading in ("", "CCC-V", "CCC-A", "CCC-Avg"):
        table.add_column(heading, justify="right" if heading else "left")
    tests = [run.scores.test for run in (frozen, unfrozen)]
    columns = [[test.ccc("valence"), test.ccc("arousal"), test.average] for test in tests]
    for name, values in zip(("frozen", "unfrozen"), columns, strict=True):
        table.add_row(name, *("n/a" if value is None else f"{value:.4f}" for value in values))
    pairs = zip(*columns, strict=True)
    table.add_row("difference", *("n/a" if None in pair else f"{pair[1] - pair[0]:+.4f}" for pair in pairs))
    return table
