"""What an experiment tells people: at its beginning, after each step, at its end, and when it stops."""

import math
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace

import torch

from serfit.config.schema import ExperimentConfig
from serfit.corpus.identity import differences
from serfit.corpus.overlap import both
from serfit.errors import NumericalError, counted
from serfit.labels import SAMPLE_RATE, letter
from serfit.nn.encoders.folder import LAYOUT
from serfit.nn.model import EmotionModel
from serfit.report.diagnosis.diagnose import diagnose, doubts
from serfit.report.drawing.plots import plot_curves
from serfit.report.text import LINE, result_lines
from serfit.runs.directory import (
    ENVIRONMENT,
    LABELS,
    PREDICTIONS,
    TRAINED,
    VALIDATION,
    Run,
    predictions_csv,
    read_labels,
)
from serfit.runs.live import Reader
from serfit.runs.records import EncoderRecord, Environment, Stopped, TestScores
from serfit.scores.records import Predictions, StepRecord
from serfit.scores.reference import Reference
from serfit.system.files import WriteError
from serfit.system.log import Log
from serfit.system.precision import Precision
from serfit.system.records import write_record
from serfit.system.runtime import environment, version_of
from serfit.training.features import Features
from serfit.training.material import Material
from serfit.training.memory import memory_warning
from serfit.training.resume import check_unchanged
from serfit.training.start import Start

MOST_NOTES = 5
"""Most notes on a corpus that are said; environment.json holds all of them."""


def greet(log: Log, config: ExperimentConfig, material: Material, device_line: str, precision: Precision) -> None:
    """Say which experiment this is, where it runs, and on what."""
    split, notes = material.split, material.corpus.notes
    whose = f"{config.experiment.name}, fold {split.fold} of {split.folds}, seed {config.experiment.seed}"
    log.say(f"serfit {version_of('serfit')}: {whose}, {precision.name} on {device_line.removeprefix('device: ')}")
    if precision.reason:
        log.say(f"precision: {precision.name}, since {precision.reason}; train.precision=fp32 prevents it")
    log.say(f"data: {split.protocol.removeprefix(f'fold {split.fold} of {split.folds}: ')}")
    for note in (*notes[:MOST_NOTES], *doubts(config)):
        log.say(brief(note))
    if len(notes) > MOST_NOTES:
        log.say(f"and {counted(len(notes) - MOST_NOTES, 'more note')} on the corpus: see {ENVIRONMENT}")


def brief(note: str) -> str:
    """A note in one line: its first clauses, as far as they fit.

    >>> brief(f"short; {'x' * 110}")
    'short; see environment.json'
    """
    if len(note) <= LINE:
        return note
    more = f"; see {ENVIRONMENT}"
    clauses, *rest = note.split("; ")
    for clause in rest:
        if len(f"{clauses}; {clause}{more}") > LINE:
            break
        clauses += f"; {clause}"
    return clauses + more


def introduce(
    run: Run,
    log: Log,
    material: Material,
    model: EmotionModel,
    features: Features,
    device: torch.device,
    start: Start | None,
) -> None:
    """Say and write down which network is trained, on what, from where."""
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    total = sum(parameter.numel() for parameter in model.parameters())
    frozen = model.stage_name(features.stage)
    where = f", stored in {features.store.folder.parent}" if features.store else ""
    log.say(f"model: {model.provenance.name}, {trainable:,} of {total:,} parameters trainable, input: {frozen}{where}")
    for line in start.lines(material) if start is not None else ():
        log.say(line)
    if model.provenance.normalise_from == LAYOUT:
        log.say(
            f"note: {model.encoder.preparation}, by the encoder's layout; "
            "it has no preprocessor_config.json or processor_config.json to state it"
        )
    for line in long_speech(material, model):
        log.say(line)
    labels = material.labels()
    about = Environment(
        **environment(device),
        precision=features.precision.name,
        frozen_precision=features.frozen_precision,
        encoder=EncoderRecord(**asdict(model.provenance)),
        **({} if start is None else {"start": start.record}),
        trained_parameters=trainable,
        parameters=total,
        training_starts_from=frozen,
        corpus=material.record(),
        protocol=material.split.protocol,
        folds=material.split.folds,
    )
    before = read_labels(run.directory)
    for line in check_unchanged(run.before, about, "" if before is None else differences(before, labels)):
        log.say(line)
    run.keep({LABELS: labels.to_text()})
    if run.written:
        trained = material.trained_on()
        write_record(run / TRAINED, trained if start is None else both(start.seen, trained))
    run.describe(about)


