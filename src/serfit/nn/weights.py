"""Where an encoder's weights come from: the hub, a folder, Microsoft's own file, or a seed."""

import contextlib
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from serfit.config.schema import UNTRAINED, ModelParams
from serfit.errors import UserError, counted, error_line, listed
from serfit.nn.encoder import SpeechEncoder
from serfit.nn.folder import (
    SAMPLING_RATE,
    Normalisation,
    finite_or_complain,
    load_pickle,
    normalisation,
    read_json,
    read_weights,
)
from serfit.nn.microsoft import completed, configuration, renamed
from serfit.nn.settings import checked, configured, skeleton
from serfit.system.counters import address
from serfit.system.files import refuse_lfs_pointer

_HARMLESS = ("masked_spec_embed",)
"""Weights that a checkpoint may lack: only SpecAugment reads them."""

_LAYER = re.compile(r"(encoder\.layers|feature_extractor\.conv_layers)\.\d+\.")
"""Begins the names of weights that decide what an encoder computes."""

_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
"""Owner and name; encoders without an owner are none that serfit reads."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where weights came from.

    Attributes:
        name: hub id, folder, file or random:size, as the user wrote it.
        revision: commit on the hub, or None where there is none.
        sha256: `weights_digest` of the weights as loaded.
        normalise: whether waveforms are brought to zero mean and unit variance.
        normalise_from: the file that states it; "layout" where none does, "random" where there is nothing to state.
        sampling_rate: samples per second of the audio that it takes.
        architecture: what it computes besides its weights (see `SpeechEncoder.architecture`).
    """

    name: str
    revision: str | None
    sha256: str
    normalise: bool | None = None
    normalise_from: str = ""
    sampling_rate: int = SAMPLING_RATE
    architecture: Mapping[str, Any] = field(default_factory=dict)


