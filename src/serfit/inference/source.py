"""What a user names - a run, a folder of runs, a bundle, a name on the hub - as networks that can be asked."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path
from typing import get_args

import torch

from serfit import __version__
from serfit.config.load import flatten, load_config
from serfit.config.schema import ExperimentConfig
from serfit.corpus.identity import agree, differences
from serfit.corpus.load import rating_scales
from serfit.errors import UserError, listed
from serfit.inference.about import About
from serfit.inference.begun import begun, variant_of
from serfit.inference.bundle import Member, is_bundle, read_bundle
from serfit.inference.calibrated import Calibrated, Choice, Kept, chosen
from serfit.inference.networks import Network, TorchNetwork
from serfit.inference.onnx import is_onnx, open_onnx
from serfit.inference.origin import Origin
from serfit.inference.recogniser import Recogniser, check_together
from serfit.nn.encoders.build import encoder_differences
from serfit.nn.encoders.source import public_name
from serfit.nn.model import EmotionModel
from serfit.nn.saved import frozen_digest, load_weights
from serfit.runs import directory as runs
from serfit.runs.calibration import calibrations_of
from serfit.runs.experiments import IRRELEVANT
from serfit.runs.records import CorpusRecord, EncoderRecord, Environment, TestScores
from serfit.scores.calibration import Kind
from serfit.system.precision import Precision, Wanted, choose_precision, computes_bf16
from serfit.system.records import plain, read_record
from serfit.system.runtime import choose_device

PRECISIONS: tuple[Wanted, ...] = get_args(Wanted)

KEPT = (
    *("protocol", "folds", "precision", "frozen_precision", "packages", "commit", "parameters", "trained_parameters"),
)
"""Parts of a run's environment that describe its network."""

_ANEW = "that run can't be used; train it again"

PRIVATE = (
    *("data.root", "data.table.path", "experiment.runs_dir", "features.store", "features.max_gb", "model.start_from"),
)
"""Settings that say where files lay on somebody's machine; they don't travel."""


def open_recogniser(
    sources: Sequence[str | Path],
    *,
    gpu: int | None = None,
    precision: Wanted = "fp32",
    calibrate: Choice = None,
) -> Recogniser:
    """Everything named as one recogniser, in order, on a device; see `serfit.load`."""
    if not sources:
        raise UserError("no model is named; give a run directory, a bundle or a name on the hub")
    if precision not in PRECISIONS:
        raise UserError(f"there is no precision called {precision}; choose {', '.join(PRECISIONS)}")
    device, _ = choose_device(gpu)
    networks: list[Network] = []
    notes: list[str] = []
    for source in sources:
        path = Path(source).expanduser()
        if is_onnx(path):
            networks.append(open_onnx(path, device, calibrate))
            continue
        for member in open_members(source):
            computed = choose_precision(precision, device, member.model.encoder.width)
            notes.append(_precision_note(computed, device, member.model.encoder.width))
            network = TorchNetwork(member.about, member.model.to(device), device, computed.autocast)
            maps = chosen(member.calibration, calibrate, member.about.dimensions, str(source))
            networks.append(network if maps is None else Calibrated(network, maps))
    return Recogniser(tuple(networks), tuple(dict.fromkeys(notes)))


def _precision_note(computed: Precision, device: torch.device, width: int) -> str:
    """Which precision an encoder is computed in, and where there would be a faster one."""
    automatic = choose_precision("auto", device, width)
    if computed.name == "fp32" and automatic.name == "bf16":
        return "precision: fp32; --precision auto takes bf16 here: faster, and values change in the third digit"
    return f"precision: {computed.name}" + (f", since {computed.reason}" if computed.reason else "")


def precision_here(precision: Wanted, gpu: int | None) -> str:
    """A precision with what auto comes to on this machine, so that a labelling isn't gone on with in another one."""
    if precision != "auto":
        return precision
    return f"auto, {'bf16' if computes_bf16(choose_device(gpu)[0]) else 'fp32'} here"


def open_members(source: str | Path) -> list[Member]:
    """The torch networks behind one source that is no ONNX file, on the CPU. Raises UserError as `open_recogniser`."""
    path = Path(source).expanduser()
    if is_bundle(path):
        return read_bundle(path)
    if path.is_dir():
        return [member_of_run(run) for run in directories_of(path)]
    if path.exists() or len(Path(source).parts) != 2 or path.is_absolute():
        raise UserError(
            f"{source} is neither a run directory, a folder of runs, a bundle nor a name on the hub (owner/name); "
            "see runs/ for what there is"
        )
    return read_bundle(_fetched(str(source)))


