"""The story of one experiment, in the order in which it happens."""

import math
import time
from pathlib import Path

from serfit import runs
from serfit.announce import collapse_lines, draw, fill_store, introduce, resuming, show_step
from serfit.checkpoint import bytes_on_disk, frozen_digest, load_weights
from serfit.config.schema import ExperimentConfig
from serfit.executor import Executor
from serfit.features import features_of, model_of
from serfit.files import check_room
from serfit.follow import asked_anywhere, share_state, stopping_together
from serfit.interrupt import StopRequest
from serfit.log import Log
from serfit.material import prepare
from serfit.memory import first_budget, memory_warning
from serfit.optim import build_optimizer
from serfit.preflight import advice
from serfit.ranks import ALONE, Ranks
from serfit.records import EpochRecord
from serfit.report.reference import FROZEN, obstacle
from serfit.report.text import best_result_text, epoch_line, result_lines
from serfit.results import results
from serfit.resume import restore, save_best, save_if_possible, save_state, saving_on_the_way_out
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
    ranks: Ranks = ALONE,
) -> Path:
    """Train, evaluate and write down one experiment.

    Args:
        config: the experiment.
        log: where to say what happens.
        gpu: index of a visible GPU; None takes the first, or the CPU where there is none.
        directory: the run directory; None makes a new one in experiment.runs_dir.
        resume: go on with the unfinished run in `directory`.
        ranks: the processes that share the work, of which this is the first; the others follow (`serfit.follow`).

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
    with opened_run(config, log, directory, resume) as run, StopRequest(resuming(run)) as stop:
        for line in (device_line, material.split.protocol, *material.corpus.notes, *advice(config)):
            log.say(line)
        model = model_of(config).to(device)
        features = features_of(config, model)
        introduce(run, log, material, model, features, device, precision)
        check_room(run.directory, bytes_on_disk(model), "weights and checkpoints", "make room or move runs_dir")
        ranks.wait()
        fill_store(features, material, log, stop.check)
        budget = first_budget(
            model, features.stage, features.entries_per_second, device, config.train, half=precision == "bf16"
        )
        longest = min(max(material.train.seconds), config.data.loader.crop_seconds or math.inf)
        doubt = memory_warning(model, features.stage, longest, device, config.train, half=precision == "bf16")
        if doubt is not None:
            log.say(doubt)
        executor = Executor(model, features.stage, device, autocast, ranks.least(budget), ranks)
        state = TrainingState(model, build_optimizer(model, config.train.optimizer))
        frozen = frozen_digest(model)
        for line in restore(state, run, frozen):
            log.say(line)
        share_state(state, ranks)
        check = stopping_together(stop, ranks)
        comparable = obstacle(FROZEN, material.corpus.name, len(material.corpus.utterances)) is None
        reference = FROZEN if comparable else None
        run.start_clock()
        saved = drawn = time.monotonic()
        records = fit(state, executor, features, material.train, material.validation, config, check)
        for record in saving_on_the_way_out(records, state, run):
            asked = asked_anywhere(stop, ranks)
            if isinstance(record, EpochRecord):
                run.add(record)
                log.settle()
                log.say(epoch_line(record, config.train.epochs, run.seconds[-1]))
                for line in collapse_lines(record):
                    log.say(line)
                if time.monotonic() - drawn > SECONDS_BETWEEN_PICTURES:
                    draw(run, reference, log)
                    drawn = time.monotonic()
            else:
                show_step(record, run, config.train.epochs, device, log)
            for note in executor.take_notes():
                log.say(note)
            overdue = time.monotonic() - saved > 60.0 * config.train.checkpoint_minutes
            if asked:
                save_state(state, run)
            elif isinstance(record, EpochRecord) or overdue:
                failure = save_if_possible(state, run)
                if failure is not None:
                    log.say(failure)
                saved = time.monotonic()
            if isinstance(record, EpochRecord):
                save_best(record, state, run, frozen)
            if asked:
                stop.received = asked
                stop.check()
        draw(run, reference, log)
        best = run.best()
        load_weights(run / runs.BEST_WEIGHTS, model, frozen, best.epoch)
        ranks.share(model.parameters())
        exact = Executor(model, features.stage, device, choose_precision("fp32", device)[1], executor.budget, ranks)
        predictions = evaluate(exact, features, material.test, config.data.loader.workers, check)
        outcome = results(best, predictions, material.split)
        words = best_result_text(config, outcome)
        run.finish(outcome.predictions, material.split.test, outcome.to_json(), words, material.test.seconds)
        for line in result_lines(outcome, material.corpus.name):
            log.say(line)
        log.say(f"run directory: {run.directory}")
    return run.directory


def fill_features(config: ExperimentConfig, log: Log, *, gpu: int | None = None) -> None:
    """Do the part of an experiment that all its folds and seeds share: fill the store of frozen features.

    Raises:
        UserError: as `run_experiment`.
    """
    material = prepare(config)
    device, device_line = choose_device(gpu)
    log.say(device_line)
    model = model_of(config).to(device)
    features = features_of(config, model)
    if features.store is None:
        log.say(f"nothing to store: training starts from the {model.stage_name(features.stage)}")
        return
    fill_store(features, material, log)
    log.say(f"{model.stage_name(features.stage)} of all utterances: {features.store.folder}")
