"""Finished run directories, read back. Only structured records are read; nothing parses a log."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from serfit.errors import UserError
from serfit.labels import DIMENSIONS, Dimension
from serfit.runs.directory import (
    CONFIG,
    DESCRIBED,
    ENVIRONMENT,
    FINISHED,
    METRICS,
    PREDICTIONS,
    SCORES,
    SECONDS,
    read_times,
)
from serfit.runs.records import REMEDY, Environment, TestScores, Which
from serfit.scores.records import EpochRecord, EpochTime, Predictions
from serfit.system.records import read_lines, read_record

CSV_PRECISION = 1e-4
"""How far a score recomputed from predictions.csv (six decimals) may be from the one in scores.json."""


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """One finished run: one experiment on one fold with one seed.

    Attributes:
        directory: the run directory.
        finished: when it finished, in nanoseconds of the marker file's time.
        which: experiment, fold and seed.
        settings: its configuration, flattened to dotted keys.
        environment: versions, commit, encoder, corpus and protocol.
        records: its epochs.
        times: where the time of each went; empty where not recorded.
        predictions: of every test utterance, on the corpus's scale.
        scores: of the weights of the best epoch.
        described: for each of `serfit.runs.directory.DESCRIBED` and "seconds", what predictions.csv says of each test
            utterance, in the order of the predictions; "" where unknown.
    """

    directory: Path
    finished: int
    which: Which
    settings: Mapping[str, Any]
    environment: Environment
    records: tuple[EpochRecord, ...]
    times: tuple[EpochTime, ...]
    predictions: Predictions
    scores: TestScores
    described: Mapping[str, tuple[str, ...]]

    @property
    def name(self) -> str:
        """Name of the experiment."""
        return self.which.name

    @property
    def fold(self) -> int:
        """Fold, from 1."""
        return self.which.fold

    @property
    def seed(self) -> int:
        """Seed of everything random."""
        return self.which.seed

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """Predicted dimensions."""
        return self.predictions.dimensions

    @property
    def corpus(self) -> str:
        """Name of the corpus."""
        return self.environment.corpus.name

    @property
    def labels(self) -> Mapping[str, str]:
        """Digests of the labels it was made from (see `serfit.corpus.identity`); empty in runs of older versions."""
        return self.environment.corpus.labels

    @property
    def utterances(self) -> int:
        """Utterances of the corpus in all parts together."""
        return self.environment.corpus.utterances

    @property
    def folds(self) -> int | None:
        """Number of folds of the experiment; None if neither configuration nor environment states it."""
        match self.which.scheme:
            case "official":
                return 1
            case "grouped_kfold":
                return self.which.folds
        return self.environment.folds or (5 if self.which.corpus == "iemocap" else None)


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, keys joined by dots; lists stay values.

    >>> flatten({"train": {"epochs": 20, "optimizer": {"lr": 0.1}}})
    {'train.epochs': 20, 'train.optimizer.lr': 0.1}
    """
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else {f"{prefix}{key}": value}
    return flat


def finished_directories(runs_dir: Path) -> list[Path]:
    """The directories in a folder that hold a finished run with a test part, by name.

    Raises:
        UserError: there is no such folder.
    """
    if not runs_dir.is_dir():
        raise UserError(f"there is no folder {runs_dir}; name the folder of the run directories (experiment.runs_dir)")
    finished = (child for child in runs_dir.iterdir() if (child / FINISHED).is_file())
    return sorted(child for child in finished if not trained_on_everything(child))


def trained_on_everything(directory: Path) -> bool:
    """Whether a run kept nothing to test on (data.split.scheme: everything), so that it has no scores."""
    try:
        return read_record(Which, directory / CONFIG, REMEDY).untested
    except UserError:
        return False  # whoever reads the run will say what is wrong with it


def read_run(directory: Path) -> FinishedRun:
    """Read a finished run directory.

    Raises:
        UserError: it isn't one, a file is missing or broken, or its files contradict each other.
    """
    if not directory.is_dir():
        raise UserError(f"{directory} is not a run directory: it doesn't exist; name one inside experiment.runs_dir")
    if not (directory / FINISHED).is_file():
        raise UserError(
            f"{directory} is not a finished run: it has no file {FINISHED}; only finished runs have results"
        )
    which = read_record(Which, directory / CONFIG, REMEDY)
    if which.untested:
        raise UserError(f"{directory} was trained on everything, so it has no test scores; it is there to be used")
    predictions, described = read_predictions(directory / PREDICTIONS)
    run = FinishedRun(
        directory=directory,
        finished=(directory / FINISHED).stat().st_mtime_ns,
        which=which,
        settings=flatten(read_record(dict[str, Any], directory / CONFIG, REMEDY)),
        environment=read_record(Environment, directory / ENVIRONMENT, REMEDY),
        records=tuple(read_lines(EpochRecord, directory / METRICS, REMEDY)),
        times=tuple(read_times(directory)),
        predictions=predictions,
        scores=read_record(TestScores, directory / SCORES, REMEDY),
        described=described,
    )
    _check_scores(run)
    return run


def _check_scores(run: FinishedRun) -> None:
    """Raise UserError when scores.json isn't what predictions.csv gives."""
    scored, again = run.scores.test, run.predictions.scores()
    if set(again.dimensions) != set(scored.dimensions):
        raise UserError(
            f"{run.directory}: {SCORES} scores {', '.join(scored.dimensions) or 'nothing'}, but {PREDICTIONS} has "
            f"columns of {', '.join(again.dimensions)}; they are from different runs, so move the directory elsewhere"
        )
    for name in again.dimensions:
        said, found = scored.ccc(name), again.ccc(name)
        if (said is None) != (found is None) or abs((said or 0.0) - (found or 0.0)) > CSV_PRECISION:
            raise UserError(
                f"{run.directory}: {SCORES} says that the CCC of {name} is {said}, but {PREDICTIONS} gives {found}; "
                "one of them was changed after the run, so run it again or move the directory elsewhere"
            )


def read_predictions(path: Path) -> tuple[Predictions, dict[str, tuple[str, ...]]]:
    """A file of predictions (see `serfit.runs.directory.predictions_csv`), and what it says of each utterance besides.

    Raises:
        UserError: it is missing or can't be read.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        dimensions = tuple(name for name in DIMENSIONS if rows and f"{name}_predicted" in rows[0])
        if not rows or not dimensions:
            raise ValueError("no rows, or no columns of predictions")
        ids = tuple(row["id"] for row in rows)
        values = _columns(rows, [f"{name}_predicted" for name in dimensions])
        described = {name: tuple(row.get(name) or "" for row in rows) for name in (*DESCRIBED, SECONDS)}
        return Predictions(ids, dimensions, _columns(rows, dimensions), values), described
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} can't be read as predictions ({error}); {REMEDY}") from error


def _columns(rows: Sequence[Mapping[str, str]], names: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([[float(row[name]) for name in names] for row in rows], dtype=np.float64)
