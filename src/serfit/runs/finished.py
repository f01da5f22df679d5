"""Finished run directories, read back. Only structured records are read; nothing parses a log."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from serfit.corpus.identity import recorded
from serfit.corpus.utterance import Style
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
    TIMING,
)
from serfit.scores.metrics import Scores
from serfit.scores.raters import Agreement
from serfit.scores.records import EpochRecord, Predictions

MOST_FOLDS = 10_000
"""Most folds that a record may speak of; those without a run are listed one by one."""

CSV_PRECISION = 1e-4
"""How far a score recomputed from predictions.csv (six decimals) may be from the one in scores.json."""


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """One finished run: one experiment on one fold with one seed.

    Attributes:
        directory: the run directory.
        finished: when it finished, in nanoseconds of the marker file's time.
        settings: its configuration, flattened to dotted keys.
        environment: versions, commit, encoder, corpus and protocol, as recorded.
        records: its epochs.
        predictions: of every test utterance, on the corpus's scale.
        test: test scores of the weights of the best epoch.
        validation: validation scores of the same weights.
        best_epoch: from 1.
        baseline: test scores of the audio-free scenario baseline, where the corpus has scenarios.
        within: test scores of deviations from the scenario means, likewise.
        styles: test scores of improvised and scripted speech apart, likewise.
        agreement: one rater against the others on the test utterances, and the system on the same targets, where the
            corpus gives single ratings and the run recorded it.
        described: for each of `serfit.runs.directory.DESCRIBED` and "seconds", what predictions.csv says of each test
            utterance, in the order of the predictions; "" where unknown.
        timing: wall-clock seconds of each epoch; empty where not recorded.
    """

    directory: Path
    finished: int
    settings: Mapping[str, Any]
    environment: Mapping[str, Any]
    records: tuple[EpochRecord, ...]
    predictions: Predictions
    test: Scores
    validation: Scores
    best_epoch: int
    baseline: Scores | None
    within: Scores | None
    styles: Mapping[Style, Scores]
    agreement: Agreement | None
    described: Mapping[str, tuple[str, ...]]
    timing: tuple[float, ...]

    @property
    def name(self) -> str:
        """Name of the experiment."""
        return str(self.settings["experiment.name"])

    @property
    def fold(self) -> int:
        """Fold, from 1."""
        return recorded_fold(self.settings["data.split.fold"])

    @property
    def seed(self) -> int:
        """Seed of everything random."""
        return int(self.settings["experiment.seed"])

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """What was predicted."""
        return self.predictions.dimensions

    @property
    def corpus(self) -> str:
        """Name of the corpus."""
        return str(self.environment["corpus"]["name"])

    @property
    def labels(self) -> Mapping[str, str]:
        """Digests of the labels it was made from (see `serfit.corpus.identity`); empty in runs of older versions."""
        return recorded(self.environment["corpus"])

    @property
    def counts(self) -> Mapping[str, int]:
        """Utterances per part."""
        counts: Mapping[str, int] = self.environment["corpus"]["counts"]
        return counts

    @property
    def utterances(self) -> int:
        """Utterances of the corpus in all parts together."""
        return sum(self.counts.values())

    @property
    def folds(self) -> int | None:
        """How many folds the experiment has; None where neither configuration nor environment tell."""
        match self.settings["data.split.scheme"]:
            case "official":
                return 1
            case "grouped_kfold":
                return recorded_fold(self.settings["data.split.folds"])
        recorded = self.environment.get("folds")
        if recorded is not None:
            return recorded_fold(recorded)
        return 5 if self.settings["data.corpus"] == "iemocap" else None


def recorded_fold(stated: Any) -> int:
    """A fold, or a number of folds, from a file that anybody may have written.

    Raises:
        OverflowError, TypeError, ValueError: it can't be one.
    """
    if not 1 <= (number := int(stated)) <= MOST_FOLDS:
        raise ValueError(f"a fold, or a number of folds, is {number:.3g} and must be from 1 to {MOST_FOLDS:,}")
    return number


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
        config = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
        return bool(config["data"]["split"]["scheme"] == "everything")
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
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
    if trained_on_everything(directory):
        raise UserError(f"{directory} was trained on everything, so it has no test scores; it is there to be used")
    config, environment, scores = (_json(directory / name) for name in (CONFIG, ENVIRONMENT, SCORES))
    predictions, described = read_predictions(directory / PREDICTIONS)
    records = _records(directory / METRICS)
    try:
        run = FinishedRun(
            directory=directory,
            finished=(directory / FINISHED).stat().st_mtime_ns,
            settings=flatten(config),
            environment=environment,
            records=records,
            predictions=predictions,
            test=Scores.from_json(scores["test"]),
            validation=Scores.from_json(scores["validation"]),
            best_epoch=int(scores["best_epoch"]),
            baseline=_optional(scores.get("scenario_baseline")),
            within=_optional(scores.get("within_scenario")),
            styles={style: Scores.from_json(part) for style, part in scores.get("styles", {}).items()},
            agreement=_agreement(scores.get("raters_agreement")),
            described=described,
            timing=_timing(directory / TIMING),
        )
        _ = (
            run.name,
            run.fold,
            run.seed,
            run.corpus,
            run.labels,
            run.utterances,
            run.folds,
        )  # every key that is read later
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(
            f"{directory} is not a run directory of this program: {CONFIG}, {ENVIRONMENT} or {SCORES} lacks "
            f"or mistypes a key ({type(error).__name__}: {error}); move the directory elsewhere"
        ) from error
    _check_scores(run)
    return run


def _check_scores(run: FinishedRun) -> None:
    """Raise UserError when scores.json isn't what predictions.csv gives."""
    again = run.predictions.scores()
    if set(again.dimensions) != set(run.test.dimensions):
        raise UserError(
            f"{run.directory}: {SCORES} scores {', '.join(run.test.dimensions) or 'nothing'}, but {PREDICTIONS} has "
            f"columns of {', '.join(again.dimensions)}; they are from different runs, so move the directory elsewhere"
        )
    for name in again.dimensions:
        said, found = run.test.ccc(name), again.ccc(name)
        if (said is None) != (found is None) or abs((said or 0.0) - (found or 0.0)) > CSV_PRECISION:
            raise UserError(
                f"{run.directory}: {SCORES} says that the CCC of {name} is {said}, but {PREDICTIONS} gives {found}; "
                "one of them was changed after the run, so run it again or move the directory elsewhere"
            )


def _json(path: Path) -> Mapping[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing from a run marked as finished; move the directory elsewhere") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read as JSON ({error}); move the run directory elsewhere") from error
    if not isinstance(data, dict):
        raise UserError(f"{path} holds a {type(data).__name__}, not a JSON object; move the run directory elsewhere")
    return data


def _records(path: Path) -> tuple[EpochRecord, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return tuple(EpochRecord.from_json(json.loads(line)) for line in lines)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} can't be read as epoch records ({error}); move the run directory elsewhere") from error


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
        raise UserError(f"{path} can't be read as predictions ({error}); move the run directory elsewhere") from error


def _timing(path: Path) -> tuple[float, ...]:
    """Seconds per epoch; a run without them lacks nothing that counts."""
    try:
        return tuple(float(json.loads(line)["seconds"]) for line in path.read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def _columns(rows: Sequence[Mapping[str, str]], names: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([[float(row[name]) for name in names] for row in rows], dtype=np.float64)


def _optional(data: Mapping[str, Any] | None) -> Scores | None:
    return None if data is None else Scores.from_json(data)


def _agreement(data: Mapping[str, Any] | None) -> Agreement | None:
    return None if data is None else Agreement.from_json(data)
