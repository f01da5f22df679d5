"""The content-keyed store of frozen features: one safetensors file per utterance.

    <store>/<prefix key>/about.json                  what the features are: encoder, stage, precision
    <store>/<prefix key>/<aa>/<audio key>.safetensors
    <store>/<prefix key>/<aa>/<audio key>.claim      while a process computes it

The prefix key hashes everything that computes a feature, the audio key everything it is computed from
(`serfit.training.features` makes both), so a stale or foreign hit can't happen. Entries are written under a temporary
name and renamed; an entry that can't be read back whole counts as missing and is computed again. Processes that fill
one store at the same time share the work by claims (see `serfit.system.lease`); a claim only saves work, and what is
read is right without it.
"""

import json
import os
import shutil
import stat
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from serfit.errors import UserError
from serfit.system import files
from serfit.system.files import gigabytes, sweep, write_bytes, write_json
from serfit.system.lease import Watch, claimed

Item = TypeVar("Item")

LEFTOVER_SECONDS = 3600.0
"""Age from which temporary files and claims are no longer somebody's work in progress."""

KEPT_SHARE = 0.9
"""Share of `max_bytes` down to which the least recently used entries are removed."""


@dataclass(slots=True)
class FeatureStore:
    """The features of one frozen prefix.

    Attributes:
        folder: `<store>/<prefix key>`.
        dtype: precision on disk; features come back as float32.
        max_bytes: most bytes that all prefixes together may take; None is no limit. Entries that this process has
            read or written are never removed by it.
    """

    folder: Path
    dtype: torch.dtype
    max_bytes: int | None = None
    _used: set[str] = field(default_factory=set)
    _total: int | None = None

    def describe(self, about: dict[str, Any]) -> None:
        """Create the folder, say, for `serfit cache`, what its entries are, and sweep what killed processes left.

        Raises:
            UserError: the folder can't be created, or the store belongs to another user.
        """
        store = self.folder.parent
        try:
            store.parent.mkdir(parents=True, exist_ok=True)
            store.mkdir(mode=0o700, exist_ok=True)
            check_owner(store)
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(
                f"can't create the store {self.folder}: {error.strerror or error}; choose a folder you may write to "
                "(features.store)"
            ) from error
        if not (self.folder / "about.json").is_file():
            write_json(self.folder / "about.json", about)
        for part in (self.folder, *self.folder.glob("??")):
            sweep(part, older_than=LEFTOVER_SECONDS)
            sweep(part, older_than=LEFTOVER_SECONDS, pattern="*.claim")

    def __contains__(self, key: str) -> bool:
        """Whether an entry is there (it may still turn out unreadable)."""
        return self._path(key).is_file()

    def get(self, key: str) -> torch.Tensor | None:
        """The stored feature as float32, or None where it is missing or damaged."""
        path = self._path(key)
        try:
            with safe_open(path, framework="pt") as file:
                checksum = (file.metadata() or {}).get("crc32")
                feature: torch.Tensor = file.get_tensor("feature")
        except (OSError, SafetensorError, RuntimeError):  # RuntimeError: torch can't map what a damaged header promises
            return None
        if checksum != _checksum(feature):
            return None
        if key not in self._used:
            self._used.add(key)
            with suppress(OSError):  # a store that may only be read
                os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
        return feature.float()

    def put(self, key: str, feature: torch.Tensor) -> torch.Tensor:
        """Store a feature and return it as `get` will. Raises WriteError."""
        stored = feature.detach().cpu().to(self.dtype).contiguous()
        if not stored.isfinite().all():
            raise UserError(
                f"a frozen feature reaches {float(feature.abs().max()):.3g}, which isn't finite in {self.dtype}; set "
                "features.dtype=float32"
            )
        path = self._path(key)
        data = save({"feature": stored}, metadata={"crc32": _checksum(stored)})
        self._used.add(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise files.WriteError(f"can't create {path.parent}: {error.strerror or error}; make room there") from error
        self._make_room(len(data))
        write_bytes(path, data, durable=False)
        return stored.float()

    def get_or_compute(self, key: str, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
        """The stored feature; computed and stored where it is missing, waiting where another process computes it."""
        watch, pause = Watch(), 0.01
        while True:
            found = self.get(key)
            if found is not None:
                return found
            self._path(key).parent.mkdir(parents=True, exist_ok=True)
            with claimed(self._claim(key), watch) as ours:
                if ours:
                    found = self.get(key)
                    return self.put(key, compute()) if found is None else found
            time.sleep(pause)
            pause = min(1.0, 1.5 * pause)

    def fill(self, wanted: Iterable[tuple[Item, str]], compute: Callable[[Item], torch.Tensor]) -> Iterator[Item]:
        """Compute what is missing, sharing the work with other processes that fill the same store.

        Args:
            wanted: items with their keys.
            compute: the feature of an item.

        Yields:
            Each item when its entry is there; those that another process works on come last.
        """
        # Once through everything without waiting: what another process has claimed is left to it, and something else is
        # computed here; processes that waited at the first claimed item would compute one after another. Then what was
        # left, again and again: its entry has come, or its claim was abandoned and it is computed here.
        elsewhere: dict[str, tuple[Item, Watch]] = {}
        for item, key in wanted:
            if self._filled(item, key, compute, Watch()):
                yield item
            else:
                elsewhere[key] = item, Watch()
        while elsewhere:
            before = len(elsewhere)
            for key, (item, watch) in list(elsewhere.items()):
                if self._filled(item, key, compute, watch):
                    del elsewhere[key]
                    yield item
            if len(elsewhere) == before:
                time.sleep(0.1)

    def _filled(self, item: Item, key: str, compute: Callable[[Item], torch.Tensor], watch: Watch) -> bool:
        """Whether an entry is there, if need be computed here; False while another process works on it."""
        if key in self:
            return True
        self._path(key).parent.mkdir(parents=True, exist_ok=True)
        with claimed(self._claim(key), watch) as ours:
            if ours and key not in self:
                self.put(key, compute(item))
            return ours

    def check_room(self, missing: int, share: float) -> None:
        """Refuse to fill a store that clearly can't hold what is to come.

        Args:
            missing: bytes still to be written.
            share: how many times that one experiment needs in all.

        Raises:
            UserError: the disk or `max_bytes` is too small.
        """
        remedy = "set features.store to a larger disk, features.dtype=float16, or clear it with serfit cache clear"
        if self.max_bytes is not None and missing * share > self.max_bytes:
            raise UserError(
                f"this experiment alone needs about {gigabytes(missing * share)} of frozen features, and "
                f"features.max_gb allows {gigabytes(self.max_bytes)}; raise it, or set features.dtype=float16"
            )
        if self.max_bytes is None or missing + self._measured() <= self.max_bytes:
            files.check_room(self.folder, missing, "the frozen features that are missing", remedy)

    def _make_room(self, size: int) -> None:
        """Remove the least recently used entries where the store would outgrow `max_bytes`."""
        if self.max_bytes is None:
            return
        if self._total is None or self._total + size > self.max_bytes:
            self._total = self._measured()  # others write too
        self._total += size
        if self._total <= self.max_bytes:
            return
        for _, entry_size, path in sorted(_entries(self.folder.parent)):
            if path.parent.parent == self.folder and path.stem in self._used:
                continue
            with suppress(OSError):
                path.unlink()
                self._total -= entry_size
            if self._total <= KEPT_SHARE * self.max_bytes:
                return

    def _measured(self) -> int:
        return sum(size for _, size, _ in _entries(self.folder.parent))

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"

    def _claim(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.claim"


def _entries(store: Path) -> Iterator[tuple[float, int, Path]]:
    """Last use (seconds since the epoch), bytes and path of every entry of all prefixes."""
    for about in store.glob("*/about.json"):
        yield from _entries_of(about.parent)


def _entries_of(folder: Path) -> Iterator[tuple[float, int, Path]]:
    for path in folder.glob("??/*.safetensors"):
        with suppress(OSError):  # removed by another process just now
            about = path.stat()
            yield max(about.st_atime, about.st_mtime), about.st_size, path


def _checksum(tensor: torch.Tensor) -> str:
    return f"{zlib.crc32(tensor.contiguous().view(torch.uint8).numpy().data):08x}"


@dataclass(frozen=True, slots=True)
class StoreContent:
    """The contents of one folder of the store.

    Attributes:
        folder: `<store>/<prefix key>`.
        about: encoder, stage and precision as written by `FeatureStore.describe`.
        entries: number of utterances.
        size: bytes on disk.
        used: when an entry was last read or written, in seconds since the epoch; 0 without entries.
    """

    folder: Path
    about: dict[str, Any]
    entries: int
    size: int
    used: float = 0.0


def check_owner(store: Path) -> None:
    """Refuse a store that another user put where anybody may: in /tmp, who is first chooses what is read from it.

    Elsewhere only those can have made it who may write there anyway, and mounts are root's doing, whoever owns what is
    mounted: containers and network file systems map users. A link counts as well as what it points to.

    Raises:
        UserError: naming the owner's number and what to do.
    """
    if not hasattr(os, "getuid"):
        return
    for index in (path for one in (store.absolute(), store.resolve()) for path in (one, *one.parents)):
        if not index.parent.stat().st_mode & stat.S_IWOTH or index.is_mount():
            continue
        owner = index.lstat().st_uid
        if owner not in (os.getuid(), 0):
            raise UserError(
                f"the store {store} belongs to another user (uid {owner}), who could change what a model is trained "
                "on; name a folder of your own with features.store=FOLDER, or let its owner hand it over (chown)"
            )


def store_contents(store: Path) -> list[StoreContent]:
    """Everything in a store, by folder name; empty where there is no store yet."""
    contents = []
    for about in sorted(store.glob("*/about.json")):
        entries = list(_entries_of(about.parent))
        try:
            described = json.loads(about.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            described = {}
        size = sum(entry_size for _, entry_size, _ in entries)
        used = max((last for last, _, _ in entries), default=0.0)
        contents.append(
            StoreContent(about.parent, described if isinstance(described, dict) else {}, len(entries), size, used)
        )
    return contents


def clear_store(store: Path) -> int:
    """Remove all features from a store (nothing else in that folder); returns the bytes freed.

    Raises:
        UserError: the store belongs to another user.
    """
    contents = store_contents(store)
    if contents:
        check_owner(store)
    for content in contents:
        shutil.rmtree(content.folder)
    return sum(content.size for content in contents)
