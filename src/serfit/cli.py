"""The command line. Verbs parse, call one function of the package and turn its errors into exit codes.

Exit codes: 0 done, 2 something the user can put right, 3 a number wasn't finite, 75 stopped on request and resumable.
Nothing heavy is imported before a verb runs.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serfit import __version__
from serfit.errors import NumericalError, UserError
from serfit.interrupt import Interrupted

if TYPE_CHECKING:
    from serfit.config.schema import ExperimentConfig
    from serfit.log import Log

app = typer.Typer(
    name="serfit",
    help="Fine-tune speech encoders for valence, arousal and dominance, with numbers one can trust.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
cache_app = typer.Typer(help="Show or clear the store of frozen features.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(cache_app, name="cache")

Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[CONFIG] [KEY=VALUE]...",
        help="The experiment, unless --config names it, and settings that replace those of the file, e.g. "
        "train.epochs=5 data.root=/data/IEMOCAP.",
    ),
]
Store = Annotated[Path, typer.Option("--store", help="Folder of the store, as in features.store.", show_default=True)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave the process with the exit code that fits."""
    try:
        app(args=None if arguments is None else list(arguments), prog_name="serfit")
    except (UserError, NumericalError, Interrupted) as error:
        kind = "stopped" if isinstance(error, Interrupted) else "error"
        print(f"{kind}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("stopped by Ctrl-C", file=sys.stderr)
        sys.exit(130)


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    """Fine-tune speech encoders for valence, arousal and dominance, with numbers one can trust."""
    if version:
        print(__version__)
        raise typer.Exit


@app.command()
def train(
    overrides: Overrides = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="The experiment, a YAML file.")] = None,
    fold: Annotated[int | None, typer.Option("--fold", help="Fold to run, from 1 [data.split.fold].")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of everything random [experiment.seed].")] = None,
    gpu: Annotated[
        int | None, typer.Option("--gpu", help="Index among the visible GPUs; default: the first, else the CPU.")
    ] = None,
    gpus: Annotated[
        str | None,
        typer.Option("--gpus", metavar="0,1,...", help="Several GPUs for this run: the same result, sooner."),
    ] = None,
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
        from serfit.unfinished import run_to_go_on_with

        experiment = _experiment(config, given, None, run_dir)
        unfinished = run_to_go_on_with(experiment, run_dir) if os.environ.get("RANK", "0") == "0" else None
    else:
        unfinished = None if resume is None else Path(resume)
        experiment = _experiment(config, given, unfinished, run_dir)
    if gpu is not None and gpus is not None:
        raise UserError("--gpu and --gpus both say where to compute; give one of them")
    from serfit.experiment import run_experiment
    from serfit.follow import company, follow, gpu_of, parsed_gpus
    from serfit.report.compare import write_comparison

    several = None if gpus is None else parsed_gpus(gpus)
    with company(experiment, several) as ranks:
        if not ranks.first:
            follow(ranks, experiment, several)
            return
        chosen = gpu_of(ranks, several) if gpu is None else gpu
        directory = run_experiment(
            experiment,
            _log(),
            gpu=chosen,
            directory=unfinished or run_dir,
            resume=unfinished is not None,
            ranks=ranks,
        )
    if directory.parent.resolve() == experiment.experiment.runs_dir.resolve():
        print(f"comparison of all finished runs: {write_comparison(directory.parent)}")


@app.command()
def cv(
    configs: Annotated[
        list[str],
        typer.Argument(metavar="CONFIG... [KEY=VALUE]...", help="The experiments, and settings for all of them."),
    ],
    folds: Annotated[str, typer.Option("--folds", help="Folds to run: 1-5, 1,3 or 1-3,5.")] = "1-5",
    seeds: Annotated[str, typer.Option("--seeds", help="Seeds to run, written likewise.")] = "1",
    gpus: Annotated[str | None, typer.Option("--gpus", help="GPUs to use: 0-7; default: all visible ones.")] = None,
    slots: Annotated[int | None, typer.Option("--slots", min=1, help="Runs at a time on the CPU.")] = None,
    gpus_per_run: Annotated[int, typer.Option("--gpus-per-run", min=1, help="GPUs that one run uses together.")] = 1,
    engine: Annotated[str, typer.Option("--engine", help="auto, inline (one after another) or ray.")] = "auto",
    address: Annotated[str | None, typer.Option("--address", help="A Ray cluster: auto or host:port.")] = None,
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
        )
    )


