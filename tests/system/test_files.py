import os
import stat
import time
from pathlib import Path
from typing import IO

import pytest

from serfit.errors import UserError
from serfit.system.files import (
    WriteError,
    link,
    refuse_lfs_pointer,
    sweep,
    write_atomically,
    write_bytes,
    write_json,
    write_text,
)


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path: Path) -> None:
    target = tmp_path / "record.json"
    write_text(target, "old")

    def fail(file: IO[bytes]) -> None:
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"can't write .*record\.json: No space left on device"):
        write_atomically(target, fail)
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["record.json"]


def test_a_second_name_takes_no_room_and_outlives_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    write_bytes(one, b"first")
    write_bytes(other, b"before")
    for _ in range(2):  # the second time both names are of one file
        assert link(one, other)
        assert one.samefile(other)
        assert sorted(os.listdir(tmp_path)) == ["one", "other"]
    write_bytes(one, b"second")
    assert other.read_bytes() == b"first"

    def unable(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", unable)
    assert not link(one, other)
    assert other.read_bytes() == b"first"
    assert sorted(os.listdir(tmp_path)) == ["one", "other"]


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "x.json", {"ccc": float("nan")})
    assert not list(tmp_path.iterdir())


def test_the_message_names_path_bytes_and_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(WriteError, match=r"can't write .*x\.bin \(1,234 bytes\): Input/output error \([\d,]+ bytes"):
        write_bytes(tmp_path / "x.bin", b"a" * 1234)
    assert not list(tmp_path.iterdir())
    write_bytes(tmp_path / "x.bin", b"a", durable=False)
    assert (tmp_path / "x.bin").read_bytes() == b"a"


def test_a_folder_that_fails_to_flush_is_told_and_one_that_cannot_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync
    for code, fails in ((22, False), (5, True)):

        def flush(descriptor: int, code: int = code) -> None:
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                raise OSError(code, "x")
            real(descriptor)

        monkeypatch.setattr(os, "fsync", flush)
        if fails:
            with pytest.raises(WriteError):
                write_text(tmp_path / "a", "x")
        else:
            write_text(tmp_path / "a", "x")


def test_leftovers_are_swept_by_age(tmp_path: Path) -> None:
    for name, age in ((".a.1-x.tmp", 10.0), (".b.1-x.tmp", 0.0)):
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, (time.time() - age, time.time() - age))
    (tmp_path / "kept.tmp").write_bytes(b"")
    assert sweep(tmp_path, older_than=5.0) == 1
    assert sweep(tmp_path) == 1
    assert sweep(tmp_path / "nowhere") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["kept.tmp"]


POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'4d7a2146' * 8}\nsize 12345\n"
"""As the specification of Git LFS shows it."""


def test_a_git_lfs_pointer_is_named_and_says_what_to_do(tmp_path: Path) -> None:
    from serfit.inference.onnx import open_onnx
    from serfit.system.tensors import read_tensors

    for name, read in (
        ("any.wav", refuse_lfs_pointer),
        ("model.safetensors", read_tensors),
        ("model.onnx", lambda path: open_onnx(path, None)),  # type: ignore[arg-type]
    ):
        (tmp_path / name).write_text(POINTER)
        with pytest.raises(UserError, match=rf"{name} is a Git LFS pointer.*`git lfs pull`"):
            read(tmp_path / name)
    (tmp_path / "other").write_text("version 1")
    refuse_lfs_pointer(tmp_path / "other")
    refuse_lfs_pointer(tmp_path / "none")
