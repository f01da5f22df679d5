"""The story of a sweep."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, get_args

from rich.console import Console

from serfit.config.load import load_config
from serfit.corpus.utterance import Corpus
from serfit.errors import UserError, counted
from serfit.report.answers import answers
from serfit.report.compare import compare, console_table, write_comparison
from serfit.report.page import write_report
from serfit.sweep.deliver import best_experiment, check_delivery, deliver_ensemble, deliver_retrained, retraining
from serfit.sweep.engines import inline, on_ray
from serfit.sweep.plan import Job, check_folds, numbers, on_present_labels, plan_jobs
from serfit.sweep.slots import Slots, choose_slots, held, on_gpus
from serfit.sweep.slurm import Options, on_slurm, slurm_options
from serfit.sweep.view import View
from serfit.sweep.worker import Outcome, run_process
from serfit.system.interrupt import Interrupted, StopRequest
from serfit.system.log import Terminal

Engine = Literal["auto", "inline", "ray", "slurm"]


def run_sweep(
    jobs: Sequence[Job],
    slots: Slots,
    console: Console,
    *,
    engine: Engine = "auto",
    per_run: int = 1,
    address: str | None = None,
    slurm: Options | None = None,
) -> list[Outcome]:
    """Run all jobs that aren't finished, show them, and say what became of them.

    Args:
        jobs: the runs.
        slots: where they may compute on this machine; with Slurm, how many at a time.
        console: where to show them.
        engine: auto takes Ray for several slots or a given address, else this process alone; never Slurm.
        per_run: slots that one run takes.
        address: an existing Ray cluster.
        slurm: options for Slurm's sbatch.

    Returns:
        An outcome for every job that was started.

    Raises:
        UserError: the engine can't be had.
        Interrupted: Ctrl-C or a signal; every run has saved itself, and the same command goes on.
    """
    waiting = [job for job in jobs if job.state != "finished"]
    done = len(jobs) - len(waiting)
    console.print(
        f"{counted(len(jobs), 'run')}, {done} of them finished, {counted(slots.total, 'slot')}", highlight=False
    )
    outcomes: list[Outcome] = []
    with StopRequest() as stop, View(console, jobs) as view:
        for outcome in _started(waiting, slots, engine, per_run, address, slurm, stop.asked, view.refresh):
            outcomes.append(outcome)
            view.ended(outcome)
            view.refresh()
    console.print(view.table())
    if stop.asked():
        raise Interrupted(f"stopped by {stop.received}; every run has saved itself: repeat the same command to go on")
    return outcomes


def _started(
    jobs: Sequence[Job],
    slots: Slots,
    engine: Engine,
    per_run: int,
    address: str | None,
    slurm: Options | None,
    stopped: Callable[[], bool],
    refresh: Callable[[], None],
) -> Iterator[Outcome]:
    """Hand the jobs to the engine."""
    if not jobs:
        return iter(())
    if engine == "auto":
        engine = "ray" if address is not None or slots.total > per_run else "inline"
    if engine == "inline":
        if per_run > slots.total:
            raise UserError(f"a run takes {per_run} slots, and there are {slots.total}; lower --gpus-per-run")
        return inline(jobs, slots, stopped, refresh)
    if engine == "slurm":
        return on_slurm(jobs, stopped, most=slots.total, per_run=per_run, options=slurm, wait=refresh)
    return on_ray(jobs, slots, stopped, per_run=per_run, address=address, wait=refresh)


def fill_stores(jobs: Sequence[Job], slots: Slots) -> None:
    """Let each configuration's frozen features be computed once, before the runs that share them start.

    Raises:
        UserError: they can't be computed, so that no run could begin either.
        Interrupted: Ctrl-C or a signal; what is stored stays, and the same command goes on.
    """
    filled: set[Path] = set()
    for job in jobs:
        if job.config in filled or job.state != "new":
            continue
        config = load_config(job.config, job.overrides)
        params = config.model.params
        frozen = params.freeze_speech_encoder or params.freeze_cnn or params.freeze_layers
        if not frozen or config.features.store is None:
            continue
        filled.add(job.config)
        command = [*job.program, "cache", "fill", "--config", str(job.config), *job.overrides]
        _prepare(command, slots.gpus[:1])


def _prepare(command: Sequence[str], gpus: Sequence[str]) -> None:
    """Run a command that prepares a sweep, on GPUs held for it. Raises UserError with what it said, or Interrupted."""
    with StopRequest() as stop, tempfile.TemporaryFile() as errors:
        with held(gpus, stop.asked):
            code = run_process(command, on_gpus(gpus), stop.asked, stderr=errors)
        if stop.asked():
            raise Interrupted(f"stopped by {stop.received}, before the first run; repeat the same command to go on")
        if code != 0:
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip()
            raise UserError(said.removeprefix("error: ") or f"{' '.join(command)} failed with exit code {code}")


def failures(outcomes: Sequence[Outcome]) -> list[Path]:
    """The directories of the runs that didn't finish."""
    return [outcome.job.directory for outcome in outcomes if outcome.fate != "finished"]


