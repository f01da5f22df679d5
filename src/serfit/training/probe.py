"""What each layer of a frozen encoder knows of the ratings: one pass over the corpus, then ridge regression."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from serfit.config.schema import ExperimentConfig
from serfit.errors import UserError, counted, visible
from serfit.inference.begun import begun
from serfit.inference.source import start_of
from serfit.nn.encoders.build import Provenance
from serfit.nn.encoders.source import find_encoder, public_name
from serfit.report.drawing.layer_curves import layer_pictures
from serfit.report.layers import Line, Probed, contrasts, grouped, scores_text, to_csv, to_markdown
from serfit.runs.records import EncoderRecord
from serfit.scores.metrics import better
from serfit.scores.records import Predictions
from serfit.scores.reference import Measure
from serfit.scores.statistics.contrast import Contrast, minus
from serfit.scores.statistics.interval import estimate
from serfit.system.files import write_bytes, write_text
from serfit.system.log import Log
from serfit.system.precision import Name, choose_precision
from serfit.system.runtime import choose_device, environment
from serfit.training.baselines import hand_made_features, open_hand_made
from serfit.training.closed_form import finish_run, folds_of, is_there, opened, predictions_of, record_of
from serfit.training.features import Features, features_at
from serfit.training.filling import fill_store
from serfit.training.forecast import forecast
from serfit.training.material import Material
from serfit.training.messages import prediction_tables
from serfit.training.ridge import PENALTIES, Floats, Ridge, fit_ridge, moments, standardised
from serfit.training.start import find_start
from serfit.training.store import FeatureStore

SUFFIX = "probe"
"""Run directories, and the folder of tables and pictures, are called `<name>_probe`."""

OF_THE_ENCODER = ("speech_encoder", "encoder_revision", "encoder_input")
"""The keys of model.params that decide what a frozen encoder gives."""

SYSTEM = "ridge regression on layers of a frozen encoder, chosen on the validation part"

WIDE_PENALTIES = (*PENALTIES, *(float(penalty) for penalty in 10.0 ** np.arange(6.0, 9.0, 0.5)))
"""For all layers side by side, whose features are many more than the hand-made ones."""

TABLES = "layers"
"""Tables and pictures are layers.md, layers.csv, layers.png and layers.svg."""

HAND_MADE = "hand-made"
"""What the line of the hand-made baseline is called."""

POOLINGS = ("mean", "mean + SD")

FROZEN: Mapping[str, Any] = {"freeze_speech_encoder": True, "freeze_layers": 0, "layers": "weighted"}
"""Settings of model.params with which nothing is trained and every hidden state is kept."""

Statistics = NDArray[np.float32]
"""[N, 2, K, H]: of every utterance, mean and standard deviation over time of each hidden state."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to make features of an utterance from the statistics of its layers.

    Attributes:
        words: for example "layer 2".
        pooling: one of `POOLINGS`.
        layer: a single layer; None for several.
        summed: whether standardised layers are added up instead of put side by side.
    """

    words: str
    pooling: str
    layer: int | None = None
    summed: bool = False

    def features(self, statistics: Statistics, train: Sequence[int]) -> Floats:
        """[N, F]; the layers of a sum are standardised within the training rows."""
        chosen = slice(None) if self.layer is None else slice(self.layer, self.layer + 1)
        taken = statistics[:, : 1 + POOLINGS.index(self.pooling), chosen].astype(np.float64)
        if not self.summed:
            return taken.reshape(len(taken), -1)
        layers = [taken[:, :, layer].reshape(len(taken), -1) for layer in range(taken.shape[2])]
        return np.asarray(sum(standardised(one, *moments(one[train])) for one in layers))


def candidates(states: int) -> list[Candidate]:
    """Every single hidden state of an encoder with so many, their sum, and all of them."""
    kinds: list[tuple[str, dict[str, Any]]] = [(f"layer {layer}", {"layer": layer}) for layer in range(states)]
    kinds += [("sum of layers", {"summed": True}), ("all layers", {})]
    return [Candidate(words, pooling, **how) for words, how in kinds for pooling in POOLINGS]


@dataclass(frozen=True, slots=True)
class Fitted:
    """A candidate in one fold.

    Attributes:
        candidate: whose features.
        ridge: the line through the training part.
        validated: its predictions of the validation part.
        tested: its predictions of the test part.
    """

    candidate: Candidate
    ridge: Ridge
    validated: Predictions
    tested: Predictions


@dataclass(frozen=True, slots=True)
class ProbedEncoder:
    """What a probe of one encoder found.

    Attributes:
        config: with the encoder.
        provenance: where its weights came from.
        precision: of its passes, see `Features.frozen_precision`.
        label: its name in tables.
        fits: of every candidate, one per fold.
        layers: of each fold, the layer that is best on its validation part.
        chosen: likewise of all candidates, several layers together among them.
    """

    config: ExperimentConfig
    provenance: Provenance
    precision: Name | None
    label: str
    fits: tuple[tuple[Fitted, ...], ...]
    layers: tuple[Fitted, ...]
    chosen: tuple[Fitted, ...]


def run_probe(
    config: ExperimentConfig, log: Log, *, encoders: Sequence[str] = (), gpu: int | None = None
) -> tuple[Probed, Path]:
    """Probe the layers of encoders on all folds of an experiment, and write tables, pictures and finished runs.

    Args:
        config: the experiment; its sections experiment, data, features and model say on what and with what.
        log: where to say what happens.
        encoders: names of encoders to put beside each other; none takes the configuration's.
        gpu: index of a visible GPU; None takes the first, or the CPU where there is none.

    Returns:
        What was found, and the folder with tables and pictures of it.

    Raises:
        UserError: as for a training on the same configuration; or it keeps nothing to test on.
    """
    device, device_line = choose_device(gpu)
    plans = [_with_encoder(config, name) for name in dict.fromkeys(encoders)] or [_with_encoder(config, None)]
    folds = list(folds_of(config, SUFFIX))
    for plan in plans:  # all of them, before anything is computed with the first
        _check(plan, [material for _, material in folds])
    with _results(config.experiment.runs_dir / f"{config.experiment.name}_{SUFFIX}") as folder:
        for line in (*folds[0][1].corpus.notes, device_line):
            log.say(line)
        probed, found = _answered(plans, [material for _, material in folds], device, log)
        for one in found:
            _leave_runs(one, folds, device, log)
        for ending, picture in layer_pictures(probed).items():
            write_bytes(folder / f"{TABLES}{ending}", picture)
        write_text(folder / f"{TABLES}.csv", to_csv(probed))
        write_text(folder / f"{TABLES}.md", to_markdown(probed))
    return probed, folder


def _answered(
    plans: Sequence[ExperimentConfig], materials: Sequence[Material], device: torch.device, log: Log
) -> tuple[Probed, list[ProbedEncoder]]:
    """Everything that is computed."""
    labels = _labels([plan.model.start_from or plan.model.params.speech_encoder for plan in plans])
    found = [probe_encoder(plan, label, materials, device, log) for plan, label in zip(plans, labels, strict=True)]
    lines, answers = _lines(_hand_made(materials, open_hand_made(plans[0].features), log), found, materials)
    costs = {one.label: _costs(one.config, materials[0]) for one in found}
    corpus = materials[0].corpus
    notes = (*(material.split.protocol for material in materials), *corpus.notes)
    return Probed(corpus.name, tuple(lines), tuple(answers), costs, notes), found


def _with_encoder(config: ExperimentConfig, name: str | None) -> ExperimentConfig:
    """The configuration with the encoder of a name; None leaves its own, or that of the network it goes on from."""
    if name is None:
        return config
    other = {"speech_encoder": name, "encoder_revision": None}
    return _with_params(config, other, start_from=None, start_part="all")


def _with_params(config: ExperimentConfig, changes: Mapping[str, Any], **others: Any) -> ExperimentConfig:
    """The configuration with other keys of model.params, and others of model."""
    params = config.model.params.model_copy(update=dict(changes))
    return config.model_copy(update={"model": config.model.model_copy(update={"params": params, **others})})


def _check(plan: ExperimentConfig, materials: Sequence[Material]) -> None:
    """Raise UserError where an encoder can't be had, or comes from a network that knows speakers of a test part."""
    start = find_start(plan)
    if start is None:
        find_encoder(plan.model.params.speech_encoder, plan.model.params.encoder_revision)
        return
    for material in materials:
        start.check(material)


