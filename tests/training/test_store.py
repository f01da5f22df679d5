import os
import threading
from pathlib import Path

import pytest
import torch

from serfit.errors import UserError
from serfit.system.lease import Holder, claimed
from serfit.training.store import FeatureStore, clear_store, store_contents


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


def test_a_reader_computes_once_and_touches_once(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    feature, computed = torch.randn(3, 2), []

    def compute() -> torch.Tensor:
        computed.append(1)
        return feature

    for _ in range(3):
        assert torch.equal(store.get_or_compute("ab12", compute), feature)
    assert computed == [1]
    path = store.folder / "ab" / "ab12.safetensors"
    os.utime(path, (1.0, 1.0))
    touched, real = [], os.utime
    monkeypatch.setattr(os, "utime", lambda *given, **named: touched.append(given) or real(*given, **named))
    again = FeatureStore(store.folder, torch.float32)
    for _ in range(3):
        assert again.get("ab12") is not None
    assert touched == [(path,)]
    assert path.stat().st_atime > 1.0
    assert path.stat().st_mtime == 1.0


def test_what_another_process_works_on_comes_last_and_is_waited_for(store: FeatureStore) -> None:
    (store.folder / "ab").mkdir()
    order, computed = [], []
    with claimed(store.folder / "ab" / "ab1.claim") as ours:
        assert ours
        wanted = [(1, "ab1"), (2, "ab2"), (3, "ab3")]
        filling = store.fill(wanted, lambda item: computed.append(item) or torch.tensor([float(item)]))
        order += [next(filling), next(filling)]
        store.put("ab1", torch.tensor([1.0]))
    order += list(filling)
    assert order == [2, 3, 1]
    assert computed == [2, 3]
    assert not list(store.folder.rglob("*.claim"))


def test_the_work_of_a_dead_process_is_taken_over(store: FeatureStore) -> None:
    (store.folder / "ab").mkdir()
    (store.folder / "ab" / "ab1.claim").write_bytes(Holder(Holder.me().host, 2**22 + 1).to_bytes())
    assert list(store.fill([(1, "ab1")], lambda item: torch.ones(1))) == [1]
    (store.folder / "ab" / "ab2.claim").write_bytes(Holder(Holder.me().host, 2**22 + 1).to_bytes())
    assert torch.equal(store.get_or_compute("ab2", lambda: torch.ones(1)), torch.ones(1))


def test_the_least_recently_used_go_first_but_never_ones_own(tmp_path: Path) -> None:
    root = tmp_path / "store"
    old = FeatureStore(root / "old", torch.float32)
    old.describe({})
    for number in range(8):
        old.put(f"aa{number}", torch.zeros(1000))
        os.utime(root / "old" / "aa" / f"aa{number}.safetensors", (1000.0 + number, 1000.0 + number))
    size = store_contents(root)[0].size // 8
    store = FeatureStore(root / "new", torch.float32, max_bytes=10 * size)
    store.describe({})
    for number in range(6):
        store.put(f"bb{number}", torch.ones(1000))
    assert all(f"bb{number}" in store for number in range(6))
    left = [number for number in range(8) if f"aa{number}" in old]
    assert left == list(range(8 - len(left), 8))
    assert 1 <= len(left) <= 4
    assert sum(content.size for content in store_contents(root)) <= 10 * size
    assert store_contents(root)[0].used > 1e9
    with pytest.raises(UserError, match=r"this experiment alone needs about .*features\.max_gb allows"):
        store.check_room(8 * size, 2.0)
    store.check_room(8 * size, 1.0)


def test_what_is_not_finite_is_never_stored(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, torch.float16)
    with pytest.raises(UserError, match=r"reaches 1e\+05, which isn't finite in torch\.float16; set features\.dtype"):
        store.put("ab12", torch.tensor([1e5]))
    assert "ab12" not in store


def test_old_leftovers_are_swept_and_fresh_ones_spared(store: FeatureStore) -> None:
    (store.folder / "ab").mkdir()
    for name in (".x.1-a.tmp", "ab1.claim"):
        (store.folder / "ab" / name).write_bytes(b"")
        (store.folder / "ab" / f".new{name}.tmp").write_bytes(b"")
        os.utime(store.folder / "ab" / name, (1.0, 1.0))
    store.describe({})
    assert sorted(path.name for path in (store.folder / "ab").iterdir()) == [".new.x.1-a.tmp.tmp", ".newab1.claim.tmp"]


def test_a_store_is_the_users_alone(tmp_path: Path) -> None:
    folder = tmp_path / "shared" / "store"
    FeatureStore(folder / "prefix", torch.float32).describe({})
    assert folder.stat().st_mode & 0o777 == 0o700


def owned_by(path: Path, uid: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a path belong to somebody, for whoever runs the tests."""
    lstat = Path.lstat

    def answer(asked: Path) -> os.stat_result:
        found = list(lstat(asked))
        found[4] = uid if asked == path else found[4]
        return os.stat_result(found)

    monkeypatch.setattr(Path, "lstat", answer)


@pytest.mark.parametrize("kind", ["folder", "link", "link's target", "folder above"])
def test_a_store_that_another_user_put_where_anybody_may_is_refused_and_left_alone(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In /tmp anybody may be there first, and would choose what a model is trained on."""
    shared = tmp_path / "shared"
    folder = shared / "above" / "store" if kind == "folder above" else shared / "store"
    FeatureStore(folder / "prefix", torch.float32).describe({})
    shared.chmod(0o1777)
    named, theirs = folder, folder.parent if kind == "folder above" else folder
    if kind.startswith("link"):
        named = (shared if kind == "link" else tmp_path) / "link"
        named.symlink_to(folder)
        theirs = named if kind == "link" else folder
    owned_by(theirs, 54321, monkeypatch)
    with pytest.raises(UserError, match=rf"store {named} belongs to another user \(uid 54321\).*features.store="):
        FeatureStore(named / "other", torch.float32).describe({})
    with pytest.raises(UserError, match="belongs to another user"):
        clear_store(named)
    assert [path.name for path in folder.iterdir()] == ["prefix"]


@pytest.mark.parametrize("kind", ["a mount", "root's", "where not anybody may write"])
def test_stores_that_nobody_else_can_have_put_there_are_taken(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As containers and network file systems show them, which map users."""
    folder = tmp_path / "shared" / "store"
    folder.mkdir(parents=True)
    if kind != "where not anybody may write":
        folder.parent.chmod(0o1777)
    if kind == "a mount":
        monkeypatch.setattr(Path, "is_mount", lambda path: path == folder or path == Path("/"))
    owned_by(folder, 0 if kind == "root's" else 54321, monkeypatch)
    FeatureStore(folder / "prefix", torch.float32).describe({})
    clear_store(folder)
    assert not list(folder.iterdir())
