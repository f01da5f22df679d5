"""The verbs that compute: train, cv, check, baseline, probe, demo, doctor."""

import os
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from serfit.cli.boundary import needs_torch
from serfit.cli.options import Config, Cpu, Overrides, experiment, new_log
from serfit.errors import UserError, counted


@needs_torch
def train(
    overrides: Overrides = None,
    config: Config = None,
    fold: Annotated[int | None, typer.Option("--fold", help="Fold to run, from 1 [data.split.fold].")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of everything random [experiment.seed].")] = None,
    gpu: Annotated[
        int | None, typer.Option("--gpu", help="Index among the visible GPUs; default: the first, else the CPU.")
    ] = None,
    gpus: Annotated[
        str | None,
        typer.Option("--gpus", metavar="0,1,...", help="Several GPUs for this run: the same result, sooner."),
    ] = None,
    cpu: Cpu = False,
    run_dir: Annotated[
        Path | None,
        typer.Option("--run-dir", help="Directory of this run, instead of a new one in experiment.runs_dir."),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            "--resume",
            metavar="RUN|auto",
            help="Unfinished run directory to go on with; auto finds the one of this very command, if there is one.",
        ),
    ] = None,
) -> None:
    """Train one fold of one experiment, evaluate it and write its run directory.

    Example: serfit train --config configs/finetune.yaml --fold 1 --gpu 0 train.epochs=50
    """
    given = [*(overrides or [])]
    given += [] if fold is None else [f"data.split.fold={fold}"]
    given += [] if seed is None else [f"experiment.seed={seed}"]
    if resume == "auto":
        from serfit.runs.unfinished import run_to_go_on_with

        chosen = experiment(config, given, None, run_dir)
        unfinished = run_to_go_on_with(chosen, run_dir) if os.environ.get("RANK", "0") == "0" else None
    else:
        unfinished = None if resume is None else Path(resume)
        chosen = experiment(config, given, unfinished, run_dir)
    if gpu is not None and gpus is not None:
        raise UserError("--gpu and --gpus both say where to compute; give one of them")
    from serfit.report.compare import write_comparison
    from serfit.training.experiment import run_experiment
    from serfit.training.ranks import in_company, parsed_gpus

    several = None if gpus is None else parsed_gpus(gpus)
    work = partial(run_experiment, chosen, directory=unfinished or run_dir, resume=unfinished is not None)
    directory = in_company(work, new_log(), several, gpu)
    if directory is None:
        return
    tested = chosen.data.split.scheme != "everything"
    if tested and directory.parent.resolve() == chosen.experiment.runs_dir.resolve():
        print(f"comparison of all finished runs: {write_comparison(directory.parent)}")


@needs_torch
def cv(
    configs: Annotated[
        list[str],
        typer.Argument(metavar="CONFIG... [KEY=VALUE]...", help="The experiments, and settings for all of them."),
    ],
    folds: Annotated[str, typer.Option("--folds", help="Folds to run: 1-5, 1,3 or 1-3,5.")] = "1-5",
    seeds: Annotated[str, typer.Option("--seeds", help="Seeds to run, written likewise.")] = "1",
    gpus: Annotated[str | None, typer.Option("--gpus", help="GPUs to use: 0-7; default: all visible ones.")] = None,
    slots: Annotated[
        int | None, typer.Option("--slots", min=1, help="Runs at a time: on the CPU, or on a Slurm cluster.")
    ] = None,
    cpu: Cpu = False,
    gpus_per_run: Annotated[int, typer.Option("--gpus-per-run", min=1, help="GPUs that one run uses together.")] = 1,
    engine: Annotated[str, typer.Option("--engine", help="auto, inline (one after another), ray or slurm.")] = "auto",
    address: Annotated[str | None, typer.Option("--address", help="A Ray cluster: auto or host:port.")] = None,
    slurm: Annotated[
        list[str] | None,
        typer.Option("--slurm", metavar="KEY=VALUE", help="An option of sbatch: time=12:00:00; may be repeated."),
    ] = None,
    ensemble: Annotated[
        Path | None,
        typer.Option("--ensemble", metavar="FOLDER", help="Leave with a model: all runs of the best experiment."),
    ] = None,
    retrain: Annotated[
        Path | None,
        typer.Option(
            "--retrain",
            metavar="FOLDER",
            help="Leave with a model: the best experiment trained on everything, for its median best epoch.",
        ),
    ] = None,
) -> None:
    """Run folds x seeds of one or more experiments on every GPU there is, then compare them.

    Repeat the command after any interruption: only what isn't finished runs, and goes on where it stopped.

    Example: serfit cv configs/finetune.yaml configs/baseline.yaml --folds 1-5 --seeds 1-3
    """
    from serfit.sweep.run import run_cv

    sys.exit(
        run_cv(
            configs,
            folds=folds,
            seeds=seeds,
            gpus=gpus,
            slots=slots,
            gpus_per_run=gpus_per_run,
            engine=engine,
            address=address,
            slurm=slurm or (),
            ensemble=ensemble,
            retrain=retrain,
        )
    )


