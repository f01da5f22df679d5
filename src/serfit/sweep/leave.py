"""Leaving a sweep with a model: the ensemble of its runs, or one network trained anew on everything.

Both come as a bundle (see `serfit.inference.bundle`). A network that was trained on everything can't be tested any
more; what to expect of it is what the sweep's runs reached on utterances they hadn't heard, and the bundle says so.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median_low
from typing import Any

from serfit.config.load import load_config, result_fingerprint
from serfit.errors import UserError
from serfit.inference.bundle import Member, is_bundle, read_bundle, write_bundle
from serfit.inference.source import member_of_run
from serfit.report.compare import read_run
from serfit.report.finished import FinishedRun
from serfit.sweep.plan import Job


def check_free(folder: Path, option: str) -> None:
    """Refuse a folder that something else stands in already, before hours of computing. Raises UserError."""
    if folder.exists() and not is_bundle(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{option} is {folder}, where something stands already; name a new folder for the model")


def best_experiment(jobs: Sequence[Job]) -> tuple[tuple[Job, ...], str]:
    """The jobs of the experiment with the best mean test CCC, and a sentence about that choice.

    Args:
        jobs: finished, of one configuration or several.
    """
    groups: dict[Path, list[Job]] = {}
    for job in jobs:
        groups.setdefault(job.config, []).append(job)
    means = {config: _mean_ccc([read_run(job.directory) for job in group]) for config, group in groups.items()}
    best = max(groups, key=lambda config: means[config])
    name = load_config(best, groups[best][0].overrides).experiment.name
    if len(groups) == 1:
        return tuple(groups[best]), f"model of {name}: mean test CCC-Avg {means[best]:.4f}"
    others = ", ".join(f"{means[config]:.4f}" for config in groups if config != best)
    return tuple(groups[best]), (
        f"model of {name}: mean test CCC-Avg {means[best]:.4f}, against {others}; the test parts made that choice, so "
        "expect a little less"
    )


def leave_with_ensemble(jobs: Sequence[Job], folder: Path) -> None:
    """Write the bundle of all runs of one experiment; one that stands there already stays if it is the same.

    Raises:
        UserError: another model stands there.
    """
    _leave([job.directory for job in jobs], folder, {})


def retraining(jobs: Sequence[Job]) -> Job:
    """The run that trains one experiment on everything, for the median of its runs' best epochs.

    The schedule stays laid out for train.epochs, as it was when those epochs were the best.

    Args:
        jobs: all finished runs of one experiment.
    """
    epoch = median_low([read_run(job.directory).best_epoch for job in jobs])
    first = jobs[0]
    seed = load_config(first.config, first.overrides).experiment.seed
    overrides = (
        *first.overrides,
        "data.split.scheme=everything",
        "data.split.fold=1",
        "train.early_stopping=null",
        f"train.stop_after={epoch}",
    )
    config = load_config(first.config, overrides)
    stem = f"{config.experiment.name}_everything_seed{seed}_{result_fingerprint(config)[:8]}"
    label = f"{config.experiment.name} on everything seed {seed}, {epoch} epochs"
    return replace(first, name=label, overrides=overrides, directory=config.experiment.runs_dir / stem)


def leave_with_retrained(job: Job, jobs: Sequence[Job], folder: Path) -> None:
    """Write the bundle of a network that was trained on everything, with what its experiment's runs reached.

    Raises:
        UserError: another model stands there.
    """
    tested = [read_run(one.directory) for one in jobs]
    reached = {
        "runs": [one.directory.name for one in jobs],
        "best_epochs": [run.best_epoch for run in tested],
        "mean_test_ccc": {name: _mean([run.test.ccc(name) for run in tested]) for name in tested[0].test.dimensions},
        "mean_test_ccc_average": _mean([run.test.average for run in tested]),
    }
    _leave([job.directory], folder, {"cross_validation": reached})


def _leave(directories: Sequence[Path], folder: Path, more: dict[str, Any]) -> None:
    names = [directory.resolve().name for directory in directories]
    if is_bundle(folder):
        if [member.about.origin.get("run") for member in read_bundle(folder)] == names:
            return
        raise UserError(f"{folder} holds another model; name a new folder, or remove it")
    write_bundle(folder, [_with(member_of_run(directory), more) for directory in directories])


def _with(member: Member, more: dict[str, Any]) -> Member:
    return replace(member, about=replace(member.about, origin={**member.about.origin, **more}))


def _mean_ccc(runs: Sequence[FinishedRun]) -> float:
    """Mean test CCC-Avg; undefined ones are never better than anything."""
    values = [run.test.average for run in runs]
    return fmean(value for value in values if value is not None) if None not in values else float("-inf")


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) and known else None
