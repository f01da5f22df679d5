"""The run directory: one experiment on one fold with one seed, self-describing, never touched again once finished.

    config.json          the whole configuration; `--config <run>/config.json` repeats the run
    environment.json     versions, commit, device, encoder revision and weight digest, corpus counts, protocol
    labels.json          utterances and ratings of the whole corpus: runs of different ones are never averaged
    trained.json         digests of the speakers and recordings that were trained on; they travel in bundles
    start/               the network that training went on from, as a bundle, so that the run needs nothing else
    train.log            what was said, with times
    metrics.jsonl        one EpochRecord per line
    timing.jsonl         one EpochTime per line: where the time of each epoch went
    loss.png, ccc.png    curves
    best.safetensors, best_valence.safetensors   trained tensors at the best epochs
    predictions.csv      every test utterance, on the corpus's scale
    validation.csv       every validation utterance likewise, under the same weights: what calibration is fitted to
    calibration.json     the maps that were fitted to it, affine and isotonic; not applied unless asked for
    scores.json          test scores and what belongs beside them
    best_result.txt      the scores as `key: value` lines
    checkpoints/         while unfinished: where to go on
    progress.json        while unfinished: how far the epoch in progress is (a Progress)
    stopped.json         while unfinished and after an error or a request to stop: its kind and words
    LOCK                 while a process writes it
    FINISHED             written last; without it the run doesn't count

This module knows the names and the order in which they appear; it doesn't know torch.
"""

import csv
import io
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from serfit.config.load import WITHOUT_EFFECT, config_differences, load_config, plain_config, result_fingerprint
from serfit.config.schema import ExperimentConfig
from serfit.corpus.identity import Labels
from serfit.corpus.overlap import TrainedOn
from serfit.corpus.utterance import Utterance
from serfit.errors import UserError, listed
from serfit.runs.records import REMEDY, Environment, Stopped, TestScores
from serfit.scores.records import EpochRecord, EpochTime, Predictions
from serfit.system.files import WriteError, sweep, write_json, write_text
from serfit.system.lock import take
from serfit.system.log import Log
from serfit.system.records import read_lines, read_record, write_lines, write_record

CONFIG = "config.json"
ENVIRONMENT = "environment.json"
LABELS = "labels.json"
TRAINED = "trained.json"
START = "start"
TRAIN_LOG = "train.log"
METRICS = "metrics.jsonl"
TIMING = "timing.jsonl"
BEST_WEIGHTS = "best.safetensors"
BEST_VALENCE_WEIGHTS = "best_valence.safetensors"
PREDICTIONS = "predictions.csv"
VALIDATION = "validation.csv"
CALIBRATION = "calibration.json"
SCORES = "scores.json"
BEST_RESULT = "best_result.txt"
CHECKPOINTS = "checkpoints"
PROGRESS = "progress.json"
STOPPED = "stopped.json"
FINISHED = "FINISHED"
LOCK = "LOCK"

DESCRIBED = ("speaker", "session", "dialogue", "scenario", "style", "gender", "emotion")
"""What predictions.csv says of each utterance besides its id, length and ratings."""

_ANEW = "start a new run"

SECONDS = "seconds"
"""Column of predictions.csv: length of the utterance."""


