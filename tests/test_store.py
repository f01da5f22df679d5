import threading
from pathlib import Path

import pytest
import torch

from serfit.store import FeatureStore, clear_store, store_contents


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    made = FeatureStore(tmp_path / "store" / "prefix", torch.float32)
    made.describe({"stage_name": "output of the CNN"})
    return made


def test_what_goes_in_comes_out(store: FeatureStore) -> None:
    feature = torch.randn(7, 3)
    assert store.get("ab12") is None
    assert "ab12" not in store
    assert torch.equal(store.put("ab12", feature), feature)
    assert "ab12" in store
    found = store.get("ab12")
    assert found is not None
    assert torch.equal(found, feature)


def test_half_precision_returns_the_same_from_put_and_get(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, torch.float16)
    feature = torch.randn(7, 3)
    put = store.put("ab12", feature)
    assert put.dtype == torch.float32
    assert torch.equal(put, feature.half().float())
    got = store.get("ab12")
    assert got is not None
    assert torch.equal(got, put)


@pytest.mark.parametrize("position", range(0, 400, 37))
def test_any_flipped_byte_or_cut_counts_as_missing(store: FeatureStore, position: int) -> None:
    store.put("ab12", torch.randn(50, 2))
    (path,) = store.folder.glob("*/*.safetensors")
    whole = path.read_bytes()
    path.write_bytes(whole[:position])
    assert store.get("ab12") is None
    damaged = bytearray(whole)
    damaged[len(whole) - 1 - position] ^= 0x10
    path.write_bytes(bytes(damaged))
    assert store.get("ab12") is None


def test_writers_and_readers_never_meet_half_an_entry(store: FeatureStore) -> None:
    feature = torch.arange(20_000, dtype=torch.float32)
    torn = []

    def write() -> None:
        for _ in range(15):
            store.put("ab12", feature)

    def read() -> None:
        for _ in range(60):
            found = store.get("ab12")
            if found is not None and not torch.equal(found, feature):
                torn.append(found)

    store.put("ab12", feature)
    threads = [threading.Thread(target=work) for work in (write, write, read, read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not torn
    assert not list(store.folder.rglob("*.tmp"))


def test_the_store_can_be_listed_and_cleared(store: FeatureStore) -> None:
    root = store.folder.parent
    (root / "somebody-elses.txt").write_text("kept")
    store.put("ab12", torch.zeros(3))
    store.put("cd34", torch.zeros(3))
    (content,) = store_contents(root)
    assert content.entries == 2
    assert content.about == {"stage_name": "output of the CNN"}
    assert clear_store(root) == content.size > 0
    assert store_contents(root) == []
    assert (root / "somebody-elses.txt").exists()
