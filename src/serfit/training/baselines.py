"""What hand-made features and a straight line come to, on the same folds: the baseline an encoder has to beat."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from serfit.config.load import plain_config
from serfit.config.schema import ExperimentConfig
from serfit.corpus.acoustics import acoustic_features, feature_names
from serfit.corpus.audio import read_audio
from serfit.corpus.load import rating_scales
from serfit.corpus.utterance import Utterance
from serfit.errors import UserError
from serfit.labels import Dimension, letter
from serfit.runs import directory as runs
from serfit.runs.calibration import keep_calibrations
from serfit.runs.directory import Run, opened_run
from serfit.runs.records import EncoderRecord, Environment
from serfit.runs.results import results
from serfit.scores.metrics import Scores
from serfit.scores.metrics import ccc as concordance
from serfit.scores.records import Predictions
from serfit.system.files import write_json, write_text
from serfit.system.log import Log
from serfit.system.runtime import environment
from serfit.training.material import Material, prepare
from serfit.training.messages import prediction_tables
from serfit.training.trainer import Part

SUFFIX = "handmade"
"""Run directories and tables call the baseline of an experiment `<name>_handmade`."""

SYSTEM = "hand-made features (log-mel, pitch, energy, time) and ridge regression"

PENALTIES = tuple(float(penalty) for penalty in 10.0 ** np.arange(-1.0, 6.0, 0.5))
"""Ridge penalties to choose from by the validation CCC of each dimension."""

SETTINGS = ("corpus", "root", "dimensions", "table", "scales", "split", "unreadable")
"""Keys of the data section that matter here; config.json holds no others of it."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Ridge:
    """A straight line from standardised features to one rating.

    Attributes:
        means: [F] of the training part, which also stand for what is undefined.
        deviations: [F] of the training part.
        weights: [F].
        level: mean rating of the training part.
    """

    means: Floats
    deviations: Floats
    weights: Floats
    level: float

    def predict(self, features: Floats) -> Floats:
        """[N, F] to [N]."""
        return standardised(features, self.means, self.deviations) @ self.weights + self.level


def run_baseline(config: ExperimentConfig, log: Log, *, fold: int | None = None) -> list[Path]:
    """Fit and score the baseline, and write a finished run directory per fold.

    Args:
        config: an experiment; its sections experiment and data say on what.
        log: where to say what happens.
        fold: only this one; None takes all.

    Returns:
        The run directories.

    Raises:
        UserError: as for a training on the same configuration; or it keeps nothing to test on.
    """
    if config.data.split.scheme == "everything":
        raise UserError(
            "data.split.scheme is everything, which leaves nothing to score a baseline on; choose another scheme"
        )
    known: dict[str, Floats] = {}
    written = []
    first = _fold(config, fold or 1)
    material = prepare(first)
    for number in [fold] if fold is not None else range(1, material.split.folds + 1):
        chosen = _fold(config, number)
        if number != first.data.split.fold:
            material = prepare(chosen)
        with opened_run(chosen, log, None, False) as run:
            written.append(_one_fold(run, chosen, material, known, log))
    return written


def fit_ridge(
    features: Floats, ratings: Floats, validation: Floats, wanted: Floats, penalties: Sequence[float] = PENALTIES
) -> tuple[Ridge, float]:
    """Ridge regression in closed form, the penalty chosen by the CCC of the validation part.

    With the singular values X = U diag(s) V' of the standardised features, the weights are V diag(s / (s^2 + penalty))
    U' y (Hastie, Tibshirani and Friedman, The Elements of Statistical Learning, 2009, equation 3.47).

    Args:
        features: [N, F] of the training part; NaN where undefined.
        ratings: [N].
        validation: [M, F] features of the validation part.
        wanted: [M] its ratings.
        penalties: to choose from.

    Returns:
        The line and its penalty; the largest penalty among equals.
    """
    # undefined in the whole part: a feature that is always 0
    counted = np.where(np.isnan(features), 0.0, features)
    defined = np.maximum((~np.isnan(features)).sum(axis=0), 1)
    means = counted.sum(axis=0) / defined
    squares = np.where(np.isnan(features), 0.0, (features - means) ** 2).sum(axis=0) / defined
    deviations = np.sqrt(squares)
    deviations[deviations < 1e-9] = np.inf
    left, singular, right = np.linalg.svd(standardised(features, means, deviations), full_matrices=False)
    level = float(ratings.mean())
    turned = left.T @ (ratings - level)
    best: tuple[float, Ridge, float] | None = None
    for penalty in sorted(penalties, reverse=True):
        line = Ridge(means, deviations, right.T @ (singular / (singular**2 + penalty) * turned), level)
        reached = concordance(wanted, line.predict(validation))
        score = -2.0 if reached is None else reached
        if best is None or score > best[0]:
            best = (score, line, penalty)
    assert best is not None, "there are penalties to choose from"
    return best[1], best[2]