@dataclass(slots=True)
class Run:
    """A run directory that is being written.

    Attributes:
        directory: the run directory.
        records: the epochs so far.
        times: where the time of each went.
        fingerprint: of the configuration (see `config.load.result_fingerprint`); checkpoints carry it.
        before: environment.json as the process before this one left it; None for a new run.
        notes: what there is to say about going on with it.
    """

    written: ClassVar[bool] = True
    """Whether this process is the one that writes it."""

    directory: Path
    records: list[EpochRecord] = field(default_factory=list)
    times: list[EpochTime] = field(default_factory=list)
    fingerprint: str = ""
    before: Environment | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def create(cls, config: ExperimentConfig, directory: Path | None = None) -> "Run":
        """Make a directory that nobody else has, and write the configuration into it.

        Args:
            config: the experiment.
            directory: its path; None makes `<runs_dir>/<name>_fold<k>_seed<s>_<time>`, numbered where that exists.

        Raises:
            UserError: the directory exists already, or can't be made.
        """
        experiment = config.experiment
        stem = f"{experiment.name}_fold{config.data.split.fold}_seed{experiment.seed}_{time.strftime('%Y%m%d-%H%M%S')}"
        wanted = directory or experiment.runs_dir / stem
        try:
            wanted.parent.mkdir(parents=True, exist_ok=True)
            made = _exclusive(wanted, numbered=directory is None)
        except (OSError, ValueError) as error:
            if isinstance(error, FileExistsError) and wanted.parent.is_dir():
                raise UserError(
                    f"the run directory {wanted} exists; name another, or go on in it with --resume"
                ) from error
            raise UserError(
                f"can't create the run directory {wanted}: {getattr(error, 'strerror', None) or error}; choose a "
                "folder you may write to (experiment.runs_dir)"
            ) from error
        write_json(made / CONFIG, plain_config(config))
        return cls(made, fingerprint=result_fingerprint(config))

    @classmethod
    def reopen(cls, directory: Path, config: ExperimentConfig) -> "Run":
        """Open an unfinished run, which this process has locked, to go on with it.

        Settings that can't change the result may differ from those it was begun with; config.json then follows.

        Raises:
            UserError: it isn't one, it was begun with another configuration, or its records were damaged.
        """
        check_unfinished(directory)
        for folder in (directory, directory / CHECKPOINTS):
            sweep(folder)
        differences = config_differences(load_config(directory / CONFIG), config)
        decisive = sorted(key for key in differences if key not in WITHOUT_EFFECT)
        if decisive:
            then, now = differences[decisive[0]]
            raise UserError(
                f"{directory} was begun with another configuration ({listed(decisive)} differs: {decisive[0]} was "
                f"{then} and is {now}); --resume goes on with a run exactly as it was begun; start a new one instead"
            )
        notes: tuple[str, ...] = ()
        if differences:
            write_json(directory / CONFIG, plain_config(config))
            changed = (f"{key}={now} (was {then})" for key, (then, now) in sorted(differences.items()))
            notes = (f"going on with {', '.join(changed)}",)
        records = read_epochs(directory, _ANEW)
        times = read_times(directory, _ANEW)
        before = read_environment(directory, _ANEW)
        (directory / STOPPED).unlink(missing_ok=True)
        return cls(directory, records, times, result_fingerprint(config), before, notes)

    def __truediv__(self, name: str) -> Path:
        """The path of a file in the directory."""
        return self.directory / name

    def forget_after(self, epoch: int) -> None:
        """Drop the records of later epochs, which will be run again."""
        self.records = [record for record in self.records if record.epoch <= epoch]
        self.times = self.times[: len(self.records)]

    def best(self) -> EpochRecord:
        """The epoch with the best mean validation CCC. Raises UserError when it was undefined in all of them."""
        for record in reversed(self.records):
            if record.best:
                return record
        raise UserError(
            f"the validation CCC was undefined in every epoch ({len(self.records)}), so there is no best one to test; "
            "labels and predictions of the validation part are constant; choose another data.split"
        )

    def describe(self, environment: Environment) -> None:
        """Write what the run is made of and where it runs."""
        write_record(self / ENVIRONMENT, environment)

    def add(self, record: EpochRecord, spent: EpochTime) -> None:
        """Write an epoch's record, durably; all lines are rewritten together, so none is ever torn."""
        self.records.append(record)
        self.times.append(spent)
        write_lines(self / METRICS, self.records)
        write_lines(self / TIMING, self.times)

    def keep(self, texts: Mapping[str, str]) -> None:
        """Write files that the results are made of, by their names; before `finish`."""
        for name, text in texts.items():
            write_text(self / name, text)

    def finish(self, scores: TestScores, best_result: str) -> None:
        """Write the results, remove the checkpoints, and mark the run as finished.

        Args:
            scores: content of scores.json.
            best_result: content of best_result.txt.
        """
        write_record(self / SCORES, scores)
        write_text(self / BEST_RESULT, best_result)
        shutil.rmtree(self / CHECKPOINTS, ignore_errors=True)
        (self / PROGRESS).unlink(missing_ok=True)
        write_text(self / FINISHED, "")

    def discard(self) -> None:
        """Remove the directory of a run that couldn't begin."""
        shutil.rmtree(self.directory)


class UnwrittenRun(Run):
    """A run as the processes have it that compute it along with the first, which writes it: records in memory alone."""

    written = False

    def describe(self, environment: Environment) -> None:
        """Write nothing."""

    def add(self, record: EpochRecord, spent: EpochTime) -> None:
        """Keep an epoch's record in memory."""
        self.records.append(record)
        self.times.append(spent)

    def keep(self, texts: Mapping[str, str]) -> None:
        """Write nothing."""

    def finish(self, scores: TestScores, best_result: str) -> None:
        """Write nothing."""


def read_labels(directory: Path) -> Labels | None:
    """The labels that a run was made from; None where it is older than their record, or the record is damaged."""
    try:
        return Labels.from_text((directory / LABELS).read_text(encoding="utf-8"))
    except (OSError, UserError, ValueError):
        return None


def read_trained(directory: Path, remedy: str = REMEDY) -> TrainedOn | None:
    """What a run was trained on; None in runs of older versions. Raises UserError where the record was damaged."""
    path = directory / TRAINED
    return read_record(TrainedOn, path, remedy) if path.is_file() else None