@contextmanager
def _results(folder: Path) -> Iterator[Path]:
    """A folder that may be written to, before anything is computed; removed again where nothing came into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise UserError(
            f"can't create the folder {folder}: {getattr(error, 'strerror', None) or error}; choose a folder you may "
            "write to (experiment.runs_dir)"
        ) from error
    try:
        yield folder
    finally:
        with suppress(OSError):  # it isn't empty
            folder.rmdir()


def _labels(names: Sequence[str]) -> list[str]:
    """Names without the folders above them, unless these tell them apart."""
    short = [visible(public_name(name)) for name in names]
    return short if len(set(short)) == len(short) else [visible(name) for name in names]


def _hand_made(materials: Sequence[Material], store: FeatureStore | None, log: Log) -> list[Predictions]:
    """Test predictions of the hand-made baseline, by fold."""
    known: dict[str, Floats] = {}
    tests = []
    for material in materials:
        train, validation, test = (
            hand_made_features(part, known, log, store) for part in (material.train, material.validation, material.test)
        )
        ridge = fit_ridge(train, material.train.targets(), validation, material.validation.targets())
        tests.append(predictions_of(material.test, ridge, test))
    return tests


def probe_encoder(
    plan: ExperimentConfig, label: str, materials: Sequence[Material], device: torch.device, log: Log
) -> ProbedEncoder:
    """Fit every candidate of an encoder in every fold, and choose a layer.

    Args:
        plan: the configuration with the encoder.
        label: its name in tables.
        materials: of the folds, whose parts together hold the same utterances.
        device: where the encoder computes.
        log: where to show how far it is.
    """
    frozen = _with_params(plan, FROZEN, start_part="encoder" if plan.model.start_from else "all")
    model = begun(frozen, start_of(frozen)).to(device)
    precision = choose_precision(plan.train.precision, device, model.encoder.width)
    log.say(f"precision of {label}: {precision.frozen}" + (f", since {precision.reason}" if precision.reason else ""))
    features = features_at(model, model.statistics_stage, plan.features, precision)
    statistics, rows = _statistics(features, materials[0], log)
    parts = [
        [[rows[utterance.id] for utterance in part.utterances] for part in (one.train, one.validation, one.test)]
        for one in materials
    ]
    fits = []
    every = candidates(statistics.shape[2])
    for done, candidate in enumerate(every, start=1):
        fits.append(tuple(_fits(candidate, statistics, materials, parts)))
        log.advance(f"ridge regression on layers of {label}", done, len(every))
    log.settle()
    alone = [of_folds for of_folds in fits if of_folds[0].candidate.layer is not None]
    layers, chosen = (
        tuple(best_on_validation(of_fold) for of_fold in zip(*among, strict=True)) for among in (alone, fits)
    )
    return ProbedEncoder(plan, model.provenance, features.frozen_precision, label, tuple(fits), layers, chosen)


def _statistics(features: Features, material: Material, log: Log) -> tuple[Statistics, dict[str, int]]:
    """The statistics of all utterances, from the store as far as it has them, and the row of each."""
    fill_store(features, material, log)
    utterances = [utterance for part in material.split.parts.values() for utterance in part]
    found = []
    for done, utterance in enumerate(utterances, start=1):
        found.append(features(utterance).numpy())
        log.advance(f"layers of {features.model.provenance.name}", done, len(utterances))
    log.settle()
    return np.stack(found), {utterance.id: row for row, utterance in enumerate(utterances)}


def _fits(
    candidate: Candidate, statistics: Statistics, materials: Sequence[Material], parts: Sequence[Sequence[list[int]]]
) -> Iterator[Fitted]:
    """A candidate in each fold."""
    penalties = PENALTIES if candidate.layer is not None else WIDE_PENALTIES
    for material, (train, validation, test) in zip(materials, parts, strict=True):
        features = candidate.features(statistics, train)
        wanted = material.validation.targets()
        ridge = fit_ridge(features[train], material.train.targets(), features[validation], wanted, penalties)
        validated = predictions_of(material.validation, ridge, features[validation])
        yield Fitted(candidate, ridge, validated, predictions_of(material.test, ridge, features[test]))


def best_on_validation(fits: Iterable[Fitted]) -> Fitted:
    """The best mean validation CCC over dimensions; the first among equals, and where it is undefined for all."""
    best, *others = fits
    for one in others:
        if better(one.validated.scores().average, best.validated.scores().average):
            best = one
    return best


def _lines(
    hand_made: Sequence[Predictions], found: Sequence[ProbedEncoder], materials: Sequence[Material]
) -> tuple[list[Line], list[str]]:
    """The lines of the tables, and the answers."""
    where = grouped([material.split.test for material in materials])

    def line(encoder: str, words: str, pooling: str, layer: int | None, scores: Mapping[Measure, Contrast]) -> Line:
        return Line(encoder, words, pooling, layer, {name: estimate(one) for name, one in scores.items()})

    base = contrasts(where, hand_made)
    lines, answers = [line("", HAND_MADE, "", None, base)], []
    for one in found:
        for fits in one.fits:
            candidate = fits[0].candidate
            scores = contrasts(where, [fitted.tested for fitted in fits])
            lines.append(line(one.label, candidate.words, candidate.pooling, candidate.layer, scores))
        for words, choice in (("chosen layer", one.layers), ("chosen of all", one.chosen)):
            scores = contrasts(where, [fitted.tested for fitted in choice])
            lines.append(line(one.label, words, "", None, scores))
            often = Counter(f"{fitted.candidate.words} ({fitted.candidate.pooling})" for fitted in choice)
            folds = ", ".join(f"{what} in {counted(count, 'fold')}" for what, count in often.most_common())
            answers.append(f"{one.label}: {words}, on validation: {folds}; test {scores_text(lines[-1])}")
        gained = {name: estimate(minus(score, base[name])) for name, score in scores.items()}
        lines.append(Line(one.label, words, "", None, gained, minus=HAND_MADE))
        answers.append(f"{one.label}: {words} minus {HAND_MADE}: {scores_text(lines[-1], '+.3f')}")
    return lines, answers


def _costs(plan: ExperimentConfig, material: Material) -> tuple[str, ...]:
    """What fine-tuning the encoder as configured would cost, or why it can't be; with a frozen one, all of it."""
    unfrozen = _with_params(plan, {"freeze_speech_encoder": False})
    try:
        return tuple(forecast(unfrozen, material))
    except UserError as error:  # the answer about layers is worth having all the same
        return (f"it can't be fine-tuned as configured: {error}",)


def _leave_runs(
    one: ProbedEncoder, folds: Sequence[tuple[ExperimentConfig, Material]], device: torch.device, log: Log
) -> None:
    """Write a finished run for each fold with what was chosen of all, which `serfit compare` lists with the others."""
    params = one.config.model.params.model_dump(mode="json")
    model: dict[str, Any] = {"params": {key: params[key] for key in OF_THE_ENCODER}}
    model |= {"start_from": start, "start_part": "encoder"} if (start := one.config.model.start_from) else {}
    for (config, material), fitted in zip(folds, one.chosen, strict=True):
        if is_there(config, model, prediction_tables(material, fitted.validated, fitted.tested)):
            continue
        with opened(config, log, model) as run:
            log.record(material.split.protocol)
            about = record_of(
                material,
                fitted.ridge,
                system=SYSTEM,
                frozen_precision=one.precision,
                encoder=EncoderRecord(**asdict(one.provenance)),
                training_starts_from=f"{fitted.candidate.words}, {fitted.candidate.pooling} over time",
                **environment(device),
            )
            finish_run(run, config, material, about, fitted.validated, fitted.tested)