def start_of(config: ExperimentConfig, directory: Path | None = None) -> Member | None:
    """The trained network that an experiment goes on from, on the CPU; None where it starts from an encoder.

    Args:
        config: the experiment.
        directory: its run directory, where it has begun: what that keeps is read, and the source isn't needed.

    Raises:
        UserError: it can't be opened, is an ensemble, or can't be trained.
    """
    source = config.model.start_from
    if source is None:
        if config.model.start_part != "all":
            raise UserError("model.start_part is encoder, and model.start_from names no network to take it from")
        return None
    if directory is not None and is_bundle(directory / runs.START):
        return read_bundle(directory / runs.START)[0]
    if is_onnx(Path(source)):
        raise UserError(
            f"model.start_from is {source}, and an ONNX file can't be trained any further; name the run or bundle that "
            "it was exported from"
        )
    members = open_members(source)
    if len(members) > 1:
        raise UserError(
            f"model.start_from is {source}, which holds {len(members)} networks, and training goes on from one; name "
            "one of its runs"
        )
    return members[0]


def directories_of(source: str | Path) -> list[Path]:
    """The run directories behind one source; none behind a bundle or a name on the hub.

    Raises:
        UserError: as `runs_of_one_experiment`.
    """
    path = Path(source).expanduser()
    if not path.is_dir() or is_bundle(path):
        return []
    return [path] if (path / runs.CONFIG).is_file() else runs_of_one_experiment(path)


def calibrated_members(sources: Sequence[str | Path], choice: Choice) -> tuple[list[Member], Kind | None]:
    """The torch networks behind several sources, which go together and apply a calibration, and its kind.

    Raises:
        UserError: as `open_members`; one has no such calibration; they predict different things; or, where nothing is
            asked for, they were exported with different calibrations.
    """
    members: list[Member] = []
    kinds: set[Kind | None] = set()
    for source in sources:
        if is_onnx(Path(source)):
            raise UserError(f"{source} is an ONNX file already, and the way back is closed; name the run or a bundle")
        for member in open_members(source):
            maps = chosen(member.calibration, choice, member.about.dimensions, str(source))
            kind = None if maps is None else maps.kind
            kinds.add(kind)
            kept = None if member.calibration is None else member.calibration.model_copy(update={"applied": kind})
            members.append(replace(member, calibration=kept))
    check_together([member.about for member in members])
    if len(kinds) > 1:
        raise UserError(
            f"{listed([str(source) for source in sources])} apply different calibrations; say which with --calibrate "
            "affine, isotonic or none"
        )
    (kind,) = kinds
    return members, kind


def member_of_run(directory: Path) -> Member:
    """The network of a finished run, with the weights of its best epoch.

    Raises:
        UserError: the run isn't finished, has no network, its encoder can't be had, or its calibrations are damaged.
    """
    if not (directory / runs.FINISHED).is_file():
        if any(directory.glob("model*.safetensors*")) or any(directory.glob("pytorch_model*.bin*")):
            raise UserError(
                f"{directory} is a model in hub layout, and no serfit bundle; if it is a public dimensional model, "
                f"make a bundle of it: serfit import {directory} FOLDER"
            )
        raise UserError(f"{directory} isn't finished; go on with it: serfit train --resume {directory}")
    if not (directory / runs.BEST_WEIGHTS).is_file():
        raise UserError(
            f"{directory} holds no {runs.BEST_WEIGHTS}: it is no run of a network (neither the hand-made baseline nor "
            "a probe is one), or its weights were removed"
        )
    config = load_config(directory / runs.CONFIG)
    environment = read_record(Environment, directory / runs.ENVIRONMENT, _ANEW)
    scores = read_record(TestScores, directory / runs.SCORES, _ANEW)
    start = start_of(config, directory)
    model = _as_trained(begun(config, start), environment.encoder, directory)
    load_weights(directory / runs.BEST_WEIGHTS, model, frozen_digest(model), epoch=scores.best_epoch)
    about = _about(directory, config, model, environment, scores)
    carried = calibrations_of(directory, about.dimensions, about.scales)
    kept = Kept(applied=None, **{one.kind: one for one in carried}) if carried else None
    params = config.model.params.model_copy(update={"speech_encoder": about.origin.encoder.name})
    return Member(about, params, model.requires_grad_(False).eval(), kept, variant_of(config, start))


def _as_trained(model: EmotionModel, then: EncoderRecord, directory: Path) -> EmotionModel:
    """A model whose encoder is given waveforms as in training, whatever its folder now states about them.

    Raises:
        UserError: the encoder's configuration now describes another computation than the run recorded.
    """
    if then.normalise is not None:
        model.encoder.normalise = then.normalise
        model.provenance = replace(model.provenance, normalise=then.normalise)
    differing = encoder_differences(plain(then), asdict(model.provenance))
    if differing:
        raise UserError(
            f"the encoder {model.provenance.name} isn't as it was when {directory} was trained ({listed(differing)}); "
            "bring its config.json back"
        )
    return model


