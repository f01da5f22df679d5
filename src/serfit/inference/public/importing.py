"""A public model as a member of a bundle, whatever its layout; nothing of it is executed or unpickled."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from serfit import __version__
from serfit.errors import UserError, error_line, listed
from serfit.inference.about import About
from serfit.inference.bundle import Member, is_bundle
from serfit.inference.origin import Imported, Origin
from serfit.inference.public import audeering, odyssey, vox_profile
from serfit.inference.public.checkpoint import Checkpoint, Parts
from serfit.labels import DIMENSIONS, Dimension, LabelScale
from serfit.nn.encoders.folder import MOST_JSON_BYTES, normalisation, read_json, read_weights
from serfit.nn.encoders.source import HUB_ID, Source, downloaded, public_name
from serfit.nn.model import EmotionModel, build_model
from serfit.nn.saved import finite_or_complain
from serfit.runs.directory import FINISHED
from serfit.runs.records import CorpusRecord, EncoderRecord

LAYOUTS = (audeering, odyssey, vox_profile)

CORPUS, SCALE = "MSP-Podcast", LabelScale(1.0, 7.0)
"""What all known models were trained on, with ratings mapped from this scale to [0, 1]."""


def import_model(name: str, revision: str | None = None, order: Sequence[Dimension] = ()) -> Member:
    """A public model in serfit's own network, in float32, on the CPU.

    Args:
        name: a hub id, or a folder in hub layout.
        revision: commit, branch or tag on the hub; None takes the default branch.
        order: the dimension of each of its outputs, where its files don't say.

    Raises:
        UserError: it can't be had or read, is of no known layout, is incomplete, or holds more than its layout.
    """
    checkpoint, commit = _opened(name, revision, tuple(order))
    layout, parts = _parts(checkpoint)
    if unknown := sorted(one for one in checkpoint.tensors if not parts.known.fullmatch(one)):
        raise UserError(
            f"{checkpoint.name} holds tensors beyond {layout}: {listed(unknown)}; it may compute something else, so it "
            "isn't imported"
        )
    dimensions = tuple(one for one in DIMENSIONS if one in parts.outputs)
    source = Source(
        checkpoint.name,
        parts.settings,
        str(checkpoint.folder / "config.json"),
        parts.normalisation,
        parts.encoder,
        commit,
    )
    params = parts.params.model_copy(update={"speech_encoder": checkpoint.name})
    model = build_model(params, len(dimensions), seed=0, source=source, variant=parts.variant)
    _fill(model, parts, [parts.outputs.index(one) for one in dimensions], checkpoint.name)
    licence, licence_from = _licence(checkpoint.folder, parts.licence)
    imported = Imported(
        name=checkpoint.name,
        revision=commit,
        layout=layout,
        outputs=parts.outputs,
        licence=licence,
        licence_from=licence_from,
        terms=parts.terms if licence == parts.licence else "",
        assumed=parts.assumed,
    )
    return Member(_about(model, imported, dimensions), params, model.requires_grad_(False).eval(), None, parts.variant)


def _opened(name: str, revision: str | None, order: tuple[Dimension, ...]) -> tuple[Checkpoint, str | None]:
    """What a name stands for, and its commit on the hub."""
    folder, commit = Path(name).expanduser(), None
    if is_bundle(folder) or (folder / FINISHED).is_file():
        raise UserError(f"{name} is a serfit bundle or run already; use it as it is")
    if not folder.is_dir():
        if not HUB_ID.fullmatch(name):
            raise UserError(
                f"there is no folder {folder.absolute()}; name a folder in hub layout, or a hub id such as "
                "audeering/wav2vec2-large-robust-12-ft-emotion-msp-dim"
            )
        folder = downloaded(name, revision, "name DIR", "README.md")
        commit = folder.name
    elif revision is not None:
        raise UserError(f"--revision {revision} is for names on the hub, and {name} is a folder; leave it out")
    called = name if commit else public_name(str(folder.resolve()))
    config, tensors = read_json(folder / "config.json"), read_weights(folder, called)
    return Checkpoint(called, folder, config, normalisation(folder), tensors, order), commit


def _parts(checkpoint: Checkpoint) -> tuple[str, Parts]:
    for layout in LAYOUTS:
        try:
            parts = layout.read(checkpoint)
        except (LookupError, ArithmeticError, ValueError, TypeError, RuntimeError) as error:
            what = (
                f"lacks {error}"
                if isinstance(error, KeyError)
                else f"has a tensor of another shape ({error_line(error)})"
            )
            raise UserError(
                f"{checkpoint.name} looks like {layout.LAYOUT}, but {what}; fetch its weights again"
            ) from error
        if parts is not None:
            return layout.LAYOUT, parts
    raise UserError(
        f"{checkpoint.name} is of no layout that serfit imports; it knows "
        f"{'; '.join(layout.LAYOUT for layout in LAYOUTS)}"
    )


def _fill(model: EmotionModel, parts: Parts, rows: Sequence[int], name: str) -> None:
    """Put mix, pooling and head into a model.

    Args:
        model: with the encoder's weights.
        parts: whose other tensors it gets.
        rows: of the head's last layer, in serfit's order.
        name: of the public model, for messages.

    Raises:
        UserError: a tensor isn't of the model's shape, or not finite.
    """
    wanted = {key: tensor for key, tensor in model.state_dict().items() if not key.startswith("encoder.")}
    assert wanted.keys() == parts.others.keys(), f"{wanted.keys() ^ parts.others.keys()}"
    for key, tensor in wanted.items():
        if parts.others[key].shape != tensor.shape:
            raise UserError(
                f"{name} holds {key} of shape {list(parts.others[key].shape)}, and its other tensors ask for "
                f"{list(tensor.shape)}; fetch its weights again"
            )
    finite_or_complain(parts.others, name)
    ordered = {key: parts.others[key][rows] for key in ("head.out.weight", "head.out.bias")}
    model.load_state_dict({**parts.others, **ordered}, strict=False)


def _licence(folder: Path, usual: str) -> tuple[str, str]:
    """The licence that a folder's README.md states, or else the usual one of the layout; and where it was read."""
    from huggingface_hub import metadata_load

    path = folder / "README.md"
    front: dict[str, Any] = {}
    try:
        if path.stat().st_size <= MOST_JSON_BYTES:
            front = metadata_load(path) or {}
    except Exception:  # a hostile or missing file makes its reader raise whatever it can
        front = {}
    stated: Any = front.get("license_name") or front.get("license")
    stated = " ".join(stated.split()) if isinstance(stated, str) else stated
    if stated and isinstance(stated, str | list):
        return ", ".join(map(str, stated)) if isinstance(stated, list) else stated, "its README.md"
    return usual, "its page on the hub when this serfit was written; no README.md here states it"


def _about(model: EmotionModel, imported: Imported, dimensions: tuple[Dimension, ...]) -> About:
    provenance = asdict(model.provenance)
    origin = Origin(
        serfit=__version__,
        encoder=EncoderRecord(**provenance),
        corpus=CorpusRecord(name=CORPUS),
        protocol="trained by others; which speech it was trained and tested on isn't recorded here",
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        imported=imported,
    )
    return About(
        name=imported.name.rpartition("/")[2],
        dimensions=dimensions,
        scales=dict.fromkeys(dimensions, SCALE),
        normalise=bool(model.encoder.normalise),
        shortest=model.encoder.shortest_input,
        embedding_width=model.embedding_width,
        origin=origin,
    )
