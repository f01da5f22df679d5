"""What hand-made features and a straight line come to, on the same folds: the baseline an encoder has to beat."""

from pathlib import Path

import numpy as np
import torch

from serfit.config.schema import ExperimentConfig
from serfit.corpus.acoustics import acoustic_features
from serfit.corpus.audio import read_audio
from serfit.labels import letter
from serfit.report.markdown import number
from serfit.runs.directory import Run
from serfit.runs.records import EncoderRecord
from serfit.system.log import Log
from serfit.system.runtime import environment
from serfit.training.closed_form import finish_run, folds_of, opened, predictions_of, record_of
from serfit.training.material import Material
from serfit.training.ridge import Floats, fit_ridge
from serfit.training.trainer import Part

SUFFIX = "handmade"
"""Run directories and tables call the baseline of an experiment `<name>_handmade`."""

SYSTEM = "hand-made features (log-mel, pitch, energy, time) and ridge regression"


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
    known: dict[str, Floats] = {}
    written = []
    for chosen, material in folds_of(config, SUFFIX, fold):
        with opened(chosen, log) as run:
            _one_fold(run, chosen, material, known, log)
        written.append(run.directory)
    return written


def hand_made_features(part: Part, known: dict[str, Floats], log: Log) -> Floats:
    """[N, F] of a part; features that are known already aren't computed again, new ones become known."""
    for done, utterance in enumerate(part.utterances, start=1):
        if utterance.id not in known:
            known[utterance.id] = acoustic_features(read_audio(utterance.path, utterance.start, utterance.end))
        log.advance("hand-made features", done, len(part.utterances))
    log.settle()
    return np.stack([known[utterance.id] for utterance in part.utterances])


def _one_fold(run: Run, config: ExperimentConfig, material: Material, known: dict[str, Floats], log: Log) -> None:
    for line in (material.split.protocol, *material.corpus.notes):
        log.say(line)
    train, validation, test = (
        hand_made_features(part, known, log) for part in (material.train, material.validation, material.test)
    )
    ridge = fit_ridge(train, material.train.targets(), validation, material.validation.targets())
    validated = predictions_of(material.validation, ridge, validation)
    tested = predictions_of(material.test, ridge, test)
    encoder = EncoderRecord(name=SYSTEM, revision=None, sha256=None)
    about = record_of(material, ridge, system=SYSTEM, encoder=encoder, **environment(torch.device("cpu")))
    scores = finish_run(run, config, material, about, validated, tested)
    reached = ", ".join(f"{letter(name)} {number(scores.ccc(name))}" for name in config.data.dimensions)
    log.say(f"{SYSTEM}: test CCC {reached}")
