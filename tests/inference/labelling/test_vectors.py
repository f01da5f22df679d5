"""Vectors come back from disk as they were, from npz and from Parquet alike."""

import io
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from extras import need
from serfit.errors import UserError
from serfit.inference.labelling import vectors
from serfit.inference.labelling.vectors import Stretch, form_of, write_vectors

WIDTH = 5
STRETCHES = [
    ("a.wav", None, 0.0, 1.25),
    (os.fsdecode(b"\xfc.wav"), None, 0.5, None),
    *(("größe/b.wav", None, number / 3, number / 3 + 1) for number in range(20)),
]


def some_vectors(count: int) -> np.ndarray:
    """Any bits at all, among them NaN, infinities and numbers next to zero."""
    bits = np.random.default_rng(2).integers(0, 2**32, (count, WIDTH), dtype=np.uint32)
    found = bits.view(np.float32)
    found[1] = np.nan
    return found


def written(form: str, about: list[tuple[object, ...]], found: np.ndarray) -> bytes:
    file = io.BytesIO()
    stretches = (Stretch(*one, vector) for one, vector in zip(about, found, strict=True))  # type: ignore[arg-type]
    write_vectors(file, form, stretches, found.shape)  # type: ignore[arg-type]
    return file.getvalue()


def test_an_npz_is_the_bytes_that_numpy_writes() -> None:
    found, wanted = some_vectors(len(STRETCHES)), io.BytesIO()
    names, _, starts, ends = zip(*STRETCHES, strict=True)
    seconds = {"start": np.array(starts), "end": np.array(ends, dtype=np.float64)}
    np.savez(wanted, embeddings=found, files=np.array(names), **seconds)
    assert written("npz", STRETCHES, found) == wanted.getvalue()


@pytest.mark.parametrize("group_bytes", [1, 3 * 4 * WIDTH, 2**24])
def test_a_parquet_table_holds_what_the_npz_does(monkeypatch: pytest.MonkeyPatch, group_bytes: int) -> None:
    pyarrow, parquet = need("parquet", "pyarrow"), need("parquet", "pyarrow.parquet")
    monkeypatch.setattr(vectors, "GROUP_BYTES", group_bytes)
    found = some_vectors(len(STRETCHES))
    arrays = np.load(io.BytesIO(written("npz", STRETCHES, found)))
    data = written("parquet", STRETCHES, found)
    assert data == written("parquet", STRETCHES, found), "the same bytes"
    table = parquet.read_table(io.BytesIO(data))
    assert table.column_names == ["file", "start", "end", "embedding"]
    assert table.schema.field("embedding").type == pyarrow.list_(pyarrow.float32(), WIDTH)
    assert parquet.ParquetFile(io.BytesIO(data)).num_row_groups == {1: 22, 60: 8, 2**24: 1}[group_bytes]
    flat = table["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, WIDTH)
    np.testing.assert_array_equal(flat.view(np.uint32), arrays["embeddings"].view(np.uint32))
    np.testing.assert_array_equal(arrays["embeddings"].view(np.uint32), found.view(np.uint32))
    for name in ("start", "end"):
        np.testing.assert_array_equal(table[name].to_numpy(), arrays[name])
    assert table["end"].null_count == 1
    names = [name.encode("utf-8", "backslashreplace").decode() for name in arrays["files"].tolist()]
    assert table["file"].to_pylist() == names
    assert names[1] == "\\udcfc.wav"


@pytest.mark.extra("parquet")
def test_a_table_for_pandas_is_named_so() -> None:
    assert form_of(Path("c.parquet")) == "parquet"


def test_ids_of_a_manifest_are_a_column() -> None:
    parquet = need("parquet", "pyarrow.parquet")
    told = [("a.wav", "one", 0.0, 1.0), ("a.wav", "", 1.0, 2.0)]
    table = parquet.read_table(io.BytesIO(written("parquet", told, some_vectors(2))))
    assert table.column_names == ["file", "id", "start", "end", "embedding"]
    assert table["id"].to_pylist() == ["one", ""]


def test_the_name_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [form_of(Path(name)) for name in ("a.npz", "b.NPZ")] == ["npz", "npz"]
    with pytest.raises(UserError, match=r"--embeddings is a\.csv; its name must end in \.npz or \.parquet"):
        form_of(Path("a.csv"))
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UserError, match=r"^writing c\.parquet needs pyarrow, .* `uv sync --extra parquet`, or name"):
        form_of(Path("c.parquet"))
    assert form_of(Path("a.npz")) == "npz"
