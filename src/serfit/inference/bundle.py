"""A bundle: a folder with everything that one or several networks (an ensemble) need, and nothing that runs.

    serfit.json             format, and of each member: what it predicts, how head and encoder are made
    model.safetensors       the tensors that all members share
    member-1.safetensors    the tensors of the first member alone; only where there are several
    README.md               the model card, where the bundle was made for the hub

File names are fixed, so nothing in a bundle can point outside it. A bundle in a repository of the hub is loaded by
its name.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import AliasPath, Field, ValidationError

from serfit.config.schema import ModelParams
from serfit.errors import UserError, error_line
from serfit.inference.about import About
from serfit.inference.calibrated import Kept
from serfit.inference.origin import Origin
from serfit.nn.encoders.folder import Normalisation
from serfit.nn.encoders.source import Source
from serfit.nn.model import EmotionModel, build_model
from serfit.nn.saved import finite_or_complain, weights_digest
from serfit.nn.variant import TRAINED, Variant
from serfit.system.files import write_json
from serfit.system.records import Record, from_plain, plain
from serfit.system.tensors import Shapes, read_tensors, write_tensors

DESCRIPTION = "serfit.json"
SHARED = "model.safetensors"
PARTIAL = ".partial"
FORMAT = 2
"""Newest format: that of bundles with a member of another variant than serfit trains. All others are of format 1."""

MOST_BYTES = 64 * 1024**2
"""Longest description that is parsed; a member takes some kilobytes, and 40 bytes for each recording trained on."""


@dataclass(frozen=True, slots=True)
class Member:
    """One network of a bundle.

    Attributes:
        about: what it predicts.
        params: encoder, pooling and head as configured.
        model: the network, on the CPU, in evaluation mode.
        calibration: what was fitted to its validation part, or None.
        variant: how it differs from the networks that serfit trains.
    """

    about: About
    params: ModelParams
    model: EmotionModel
    calibration: Kept | None = None
    variant: Variant = TRAINED


def write_bundle(folder: Path, members: Sequence[Member]) -> None:
    """Write a bundle, whole or not at all: in a folder `.partial` within it first, and the description last.

    Args:
        folder: must not exist, or be empty.
        members: at least one.

    Raises:
        UserError: the folder holds something already, or can't be written.
    """
    assert members, "a bundle has members"
    _make(folder)
    partial = folder / PARTIAL
    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed here
    _make(partial)
    states = [member.model.state_dict() for member in members]
    shared = _shared(states)
    write_tensors(partial / SHARED, {name: states[0][name] for name in shared}, {})
    if len(members) > 1:
        for number, state in enumerate(states, start=1):
            own = {name: tensor for name, tensor in state.items() if name not in shared}
            write_tensors(partial / _own_file(number), own, {})
    described = [
        {
            "about": member.about.to_json(),
            "params": member.params.model_dump(mode="json"),
            "encoder": member.model.encoder.description(),
            "calibration": None if member.calibration is None else plain(member.calibration),
            "sha256": weights_digest(state),
        }
        | ({} if member.variant == TRAINED else {"variant": plain(member.variant)})
        for member, state in zip(members, states, strict=True)
    ]
    version = FORMAT if any("variant" in one for one in described) else 1
    write_json(partial / DESCRIPTION, {"format": version, "members": described})
    for written in sorted(partial.iterdir(), key=lambda path: path.name == DESCRIPTION):
        written.rename(folder / written.name)
    partial.rmdir()


def read_bundle(folder: Path) -> list[Member]:
    """The members of a bundle, checked against the digests written into it.

    Raises:
        UserError: it isn't one, is of a later format, or was damaged.
    """
    path = folder / DESCRIPTION
    data = _description(path)
    shared, _ = read_tensors(folder / SHARED)
    members = []
    for number, described in enumerate(data["members"], start=1):
        own = {} if len(data["members"]) == 1 else read_tensors(folder / _own_file(number))[0]
        members.append(_member(described, shared | own, path))
    return members


def is_bundle(folder: Path) -> bool:
    """Whether a folder says that it is a bundle."""
    return (folder / DESCRIPTION).is_file()


def is_free(folder: Path) -> bool:
    """Whether a bundle may be written to a folder: it doesn't exist, or holds nothing but what a killed writer left."""
    return not folder.exists() or (folder.is_dir() and all(child.name == PARTIAL for child in folder.iterdir()))