@app.command()
def check(
    overrides: Overrides = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="The experiment, a YAML file.")] = None,
    headers_only: Annotated[
        bool, typer.Option("--headers-only", help="Trust audio headers, as train does, instead of decoding everything.")
    ] = False,
) -> None:
    """Read configuration, corpus and all audio, and say what a run would train, validate and test on.

    Example: serfit check configs/finetune.yaml data.root=/data/IEMOCAP_full_release
    """
    experiment = _experiment(config, overrides or [], None, None)
    from serfit.files import free_bytes, gigabytes
    from serfit.forecast import forecast
    from serfit.material import prepare
    from serfit.preflight import advice

    material = prepare(experiment, decode=not headers_only)
    for line in (material.split.protocol, *material.corpus.notes, *advice(experiment)):
        print(line)
    for name in ("train", "validation", "test"):
        part = getattr(material, name)
        hours = sum(part.seconds) / 3600
        print(f"{name}: {len(part.utterances)} utterances, {hours:.2f} h, longest {max(part.seconds):.1f} s")
    print(f"all audio was {'opened' if headers_only else 'decoded to its end'}")
    for key, folder in (
        ("experiment.runs_dir", experiment.experiment.runs_dir),
        ("features.store", experiment.features.store),
    ):
        if folder is not None:
            print(f"{key}: {gigabytes(free_bytes(folder))} are free for {folder}")
    for line in forecast(experiment, material):
        print(line)
    print("nothing stands in the way of this experiment")


@app.command()
def compare(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Folders of run directories, or run directories; default: runs.")
    ] = None,
) -> None:
    """Compare finished runs: scores with intervals, and tests of which experiment is better.

    For one folder also rewrites experiment_comparison.md, .csv and .tex in it.

    Example: serfit compare runs
    """
    from rich.console import Console

    from serfit.report.answers import answers
    from serfit.report.compare import chosen_directories, console_table, write_comparison
    from serfit.report.compare import compare as compare_runs

    paths = runs or [Path("runs")]
    comparison = compare_runs(chosen_directories(paths))
    console = Console()
    console.print(console_table(comparison))
    for line in answers(comparison.evidence.pairs):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if len(paths) == 1 and not (paths[0] / "config.json").is_file():
        print(f"written: {write_comparison(paths[0])}, with .csv and .tex beside it")


@app.command()
def report(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Folders of run directories, or run directories; default: runs.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The page; default: report.html in the (first) folder.")
    ] = None,
    players: Annotated[
        bool,
        typer.Option(
            "--players", help="Embed short clips of the worst utterances; mind the corpus's licence before sharing."
        ),
    ] = False,
) -> None:
    """Write one self-contained HTML page about finished runs: answers, curves, errors, costs, settings, protocol.

    Example: serfit report runs
    """
    from serfit.report.compare import chosen_directories
    from serfit.report.page import write_report

    paths = runs or [Path("runs")]
    folder = paths[0].parent if (paths[0] / "config.json").is_file() else paths[0]
    written = write_report(chosen_directories(paths), output or folder / "report.html", players=players)
    print(f"written: {written}")


