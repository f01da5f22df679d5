"""From an utterance to the tensor that training starts from.

A feature is a function of the utterance alone: its waveform, or the output of the model's frozen prefix (CNN,
CNN + k layers, the whole encoder). The prefix ends before the first stage with a trainable parameter, found from
the model itself, so nothing trainable is ever stored. Each feature is computed from one unpadded utterance, in one
precision: it is the same whether it comes from the store or not, and whatever batch it will go into.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from serfit.config import schema
from serfit.corpus.audio import content_digest, read_audio
from serfit.corpus.utterance import Utterance
from serfit.errors import UserError, counted
from serfit.labels import SAMPLE_RATE
from serfit.nn.encoders.base import CNN
from serfit.nn.model import EmotionModel
from serfit.nn.saved import weights_digest
from serfit.system.precision import Name, Precision
from serfit.system.runtime import computer_memory
from serfit.system.timer import Timer
from serfit.training.augment import changes_waveform
from serfit.training.store import FeatureStore
from serfit.training.waveforms import Waveforms, is_plain, open_waveforms

FORMAT = 2
"""Version of what the prefix computes; raised when the same weights would give another feature."""

HELD_BYTES = min(2 * 1024**3, computer_memory() // 20)
"""Most bytes of features that a process keeps in memory, so that small ones are read from the disk once: five folds at
a time hold at most a quarter of the computer's."""


LOUD = 10.0
"""Samples beyond this aren't sound at a wrong level any more: floating-point files may exceed 1 a little."""


@dataclass(slots=True)
class Features:
    """Utterance -> float32 tensor on the CPU, time on axis 0.

    Attributes:
        model: the network whose prefix computes the features.
        stage: the stage at which they end; 0 is the encoder's input (see `serfit.nn`).
        precision: of the passes, frozen and others.
        store: where they are kept; None computes them every time.
        waveforms: where decoded audio is kept; None decodes it every time.
        timer: what reading and computing features has cost so far.
    """

    model: EmotionModel
    stage: int
    precision: Precision
    store: FeatureStore | None
    waveforms: Waveforms | None = None
    timer: Timer = field(default_factory=Timer)
    _keys: dict[str, str] = field(default_factory=dict)
    _held: dict[str, torch.Tensor] = field(default_factory=dict)
    _held_bytes: int = 0

    def __call__(self, utterance: Utterance) -> torch.Tensor:
        """The feature of one utterance. Raises UserError naming it when its audio can't be used."""
        if self.stage == 0:
            return self._prepared(utterance)
        held = self._held.get(utterance.id)
        if held is not None:
            return held
        feature = self._stored_or_computed(utterance)
        size = feature.nbytes
        if self.store is not None and self._held_bytes + size <= HELD_BYTES:
            self._held[utterance.id] = feature
            self._held_bytes += size
        return feature

    @property
    def entries_per_second(self) -> float | None:
        """Length of a feature per second of speech: samples, frames, or None once pooled over time."""
        return self.model.entries_per_second(self.stage)

    @property
    def frozen_precision(self) -> Name | None:
        """The precision of what the frozen part computes, for records; None for float32, or where nothing is frozen."""
        return "bf16" if self.stage > 0 and self.precision.frozen == "bf16" else None

    def fill(self, utterances: Iterable[Utterance]) -> Iterator[Utterance]:
        """Compute what the store doesn't have yet, yielding each utterance when it is there."""
        if self.stage == 0 or self.store is None:
            return
        yield from self.store.fill(((utterance, self._key(utterance)) for utterance in utterances), self._compute)

    def missing(self, utterances: Iterable[Utterance]) -> list[Utterance]:
        """The utterances that `fill` would have to compute."""
        if self.stage == 0 or self.store is None:
            return []
        return [utterance for utterance in utterances if self._key(utterance) not in self.store]

    def _stored_or_computed(self, utterance: Utterance) -> torch.Tensor:
        if self.store is None:
            return self._compute(utterance)
        with self.timer.timing("store"):
            return self.store.get_or_compute(self._key(utterance), lambda: self._compute(utterance))

    def _compute(self, utterance: Utterance) -> torch.Tensor:
        prepared = self._prepared(utterance)
        with self.timer.timing("frozen part"), self.precision.autocast_frozen():
            feature = self.model.prefix(prepared, self.stage).float().cpu()
        if not feature.isfinite().all():
            peak = float(np.abs(self._samples(utterance)).max())
            cause = (
                f"its samples reach {peak:.3g}, and sound lies within 1; export it again, or leave it out"
                if peak > LOUD
                else f"its samples reach {peak:.3g}, as sound may, and the weights are finite, so "
                f"{self.precision.frozen} overflows in the encoder; leave the recording out, or use another encoder"
            )
            raise UserError(
                f"utterance {utterance.id}: the encoder's output for {utterance.path} isn't finite: {cause}"
            )
        return feature

    def _prepared(self, utterance: Utterance) -> torch.Tensor:
        """The encoder's input, from mono audio at 16 kHz (see `Encoder.prepare`)."""
        samples = self._samples(utterance)
        shortest = self.model.encoder.shortest_input
        if len(samples) < shortest:
            raise UserError(
                f"utterance {utterance.id}: {utterance.path} has {counted(len(samples), 'sample')} at {SAMPLE_RATE} "
                f"Hz, and the encoder needs at least {shortest} ({1000 * shortest / SAMPLE_RATE:.3g} ms); remove it "
                "from the corpus"
            )
        prepared = self.model.encoder.prepare(torch.from_numpy(samples))
        if not prepared.isfinite().all():
            raise UserError(
                f"utterance {utterance.id}: the samples of {utterance.path} reach {np.abs(samples).max():.3g}, too "
                "large to be normalised; sound lies within 1; export it again, or leave it out"
            )
        return prepared

    def _samples(self, utterance: Utterance) -> NDArray[np.float32]:
        """Decoded audio [S] at 16 kHz, from the store where that is faster."""

        def decode() -> NDArray[np.float32]:
            with self.timer.timing("decoding"):
                return read_audio(utterance.path, utterance.start, utterance.end)

        try:
            if self.waveforms is None or is_plain(utterance.path):
                return decode()
            with self.timer.timing("store"):
                return self.waveforms.read(self._key(utterance), decode)
        except UserError as error:
            known = str(error).startswith(f"utterance {utterance.id}: ")
            raise (error if known else UserError(f"utterance {utterance.id}: {error}")) from error

    def _key(self, utterance: Utterance) -> str:
        key = self._keys.get(utterance.id)
        if key is None:
            try:
                key = content_digest(utterance.path, utterance.start, utterance.end)
            except UserError as error:
                raise UserError(f"utterance {utterance.id}: {error}") from error
            self._keys[utterance.id] = key
        return key