def long_speech(material: Material, model: EmotionModel) -> Iterator[str]:
    """Say how speech is encoded that is longer than an encoder's positions."""
    window = model.encoder.window_samples
    if window is None:
        return
    longer = sum(seconds * SAMPLE_RATE > window for seconds in material.seconds().values())
    if longer:
        yield (
            f"note: {counted(longer, 'utterance')} longer than {window / SAMPLE_RATE:g} s: encoded in windows of that "
            "length, whose frames are pooled together"
        )


def warn_of_memory(
    log: Log,
    config: ExperimentConfig,
    material: Material,
    model: EmotionModel,
    features: Features,
    device: torch.device,
) -> None:
    """Say so where the longest utterance alone will hardly fit into the memory of a device."""
    longest = min(max(material.train.seconds), config.data.loader.crop_seconds or math.inf)
    doubt = memory_warning(model, features.stage, longest, device, config.train, half=features.precision.half)
    if doubt is not None:
        log.say(doubt)


def say_end(log: Log, run: Run, outcome: TestScores, corpus: str) -> None:
    """Say what came out, what the records show, and where everything is."""
    for line in result_lines(outcome, corpus):
        log.say(line)
    say_findings(run, log)
    saved, compare = f"saved: {run.directory}", f"   next: serfit compare {run.directory.parent}"
    log.say(saved + (compare if outcome.tested and len(saved + compare) <= LINE else ""))


def show_step(record: StepRecord, run: Run, epochs: int, device: torch.device, log: Log) -> None:
    """One move of the progress bar, which runs over all epochs: loss, latest validation CCC, speed, GPU memory."""
    parts = [f"loss {record.loss:.3f}"]
    if run.records:
        validation = run.records[-1].validation
        scores = ((letter(name), validation.ccc(name)) for name in validation.dimensions)
        parts.append("CCC " + " ".join(f"{name} {'n/a' if ccc is None else f'{ccc:.3f}'}" for name, ccc in scores))
    parts.append(f"{record.utterances / record.seconds:.1f} utt/s")
    if device.type == "cuda":
        parts.append(f"{torch.cuda.max_memory_allocated(device) / 1024**3:.1f} GiB")
    done = (record.epoch - 1) * record.steps + record.step
    log.advance(f"epoch {record.epoch}/{epochs}", done, epochs * record.steps, " | ".join(parts))


def draw(run: Run, reference: Reference | None, log: Log) -> None:
    """Draw the curves; a disk that has no room for them is no reason to stop training."""
    try:
        plot_curves(run.records, run.directory, reference)
    except WriteError as error:
        log.say(f"warning: the curves weren't drawn: {error}")


def say_findings(run: Run, log: Log) -> None:
    """Return the diagnoses of a run, a line each; none for a healthy one."""
    for history in Reader().read([run.directory]):
        for finding in diagnose(history):
            log.say(str(finding))


@contextmanager
def with_remedy(run: Run) -> Iterator[None]:
    """Add to a number that isn't finite what the diagnosis advises."""
    try:
        yield
    except NumericalError as error:
        stopped = Stopped(type(error).__name__, str(error))
        findings = [diagnose(replace(one, stopped=stopped)) for one in Reader().read([run.directory])]
        advised = [f". To try: {found.advice} ({' '.join(found.overrides)})" for (found, *_) in filter(None, findings)]
        raise NumericalError(f"{error}{''.join(advised)}") from error


def prediction_tables(material: Material, validated: Predictions, tested: Predictions) -> dict[str, str]:
    """Return the tables of predictions of the validation and test parts, if there are any, by file."""
    parts = ((VALIDATION, validated, material.validation), (PREDICTIONS, tested, material.test))
    return {name: predictions_csv(found, part.utterances, part.seconds) for name, found, part in parts if found.ids}


def resuming(run: Run) -> str:
    """Return the message after a stop."""
    return f", everything is saved; go on with: uv run serfit train --resume {shlex.quote(str(run.directory))}"