@app.command()
def baseline(
    overrides: Overrides = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="The experiment, a YAML file.")] = None,
    fold: Annotated[int | None, typer.Option("--fold", help="Only this fold, from 1; default: all folds.")] = None,
) -> None:
    """Score hand-made acoustic features with ridge regression on the experiment's corpus and folds.

    Writes a finished run directory per fold, which `serfit compare` lists beside the others. Of the configuration only
    the sections experiment and data are used.

    Example: serfit baseline --config configs/finetune.yaml
    """
    experiment = _experiment(config, overrides or [], None, None)
    from serfit.baselines import run_baseline
    from serfit.report.compare import write_comparison

    for directory in run_baseline(experiment, _log(), fold=fold):
        print(f"run directory: {directory}")
    print(f"comparison of all finished runs: {write_comparison(experiment.experiment.runs_dir)}")


@app.command()
def verdict(run: Annotated[Path, typer.Argument(help="A finished run directory.")]) -> None:
    """Hold a finished IEMOCAP run against the frozen reference and say what to do next.

    Example: serfit verdict runs/ema_iemocap_finetune_fold1_seed1_20260101-120000
    """
    from serfit.report.compare import read_run
    from serfit.report.reference import verdict as say

    finished = read_run(run)
    print(say(finished.test, corpus=finished.corpus, utterances=finished.utterances))


@app.command()
def demo(
    folder: Annotated[Path, typer.Option("--folder", help="Where corpus, store and runs of the demo go.")] = Path(
        "demo"
    ),
) -> None:
    """Do the main job on synthetic speech, offline, on the CPU, in a few minutes: frozen against unfrozen.

    Example: serfit demo
    """
    from rich.console import Console

    from serfit.demo.run import run_demo

    run_demo(folder, Console())


@app.command()
def doctor() -> None:
    """Show the machine as serfit sees it: device, memory, versions of what matters.

    Example: serfit doctor
    """
    from serfit.runtime import machine_lines

    for line in machine_lines():
        print(line)


@cache_app.command("show")
def cache_show(store: Store = Path("cache/features")) -> None:
    """List what the store of frozen features holds.

    Example: serfit cache show
    """
    from time import localtime, strftime

    from serfit.files import free_bytes, gigabytes
    from serfit.store import store_contents

    contents = store_contents(store)
    for content in contents:
        about = content.about
        used = f", last used {strftime('%Y-%m-%d %H:%M', localtime(content.used))}" if content.entries else ""
        print(
            f"{content.folder}: {about.get('stage_name')} of {about.get('encoder')}, {content.entries} utterances, "
            f"{gigabytes(content.size)} in {about.get('dtype')}{used}"
        )
    total = sum(content.size for content in contents)
    holds = f"{gigabytes(total)} in all" if contents else "no features"
    print(f"{store} holds {holds}; {gigabytes(free_bytes(store))} are free there")


@cache_app.command("clear")
def cache_clear(store: Store = Path("cache/features")) -> None:
    """Remove all features from the store; they are computed again when needed.

    Example: serfit cache clear
    """
    from serfit.files import gigabytes
    from serfit.store import clear_store

    print(f"{gigabytes(clear_store(store))} freed in {store}")


def _experiment(
    config: Path | None, overrides: Sequence[str], resume: Path | None, run_dir: Path | None
) -> "ExperimentConfig":
    """The configuration a command means: the file's, or that of the run to go on with."""
    from serfit.config.load import load_config

    if resume is not None:
        if config is not None or run_dir is not None or overrides:
            raise UserError(
                "--resume goes on with a run exactly as it was begun; "
                "leave out --config, --run-dir, --fold, --seed and key=value settings"
            )
        from serfit.runs import CONFIG

        return load_config(resume / CONFIG)
    if config is None and overrides and "=" not in overrides[0]:
        config, overrides = Path(overrides[0]), overrides[1:]
    if config is None:
        raise UserError("no configuration given; name one with --config, for example --config configs/finetune.yaml")
    return load_config(config, overrides)


def _log() -> "Log":
    from rich.console import Console

    from serfit.log import Log

    return Log(Console())


if __name__ == "__main__":
    main()