def runs_of_one_experiment(folder: Path) -> list[Path]:
    """The finished runs in a folder, the latest of each fold and seed; they must be of one experiment.

    As in a comparison, an experiment is more than its name: runs that differ in any setting but fold, seed and those
    without effect aren't asked together. A network that was then trained on everything stands apart from the folds that
    say what to expect of it: it counts only where there are none.

    Raises:
        UserError: there are none, or they are of several experiments.
    """
    found = sorted(marker.parent for marker in folder.glob(f"*/{runs.FINISHED}"))
    found = [run for run in found if (run / runs.BEST_WEIGHTS).is_file()]
    settings = {run: flatten(load_config(run / runs.CONFIG)) for run in found}
    found = [run for run in found if settings[run]["data.split.scheme"] != "everything"] or found
    if not found:
        raise UserError(
            f"{folder} is neither a run directory nor a bundle, and holds no finished runs; name a run directory "
            f"(with {runs.CONFIG} and {runs.FINISHED} in it) or a bundle (with serfit.json in it)"
        )
    told = [settings[run] | {"model.start_from": _start_words(run)} for run in found]
    keys = sorted(set().union(*told) - IRRELEVANT)
    differing = [key for key in keys if any(one.get(key) != told[0].get(key) for one in told)]
    if differing:
        raise UserError(
            f"{folder} holds runs of several experiments (they differ in {listed(differing, most=5)}), and one is "
            f"wanted; name the runs themselves, for example {found[0]}"
        )
    latest: dict[object, Path] = {}
    for run, one in zip(found, told, strict=True):
        same = (one["data.split.fold"], one["experiment.seed"])
        latest[same] = max(latest.get(same, run), run, key=lambda each: (each / runs.FINISHED).stat().st_mtime_ns)
    chosen = sorted(latest.values())
    _check_labels(folder, chosen)
    return chosen


def _start_words(run: Path) -> str | None:
    about = runs.read_environment(run)
    return None if about is None or about.start is None else str(about.start)


def _check_labels(folder: Path, chosen: Sequence[Path]) -> None:
    """Raise UserError where some runs of a folder are known to have been made from other labels than the rest."""
    found = [(run, about.corpus.labels) for run in chosen if (about := runs.read_environment(run)) is not None]
    for (one, mine), (other, yours) in combinations(found, 2):
        if not agree(mine, yours):
            before, after = runs.read_labels(one), runs.read_labels(other)
            what = "" if before is None or after is None else f" ({differences(before, after)})"
            last, latest = max(found, key=lambda each: (each[0] / runs.FINISHED).stat().st_mtime_ns)
            older = [run.name for run, labels in found if not agree(labels, latest)]
            raise UserError(
                f"{folder} holds runs that were made from different labels: {one.name} and {other.name}{what}; to use "
                f"the labels of {last.name}, the latest, train again {listed(older, most=6)}; or name the runs "
                f"themselves, for example {last}"
            )


def _about(
    directory: Path, config: ExperimentConfig, model: EmotionModel, environment: Environment, scores: TestScores
) -> About:
    settings = {key: value for key, value in flatten(config).items() if key not in PRIVATE}
    encoder = {"name": public_name(config.model.params.speech_encoder)}
    settings["model.params.speech_encoder"] = encoder["name"]
    start = environment.start
    origin = Origin(
        serfit=__version__,
        run=directory.resolve().name,
        settings=settings,
        encoder=environment.encoder.model_copy(update=encoder),
        start=None if start is None else start.model_copy(update={"source": public_name(start.source)}),
        corpus=environment.corpus.model_copy(update={"notes": public_notes(environment.corpus)}),
        **{key: getattr(environment, key) for key in KEPT if key in environment.model_fields_set},
        scores=scores,
        trained_on=runs.read_trained(directory, _ANEW),
    )
    return About(
        name=config.experiment.name,
        dimensions=config.data.dimensions,
        scales=rating_scales(config.data),
        normalise=bool(model.encoder.normalise),
        shortest=model.encoder.shortest_input,
        embedding_width=model.embedding_width,
        origin=origin,
    )


def public_notes(corpus: CorpusRecord) -> tuple[str, ...]:
    """What a run recorded about its corpus, without what names a file of somebody's machine."""
    return tuple(note for note in corpus.notes if "/" not in note and "\\" not in note)


def _fetched(name: str) -> Path:
    """Snapshot folder of a bundle on the hub, from the local cache where it is there."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, allow_patterns=["serfit.json", "*.safetensors", "README.md"]))
    except Exception as error:  # of a kind that changes with the hub client's HTTP library
        raise UserError(
            f"{name} is no folder here and can't be had from the hub ({type(error).__name__}); check the name, or on a "
            f"machine with a network run `hf download {name} --local-dir DIR` and name DIR"
        ) from error
    if not is_bundle(folder):
        raise UserError(
            f"{name} on the hub is no serfit bundle: it has no serfit.json; if it is a public dimensional model, make "
            f"a bundle of it: serfit import {name} FOLDER"
        )
    return folder