@needs_torch
def check(
    overrides: Overrides = None,
    config: Config = None,
    cpu: Cpu = False,
    headers_only: Annotated[
        bool, typer.Option("--headers-only", help="Trust audio headers, as train does, instead of decoding everything.")
    ] = False,
) -> None:
    """Read configuration, corpus and all audio, and say what a run would train, validate and test on.

    Example: serfit check configs/finetune.yaml data.root=/data/IEMOCAP_full_release
    """
    chosen = experiment(config, overrides or [], None, None)
    from serfit.corpus.preflight import check_folders, rating_lines
    from serfit.report.diagnosis.diagnose import doubts
    from serfit.system.runtime import choose_device
    from serfit.training.forecast import forecast
    from serfit.training.material import prepare
    from serfit.training.start import find_start

    choose_device(None)  # refuses where GPUs are asked for and missing, before the audio is read
    check_folders(chosen)
    material = prepare(chosen, decode=not headers_only)
    start = find_start(chosen)
    if start is not None:
        start.check(material)
        print(*start.lines(material), sep="\n")
    for line in (material.split.protocol, *material.corpus.notes, *doubts(chosen)):
        print(line)
    for name in ("train", "validation", "test"):
        part = getattr(material, name)
        if not part.utterances:
            continue
        hours = sum(part.seconds) / 3600
        print(f"{name}: {counted(len(part.utterances), 'utterance')}, {hours:.2f} h, longest {max(part.seconds):.1f} s")
    everyone = [utterance for part in material.split.parts.values() for utterance in part]
    for line in rating_lines(everyone, chosen.data.dimensions, material.corpus.scales):
        print(line)
    print(
        "all audio was opened (decode it, without --headers-only, to find damage, silence and copies in other formats)"
        if headers_only
        else "all audio was decoded to its end"
    )
    for line in forecast(chosen, material):
        print(line)
    print("this experiment can be trained")


@needs_torch
def baseline(
    overrides: Overrides = None,
    config: Config = None,
    fold: Annotated[int | None, typer.Option("--fold", help="Only this fold, from 1; default: all folds.")] = None,
) -> None:
    """Score hand-made acoustic features with ridge regression on the experiment's corpus and folds.

    Writes a finished run directory per fold, which `serfit compare` lists with the others. Of the configuration only
    the sections experiment and data are used.

    Example: serfit baseline --config configs/finetune.yaml
    """
    chosen = experiment(config, overrides or [], None, None)
    from serfit.report.compare import write_comparison
    from serfit.training.baselines import run_baseline

    for directory in run_baseline(chosen, new_log(), fold=fold):
        print(f"run directory: {directory}")
    print(f"comparison of all finished runs: {write_comparison(chosen.experiment.runs_dir)}")


@needs_torch
def probe(
    overrides: Overrides = None,
    config: Config = None,
    encoders: Annotated[
        list[str] | None,
        typer.Option("--encoders", metavar="A [B ...]", help="Encoders to compare, instead of the configuration's."),
    ] = None,
    gpu: Annotated[int | None, typer.Option("--gpu", help="Index among the visible GPUs.")] = None,
    cpu: Cpu = False,
) -> None:
    """Score ridge regression on every layer of a frozen encoder, beside hand-made features: an answer in a minute.

    Computes the corpus once and stores it. Tables and pictures go to <runs_dir>/<name>_probe; what is best on
    validation leaves a finished run directory per fold, which `serfit compare` lists with the others.

    Example: serfit probe configs/baseline.yaml --encoders microsoft/wavlm-base facebook/hubert-base-ls960
    """
    given = list(overrides or [])
    if encoders:  # an option takes one word; those that follow come as arguments
        first = 0 if config else 1
        encoders += [word for word in given[first:] if "=" not in word]
        given = given[:first] + [word for word in given[first:] if "=" in word]
    chosen = experiment(config, given, None, None)
    from serfit.report.compare import write_comparison
    from serfit.report.layers import console_tables
    from serfit.system.log import Terminal
    from serfit.training.probe import TABLES, run_probe

    probed, folder = run_probe(chosen, new_log(), encoders=encoders or (), gpu=gpu)
    for table in console_tables(probed):
        Terminal().print(table)
    print()
    for line in probed.answers:
        print(line)
    for encoder, lines in probed.costs.items():
        print(f"\nwhat fine-tuning {encoder} would cost:")
        for line in lines:
            print(line)
    print(f"\nwritten: {folder / TABLES}.md, with .csv, .png and .svg next to it")
    print(f"comparison of all finished runs: {write_comparison(chosen.experiment.runs_dir)}")


@needs_torch
def demo(
    folder: Annotated[Path, typer.Option("--folder", help="Where corpus, store and runs of the demo go.")] = Path(
        "demo"
    ),
    encoder: Annotated[
        str | None,
        typer.Option("--encoder", help="Hub id or folder of a pretrained encoder, in place of a tiny untrained one."),
    ] = None,
) -> None:
    """Do the main job on synthetic speech, offline, on the CPU, in a few minutes: frozen against unfrozen.

    Example: serfit demo
    """
    from serfit.cli.demo import run_demo
    from serfit.system.log import Terminal

    run_demo(folder, Terminal(), encoder)


@needs_torch
def doctor() -> None:
    """Show the machine as serfit sees it: device, memory, versions of what matters.

    Example: serfit doctor
    """
    import torch

    from serfit.nn.dropout import trouble_with_kernels
    from serfit.system.runtime import machine_lines

    for line in machine_lines():
        print(line)
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        trouble = trouble_with_kernels(index)
        print(
            f"GPU {index}: dropout in one kernel"
            if trouble is None
            else f"warning: GPU {index} trains more slowly "
            f"than it could, for Triton doesn't work there ({trouble}); install a C compiler, such as gcc"
        )
