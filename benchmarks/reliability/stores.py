"""R13: several processes on one cold store, some of them killed."""

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import torch
from common import Place, Timer, ended, forked

from serfit.training.store import FeatureStore

ENTRIES = 40


def _feature(number: int) -> torch.Tensor:
    return torch.randn(200, 16, generator=torch.Generator().manual_seed(number))


def _key(number: int) -> str:
    return f"{number * 2654435761 % 2**32:08x}"


def _open(folder: Path) -> FeatureStore:
    store = FeatureStore(folder / "prefix", torch.float32)
    store.describe({"stage_name": "x"})
    return store


def _fill(folder: Path, note: Path) -> None:
    def compute(number: int) -> torch.Tensor:
        with note.open("a") as file:
            file.write(f"{number}\n")
        time.sleep(0.002)
        return _feature(number)

    list(_open(folder).fill([(number, _key(number)) for number in range(ENTRIES)], compute))


def _read(folder: Path, seed: str, count: int) -> None:
    """Read at random; exit code 1 at the first entry that isn't what it should be."""
    store, draw, wanted = _open(folder), random.Random(seed), [_feature(number) for number in range(ENTRIES)]
    done = 0
    while done < count:
        number = draw.randrange(ENTRIES)
        found = store.get(_key(number))
        if found is not None:
            assert torch.equal(found, wanted[number]), f"entry {number} is torn"
            done += 1


def r13(index: Place, scale: int) -> Timer:
    """Without kills each feature is computed once; with kills nothing torn is ever read and everything gets there."""
    timer = Timer("R13")
    folder = index.fresh("store")
    notes = folder / "computed"
    children = [forked(lambda: _fill(folder, notes)) for _ in range(4)]
    codes = [ended(child) for child in children]
    counts = Counter(notes.read_text().split())
    timer.case("four processes fill a cold store", codes == [0] * 4, f"exit codes {codes}")
    once = set(counts.values()) == {1} and len(counts) == ENTRIES
    timer.case("each feature is computed once", once, f"{counts.most_common(3)}")
    draw, kills, reads = random.Random(f"{index.seed} store"), 0, 0
    wanted = 2_000 if scale == 1 else 20_000
    while reads < wanted:
        batch = min(1_000, wanted - reads)
        kills += _read_beside_killed_writers(index, timer, draw, f"{index.seed} {reads}", batch)
        reads += batch
    timer.notes.append(f"{reads:,} reads beside four writers of which {kills} were killed")
    return timer


def _read_beside_killed_writers(index: Place, timer: Timer, draw: random.Random, seed: str, reads: int) -> int:
    """Two readers beside four writers of which three are killed; returns the number of kills."""
    folder = index.fresh("store")
    _open(folder)
    readers = [forked(lambda n=n: _read(folder, f"{seed} {n}", reads // 2)) for n in range(2)]
    writers = [forked(lambda: _fill(folder, folder / "computed")) for _ in range(4)]
    for writer in writers[:3]:
        time.sleep(draw.uniform(0.0, 0.04))
        os.kill(writer, signal.SIGKILL)
    codes = [ended(child) for child in (*readers, *writers)]
    left = [code for code in codes if code not in (0, -signal.SIGKILL)]
    store = _open(folder)
    entries = [store.get(_key(number)) for number in range(ENTRIES)]
    equal = all(got is not None and torch.equal(got, _feature(n)) for n, got in enumerate(entries))
    timer.case(f"{reads} reads, {seed}", not left and equal, f"exit codes {codes}, all there {equal}")
    return codes.count(-signal.SIGKILL)
