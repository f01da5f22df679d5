"""The story of one experiment, in the order in which it happens; the same in every process that takes part."""

from contextlib import ExitStack
from functools import partial
from pathlib import Path

from serfit.config.schema import ExperimentConfig
from serfit.corpus.load import rating_scales
from serfit.inference.begun import begun
from serfit.nn.saved import frozen_digest
from serfit.report.text import best_result_text
from serfit.runs.calibration import keep_calibrations
from serfit.runs.directory import opened_run
from serfit.runs.results import results
from serfit.system.files import check_room
from serfit.system.interrupt import StopRequest
from serfit.system.log import Log
from serfit.system.precision import computes_bf16
from serfit.system.runtime import choose_device
from serfit.training.checkpoint import bytes_on_disk
from serfit.training.executor import build_executor, exactly
from serfit.training.features import features_of
from serfit.training.filling import fill_store
from serfit.training.material import prepare
from serfit.training.messages import (
    greet,
    introduce,
    prediction_tables,
    resuming,
    say_end,
    warn_of_memory,
    with_remedy,
)
from serfit.training.optim import build_optimizer
from serfit.training.progress import EpochTimer, ProgressWriter
from serfit.training.ranks import ALONE, Ranks
from serfit.training.resume import load_best, precision_as_begun, restore, share_state
from serfit.training.start import find_start, kept_bytes
from serfit.training.trainer import TrainingState, evaluate, fit


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
        ranks: the processes that share the work, each of which calls this function; the first one writes the run.

    Returns:
        The run directory.

    Raises:
        UserError: something the user can put right; no directory is left behind unless training has begun.
        NumericalError: a number wasn't finite; nothing was updated with it.
        Interrupted: a signal asked to stop; everything is saved.
    """
    with ExitStack() as stack:
        with ranks.together():
            device, device_line = choose_device(gpu)
        able = not ranks.any(not computes_bf16(device))
        with ranks.together():
            material = prepare(config)
            start = find_start(config, directory if resume else None)
            if start is not None and ranks.first:
                start.check(material)
            run = stack.enter_context(opened_run(config, log, directory, resume, written=ranks.first))
            stop = stack.enter_context(StopRequest(resuming(run)))
            stack.enter_context(with_remedy(run))
            model = begun(config, None if start is None else start.member).to(device)
            precision = precision_as_begun(run.before, config.train.precision, device, model.encoder.width, able)
            greet(log, config, material, device_line, precision)
            features = features_of(config, model, precision)
            introduce(run, log, material, model, features, device, start)
            needed = bytes_on_disk(model) + kept_bytes(config, model)
            check_room(run.directory, needed, "weights and checkpoints", "make room or move runs_dir")
            if start is not None:
                start.keep(run)
            del start  # its weights are in the model now
            state = TrainingState(model, build_optimizer(model, config.train.optimizer))
            frozen = frozen_digest(model)
            restored = restore(state, run, frozen)
        fill_store(features, material, log, stop.check)
        warn_of_memory(log, config, material, model, features, device)
        for line in restored:
            log.say(line)
        share_state(state, run, ranks)
        executor = build_executor(config, model, features, device, ranks)
        check = partial(ranks.check, stop)
        progress = ProgressWriter(run, log, config, state, frozen, EpochTimer(device, features.timer), material.corpus)
        progress.begin()
        records = fit(state, executor, features, material.train, material.validation, config, check)
        with progress.saved_on_the_way_out():
            for record in progress.timer.timed(records):
                progress.take(record, executor.take_notes())
                check()
        progress.draw()
        best = load_best(model, run, frozen, ranks)
        validated, tested = (
            evaluate(exactly(executor), features, part, config.data.loader.workers, check)
            for part in (material.validation, material.test)
        )
        outcome = results(best.epoch, best.validation, validated, tested, material.split)
        run.keep(prediction_tables(material, validated, tested))
        keep_calibrations(run, config.data.dimensions, rating_scales(config.data))
        run.finish(outcome, best_result_text(config, outcome))
        say_end(log, run, outcome, material.corpus.name)
    return run.directory