def standardised(features: Floats, means: Floats, deviations: Floats) -> Floats:
    """[N, F] features in units of deviations from the means; what is undefined lies at the mean."""
    return np.nan_to_num((features - means) / deviations, nan=0.0)


def _fold(config: ExperimentConfig, fold: int) -> ExperimentConfig:
    """The configuration of the baseline of one fold."""
    name = f"{config.experiment.name}_{SUFFIX}"
    return config.model_copy(
        update={
            "experiment": config.experiment.model_copy(update={"name": name}),
            "data": config.data.model_copy(
                update={"split": config.data.split.model_copy(update={"fold": fold})},
            ),
        }
    )


def _one_fold(run: Run, config: ExperimentConfig, material: Material, known: dict[str, Floats], log: Log) -> Path:
    plain = plain_config(config)
    data = {key: plain["data"][key] for key in SETTINGS if key in plain["data"]}
    write_json(run / runs.CONFIG, {"experiment": plain["experiment"], "data": data})
    for line in (material.split.protocol, *material.corpus.notes):
        log.say(line)
    tables = [_features(part, known, log) for part in (material.train, material.validation, material.test)]
    lines, penalties = {}, {}
    for name in config.data.dimensions:
        train, validation = (_ratings(part, name) for part in (material.train, material.validation))
        lines[name], penalties[name] = fit_ridge(tables[0], train, tables[1], validation)
    validated, tested = (
        _predictions(part, lines, table)
        for part, table in zip((material.validation, material.test), tables[1:], strict=True)
    )
    run.keep({runs.LABELS: material.labels().to_text()})
    run.describe(_environment(material, penalties))
    write_text(run / runs.METRICS, "")
    scores = results(0, validated.scores(), validated, tested, material.split)
    run.keep(prediction_tables(material, validated, tested))
    keep_calibrations(run, config.data.dimensions, rating_scales(config.data))
    run.finish(scores, _words(config, scores.test))
    reached = ", ".join(f"{letter(name)} {_number(scores.test.ccc(name))}" for name in config.data.dimensions)
    log.say(f"{SYSTEM}: test CCC {reached}")
    return run.directory


def _features(part: Part, known: dict[str, Floats], log: Log) -> Floats:
    """[N, F] of a part; features that are known already aren't computed again."""
    for done, utterance in enumerate(part.utterances, start=1):
        if utterance.id not in known:
            known[utterance.id] = acoustic_features(read_audio(utterance.path, utterance.start, utterance.end))
        log.advance("hand-made features", done, len(part.utterances))
    log.settle()
    return np.stack([known[utterance.id] for utterance in part.utterances])


def _ratings(part: Part, name: Dimension) -> Floats:
    return np.array([utterance.ratings[name] for utterance in part.utterances])


def _predictions(part: Part, lines: Mapping[Dimension, Ridge], features: Floats) -> Predictions:
    utterances: Sequence[Utterance] = part.utterances
    return Predictions(
        ids=tuple(utterance.id for utterance in utterances),
        dimensions=tuple(lines),
        targets=np.stack([_ratings(part, name) for name in lines], axis=1),
        values=np.stack([line.predict(features) for line in lines.values()], axis=1),
    )


def _environment(material: Material, penalties: Mapping[Dimension, float]) -> Environment:
    return Environment(
        **environment(torch.device("cpu")),
        system=SYSTEM,
        precision="fp64",
        encoder=EncoderRecord(name=SYSTEM, revision=None, sha256=None),
        features=len(feature_names()),
        penalties=dict(penalties),
        corpus=material.record(),
        protocol=material.split.protocol,
        folds=material.split.folds,
    )


def _words(config: ExperimentConfig, scores: Scores) -> str:
    """The content of best_result.txt."""
    lines = [f"ccc_{letter(name).lower()}: {_number(scores.ccc(name))}" for name in scores.dimensions]
    lines += [f"ccc_avg: {_number(scores.average)}", f"experiment: {config.experiment.name}"]
    return "\n".join([*lines, f"fold: {config.data.split.fold}", f"system: {SYSTEM}"]) + "\n"


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4f}"
