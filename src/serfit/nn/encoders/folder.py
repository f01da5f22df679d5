"""An encoder's folder in hub layout, looked at with suspicion: its JSON, its weights, and nothing outside of it.

Anybody may have written these files. They are parsed as data, and nothing is built from them here.
"""

import json
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from serfit.errors import UserError, error_line
from serfit.labels import SAMPLE_RATE
from serfit.system.files import refuse_lfs_pointer

LAYOUT = "layout"
"""Stands for the file where none states it: encoders with layer norms in their CNN were trained on normalised audio."""

MOST_JSON_BYTES = 4 * 1024**2
"""Longest JSON file that is parsed; a list of shards needs some hundred kilobytes."""


def shown(value: Any) -> str:
    """A value from somebody's file, shortened for a message."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


@dataclass(frozen=True, slots=True)
class Normalisation:
    """Whether an encoder wants its waveforms at zero mean and unit variance.

    Attributes:
        normalise: the decision; None where nothing states it.
        stated_by: the file that states it, or what was taken in its place.
        about: what that file states of the encoder's input: spectra too have their settings there.
    """

    normalise: bool | None
    stated_by: str
    about: Mapping[str, Any] = field(default_factory=dict)

    def check_spectra(self, name: str, taken: Mapping[str, Any], whose: str) -> None:
        """Refuse a file that states other spectra than an encoder takes.

        Args:
            name: of the encoder, for messages.
            taken: what it takes, by key.
            whose: what decides that, in words: "this encoder takes".

        Raises:
            UserError: naming the key.
        """
        for key, value in taken.items():
            if self.about.get(key, value) != value:
                raise UserError(
                    f"{self.stated_by} of {name} states {key}: {shown(self.about[key])}, and {whose} "
                    f"{value}; fetch it and config.json again, together"
                )


_HUB_LAYOUT = "the folder must hold config.json and model.safetensors (or pytorch_model.bin), as on the hub"


def read_json(path: Path, remedy: str = _HUB_LAYOUT) -> dict[str, Any]:
    """A JSON object from a file of an encoder.

    Args:
        path: the file.
        remedy: the end of the message where it can't be read.

    Raises:
        UserError: the file is no plain file within reach, too long, a Git LFS pointer, or no JSON object.
    """
    try:
        if not path.is_file():
            raise ValueError("there is no such file")
        refuse_lfs_pointer(path)
        if path.stat().st_size > MOST_JSON_BYTES:
            raise ValueError(f"it has more than {MOST_JSON_BYTES:,} bytes")
        found = json.loads(_inside(path).read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it is something else")
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is missing or no JSON object ({error_line(error)}); {remedy}") from error
    return found


def normalisation(folder: Path) -> Normalisation:
    """The folder's statements about the audio that the encoder was trained on.

    transformers writes preprocessor_config.json, or since version 5 the same under "feature_extractor" in
    processor_config.json.

    Raises:
        UserError: a file that can't be read, a value that is none, another sampling rate, or two that contradict.
    """
    stated: dict[str, bool] = {}
    found: list[Normalisation] = []
    for file, section in (("preprocessor_config.json", None), ("processor_config.json", "feature_extractor")):
        path = folder / file
        if not path.exists():
            continue
        content = read_json(
            path,
            "it decides whether waveforms are normalised; fetch it again, or remove it to take what the encoder's "
            "layout suggests",
        )
        about = content if section is None else content.get(section)
        if not isinstance(about, Mapping):
            continue
        rate, decision = about.get("sampling_rate"), about.get("do_normalize")
        if rate is not None and rate != SAMPLE_RATE:
            raise UserError(
                f"{path} states a sampling_rate of {json.dumps(rate)[:40]}, and serfit gives encoders audio at "
                f"{SAMPLE_RATE} Hz; use an encoder that was trained on audio at {SAMPLE_RATE} Hz"
            )
        if isinstance(decision, bool):
            stated[file] = decision
        elif decision is not None:
            raise UserError(
                f"{path} states do_normalize: {json.dumps(decision)[:40]}, and it decides whether waveforms are "
                "normalised; write true or false, without quotation marks"
            )
        if decision is not None or about.get("feature_size") not in (None, 1):  # the latter of spectra
            found.append(Normalisation(decision, file, about))
    if len(set(stated.values())) > 1:
        raise UserError(
            f"{' and '.join(stated)} in {folder} contradict each other about do_normalize; keep the one that the "
            "encoder was trained with"
        )
    return found[0] if found else Normalisation(None, LAYOUT)


def read_weights(folder: Path, name: str) -> dict[str, Tensor]:
    """All tensors of a folder by the names that its files give them: safetensors before pickles, one file or shards.

    Raises:
        UserError: there are none, a file can't be read, or the list of shards names something outside the folder.
    """
    for single, kind in (("model.safetensors", "safetensors"), ("pytorch_model.bin", "bin")):
        index = folder / f"{single}.index.json"
        if (folder / single).exists():
            return read_tensors(folder / single, name)
        if index.exists():
            found: dict[str, Tensor] = {}
            for shard, listed in _shards(index, kind).items():
                found |= {key: tensor for key, tensor in read_tensors(shard, name).items() if key in listed}
            return found
    raise UserError(
        f"{name} holds no weights: neither model.safetensors nor pytorch_model.bin is in {folder}; "
        f"fetch them with `hf download OWNER/NAME --local-dir {folder}`"
    )


def read_tensors(path: Path, name: str) -> dict[str, Tensor]:
    """The tensors of one file. Raises UserError where it is anything else; nothing in it is run."""
    refuse_lfs_pointer(path)
    try:
        if path.suffix == ".safetensors":
            with safe_open(_inside(path), framework="pt") as file:
                return {key: file.get_tensor(key) for key in list(file.keys())}
        found = load_pickle(_inside(path))
        if not isinstance(found, dict) or not all(isinstance(tensor, Tensor) for tensor in found.values()):
            raise ValueError(f"{path.name} holds something else than named tensors")
    except (MemoryError, UserError):
        raise
    except Exception as error:  # a hostile file makes its readers raise whatever they can
        raise UserError(
            f"the weights of {name} can't be read: {path.name}: {error_line(error)}; fetch them again"
        ) from error
    return {str(key): tensor for key, tensor in found.items()}


def load_pickle(path: Path) -> Any:
    """Load a file that torch saved, tensors and plain data only. Raises whatever torch and Python's readers raise."""
    if path.stat().st_size == 0:
        raise ValueError("it is empty")
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (pickle.UnpicklingError, EOFError, LookupError) as error:  # torch's own words advise to run what is inside
        raise ValueError("it is cut off, or no file of tensors and plain data alone; nothing in it was run") from error


def _shards(index: Path, kind: str) -> dict[Path, set[str]]:
    """The names of the tensors that each file holds, by a list of shards."""
    listed = read_json(index).get("weight_map")
    held: dict[Path, set[str]] = {}
    for key, file in listed.items() if isinstance(listed, dict) else ():
        if not isinstance(file, str) or Path(file).name != file or not file.endswith(f".{kind}"):
            raise UserError(
                f"{index} names the file {file!r}, and weights must be *.{kind} files in the same folder; fetch the "
                "encoder again from a place that you trust"
            )
        held.setdefault(index.parent / file, set()).add(key)
    if not held:
        raise UserError(f"{index} names no files of weights; fetch the encoder again")
    return held


def _inside(path: Path) -> Path:
    """A file of a folder where it really lies: in the folder, or in the hub's cache, whose snapshots are links.

    Raises:
        UserError: it is a link to something else.
    """
    real, folder = path.resolve(strict=True), path.parent.resolve()
    in_cache = real.parent.name == "blobs" and real.parent.parent.name.startswith("models--")
    if not (real.is_relative_to(folder) or in_cache):
        raise UserError(
            f"{path} is a link to {real}, outside its folder; copy the file into the folder, or name the folder where "
            "it is"
        )
    return real
