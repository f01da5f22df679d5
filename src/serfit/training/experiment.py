"""The story of one experiment, in the order in which it happens."""

from pathlib import Path

from serfit.config.schema import ExperimentConfig
from serfit.corpus.load import rating_scales
from serfit.nn.model import model_of
from serfit.nn.saved import frozen_digest, load_weights
from serfit.report.text import best_result_text
from serfit.runs import directory as runs
from serfit.runs.calibration import keep_calibrations
from serfit.runs.directory import opened_run
from serfit.runs.results import results
from serfit.scores.reference import FROZEN, obstacle
from serfit.system.files import check_room
from serfit.system.interrupt import StopRequest
from serfit.system.log import Log
from serfit.system.runtime import choose_device, choose_precision
from serfit.training.announce import (
    fill_store,
    greet,
    introduce,
    prediction_tables,
    resuming,
    say_end,
    warn_of_memory,
    with_remedy,
)
from serfit.training.checkpoint import bytes_on_disk
from serfit.training.chronicle import Chronicle
from serfit.training.features import features_of
from serfit.training.follow import asked_anywhere, evaluate_at_the_end, executor_of, share_state, stopping_together
from serfit.training.material import prepare
from serfit.training.optim import build_optimizer
from serfit.training.pace import Pace
from serfit.training.ranks import ALONE, Ranks
from serfit.training.resume import restore, saving_on_the_way_out
from serfit.training.trainer import TrainingState, fit


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
        ranks: the processes that share the work, of which this is the first; the others follow
            (`serfit.training.follow`).

    Returns:
        The run directory.

    Raises:
        UserError: something the user can put right; no directory is left behind unless training has begun.
        NumericalError: a number wasn't finite; nothing was updated with it.
        Interrupted: a signal asked to stop; everything is saved.
    """
    device, device_line = choose_device(gpu)
    material = prepare(config)
    precision, _ = choose_precision(config.train.precision, device)
    with opened_run(config, log, directory, resume) as run, StopRequest(resuming(run)) as stop, with_remedy(run):
        greet(log, config, material, device_line, precision)
        model = model_of(config).to(device)
        features = features_of(config, model)
        introduce(run, log, material, model, features, device, precision)
        check_room(run.directory, bytes_on_disk(model), "weights and checkpoints", "make room or move runs_dir")
        ranks.wait()
        fill_store(features, material, log, stop.check)
        warn_of_memory(log, config, material, model, features, device)
        executor = executor_of(config, model, features, device, ranks)
        state = TrainingState(model, build_optimizer(model, config.train.optimizer))
        frozen = frozen_digest(model)
        for line in restore(state, run, frozen):
            log.say(line)
        share_state(state, ranks)
        check = stopping_together(stop, ranks)
        comparable = obstacle(FROZEN, material.corpus.name, len(material.corpus.utterances)) is None
        pace = Pace(run, device, features.tally)
        chronicle = Chronicle(run, log, config, state, frozen, pace, FROZEN if comparable else None)
        chronicle.begin()
        records = fit(state, executor, features, material.train, material.validation, config, check)
        for record in saving_on_the_way_out(pace.timed(records), state, run):
            asked = asked_anywhere(stop, ranks)
            chronicle.tell(record)
            for note in executor.take_notes():
                log.say(note)
            chronicle.save(record, stopping=asked is not None)
            if asked is not None:
                stop.received = asked
                stop.check()
        chronicle.draw()
        best = run.best()
        load_weights(run / runs.BEST_WEIGHTS, model, frozen, best.epoch)
        validated, tested = evaluate_at_the_end(executor, features, material, config, check)
        outcome = results(best, validated, tested, material.split)
        words = best_result_text(config, outcome)
        run.keep(prediction_tables(material, validated, tested))
        keep_calibrations(run, config.data.dimensions, rating_scales(config.data))
        run.finish(outcome.to_json(), words)
        say_end(log, run, outcome, material.corpus.name)
    return run.directory


def fill_features(config: ExperimentConfig, log: Log, *, gpu: int | None = None) -> None:
    """Do the part of an experiment that all its folds and seeds share: fill the store of frozen features.

    Raises:
        UserError: as `run_experiment`.
    """
    device, device_line = choose_device(gpu)
    material = prepare(config)
    log.say(device_line)
    model = model_of(config).to(device)
    features = features_of(config, model)
    if features.store is None:
        log.say(f"nothing to store: training starts from the {model.stage_name(features.stage)}")
        return
    fill_store(features, material, log)
    log.say(f"{model.stage_name(features.stage)} of all utterances: {features.store.folder}")
