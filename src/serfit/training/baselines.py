"""What hand-made features and a straight line come to, on the same folds: the baseline an encoder has to beat."""

import hashlib
from pathlib import Path

import numpy as np
import torch

from serfit.config.schema import ExperimentConfig, FeatureSettings
from serfit.corpus.acoustics import acoustic_features, feature_names
from serfit.corpus.audio import content_digest, read_audio
from serfit.corpus.utterance import Utterance
from serfit.labels import letter
from serfit.report.markdown import number
from serfit.runs.directory import Run
from serfit.runs.records import EncoderRecord
from serfit.system.log import Log
from serfit.system.runtime import environment
from serfit.training.closed_form import finish_run, folds_of, opened, predictions_of, record_of
from serfit.training.material import Material
from serfit.training.ridge import Floats, fit_ridge
from serfit.training.store import FeatureStore
from serfit.training.trainer import Part
from serfit.training.waveforms import decoders

SUFFIX = "handmade"
"""Run directories and tables call the baseline of an experiment `<name>_handmade`."""

FORMAT = 1
"""Version of `serfit.corpus.acoustics.acoustic_features`; raised when it would give other numbers."""

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


def open_hand_made(settings: FeatureSettings) -> FeatureStore | None:
    """The store of hand-made features, each kept as the bits of its float64 numbers, 16 at a time; None without one."""
    if settings.store is None:
        return None
    made_by = f"{FORMAT} {decoders()} {' '.join(feature_names())}"
    folder = settings.store / f"handmade-{hashlib.sha256(made_by.encode()).hexdigest()[:12]}"
    store = FeatureStore(folder, torch.int16, None if settings.max_gb is None else round(settings.max_gb * 1e9))
    store.describe({"stage_name": "hand-made features", "encoder": "no encoder", "dtype": "float64"})
    return store


def hand_made_features(part: Part, known: dict[str, Floats], log: Log, store: FeatureStore | None = None) -> Floats:
    """[N, F] of a part; features that are known or stored already aren't computed again, new ones become so."""
    for done, utterance in enumerate(part.utterances, start=1):
        if utterance.id not in known:
            known[utterance.id] = _hand_made(utterance, store)
        log.advance("hand-made features", done, len(part.utterances))
    log.settle()
    return np.stack([known[utterance.id] for utterance in part.utterances])


def _hand_made(utterance: Utterance, store: FeatureStore | None) -> Floats:
    def computed() -> Floats:
        return acoustic_features(read_audio(utterance.path, utterance.start, utterance.end))

    if store is None:
        return computed()
    key = content_digest(utterance.path, utterance.start, utterance.end)
    kept = store.get_or_compute(key, lambda: torch.from_numpy(computed()).view(torch.int16))
    return np.asarray(kept.to(torch.int16).view(torch.float64).numpy())


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
