"""The story of one experiment, in the order in which it happens."""

import time
from pathlib import Path

from serfit import runs
from serfit.announce import fill_store, introduce, resuming, show_step
from serfit.checkpoint import frozen_digest, load_weights, save_weights
from serfit.config.schema import ExperimentConfig
from serfit.executor import Executor
from serfit.features import build_features
from serfit.interrupt import Interrupted, StopRequest
from serfit.log import Log
from serfit.material import prepare
from serfit.memory import first_budget
from serfit.nn.model import build_model
from serfit.optim import build_optimizer
from serfit.preflight import advice
from serfit.records import EpochRecord
from serfit.report.plots import plot_curves
from serfit.report.reference import FROZEN, obstacle
from serfit.report.text import best_result_text, epoch_line, result_lines
from serfit.results import results
from serfit.resume import restore, save_state
from serfit.runs import opened_run
from serfit.runtime import choose_device, choose_precision
from serfit.trainer import TrainingState, evaluate, fit

SECONDS_BETWEEN_PICTURES = 30.0
"""Least time between two drawings of the curves; drawing takes longer than an epoch of a small head."""


def run_experiment(
    config: ExperimentConfig,
    log: Log,
    *,
    gpu: int | None = None,
    directory: Path | None = None,
    resume: bool = False,
) -> Path:
    """Train, evaluate and write down one experiment.

    Args:
        config: the experiment.
        log: where to say what happens.
        gpu: index of a visible GPU; None takes the first, or the CPU where there is none.
        directory: the run directory; None makes a new one in experiment.runs_dir.
        resume: go on with the unfinished run in `directory`.

    Returns:
        The run directory.

    Raises:
        UserError: something the user can put right; no directory is left behind unless training has begun.
        NumericalError: a number wasn't finite; nothing was updated with it.
        Interrupted: a signal asked to stop; everything is saved.
    """
    material = prepare(config)
    device, device_line = choose_device(gpu)
    precision, autocast = choose_precision(config.train.precision, device)
    with opened_run(config, log, directory, resume) as run, StopRequest() as stop:
        for line in (device_line, material.split.protocol, *material.corpus.notes, *advice(config)):
            log.say(line)
        model = build_model(
            config.model.params,
            dimensions=len(config.data.dimensions),
            seed=config.experiment.seed,
            gradient_checkpointing=config.train.gradient_checkpointing,
        ).to(device)
        features = build_features(
            model, config.features, config.data.augmentation, crop=config.data.loader.crop_seconds is not None
        )
        introduce(run, log, material, model, features, device, precision)
        fill_store(features, material, log)
        budget = first_budget(
            model, features.stage, features.entries_per_second, device, config.train, half=precision == "bf16"
        )
        executor = Executor(model, features.stage, device, autocast, budget)
        state = TrainingState(model, build_optimizer(model, config.train.optimizer))
        for line in restore(state, run):
            log.say(line)
        frozen = frozen_digest(model)
        comparable = obstacle(FROZEN, material.corpus.name, len(material.corpus.utterances)) is None
        reference = FROZEN if comparable else None
        run.start_clock()
        saved = drawn = time.monotonic()
        for record in fit(state, executor, features, material.train, material.validation, config):
            if isinstance(record, EpochRecord):
                run.add(record)
                log.settle()
                log.say(epoch_line(record, config.train.epochs, run.seconds[-1]))
                if time.monotonic() - drawn > SECONDS_BETWEEN_PICTURES:
                    plot_curves(run.records, run.directory, reference)
                    drawn = time.monotonic()
                if record.best:
                    save_weights(run / runs.BEST_WEIGHTS, model, frozen)
                if record.best_valence:
                    save_weights(run / runs.BEST_VALENCE_WEIGHTS, model, frozen)
            else:
                show_step(record, config.train.epochs, device, log)
            for note in executor.take_notes():
                log.say(note)
            overdue = time.monotonic() - saved > 60.0 * config.train.checkpoint_minutes
            if isinstance(record, EpochRecord) or overdue or stop.received:
                save_state(state, run)
                saved = time.monotonic()
            if stop.received:
                raise Interrupted(f"stopped by {stop.received}, everything is saved; go on with: {resuming(run)}")
        plot_curves(run.records, run.directory, reference)
        load_weights(run / runs.BEST_WEIGHTS, model, frozen)
        best = next(record for record in reversed(run.records) if record.best)
        exact = Executor(model, features.stage, device, choose_precision("fp32", device)[1], executor.budget)
        outcome = results(best, evaluate(exact, features, material.test, config.data.loader.workers), material.split)
        run.finish(outcome.predictions, material.split.test, outcome.to_json(), best_result_text(config, outcome))
        for line in result_lines(outcome, material.corpus.name):
            log.say(line)
        log.say(f"run directory: {run.directory}")
    return run.directory