def read_environment(directory: Path, remedy: str = REMEDY) -> Environment | None:
    """What a run is made of; None before it has said so. Raises UserError where that was damaged."""
    path = directory / ENVIRONMENT
    return read_record(Environment, path, remedy) if path.is_file() else None


def read_epochs(directory: Path, remedy: str = REMEDY) -> list[EpochRecord]:
    """The epochs of a run so far. Raises UserError likewise."""
    path = directory / METRICS
    return read_lines(EpochRecord, path, remedy) if path.is_file() else []


def read_times(directory: Path, remedy: str = REMEDY) -> list[EpochTime]:
    """Where the time of the epochs went; empty in runs of older versions. Raises UserError likewise."""
    path = directory / TIMING
    return read_lines(EpochTime, path, remedy) if path.is_file() else []


def check_unfinished(directory: Path) -> None:
    """Raise a UserError when a directory isn't a run that one can go on with."""
    if not (directory / CONFIG).is_file():
        raise UserError(f"{directory} is not a run directory: it has no {CONFIG}; --resume takes an unfinished run")
    if (directory / FINISHED).exists():
        raise UserError(f"{directory} is finished and is never changed; start a new run without --resume")


def check_trains(directory: Path) -> None:
    """Raise a UserError where a run is one of a verb that trains no network, and so has no settings for that."""
    if "train" not in read_record(dict[str, object], directory / CONFIG, REMEDY):
        raise UserError(
            f"{directory} trains no network: it is an evaluation, a baseline or a probe; give the command again that "
            "began it"
        )


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Be the only process that writes a run directory. Raises UserError naming the one that does."""
    try:
        lock = take(directory / LOCK)
    except OSError as error:
        raise UserError(
            f"can't write to the run directory {directory}: {error.strerror or error}; see to its permissions and disk"
        ) from error
    if not isinstance(lock, ExitStack):
        raise UserError(f"{directory} is being written by {lock}; wait for it to end, or stop it")
    with lock:
        yield


@contextmanager
def opened_run(
    config: ExperimentConfig, log: Log, directory: Path | None, resume: bool, *, written: bool = True
) -> Iterator[Run]:
    """A locked run directory with its log; one that a user's or the system's error kept from beginning is removed.

    With `written=False`, a run that another process writes, in a directory that doesn't exist.
    """
    if not written:
        yield UnwrittenRun(config.experiment.runs_dir / ".unwritten")
    elif resume:
        assert directory is not None
        check_unfinished(directory)
        with locked(directory):
            run = Run.reopen(directory, config)
            yield from _logged(run, log, discard=False)
    else:
        run = Run.create(config, directory)
        with locked(run.directory):
            yield from _logged(run, log, discard=True)


def _logged(run: Run, log: Log, *, discard: bool) -> Iterator[Run]:
    log.attach(run / TRAIN_LOG)
    for note in run.notes:
        log.say(note)
    try:
        yield run
    except BaseException as error:
        log.settle()
        if discard and isinstance(error, UserError | OSError) and not run.records and not (run / CHECKPOINTS).exists():
            log.close()
            run.discard()
        else:
            log.record(f"{type(error).__name__}: {error}")
            with suppress(WriteError):
                write_record(run / STOPPED, Stopped(type(error).__name__, str(error)))
        raise
    finally:
        log.close()


def predictions_csv(
    predictions: Predictions, utterances: Sequence[Utterance], seconds: Sequence[float | None] | None = None
) -> str:
    """One row per utterance: id, who and where, length, then rating and prediction per dimension on the corpus's scale.

    Args:
        predictions: of some of the utterances.
        utterances: who and where.
        seconds: lengths of the utterances; None takes what the corpus declares. An unknown length is an empty cell.
    """
    by_id = {utterance.id: utterance for utterance in utterances}
    lengths = seconds if seconds is not None else [utterance.duration for utterance in utterances]
    length = {utterance.id: taken for utterance, taken in zip(utterances, lengths, strict=True)}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [name for dimension in predictions.dimensions for name in (dimension, f"{dimension}_predicted")]
    writer.writerow(["id", *DESCRIBED, SECONDS, *columns])
    for row, name in enumerate(predictions.ids):
        described = [getattr(by_id[name], column) or "" for column in DESCRIBED]
        numbers = [
            f"{value:.6f}"
            for pair in zip(predictions.targets[row], predictions.values[row], strict=True)
            for value in pair
        ]
        lasts = length[name]
        writer.writerow([name, *described, "" if lasts is None else f"{lasts:.3f}", *numbers])
    return text.getvalue()


def _exclusive(wanted: Path, *, numbered: bool) -> Path:
    """Create a directory, or if it exists and may be numbered, the first of wanted-2, wanted-3 ... that doesn't."""
    directory, number = wanted, 1
    while True:
        try:
            directory.mkdir()
            return directory
        except FileExistsError:
            if not numbered:
                raise
            number += 1
            directory = wanted.with_name(f"{wanted.name}-{number}")
