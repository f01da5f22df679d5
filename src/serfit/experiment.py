"""The story of one experiment, in the order in which it happens."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from serfit import runs
from serfit.checkpoint import frozen_digest, load_weights, save_weights
from serfit.config.schema import ExperimentConfig
from serfit.corpus.folds import Split, check_varying, make_split
from serfit.corpus.load import load_corpus
from serfit.corpus.utterance import Corpus, Utterance
from serfit.errors import UserError
from serfit.executor import Executor
from serfit.features import Features, build_features
from serfit.interrupt import Interrupted, StopRequest
from serfit.log import Log
from serfit.memory import first_budget
from serfit.nn.model import EmotionModel, build_model
from serfit.optim import build_optimizer
from serfit.preflight import advice, check_audio
from serfit.records import EpochRecord, StepRecord
from serfit.report.plots import plot_curves
from serfit.report.text import best_result_text, epoch_line, result_lines
from serfit.results import results
from serfit.resume import restore, save_state
from serfit.runs import Run
from serfit.runtime import choose_device, choose_precision, environment
from serfit.trainer import Part, TrainingState, evaluate, fit

SECONDS_BETWEEN_PICTURES = 30.0
"""Least time between two drawings of the curves; drawing takes longer than an epoch of a small head."""


@dataclass(frozen=True, slots=True)
class Material:
    """A corpus, split into the parts of one fold, read and checked."""

    corpus: Corpus
    split: Split
    train: Part
    validation: Part
    test: Part


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
        run.start_clock()
        saved = drawn = time.monotonic()
        for record in fit(state, executor, features, material.train, material.validation, config):
            if isinstance(record, EpochRecord):
                run.add(record)
                log.settle()
                log.say(epoch_line(record, config.train.epochs, run.seconds[-1]))
                if time.monotonic() - drawn > SECONDS_BETWEEN_PICTURES:
                    plot_curves(run.records, run.directory)
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
        plot_curves(run.records, run.directory)
        load_weights(run / runs.BEST_WEIGHTS, model, frozen)
        best = next(record for record in reversed(run.records) if record.best)
        exact = Executor(model, features.stage, device, choose_precision("fp32", device)[1], executor.budget)
        outcome = results(best, evaluate(exact, features, material.test, config.data.loader.workers), material.split)
        run.finish(outcome.predictions, material.split.test, outcome.to_json(), best_result_text(config, outcome))
        for line in result_lines(outcome, material.corpus.name):
            log.say(line)
        log.say(f"run directory: {run.directory}")
    return run.directory


def prepare(config: ExperimentConfig) -> Material:
    """Read the corpus, split it, and check everything that can be checked without a model.

    Raises:
        UserError: naming the files, rows, utterances or keys that are wrong.
    """
    corpus = load_corpus(config.data)
    split = make_split(corpus, config.data.split)
    check_varying(split, config.data.dimensions)
    seconds = check_audio([*split.train, *split.validation, *split.test])

    def part(utterances: tuple[Utterance, ...]) -> Part:
        lengths = tuple(seconds[utterance.id] for utterance in utterances)
        return Part(utterances, lengths, config.data.dimensions, corpus.scales)

    return Material(corpus, split, part(split.train), part(split.validation), part(split.test))


@contextmanager
def opened_run(config: ExperimentConfig, log: Log, directory: Path | None, resume: bool) -> Iterator[Run]:
    """A run directory with its log; one that a user's error kept from beginning is removed again."""
    if resume:
        assert directory is not None
        run = Run.reopen(directory)
    else:
        run = Run.create(config, directory)
    log.attach(run / runs.TRAIN_LOG)
    try:
        yield run
    except BaseException as error:
        log.settle()
        if isinstance(error, UserError) and not run.records and not resume:
            log.close()
            run.discard()
        else:
            log.record(f"{type(error).__name__}: {error}")
        raise
    finally:
        log.close()


def introduce(
    run: Run,
    log: Log,
    material: Material,
    model: EmotionModel,
    features: Features,
    device: torch.device,
    precision: str,
) -> None:
    """Say and write down what is trained, on what, from where."""
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    total = sum(parameter.numel() for parameter in model.parameters())
    frozen = model.stage_name(features.stage)
    log.say(f"model: {model.provenance.name}, {trainable:,} of {total:,} parameters are trained, in {precision}")
    log.say(f"training starts from: {frozen}" + (f", stored in {features.store.folder}" if features.store else ""))
    parts = {name: len(getattr(material.split, name)) for name in ("train", "validation", "test")}
    run.describe(
        environment(device)
        | {
            "precision": precision,
            "encoder": asdict(model.provenance),
            "trained_parameters": trainable,
            "parameters": total,
            "training_starts_from": frozen,
            "corpus": {"name": material.corpus.name, "notes": list(material.corpus.notes), "counts": parts},
            "protocol": material.split.protocol,
        }
    )


def fill_store(features: Features, material: Material, log: Log) -> None:
    """Compute the frozen features of all parts that the store doesn't have yet."""
    utterances = [*material.split.train, *material.split.validation, *material.split.test]
    missing = features.missing(utterances)
    if missing:
        began = time.monotonic()
        for done, _ in enumerate(features.fill(missing), start=1):
            log.advance("computing frozen features", done, len(missing))
        log.settle()
        log.say(f"computed the frozen features of {len(missing)} utterances in {time.monotonic() - began:.0f} s")


def show_step(record: StepRecord, epochs: int, device: torch.device, log: Log) -> None:
    """One move of the progress bar."""
    text = f"loss {record.loss:.3f} | {record.utterances / record.seconds:.1f} utt/s"
    if device.type == "cuda":
        text += f" | {torch.cuda.max_memory_allocated(device) / 1024**3:.1f} GiB"
    log.advance(f"epoch {record.epoch}/{epochs}", record.step, record.steps, text)


def resuming(run: Run) -> str:
    """The command that goes on with a run."""
    return f"uv run serfit train --resume {run.directory}"
