"""What the name of an encoder stands for: settings and weights from the hub, a folder, Microsoft's own file, a seed."""

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from serfit.config.schema import UNTRAINED
from serfit.errors import UserError, error_line
from serfit.nn.encoders.folder import Normalisation, load_pickle, normalisation, read_json, read_weights
from serfit.nn.encoders.microsoft import completed, configuration, renamed
from serfit.system.files import refuse_lfs_pointer

HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
"""Owner and name; encoders without an owner are none that serfit reads."""


@dataclass(frozen=True, slots=True)
class Source:
    """The parts of an encoder: settings and weights.

    Attributes:
        name: hub id, folder, file or random:size, as the user wrote it.
        settings: its configuration in transformers' words, as read: anybody may have written it.
        where: what the settings were read from, for messages.
        normalisation: whether it wants its waveforms normalised, and what says so.
        tensors: its weights as read; None where they are drawn from a seed.
        revision: commit on the hub, or None where there is none.
    """

    name: str
    settings: Mapping[str, Any]
    where: str
    normalisation: Normalisation
    tensors: Mapping[str, Tensor] | None = None
    revision: str | None = None


def find_encoder(name: str, revision: str | None) -> Source:
    """Settings and weights of the encoder that a configuration names.

    Args:
        name: model.params.speech_encoder.
        revision: commit, branch or tag on the hub; None takes the default branch.

    Raises:
        UserError: a file that is missing or unreadable, or weights that can't be had.
    """
    if name.startswith(UNTRAINED):
        return Source(name, random_settings(name), name, Normalisation(None, "random"))
    path = Path(name).expanduser()
    if path.is_dir():
        return _in_folder(path, name)
    if path.suffix == ".pt":
        return _in_microsofts_file(path, name)
    if not HUB_ID.fullmatch(name):
        raise UserError(
            f"model.params.speech_encoder is {name}, but there is no folder {path.absolute()}; name a folder in "
            "hub layout, or a hub id such as microsoft/wavlm-large"
        )
    folder = downloaded(name, revision, "set model.params.speech_encoder to DIR")
    return _in_folder(folder, name, folder.name)


def public_name(encoder: str) -> str:
    """The name of an encoder without the folders above it, where it is a path on somebody's machine."""
    return Path(encoder).name if encoder.startswith(("/", "~", ".")) or encoder.endswith(".pt") else encoder


def random_settings(name: str) -> dict[str, Any]:
    """WavLM to have random weights: random:tiny (large's layout), random:tiny-base, random:base, random:large."""
    tiny: dict[str, Any] = {
        "conv_dim": (32,) * 7,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4,
        "initializer_range": 0.1,
    }
    size: dict[str, Any] = {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
    }
    large: dict[str, Any] = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
    match name:
        case "random:tiny":
            chosen = tiny | large
        case "random:tiny-base":
            chosen = tiny
        case "random:base":
            chosen = {}
        case "random:large":
            chosen = size | large
        case _:
            raise UserError(
                f"model.params.speech_encoder is {name}, but random weights come as random:tiny, random:tiny-base, "
                "random:base and random:large; use one of these, a hub id or a folder"
            )
    return {"model_type": "wavlm"} | chosen


def _in_folder(folder: Path, name: str, revision: str | None = None) -> Source:
    """An encoder in hub layout. Raises UserError for a file that is missing or unreadable."""
    path = folder / "config.json"
    return Source(name, read_json(path), str(path), normalisation(folder), read_weights(folder, name), revision)


def _in_microsofts_file(path: Path, name: str) -> Source:
    """WavLM in its original file, for example WavLM-Large.pt; no code in it is run.

    Raises:
        UserError: a file that is missing, unreadable or something else.
    """
    refuse_lfs_pointer(path)
    try:
        content = load_pickle(path)
        cfg, tensors = completed(content["cfg"]), renamed(content["model"])
        settings = {"model_type": "wavlm", **configuration(cfg)}
    except MemoryError:
        raise
    except Exception as error:  # a hostile file makes its readers raise whatever they can
        raise UserError(
            f"{path} can't be read as a WavLM checkpoint: {error_line(error)}; model.params.speech_encoder takes "
            "Microsoft's own WavLM-*.pt, a folder in hub layout or a hub id"
        ) from error
    return Source(name, settings, str(path), Normalisation(bool(cfg["normalize"]), "cfg"), tensors)


def downloaded(name: str, revision: str | None, remedy: str, *more: str) -> Path:
    """Snapshot folder of a hub id, named by its commit, from the local cache where it is there.

    Args:
        name: owner and name.
        revision: commit, branch or tag; None takes the default branch.
        remedy: what to do with a folder DIR that was fetched elsewhere, for the message.
        more: files besides those of an encoder.

    Raises:
        UserError: it can't be had.
    """
    from huggingface_hub import snapshot_download

    texts = ["config.json", "preprocessor_config.json", "processor_config.json", *more]
    try:
        with quiet_transformers():
            folder = snapshot_download(name, revision=revision, allow_patterns=[*texts, "model*.safetensors*"])
            if not any(Path(folder).glob("model*.safetensors")):
                folder = snapshot_download(name, revision=revision, allow_patterns=[*texts, "pytorch_model*.bin*"])
    except Exception as error:  # of a kind that changes with the hub client's HTTP library
        at = "" if revision is None else f" at revision {revision}"
        raise UserError(
            f"the weights of {name}{at} can't be had ({type(error).__name__}), neither from a folder of that name nor "
            "from the hub or its local cache; on a machine with a network run `hf download "
            f"{name} --local-dir DIR` and {remedy}, or set HF_ENDPOINT to a mirror"
        ) from error
    return Path(folder)


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars and warnings while loading; what matters is checked and said by serfit."""
    from transformers.utils import logging as transformers_logging

    logging: Any = transformers_logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