def run_cv(
    arguments: Sequence[str],
    *,
    folds: str,
    seeds: str,
    gpus: str | None,
    slots: int | None,
    gpus_per_run: int,
    engine: str,
    address: str | None,
    slurm: Sequence[str] = (),
    ensemble: Path | None = None,
    retrain: Path | None = None,
) -> int:
    """Run a sweep as `serfit cv` does: plan, run, compare, deliver a model.

    Returns:
        The exit code: 0 when every run has finished, 1 when some haven't.
    """
    configs = [Path(argument) for argument in arguments if "=" not in argument]
    overrides = [argument for argument in arguments if "=" in argument]
    if not configs:
        raise UserError("no configuration given; name one or more, for example configs/finetune.yaml")
    options = slurm_options(slurm)
    known = _engine(engine, gpus, address, options)
    jobs = plan_jobs(configs, numbers(folds, "--folds"), numbers(seeds, "--seeds"), overrides, gpus_per_run)
    corpora: dict[Path, Corpus] = {}
    jobs, notes = on_present_labels(jobs, corpora)
    check_delivery(jobs, ensemble, retrain)
    check_folds(jobs, corpora)
    _make_folders(jobs)
    console = Terminal()
    for note in notes:
        _say(console, note)
    if known == "slurm":  # its runs fill the store together: this may be a login node, where nothing should compute
        chosen = Slots(count=slots or len(jobs))
    else:
        chosen = choose_slots(None if gpus is None else numbers(gpus, "--gpus"), slots)
        fill_stores(jobs, chosen)

    def swept(wanted: Sequence[Job]) -> bool:
        outcomes = run_sweep(
            wanted, chosen, console, engine=known, per_run=gpus_per_run, address=address, slurm=options
        )
        left = failures(outcomes)
        if left:
            _say(console, f"{counted(len(left), 'run')} not finished; see above why. Repeat the command to go on.")
        return not left

    complete = swept(jobs)
    _compare(jobs, console)
    if not complete:
        return 1
    if ensemble is None and retrain is None:
        return 0
    best, words = best_experiment(jobs)
    _say(console, words)
    if ensemble is not None:
        deliver_ensemble(best, ensemble)
        _say(console, f"written: {ensemble}, the ensemble of {counted(len(best), 'run')}")
    if retrain is not None:
        (job,), notes = on_present_labels((retraining(best),), corpora)
        for note in notes:
            _say(console, note)
        if not swept([job]):
            return 1
        deliver_retrained(job, best, retrain, among=len({one.config for one in jobs}))
        _say(console, f"written: {retrain}, trained on everything; it can't be tested any more")
    return 0


def _make_folders(jobs: Sequence[Job]) -> None:
    """Make the folders of the run directories. Raises UserError where one can't be written to."""
    for folder in sorted({job.directory.parent for job in jobs}):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise UserError(
                f"can't write to {folder}: {error.strerror or error}; choose a folder you may write to "
                "(experiment.runs_dir)"
            ) from error


def _engine(engine: str, gpus: str | None, address: str | None, slurm: Options) -> Engine:
    """The engine that was asked for, with options that go with it. Raises UserError."""
    known = next((name for name in get_args(Engine) if name == engine), None)
    if known is None:
        raise UserError(f"--engine is {engine}; it takes {', '.join(get_args(Engine))}")
    if known == "slurm" and gpus is not None:
        raise UserError("--gpus names GPUs of this machine; Slurm chooses its own: --gpus-per-run says how many")
    if known in ("inline", "slurm") and address is not None:
        raise UserError(f"--address is a Ray cluster's; leave it out with --engine {known}")
    if known != "slurm" and slurm:
        raise UserError("--slurm is for --engine slurm; add that, or leave --slurm out")
    found: Engine = known
    return found


def _compare(jobs: Sequence[Job], console: Console) -> None:
    """Show and write the comparison of all finished runs in the folders of the jobs."""
    for folder in sorted({job.directory.parent for job in jobs}):
        comparison = compare(folder)
        if comparison.directories:
            console.print(console_table(comparison))
            for line in answers(comparison.evidence.pairs):
                _say(console, line)
            written = (write_comparison(folder, comparison), write_report(comparison, folder / "report.html"))
            _say(console, f"written: {written[0]}, {written[1]}")


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)
