"""The command line. Verbs parse, call one function of the package and turn its errors into exit codes.

Exit codes: 0 done, 2 something the user can put right, 3 a number wasn't finite, 75 stopped on request and resumable.
Nothing heavy is imported before a verb runs.
"""

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
        metavar="[KEY=VALUE]...",
        help="Settings that replace those of the file, e.g. train.epochs=5 data.root=/data/IEMOCAP.",
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
    run_dir: Annotated[
        Path | None,
        typer.Option("--run-dir", help="Directory of this run, instead of a new one in experiment.runs_dir."),
    ] = None,
    resume: Annotated[Path | None, typer.Option("--resume", help="Unfinished run directory to go on with.")] = None,
) -> None:
    """Train one fold of one experiment, evaluate it and write its run directory.

    Example: serfit train --config configs/finetune.yaml --fold 1 --gpu 0 train.epochs=50
    """
    given = [*(overrides or [])]
    given += [] if fold is None else [f"data.split.fold={fold}"]
    given += [] if seed is None else [f"experiment.seed={seed}"]
    experiment = _experiment(config, given, resume, run_dir)
    from serfit.experiment import run_experiment
    from serfit.report.compare import write_comparison

    directory = run_experiment(experiment, _log(), gpu=gpu, directory=resume or run_dir, resume=resume is not None)
    if directory.parent.resolve() == experiment.experiment.runs_dir.resolve():
        print(f"comparison of all finished runs: {write_comparison(directory.parent)}")


@app.command()
def check(
    overrides: Overrides = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="The experiment, a YAML file.")] = None,
) -> None:
    """Read configuration, corpus and audio headers, and say what a run would train, validate and test on.

    Example: serfit check --config configs/finetune.yaml data.root=/data/IEMOCAP_full_release
    """
    experiment = _experiment(config, overrides or [], None, None)
    from serfit.material import prepare
    from serfit.preflight import advice

    material = prepare(experiment)
    for line in (material.split.protocol, *material.corpus.notes, *advice(experiment)):
        print(line)
    for name in ("train", "validation", "test"):
        part = getattr(material, name)
        hours = sum(part.seconds) / 3600
        print(f"{name}: {len(part.utterances)} utterances, {hours:.2f} h, longest {max(part.seconds):.1f} s")
    print("nothing stands in the way of this experiment")


@app.command()
def compare(
    runs_dir: Annotated[Path, typer.Argument(help="Folder of run directories.")] = Path("runs"),
) -> None:
    """Compare all finished runs: prints the table and rewrites experiment_comparison.md in that folder.

    Example: serfit compare runs
    """
    from rich.console import Console

    from serfit.report.compare import compare as compare_runs
    from serfit.report.compare import console_table, write_comparison

    if not runs_dir.is_dir():
        raise UserError(f"there is no folder {runs_dir}; name the folder of the run directories (experiment.runs_dir)")
    Console().print(console_table(compare_runs(runs_dir)))
    print(f"written: {write_comparison(runs_dir)}")


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
    from serfit.store import store_contents

    contents = store_contents(store)
    if not contents:
        print(f"{store} holds no features")
    for content in contents:
        about = content.about
        print(
            f"{content.folder}: {about.get('stage_name')} of {about.get('encoder')}, {content.entries} utterances, "
            f"{content.size / 1024**3:.2f} GiB in {about.get('dtype')}"
        )


@cache_app.command("clear")
def cache_clear(store: Store = Path("cache/features")) -> None:
    """Remove all features from the store; they are computed again when needed.

    Example: serfit cache clear
    """
    from serfit.store import clear_store

    print(f"{clear_store(store) / 1024**3:.2f} GiB freed in {store}")


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
    if config is None:
        raise UserError("no configuration given; name one with --config, for example --config configs/finetune.yaml")
    return load_config(config, overrides)


def _log() -> "Log":
    from rich.console import Console

    from serfit.log import Log

    return Log(Console())


if __name__ == "__main__":
    main()