def origins_of(folder: Path) -> list[Origin]:
    """Return the origins of a bundle's members without reading their weights.

    Raises:
        UserError: it can't be read.
    """
    path = folder / DESCRIPTION
    members = _description(path)["members"]
    return [from_plain(_Named, member, str(path), "export the run again").origin for member in members]


class _Named(Record):
    """The part of a member that says where it comes from."""

    origin: Origin = Field(Origin(), validation_alias=AliasPath("about", "origin"))


def check_free(folder: Path) -> None:
    """Raise UserError where a bundle may not be written to a folder."""
    if not is_free(folder):
        raise UserError(f"{folder} isn't empty; name a new folder for the bundle, nothing is overwritten")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        check_free(folder)
    except OSError as error:
        raise UserError(
            f"can't make the folder {folder}: {error.strerror or error}; choose one that you may write to"
        ) from error


def _own_file(number: int) -> str:
    return f"member-{number}.safetensors"


def _shared(states: Sequence[Mapping[str, torch.Tensor]]) -> set[str]:
    """Names of the tensors that are the same in all members."""
    first, *others = states
    return {
        name
        for name, tensor in first.items()
        if all(name in other and torch.equal(tensor, other[name]) for other in others)
    }


def _description(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES:,} bytes")
        data = json.loads(path.read_text(encoding="utf-8"))
        version = data["format"]
        members = data["members"]
        if not isinstance(version, int) or not isinstance(members, list) or not members:
            raise ValueError("it names no members")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{path} can't be read as the description of a bundle ({error_line(error)}); export the run again"
        ) from error
    if version > FORMAT:
        raise UserError(f"{path} is of bundle format {version}, and this serfit reads up to {FORMAT}; update serfit")
    found: dict[str, Any] = data
    return found


def _member(described: Any, tensors: Mapping[str, torch.Tensor], path: Path) -> Member:
    if not isinstance(described, dict):
        raise UserError(f"{path} has a member that is no object; export the run again")
    about = About.from_json(described.get("about") or {}, str(path))
    try:
        params = ModelParams.model_validate(described.get("params"))
    except ValidationError as error:
        raise UserError(
            f"{path} has settings of a model that this serfit doesn't know ({error.errors()[0]['msg']}); update serfit"
        ) from error
    variant = from_plain(Variant, described.get("variant", {}), f"{path}, variant", "update serfit")
    model = _skeleton(described.get("encoder"), params, about, path, variant)
    wanted: Shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found: Shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if wanted != found or weights_digest(tensors) != described.get("sha256"):
        raise UserError(
            f"the weights next to {path} aren't those that were exported: files are missing, altered or from another "
            "bundle; copy or fetch all of it again"
        )
    if (about.shortest, about.embedding_width) != (model.encoder.shortest_input, model.embedding_width):
        raise UserError(
            f"{path} states a shortest input of {about.shortest} samples and pooled vectors of {about.embedding_width} "
            f"numbers, and the network has {model.encoder.shortest_input} and {model.embedding_width}; export the run "
            "again"
        )
    finite_or_complain(tensors, str(path.parent))
    model.load_state_dict(dict(tensors), assign=True)
    return Member(about, params, model.requires_grad_(False).eval(), _kept(described, path), variant)


def _kept(described: Mapping[str, Any], path: Path) -> Kept | None:
    kept = described.get("calibration")
    return None if kept is None else from_plain(Kept, kept, f"{path}, calibration", "export the run again")


def _skeleton(stated: Any, params: ModelParams, about: About, path: Path, variant: Variant) -> EmotionModel:
    """The network without weights, on the meta device: whatever the configuration asks for costs no memory."""
    if not isinstance(stated, Mapping):
        raise UserError(f"{path} doesn't describe the encoder; export the run again")
    source = Source(params.speech_encoder, stated, str(path), Normalisation(about.normalise, "bundle"))
    try:
        with torch.device("meta"):
            return build_model(params, len(about.dimensions), seed=0, source=source, variant=variant)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{path} describes a network that can't be built ({type(error).__name__}: {error_line(error)}); export the "
            "run again"
        ) from error