def build_features(
    model: EmotionModel,
    features: schema.FeatureSettings,
    augmentation: schema.Augmentation,
    precision: Precision,
    *,
    crop: bool,
) -> Features:
    """The features that training starts from, given what is trainable in the model.

    Raises UserError when an augmentation or random crops ask for what the frozen prefix has already computed.
    """
    stage = model.frozen_stages
    frozen = model.stage_name(stage)
    if changes_waveform(augmentation) and stage > 0:
        if features.store is not None:
            learns = any(True for _ in model.encoder.stage_parameters(CNN))
            train = "train the CNN (model.params.freeze_cnn=false), " if learns else ""
            raise UserError(
                f"data.augmentation changes the waveform (gain_db, noise_snr_db or mixup_alpha), but the {frozen} is "
                f"frozen and comes from the store; switch these off, {train}or compute it anew for every "
                "batch (features.store=null)"
            )
        stage = 0
    if augmentation.time_mask_share and stage > 1:
        raise UserError(
            f"data.augmentation.time_mask_share hides frames from the transformer, but the {frozen} is frozen and "
            "already computed; set it to 0, or unfreeze the encoder"
        )
    if crop and stage > model.encoder.last_stage:
        raise UserError(
            f"data.loader.crop_seconds crops what training starts from, but the {frozen} is frozen and has no time "
            "axis left; set it to null, or unfreeze the encoder"
        )
    return features_at(model, stage, features, precision)


def features_at(model: EmotionModel, stage: int, settings: schema.FeatureSettings, precision: Precision) -> Features:
    """The features of a stage at or below which nothing is trained, in the store where there is one."""
    most = None if settings.max_gb is None else round(settings.max_gb * 1e9)
    if stage == 0 or settings.store is None:
        waveforms = None if settings.store is None else open_waveforms(settings.store, most)
        return Features(model, stage, precision, store=None, waveforms=waveforms)
    about = prefix_description(model, stage, settings.dtype, precision)
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    store = FeatureStore(settings.store / key[:32], getattr(torch, settings.dtype), most)
    store.describe(about | {"encoder": model.provenance.name})
    return Features(model, stage, precision, store)


def features_of(config: schema.ExperimentConfig, model: EmotionModel, precision: Precision) -> Features:
    """Return what the training of an experiment starts from. Raises UserError as `build_features`."""
    cropped = config.data.loader.crop_seconds is not None
    return build_features(model, config.features, config.data.augmentation, precision, crop=cropped)


def prefix_description(model: EmotionModel, stage: int, dtype: str, precision: Precision) -> dict[str, object]:
    """Everything that determines a feature besides the audio: weights, architecture, stage, precision, format."""
    return {
        "format": FORMAT,
        "stage_name": model.stage_name(stage),
        "dtype": dtype,
        "device": next(model.parameters()).device.type,
        "normalise": model.encoder.normalise,
        "weights": weights_digest(model.prefix_parameters(stage)),
        **({} if precision.frozen == "fp32" else {"precision": precision.frozen}),
        **model.prefix_recipe(stage),
    }
