"""Pooled vectors on disk, a row for each row of the labels: as npz, or as a Parquet table.

    npz        embeddings [N, P] float32, files [N], start [N], end [N]
    parquet    a row per stretch: file, id (where a manifest gives some), start, end, embedding (P numbers, float32)

Seconds are float64. Where there is an error the vector is NaN, and the end may be unknown: NaN in npz, null in Parquet.
"""

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Literal, NamedTuple
from zipfile import ZipFile

import numpy as np
from numpy.lib.format import write_array, write_array_header_1_0
from numpy.typing import NDArray

from serfit.errors import UserError

Form = Literal["npz", "parquet"]

GROUP_BYTES = 2**24
"""About how many bytes of vectors lie in one row group of a Parquet file, and in memory while it is written."""


class Stretch(NamedTuple):
    """The stretch that a row describes: names, and seconds.

    Attributes:
        file: name of the recording as the user gave it.
        id: what a manifest calls it; None where there are no ids.
        start: where it begins.
        end: where it ends; None where that isn't known.
        vector: [P] float32.
    """

    file: str
    id: str | None
    start: float
    end: float | None
    vector: NDArray[np.float32]


def form_of(path: Path) -> Form:
    """Choose the writer of vectors by the file's name.

    Raises:
        UserError: the name ends otherwise, or what writes the format isn't installed.
    """
    match path.suffix.lower():
        case ".npz":
            return "npz"
        case ".parquet":
            try:
                import pyarrow.parquet  # noqa: F401
            except ImportError as error:
                raise UserError(
                    f"writing {path} needs pyarrow, which isn't installed: `uv sync --extra parquet`, or name a file "
                    "that ends in .npz"
                ) from error
            return "parquet"
    raise UserError(f"--embeddings is {path}; its name must end in .npz or .parquet, which sets the format")


def write_vectors(file: IO[bytes], form: Form, stretches: Iterable[Stretch], shape: tuple[int, int]) -> None:
    """Write N stretches with their vectors, shape [N, P], one after another; the same input gives the same bytes."""
    match form:
        case "npz":
            _write_npz(file, stretches, shape)
        case "parquet":
            _write_parquet(file, stretches, shape[1])


def _write_npz(file: IO[bytes], stretches: Iterable[Stretch], shape: tuple[int, int]) -> None:
    """As numpy.savez does, which would hold all vectors in memory."""
    told = []
    with ZipFile(file, "w") as archive:
        with archive.open("embeddings.npy", "w", force_zip64=True) as entry:
            write_array_header_1_0(entry, {"descr": "<f4", "fortran_order": False, "shape": shape})
            for one in stretches:
                entry.write(one.vector.tobytes())
                told.append(one[:4])
        names, _, starts, ends = zip(*told, strict=True) if told else ((), (), (), ())
        for name, array in (
            ("files", np.array(names, dtype=np.str_)),
            ("start", np.array(starts, dtype=np.float64)),
            ("end", np.array(ends, dtype=np.float64)),  # None becomes NaN
        ):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                write_array(entry, array, allow_pickle=False)


def _write_parquet(file: IO[bytes], stretches: Iterable[Stretch], width: int) -> None:
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    told = iter(stretches)
    first = next(told, None)
    with_ids = first is not None and first.id is not None
    fields = {"file": pyarrow.string()} | ({"id": pyarrow.string()} if with_ids else {})
    fields |= {"start": pyarrow.float64(), "end": pyarrow.float64()}
    schema = pyarrow.schema(fields | {"embedding": pyarrow.list_(pyarrow.float32(), width)})
    at_once = max(1, GROUP_BYTES // (4 * width))
    with ParquetWriter(file, schema, compression="zstd", use_dictionary=["file"]) as writer:
        while first is not None:
            rows = [first, *islice(told, at_once - 1)]
            flat = pyarrow.array(np.concatenate([one.vector for one in rows]))
            columns: list[Sequence[object]] = [[_text(one.file) for one in rows]]
            if with_ids:
                columns.append([_text(one.id or "") for one in rows])
            columns += [[one.start for one in rows], [one.end for one in rows]]
            arrays = [pyarrow.array(column, field.type) for column, field in zip(columns, schema, strict=False)]
            arrays.append(pyarrow.FixedSizeListArray.from_arrays(flat, width))
            writer.write_batch(pyarrow.record_batch(arrays, schema=schema), row_group_size=at_once)
            first = next(told, None)


def _text(name: str) -> str:
    """A name as UTF-8 can hold it: bytes that are no UTF-8 as backslash escapes."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")