def encoder_differences(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """How an encoder differs, besides its weights, from what was recorded of it.

    Args:
        recorded: a `Provenance` as plain data; what an older version didn't record differs in nothing.
        now: the same of the present encoder.
    """
    then: dict[str, Any] = {key: recorded[key] for key in ("normalise", "sampling_rate") if key in recorded}
    architecture = recorded.get("architecture")
    then |= architecture if isinstance(architecture, Mapping) else {}
    present = {**now, **now.get("architecture", {})}
    return [
        f"{key} was {value} and is {present[key]}"
        for key, value in sorted(then.items())
        if key in present and value is not None and present[key] != value
    ]


def weights_digest(weights: nn.Module | Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of tensors, whatever their order or device."""
    if isinstance(weights, nn.Module):
        weights = weights.state_dict()
    named = weights.items() if isinstance(weights, Mapping) else weights
    digest = hashlib.sha256()
    for name, tensor in sorted(named, key=lambda pair: pair[0]):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def load_encoder(
    params: ModelParams, seed: int, gradient_checkpointing: bool = False
) -> tuple[SpeechEncoder, Provenance]:
    """The encoder that the configuration names, frozen as it says.

    Args:
        params: which encoder, what is frozen, dropout.
        seed: decides random weights, and those that a checkpoint lacks; torch's global generator stays as it was.
        gradient_checkpointing: recompute activations in the backward pass.

    Raises:
        UserError: weights that can't be had or don't fit, an architecture without support, too many frozen layers.
    """
    name = params.speech_encoder
    hf, stated, revision = _load(name, params.encoder_revision, seed)
    encoder = SpeechEncoder(
        hf,
        keep_all=params.layers == "weighted",
        normalise=stated.normalise,
        p=params.encoder_dropout,
        attention_p=params.attention_dropout,
        gradient_checkpointing=gradient_checkpointing,
    )
    freeze(encoder, params)
    return encoder, Provenance(
        name, revision, weights_digest(hf), encoder.normalise, stated.stated_by, SAMPLING_RATE, encoder.architecture
    )


def freeze(encoder: SpeechEncoder, params: ModelParams) -> None:
    """Take the gradient off the parts that the configuration freezes.

    Frozen layers take everything below them along: CNN, projection and positional convolution.

    Raises:
        UserError: more layers frozen than there are.
    """
    if params.freeze_layers > encoder.depth:
        raise UserError(
            f"model.params.freeze_layers is {params.freeze_layers}, but {params.speech_encoder} has "
            f"{counted(encoder.depth, 'layer')}; use 0 to {encoder.depth}, or freeze_speech_encoder: true"
        )
    if params.freeze_speech_encoder:
        encoder.requires_grad_(False)
        return
    last = 2 + params.freeze_layers if params.freeze_layers else int(params.freeze_cnn)
    for stage in range(1, last + 1):
        for module in encoder.stage_modules(stage).values():
            module.requires_grad_(False)


@contextlib.contextmanager
def seeded(*parts: int | str) -> Iterator[None]:
    """Draw from torch's CPU generator as if freshly seeded by an address, and put its state back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(address(*parts))
        yield


def _load(name: str, revision: str | None, seed: int) -> tuple[Any, Normalisation, str | None]:
    """A transformers model, its normalisation where stated, and its commit where known."""
    with seeded("encoder", seed), _quiet_transformers():
        if name.startswith(UNTRAINED):
            return random_encoder(name), Normalisation(None, "random"), None
        path = Path(name).expanduser()
        if path.is_dir():
            return (*load_folder(path, name), None)
        if path.suffix == ".pt":
            return (*load_microsoft(path), None)
        if not _HUB_ID.fullmatch(name):
            raise UserError(
                f"model.params.speech_encoder is {name}, but there is no folder {path.absolute()}; name a folder in "
                "hub layout, or a hub id such as microsoft/wavlm-large"
            )
        folder, commit = _download(name, revision)
        return (*load_folder(folder, name), commit)


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
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


def random_encoder(name: str) -> Any:
    """WavLM with random weights: random:tiny (large's layout), random:tiny-base, random:base, random:large."""
    from transformers import WavLMConfig, WavLMModel

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
    large: dict[str, Any] = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
    match name:
        case "random:tiny":
            return WavLMModel(WavLMConfig(**tiny, **large))
        case "random:tiny-base":
            return WavLMModel(WavLMConfig(**tiny))
        case "random:base":
            return WavLMModel(WavLMConfig())
        case "random:large":
            size: dict[str, Any] = {
                "hidden_size": 1024,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
                "intermediate_size": 4096,
            }
            return WavLMModel(WavLMConfig(**size, **large))
    raise UserError(
        f"model.params.speech_encoder is {name}, but random weights come as random:tiny, random:tiny-base, "
        "random:base and random:large; use one of these, a hub id or a folder"
    )


def load_folder(folder: Path, name: str) -> tuple[Any, Normalisation]:
    """A model and its normalisation from a folder in hub layout.

    Raises:
        UserError: a file that is missing or unreadable, an unsupported architecture, weights that don't fit.
    """
    settings = checked(read_json(folder / "config.json"), str(folder / "config.json"))
    stated = normalisation(folder)
    return _built(settings, read_weights(folder, name), name), stated


def load_microsoft(path: Path) -> tuple[Any, Normalisation]:
    """A model and its normalisation from WavLM's original file, for example WavLM-Large.pt; no code in it is run.

    Raises:
        UserError: a file that is missing, unreadable or something else.
    """
    refuse_lfs_pointer(path)
    try:
        content = load_pickle(path)
        cfg, tensors = completed(content["cfg"]), renamed(content["model"])
        stated = {"model_type": "wavlm", **configuration(cfg)}
    except MemoryError:
        raise
    except Exception as error:  # a hostile file makes its readers raise whatever they can
        raise UserError(
            f"{path} can't be read as a WavLM checkpoint: {error_line(error)}; model.params.speech_encoder takes "
            "Microsoft's own WavLM-*.pt, a folder in hub layout or a hub id"
        ) from error
    return _built(checked(stated, str(path)), tensors, str(path)), Normalisation(bool(cfg["normalize"]), "cfg")


def _built(settings: Mapping[str, Any], tensors: Mapping[str, Tensor], name: str) -> Any:
    """A transformers model with these settings and weights, once the two are known to belong together.

    Raises:
        UserError: they don't, or the weights aren't finite.
    """
    config = configured(settings, name)
    bare = skeleton(config, name)
    wanted = {key: tuple(tensor.shape) for key, tensor in bare.state_dict().items()}
    found = {plain_name(key, config.model_type): tensor for key, tensor in tensors.items()}
    present = {key: tensor for key, tensor in found.items() if key in wanted}
    wrong = [key for key, one in present.items() if tuple(one.shape) != wanted[key] or not one.is_floating_point()]
    check_complete(wanted.keys() - present.keys(), wrong, name)
    _refuse_left_over(found.keys() - wanted.keys(), config, name)
    finite_or_complain(present, name)
    hf, report = type(bare).from_pretrained(
        None, config=config, state_dict=present, dtype=torch.float32, output_loading_info=True
    )
    check_complete(report["missing_keys"], [key for key, *_ in report["mismatched_keys"]], name)
    for tensor in hf.state_dict(keep_vars=True).values():
        tensor.data = tensor.data.clone()  # from views of the file to memory of its own: see tensors.read_tensors
    return hf


def plain_name(name: str, model_type: str) -> str:
    """A tensor's name in the bare encoder: without the model around it, and with torch's present name of a weight norm.

    >>> plain_name("wavlm.encoder.pos_conv_embed.conv.weight_g", "wavlm")
    'encoder.pos_conv_embed.conv.parametrizations.weight.original0'
    """
    bare = name.removeprefix(f"{model_type}.")
    for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
        if bare.endswith(f".{old}"):
            bare = f"{bare.removesuffix(old)}parametrizations.weight.{new}"
    return bare


def check_complete(missing: Iterable[str], mismatched: Iterable[str], name: str) -> None:
    """Raise UserError where weights of the encoder were not in the file and stayed random."""
    random = sorted({*(key for key in missing if not key.endswith(_HARMLESS)), *mismatched})
    if random:
        raise UserError(
            f"{name} lacks weights that its configuration promises ({listed(random)}), and training would start from "
            "random numbers there; the file is incomplete or of another architecture: fetch it again"
        )


def _refuse_left_over(unused: Iterable[str], config: Any, name: str) -> None:
    """Raise UserError where layers of the encoder itself would be left out; heads for other tasks may be."""
    left = sorted(key for key in unused if _LAYER.match(key))
    if left:
        raise UserError(
            f"{name} holds weights that its configuration leaves out ({listed(left)}): it states num_hidden_layers: "
            f"{config.num_hidden_layers} and {counted(len(config.conv_dim), 'layer')} of the CNN (conv_dim), and the "
            "encoder would be another than the one that was trained; fetch config.json and weights again, together"
        )


def _download(name: str, revision: str | None) -> tuple[Path, str]:
    """Snapshot folder and commit of a hub id, from the local cache where it is there."""
    from huggingface_hub import snapshot_download

    texts = ["config.json", "preprocessor_config.json", "processor_config.json"]
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=[*texts, "model*.safetensors*"]))
        if not any(folder.glob("model*.safetensors")):
            folder = Path(snapshot_download(name, revision=revision, allow_patterns=[*texts, "pytorch_model*.bin*"]))
    except Exception as error:  # of a kind that changes with the hub client's HTTP library
        at = "" if revision is None else f" at revision {revision}"
        raise UserError(
            f"the weights of {name}{at} can't be had ({type(error).__name__}), neither from a folder of that name nor "
            "from the hub or its local cache; on a machine with a network run `hf download "
            f"{name} --local-dir DIR` and set model.params.speech_encoder to DIR, or set HF_ENDPOINT to a mirror"
        ) from error
    return folder, folder.name
