"""Frozen records to and from JSON, strictly: whatever may be wrong with a file is one sentence that names the key.

A record is a pydantic model (`Record`, or `VersionedRecord` for one with a format of its own) or a frozen dataclass.
Strings aren't taken for numbers, nor true for 1; infinities and NaN are refused; unknown keys are passed over.
"""

import json
import re
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from serfit.errors import UserError, error_line
from serfit.system.files import write_json, write_text

FORMAT = 1
"""Of every `VersionedRecord` that is written; raised when older programs can't read what newer ones write."""

Count = Annotated[int, Field(ge=0, le=2**53)]
"""How many there are of something."""

Number = Annotated[float, Field(ge=-1e100, le=1e100, allow_inf_nan=False)]
"""A finite number, far from where squares overflow."""

_LONE = re.compile(rb"(?<!\\ud[89ab]..)\\udc[89a-f].")
"""What stands in JSON for a byte of a file name that isn't UTF-8; no text has such a character."""

T = TypeVar("T")

_adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)


class Record(BaseModel):
    """Something that is written down and never changed."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


def _known(version: int) -> int:
    if version > FORMAT:
        raise ValueError(f"this serfit reads up to {FORMAT}: update serfit")
    return version


class VersionedRecord(Record):
    """A record that is a file.

    Attributes:
        format: of the file, 0 where it is older than formats.
    """

    format: Annotated[int, Field(ge=0), AfterValidator(_known)] = 0


def plain(record: object) -> Any:
    """A record as plain data for JSON, keys in the order of its attributes; those that nobody set are left out."""
    data = _adapter(type(record)).dump_python(record, mode="json", exclude_unset=True)
    return {"format": FORMAT} | {**data, "format": FORMAT} if isinstance(record, VersionedRecord) else data


def write_record(path: Path, record: object, *, durable: bool = True) -> None:
    """Write a record as a JSON file, whole or not at all. Raises WriteError."""
    write_json(path, plain(record), durable=durable)


def write_lines(path: Path, records: Iterable[object]) -> None:
    """Write records as a file of one per line, whole or not at all. Raises WriteError."""
    write_text(path, "".join(f"{json.dumps(plain(record), allow_nan=False)}\n" for record in records))


def parsed(kind: type[T], data: bytes, where: str, remedy: str) -> T:
    """A record from JSON that anybody may have written.

    Args:
        kind: of the record.
        data: UTF-8.
        where: the file, for the message.
        remedy: what to do where it can't be read, likewise.

    Raises:
        UserError: naming the key.
    """
    try:
        record: T = _adapter(kind).validate_json(_LONE.sub(rb"\\ufffd", data), strict=True)
    except ValidationError as error:
        raise UserError(f"{where}: {_fault(error)}; {remedy}") from error
    return record


def from_plain(kind: type[T], data: object, where: str, remedy: str) -> T:
    """A record from plain data, which was part of a JSON file. Raises UserError as `parsed`."""
    return parsed(kind, json.dumps(data).encode(), where, remedy)


def read_record(kind: type[T], path: Path, remedy: str) -> T:
    """The record in a JSON file. Raises UserError as `parsed`, and where the file is missing or can't be read."""
    return parsed(kind, _read(path, remedy), str(path), remedy)


def read_lines(kind: type[T], path: Path, remedy: str) -> list[T]:
    """The records in a file of one per line. Raises UserError as `read_record`."""
    lines = enumerate(_read(path, remedy).splitlines(), start=1)
    return [parsed(kind, line, f"{path}, line {number}", remedy) for number, line in lines]


def _read(path: Path, remedy: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        what = "is missing" if isinstance(error, FileNotFoundError) else f"can't be read ({error_line(error)})"
        raise UserError(f"{path} {what}; {remedy}") from error


def _fault(error: ValidationError) -> str:
    """Describe the first error, for example "corpus.name is None, and should be a valid string"."""
    first = error.errors(include_url=False)[0]
    key, words = ".".join(map(str, first["loc"])), error_line(ValueError(first["msg"]))
    if first["type"] == "json_invalid":
        return f"it isn't JSON ({words.removeprefix('Invalid JSON: ')})"
    if first["type"] == "missing":
        return f"{key} is missing"
    shown = error_line(ValueError(f"{first['input']!r:.40}"))
    what = f"{key or 'it'} is {shown}"
    if words.startswith("Input should"):
        return f"{what}, and {words.removeprefix('Input ')}"
    return f"{what} ({words.removeprefix('Value error, ')})"
