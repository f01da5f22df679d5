"""Pooled vectors on disk, a row for each row of the labels: as npz, or as a Parquet table.

    npz        embeddings [N, P] float32, files [N], start [N], end [N]
    parquet    a row per stretch: file, id (where a manifest gives some), start, end, embedding (P numbers, float32)

Seconds are float64. Where there is an error the vector is NaN, and the end may be unknown: NaN in npz, null in Parquet.
"""

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serfit.errors import UserError

Form = Literal["npz", "parquet"]

GROUP_BYTES = 2**24
"""About how many bytes of vectors lie in one row group of a Parquet file, and in memory while it is written."""


class Stretch(NamedTuple):
    """What a row is about: names, and seconds.

    Attributes:
        file: name of the recording as the user gave it.
        id: what a manifest calls it; None where there are no ids.
        start: where it begins.
        end: where it ends; None where that isn't known.
    """

    file: str
    id: str | None
    start: float
    end: float | None


def form_of(path: Path) -> Form:
    """How vectors are written to a file, by its name.

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
    raise UserError(f"--embeddings is {path}; its name must end in .npz or .parquet, which says how it is written")


def write_vectors(file: IO[bytes], form: Form, stretches: Iterable[Stretch], vectors: NDArray[np.float32]) -> None:
    """Write N vectors [N, P], which may lie on disk, with what each is about; the same input gives the same bytes."""
    match form:
        case "npz":
            _write_npz(file, stretches, vectors)
        case "parquet":
            _write_parquet(file, stretches, vectors)


def _write_npz(file: IO[bytes], stretches: Iterable[Stretch], vectors: NDArray[np.float32]) -> None:
    told = list(stretches)
    np.savez(
        file,
        embeddings=vectors,
        files=np.array([one.file for one in told], dtype=np.str_),
        start=np.array([one.start for one in told], dtype=np.float64),
        end=np.array([np.nan if one.end is None else one.end for one in told], dtype=np.float64),
    )


def _write_parquet(file: IO[bytes], stretches: Iterable[Stretch], vectors: NDArray[np.float32]) -> None:
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    width = vectors.shape[1]
    told = iter(stretches)
    first = next(told, None)
    with_ids = first is not None and first.id is not None
    fields = {"file": pyarrow.string()} | ({"id": pyarrow.string()} if with_ids else {})
    fields |= {"start": pyarrow.float64(), "end": pyarrow.float64()}
    schema = pyarrow.schema(fields | {"embedding": pyarrow.list_(pyarrow.float32(), width)})
    at_once, begin = max(1, GROUP_BYTES // (4 * width)), 0
    with ParquetWriter(file, schema, compression="zstd", use_dictionary=["file"]) as writer:
        while first is not None:
            rows = [first, *islice(told, at_once - 1)]
            flat = pyarrow.array(np.asarray(vectors[begin : begin + len(rows)], dtype=np.float32).ravel())
            columns: list[Sequence[object]] = [[_text(one.file) for one in rows]]
            if with_ids:
                columns.append([_text(one.id or "") for one in rows])
            columns += [[one.start for one in rows], [one.end for one in rows]]
            arrays = [pyarrow.array(column, field.type) for column, field in zip(columns, schema, strict=False)]
            arrays.append(pyarrow.FixedSizeListArray.from_arrays(flat, width))
            writer.write_batch(pyarrow.record_batch(arrays, schema=schema), row_group_size=at_once)
            begin += len(rows)
            first = next(told, None)


def _text(name: str) -> str:
    """A name as UTF-8 can hold it: bytes that are no UTF-8 as backslash escapes."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")
