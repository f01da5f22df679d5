"""The content-keyed store of frozen features: one safetensors file per utterance.

    <store>/<prefix key>/about.json                  what the features are: encoder, stage, precision
    <store>/<prefix key>/<aa>/<audio key>.safetensors

The prefix key hashes everything that computes a feature, the audio key everything it is computed from
(`serfit.features` makes both), so a stale or foreign hit can't happen. Entries are written under a temporary
name and renamed; an entry that can't be read back whole counts as missing and is computed again.
"""

import json
import shutil
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from serfit.files import write_bytes, write_json


@dataclass(frozen=True, slots=True)
class FeatureStore:
    """The features of one frozen prefix.

    Attributes:
        folder: `<store>/<prefix key>`.
        dtype: precision on disk; features come back as float32.
    """

    folder: Path
    dtype: torch.dtype

    def describe(self, about: dict[str, Any]) -> None:
        """Create the folder and say, for `serfit cache`, what its entries are."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "about.json").is_file():
            write_json(self.folder / "about.json", about)

    def __contains__(self, key: str) -> bool:
        """Whether an entry is there (it may still turn out unreadable)."""
        return self._path(key).is_file()

    def get(self, key: str) -> torch.Tensor | None:
        """The stored feature as float32, or None where it is missing or damaged."""
        try:
            with safe_open(self._path(key), framework="pt") as file:
                checksum = (file.metadata() or {}).get("crc32")
                feature: torch.Tensor = file.get_tensor("feature")
        except (OSError, SafetensorError):
            return None
        return feature.float() if checksum == _checksum(feature) else None

    def put(self, key: str, feature: torch.Tensor) -> torch.Tensor:
        """Store a feature and return it as `get` will."""
        stored = feature.detach().cpu().to(self.dtype).contiguous()
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, save({"feature": stored}, metadata={"crc32": _checksum(stored)}))
        return stored.float()

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"


def _checksum(tensor: torch.Tensor) -> str:
    return f"{zlib.crc32(tensor.contiguous().view(torch.uint8).numpy().data):08x}"


@dataclass(frozen=True, slots=True)
class StoreContent:
    """What one folder of the store holds.

    Attributes:
        folder: `<store>/<prefix key>`.
        about: encoder, stage and precision as written by `FeatureStore.describe`.
        entries: number of utterances.
        size: bytes on disk.
    """

    folder: Path
    about: dict[str, Any]
    entries: int
    size: int


def store_contents(store: Path) -> list[StoreContent]:
    """Everything in a store, by folder name; empty where there is no store yet."""
    contents = []
    for about in sorted(store.glob("*/about.json")):
        sizes = [entry.stat().st_size for entry in about.parent.glob("*/*.safetensors")]
        contents.append(StoreContent(about.parent, json.loads(about.read_text()), len(sizes), sum(sizes)))
    return contents


def clear_store(store: Path) -> int:
    """Remove all features from a store (nothing else in that folder); returns the bytes freed."""
    contents = store_contents(store)
    for content in contents:
        shutil.rmtree(content.folder)
    return sum(content.size for content in contents)
