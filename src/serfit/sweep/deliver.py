"""Leaving a sweep with a model: the ensemble of its runs, or one network trained anew on everything.

Both come as a bundle (see `serfit.inference.bundle`). A network that was trained on everything can't be tested any
more; what to expect of it is what the sweep's runs reached on utterances they weren't trained on, and the bundle
says so.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median_low

from serfit.config.load import load_config, result_fingerprint
from serfit.corpus.preflight import check_folder
from serfit.errors import UserError, counted
from serfit.inference.bundle import Member, is_bundle, is_free, origins_of, write_bundle
from serfit.inference.origin import CrossValidation, Origin
from serfit.inference.publish.cross_validated import reached
from serfit.inference.source import member_of_run
from serfit.report.compare import compare, read_run
from serfit.report.markdown import number
from serfit.runs.experiments import summarise
from serfit.runs.finished import FinishedRun
from serfit.runs.label_versions import told_apart
from serfit.sweep.plan import Job


def check_delivery(jobs: Sequence[Job], ensemble: Path | None, retrain: Path | None) -> None:
    """Refuse before hours of computing what couldn't be done after them.

    Args:
        jobs: of the sweep.
        ensemble: folder for the ensemble of an experiment's runs, if it is wanted.
        retrain: folder for a network trained on everything, likewise.

    Raises:
        UserError: both name one folder, something else stands in it, or the experiments have no scores to choose by.
    """
    if ensemble is None and retrain is None:
        return
    if ensemble is not None and retrain is not None and ensemble.resolve() == retrain.resolve():
        raise UserError(f"--ensemble and --retrain are both {ensemble}; name a folder for each model")
    groups = _by_config(jobs)
    runs = [{job.directory.name for job in group} for group in groups.values()]
    if ensemble is not None:
        _check_free(ensemble, "--ensemble", lambda origins: {origin.run for origin in origins} in runs)
    if retrain is not None:
        _check_free(retrain, "--retrain", lambda origins: _reached_by(origins[0]) in runs)
    tested = {_tested_on(group[0]) for group in groups.values()}
    if len(tested) > 1:
        raise UserError(
            f"{' and '.join(str(config) for config in groups)} differ in corpus, dimensions or split, so no test "
            "scores can choose the model among them; leave with a model of one configuration"
        )


def best_experiment(jobs: Sequence[Job]) -> tuple[tuple[Job, ...], str]:
    """The jobs of the experiment with the best mean test CCC, and a sentence about that choice.

    Args:
        jobs: finished, of one configuration or several.

    Raises:
        UserError: their labels differ, because these were changed while the sweep ran.
    """
    groups = _by_config(jobs)
    finished = {config: [read_run(job.directory) for job in group] for config, group in groups.items()}
    corpora, said = told_apart([run for found in finished.values() for run in found])
    if len(set(corpora.values())) > 1:
        raise UserError(f"no model is left: {'; '.join(said)}; then give the command again")
    means = {config: _mean_ccc(found) for config, found in finished.items()}
    best = max(groups, key=lambda config: _rank(means[config]))
    name = load_config(best, groups[best][0].overrides).experiment.name
    if len(groups) == 1:
        return tuple(groups[best]), f"model of {name}: mean test CCC-Avg {number(means[best])}"
    others = ", ".join(number(means[config]) for config in groups if config != best)
    return tuple(groups[best]), (
        f"model of {name}: mean test CCC-Avg {number(means[best])}, against {others}; the test parts made that choice, "
        "so expect a little less"
    )


def deliver_ensemble(jobs: Sequence[Job], folder: Path) -> None:
    """Write the bundle of all runs of one experiment; one that stands there already stays if it is the same.

    Raises:
        UserError: another model stands there.
    """
    _deliver([job.directory for job in jobs], folder, None)


def retraining(jobs: Sequence[Job]) -> Job:
    """The run that trains one experiment on everything, for the median of its runs' best epochs.

    The schedule stays laid out for train.epochs, as it was when those epochs were the best.

    Args:
        jobs: all finished runs of one experiment.
    """
    epoch = median_low([read_run(job.directory).scores.best_epoch for job in jobs])
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
    label = f"{config.experiment.name} on everything seed {seed}, {counted(epoch, 'epoch')}"
    return replace(first, name=label, overrides=overrides, directory=config.experiment.runs_dir / stem)


def deliver_retrained(job: Job, jobs: Sequence[Job], folder: Path, among: int = 1) -> None:
    """Write the bundle of a network that was trained on everything, with what its experiment's runs reached.

    Args:
        job: its run.
        jobs: the runs of its experiment.
        folder: of the bundle.
        among: experiments among which this one was chosen by its test scores.

    Raises:
        UserError: another model stands there.
    """
    _deliver([job.directory], folder, reached(compare([one.directory for one in jobs]), among))


def _deliver(directories: Sequence[Path], folder: Path, said: CrossValidation | None) -> None:
    names = [directory.resolve().name for directory in directories]
    if is_bundle(folder):
        if [origin.run for origin in origins_of(folder)] == names:
            return
        raise UserError(f"{folder} holds another model; name a new folder, or remove it")
    write_bundle(folder, [_with(member_of_run(directory), said) for directory in directories])


def _with(member: Member, said: CrossValidation | None) -> Member:
    if said is None:
        return member
    origin = member.about.origin.model_copy(update={"cross_validation": said})
    return replace(member, about=replace(member.about, origin=origin))


def _reached_by(origin: Origin) -> set[str]:
    """The runs that say what to expect of a network trained on everything; none where nothing is recorded."""
    return set() if origin.cross_validation is None else set(origin.cross_validation.runs)


def _check_free(folder: Path, option: str, ours: Callable[[list[Origin]], bool]) -> None:
    """Raise UserError where something stands in a folder that isn't a model of this very sweep."""
    if not (ours(origins_of(folder)) if is_bundle(folder) else is_free(folder)):
        raise UserError(f"{option} is {folder}, which exists already; name a new folder for the model")
    check_folder(option, folder)


def _by_config(jobs: Sequence[Job]) -> dict[Path, list[Job]]:
    groups: dict[Path, list[Job]] = {}
    for job in jobs:
        groups.setdefault(job.config, []).append(job)
    return groups


def _tested_on(job: Job) -> str:
    """The settings that decide which ratings of which utterances are predicted."""
    data = load_config(job.config, job.overrides).data
    return data.model_dump_json(include={"corpus", "root", "dimensions", "table", "scales", "split"})


def _mean_ccc(runs: Sequence[FinishedRun]) -> float | None:
    """Mean test CCC-Avg; None where one is undefined."""
    return summarise([run.scores.test.average for run in runs]).mean


def _rank(mean: float | None) -> float:
    """An undefined mean is never better than anything."""
    return float("-inf") if mean is None else mean
