"""What the verbs share: the arguments that name an experiment, and what they become."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serfit.errors import UserError

if TYPE_CHECKING:
    from serfit.config.schema import ExperimentConfig
    from serfit.system.log import Log

Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[CONFIG] [KEY=VALUE]...",
        help="The experiment, unless --config names it, and settings that replace those of the file, e.g. "
        "train.epochs=5 data.root=/data/IEMOCAP.",
    ),
]
Config = Annotated[Path | None, typer.Option("--config", "-c", help="The experiment, a YAML file.")]


def _hide_gpus(wanted: bool) -> bool:
    """For this process and all that it starts, before torch looks for GPUs."""
    if wanted:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    return wanted


Cpu = Annotated[bool, typer.Option("--cpu", callback=_hide_gpus, help="Compute on the CPU, whatever GPUs there are.")]


def experiment(
    config: Path | None, overrides: Sequence[str], resume: Path | None, run_dir: Path | None
) -> "ExperimentConfig":
    """The configuration a command means: the file's, or that of the run to go on with.

    Raises:
        UserError: none is named, or it is wrong, or it comes with what a resumed run doesn't take.
    """
    from serfit.config.load import load_config

    if resume is not None:
        if config is not None or run_dir is not None or overrides:
            raise UserError(
                "--resume goes on with a run exactly as it was begun; "
                "leave out --config, --run-dir, --fold, --seed and key=value settings"
            )
        from serfit.runs.directory import CONFIG, check_trains, check_unfinished

        check_unfinished(resume)
        check_trains(resume)
        return load_config(resume / CONFIG)
    if config is None and overrides and "=" not in overrides[0]:
        config, overrides = Path(overrides[0]), overrides[1:]
    if config is None:
        raise UserError("no configuration given; name one with --config, for example --config configs/finetune.yaml")
    return load_config(config, overrides)


def new_log() -> "Log":
    """A log that speaks on the terminal."""
    from serfit.system.log import Log, Terminal

    return Log(Terminal())
