"""Trained networks, of whatever kind, ready to predict the utterances of a corpus as a training does at its end."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from serfit.config.schema import Augmentation, ExperimentConfig
from serfit.corpus.audio import file_digest, read_audio
from serfit.corpus.utterance import Utterance
from serfit.inference.about import About
from serfit.inference.bundle import Member
from serfit.inference.calibrated import Choice, chosen
from serfit.inference.networks import Waveform
from serfit.inference.onnx import OnnxNetwork, is_onnx, open_onnx
from serfit.inference.origin import Origin
from serfit.inference.recogniser import Recogniser, check_together
from serfit.inference.source import calibrated_members
from serfit.nn.saved import weights_digest
from serfit.scores.calibration import Calibration
from serfit.system.precision import Name, Precision, Wanted
from serfit.training.batches import prefetched
from serfit.training.executor import build_executor, exactly
from serfit.training.features import build_features
from serfit.training.ranks import ALONE
from serfit.training.resume import precision_as_begun
from serfit.training.trainer import predictions_of

Check = Callable[[], None]
Groups = Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class Predictor:
    """A network that can be scored.

    Attributes:
        about: what it predicts, and where it comes from.
        sha256: digest of its weights, or of its ONNX file.
        members: number of networks whose mean it is.
        calibration: kind that its predictions go through, or None.
        frozen_precision: see `serfit.runs.records.Environment`.
        notes: sentences about what can't be as in training.
        predict: gives predictions [n, D] on [0, 1], float64, of each group of n utterances.
    """

    about: About
    sha256: str
    members: int
    calibration: str | None
    predict: Callable[[Sequence[Utterance], Groups, Check], Iterator[torch.Tensor]]
    frozen_precision: Name | None = None
    notes: tuple[str, ...] = ()

    @property
    def origins(self) -> tuple[Origin, ...]:
        """Where its networks come from."""
        return self.about.origin.members or (self.about.origin,)


def open_predictors(
    models: Sequence[str], config: ExperimentConfig, device: torch.device, calibrate: Choice
) -> list[Predictor]:
    """Everything named, ready to be scored. Raises UserError where something can't be, or they don't go together."""
    trained = [model for model in models if not is_onnx(Path(model))]
    members, kind = calibrated_members(trained, calibrate) if trained else ([], None)
    predictors = []
    for member in members:
        maps = chosen(member.calibration, None, member.about.dimensions, member.about.name)
        precision = _precision_of(member, device)
        predict = partial(_by_torch, member, maps, config, device, precision)
        one = Predictor(member.about, weights_digest(member.model), 1, kind, predict)
        if member.about.origin.frozen_precision == "bf16":
            same = precision.frozen == "bf16"
            one = replace(one, frozen_precision="bf16") if same else replace(one, notes=(_elsewhere(member.about),))
        predictors.append(one)
    for path in (Path(model).expanduser() for model in models if is_onnx(Path(model))):
        network = open_onnx(path, device, calibrate)
        predict = partial(_by_onnx, network, config.data.loader.workers)
        one = Predictor(network.about, file_digest(path), network.members, None, predict)
        applied = one.origins[0].calibration
        predictors.append(one if applied is None else replace(one, calibration=applied.kind))
    check_together([one.about for one in predictors])
    return predictors


def _precision_of(member: Member, device: torch.device) -> Precision:
    """As it was trained in, where the device computes in it; float32 where that isn't recorded."""
    origin = member.about.origin
    wanted: Wanted = "fp32" if origin.precision is None else "auto"
    return precision_as_begun(origin, wanted, device, member.model.encoder.width)


def _elsewhere(about: About) -> str:
    return (
        f"warning: the frozen part of {about.name} was computed in bf16 in training, and is computed in float32 here, "
        "where there is nothing that computes in bf16; predictions differ in the third digit"
    )


def _by_torch(
    member: Member,
    maps: Calibration | None,
    config: ExperimentConfig,
    device: torch.device,
    precision: Precision,
    utterances: Sequence[Utterance],
    groups: Groups,
    check: Check,
) -> Iterator[torch.Tensor]:
    """As training does at its end, to the byte."""
    model = member.model.to(device).requires_grad_(True)
    model.encoder.freeze(member.params)  # what is frozen comes from the store, each utterance alone, and rounds so
    features = build_features(model, config.features, Augmentation(), precision, crop=False)
    executor = exactly(build_executor(config, model, features, device, ALONE))
    for values in predictions_of(executor, features, utterances, groups, config.data.loader.workers, check):
        unit = values.double()
        yield unit if maps is None else torch.from_numpy(maps(unit.numpy(), member.about.dimensions))
    model.to("cpu")


def _by_onnx(
    network: OnnxNetwork, workers: int, utterances: Sequence[Utterance], groups: Groups, check: Check
) -> Iterator[torch.Tensor]:
    recogniser = Recogniser((network,))

    def read(index: int) -> Waveform:
        return read_audio(utterances[index].path, utterances[index].start, utterances[index].end)

    for group, waveforms in zip(groups, prefetched(groups, read, workers), strict=True):
        check()
        names = [f"utterance {utterances[index].id}" for index in group]
        yield torch.from_numpy(recogniser.estimate(waveforms, names).unit)
