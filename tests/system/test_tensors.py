"""Tensors as safetensors: another reader reads the same, and nothing is read that wasn't asked for."""

import struct
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from serfit.errors import UserError
from serfit.system.tensors import MOST_HEADER_BYTES, read_tensors, write_tensors

TENSORS = {
    "matrix": torch.randn(7, 3),
    "turned": torch.randn(3, 5).T,
    "scalar": torch.tensor(2.5, dtype=torch.float64),
    "none": torch.zeros(0, 4),
    "whole": torch.arange(5),
    "half": torch.randn(9).half(),
    "brain": torch.randn(9).bfloat16(),
    "flags": torch.tensor([True, False]),
}


def test_another_reader_reads_the_same(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    size = write_tensors(path, TENSORS, {"note": 'a "quoted" é'})
    assert path.stat().st_size == size
    theirs = load_file(path)
    ours, metadata = read_tensors(path)
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == metadata == {"note": 'a "quoted" é'}
    assert theirs.keys() == ours.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        for found in (theirs[name], ours[name]):
            assert found.dtype == tensor.dtype
            assert torch.equal(found, tensor)


def test_equal_tensors_give_equal_bytes(tmp_path: Path) -> None:
    for name, tensors in (("a", TENSORS), ("b", dict(reversed(TENSORS.items())))):
        write_tensors(tmp_path / name, tensors, {"x": "y"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_shapes_are_seen_before_tensors_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"x": torch.zeros(5, 2)}, {"a": "b"})
    seen = []

    def fits(shapes: object, metadata: object) -> bool:
        seen.append((shapes, metadata))
        return False

    with pytest.raises(UserError, match="something else than what is wanted"):
        read_tensors(path, fits)
    assert seen == [({"x": (5, 2)}, {"a": "b"})]


@pytest.mark.parametrize("content", [b"", b"short", struct.pack("<Q", MOST_HEADER_BYTES + 1) + b"{}"])
def test_what_is_no_header_is_not_parsed(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match="it doesn't begin with a header"):
        read_tensors(path)
    with pytest.raises(UserError, match="missing, torn or of another kind"):
        read_tensors(tmp_path / "nothing")
    with pytest.raises(UserError, match="not a plain file"):
        read_tensors(tmp_path)


def test_what_was_read_lies_in_memory_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, TENSORS, {})
    read, _ = read_tensors(path)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.write(b"\0" * size)
    for name, tensor in TENSORS.items():
        assert torch.equal(read[name], tensor)
        assert read[name].data_ptr() % 64 == 0  # where torch's allocator puts tensors, and rounding is reproducible
