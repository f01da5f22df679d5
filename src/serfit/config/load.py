"""From a YAML file and `key=value` overrides to an ExperimentConfig, with every mistake told in one message."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from serfit.config.document import Complaint, Document, Place, parse
from serfit.config.keys import Address, Key, dotted, find_key, schema_keys, unknown_key
from serfit.config.schema import ExperimentConfig, Section
from serfit.errors import UserError, nearest
from serfit.system.files import is_utf8, open_text

WITHOUT_EFFECT = frozenset(
    {
        "experiment.runs_dir",
        "data.language",
        "data.loader.workers",
        "features.store",
        "features.max_gb",
        "train.micro_batch_seconds",
        "train.gradient_checkpointing",
        "train.checkpoint_minutes",
    }
)
"""Keys that move memory, time or files about, or describe, and leave the result as it is."""

ADDED: Mapping[str, Any] = {
    "model.params.encoder_input": "utterance",
    "model.start_from": None,
    "model.start_part": "all",
}
"""Keys that came later than runs that may still be resumed, each with the value that leaves these as they were."""


def load_config(
    path: Path, overrides: Sequence[str] = (), environment: Mapping[str, str] = os.environ
) -> ExperimentConfig:
    """Read a configuration file, apply overrides over it, and check everything.

    Args:
        path: a YAML (or JSON) file.
        overrides: "key.path=value", the value in YAML; a later one wins. A mapping given to a section changes the keys
            it names; any other value replaces what was there.
        environment: variables for `${NAME}` and `${NAME:-default}`.

    Raises:
        UserError: with all mistakes, one per line, each beginning with the file and line or the override.
    """
    document = parse(_read(path), _in_file(path), environment)
    if document.complaints and document.data is None:
        raise _error(document.complaints)
    if document.data is None:
        raise UserError(f"{path} is empty; it must give at least experiment.name and data.root")
    if not isinstance(document.data, dict):
        shape = "a list" if isinstance(document.data, list) else "a single value"
        raise UserError(f"{path} holds {shape}; it must hold sections such as experiment: and data:, with keys in them")
    keys = schema_keys()
    for rank, override in enumerate(overrides, start=1):
        _apply(document, override, rank, keys, environment)
    _complete_sections(document.data, keys)
    complaints = [*document.complaints, *_number_traps(document, keys), *_settle_paths(document, keys)]
    try:
        config = ExperimentConfig.model_validate(document.data)
    except ValidationError as error:
        complaints += [_complaint(document, keys, detail) for detail in error.errors()]
    if complaints:
        raise _error(complaints)
    return config


def flatten(config: Section, above: Address = ()) -> dict[str, Any]:
    """Every key of a configuration with its value as plain data (text, numbers, lists, mappings, None), dotted."""
    plain = config.model_dump(mode="json")
    found: dict[str, Any] = {}
    for name in type(config).model_fields:
        value = getattr(config, name)
        address = (*above, name)
        found |= flatten(value, address) if isinstance(value, Section) else {dotted(address): plain[name]}
    return found


def config_differences(a: ExperimentConfig, b: ExperimentConfig) -> dict[str, tuple[Any, Any]]:
    """The keys in which two configurations differ, with both values (None for a key that one doesn't have)."""
    first, second = flatten(a), flatten(b)
    both = {key: (first.get(key), second.get(key)) for key in first | second}
    return {key: pair for key, pair in both.items() if pair[0] != pair[1]}


def result_fingerprint(config: ExperimentConfig) -> str:
    """A hash of everything that can change the result; 64 hexadecimal digits.

    Left out are the keys `WITHOUT_EFFECT`, and those of `ADDED` at the value given there; the experiment's name counts.
    """
    settings = {key: value for key, value in flatten(config).items() if key not in WITHOUT_EFFECT}
    return hashlib.sha256(json.dumps(without_added(settings), sort_keys=True, allow_nan=False).encode()).hexdigest()


def without_added(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted key without those of `ADDED` at the value given there, as older versions have them."""
    return {key: value for key, value in settings.items() if key not in ADDED or value != ADDED[key]}


def plain_config(config: ExperimentConfig) -> dict[str, Any]:
    """A configuration as nested plain data for a JSON or YAML file that `load_config` reads back unchanged.

    Dollar signs are doubled, so that nothing is looked up in the environment again.
    """
    plain = _doubled_dollars(config.model_dump(mode="json"))
    assert isinstance(plain, dict)
    return plain


def _doubled_dollars(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _doubled_dollars(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_doubled_dollars(item) for item in value]
    return value.replace("$", "$$") if isinstance(value, str) else value


def _read(path: Path) -> str:
    try:
        with open_text(path) as file:
            return file.read()
    except FileNotFoundError:
        if path.is_symlink():
            raise UserError(
                f"{path} is a link to {os.readlink(path)}, which isn't there; copy the file itself"
            ) from None
        beside = sorted(path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
        close = nearest(path.name, [other.name for other in beside])
        hint = f"did you mean {path.with_name(close)}?" if close else "check the path given with --config"
        raise UserError(f"there is no configuration file {path}; {hint}") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; give the YAML file itself") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} isn't UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"can't read the configuration file {path}: {error.strerror}; check its permissions") from None


def _in_file(path: Path) -> Callable[[int], Place]:
    def place(line: int) -> Place:
        return Place(0, line, f"{path} line {line}" if line else str(path))

    return place


def _apply(
    document: Document, override: str, rank: int, keys: Mapping[Address, Key], environment: Mapping[str, str]
) -> None:
    """Lay one override over the data, or complain."""
    place = Place(rank, 0, f"override {' '.join(override.split())}")
    written, equals, value = override.partition("=")
    address = tuple(written.strip().split("."))
    if not equals or not all(address):
        document.complain((), "not of the form key=value; write it like train.epochs=10", place)
        return
    if find_key(keys, address) is None:
        document.complain(address, unknown_key(keys, address), place)
        return
    given = parse(value, lambda line: place, environment, address)
    document.complaints += given.complaints
    if not given.complaints:
        _assign(document, address, given.data, place, keys)


def _assign(document: Document, address: Address, value: Any, place: Place, keys: Mapping[Address, Key]) -> None:
    """Set a key, making the sections around it; a mapping for a section is assigned key by key."""
    key = keys.get(address)
    if key is not None and key.section is not None and isinstance(value, dict) and value:
        for name, item in value.items():
            _assign(document, (*address, name), item, place, keys)
        return
    holder = document.data
    for name in address[:-1]:
        if holder.get(name) is None:
            holder[name] = {}
        holder = holder[name]
        if not isinstance(holder, dict):
            return  # the file has a value where a section belongs, and is told so
    holder[address[-1]] = value
    stale = [other for other in document.places if other[: len(address)] == address]
    for other in stale:
        del document.places[other]
    document.complaints[:] = [old for old in document.complaints if old.address[: len(address)] != address]
    document.places[address] = place


def _complete_sections(data: dict[str, Any], keys: Mapping[Address, Key]) -> None:
    """Put {} for sections that are missing or read as null (all their keys commented out): they have defaults."""
    for *above, name in (key.address for key in keys.values() if key.section is not None and not key.nullable):
        holder = _value(data, tuple(above))
        if isinstance(holder, dict) and holder.get(name) is None:
            holder[name] = {}


def _number_traps(document: Document, keys: Mapping[Address, Key]) -> Iterator[Complaint]:
    """Complaints about true and false where numbers belong: pydantic would take them for 1 and 0."""
    for address, key in keys.items():
        if key.section is not None or key.holds(bool) or not (key.holds(int) or key.holds(float)):
            continue
        value = _value(document.data, address)
        scalars = value.values() if isinstance(value, dict) else [value]
        if any(isinstance(part, bool) for item in scalars for part in (item if isinstance(item, list) else [item])):
            yield Complaint(document.place(address), address, _wrong_value(key, value))


def _settle_paths(document: Document, keys: Mapping[Address, Key]) -> Iterator[Complaint]:
    """Write out the home folder (~) in paths, and complain of what no shell would take for a path either."""
    for address, key in keys.items():
        value = _value(document.data, address)
        if not key.holds(Path) or not isinstance(value, str):
            continue
        if not value.strip() or (key.nullable and value.lower() == "none"):
            spelt = "; for none at all write null" if key.nullable else ""
            yield Complaint(document.place(address), address, f"{_wrong_value(key, value)}{spelt}")
            continue
        try:
            expanded = str(Path(value).expanduser()) if value.startswith("~") else value
        except RuntimeError:
            text = f"{dotted(address)} is {value}, and that home folder isn't known; write the whole path"
            yield Complaint(document.place(address), address, text)
            continue
        if "\0" in expanded or not is_utf8(expanded):
            text = f"{dotted(address)} is {_shown(value)}, which no file can be called; write another path"
            yield Complaint(document.place(address), address, text)
            continue
        holder = _value(document.data, address[:-1])
        holder[address[-1]] = expanded


def _complaint(document: Document, keys: Mapping[Address, Key], detail: ErrorDetails) -> Complaint:
    """One of pydantic's errors in our words."""
    location = tuple(str(part) for part in detail["loc"])
    if detail["type"] == "value_error":  # a rule of the schema: its sentence names the keys itself
        text = str(detail["ctx"]["error"])
        named = tuple(text.split()[0].split("."))
        return Complaint(document.place(named if named[:1] in keys else location), location, text)
    if location[-1] == "[key]":
        location = location[:-1]
        return Complaint(document.place(location), location, unknown_key(keys, location))
    address = location
    while find_key(keys, address) is None and address[:-1] and detail["type"] != "extra_forbidden":
        address = address[:-1]
    place = document.place(address)
    key = find_key(keys, address)
    if detail["type"] == "extra_forbidden" or key is None:
        return Complaint(place, address, unknown_key(keys, address))
    if detail["type"] == "missing" and address == location:
        return Complaint(place, address, f"{dotted(address)} is missing; it must be {key.allowed}")
    finite = " and finite" if detail["type"] == "finite_number" else ""
    return Complaint(place, address, _wrong_value(key, _value(document.data, address)) + finite)


def _wrong_value(key: Key, value: Any) -> str:
    if value is None:
        return f"{dotted(key.address)} has no value; it must be {key.allowed}"
    quotes = key.holds(str) and not isinstance(value, str | list | dict)
    hint = f'; put quotes around it ("{_shown(value)}") if it is text' if quotes else ""
    return f"{dotted(key.address)} is {_shown(value)}; it must be {key.allowed}{hint}"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _value(data: Any, address: Address) -> Any:
    for name in address:
        data = data.get(name) if isinstance(data, dict) else None
    return data


def _error(complaints: Sequence[Complaint]) -> UserError:
    """All complaints in reading order, one per key and place: an unset variable is not also a wrong value."""
    first: dict[tuple[Place, Address], Complaint] = {}
    for complaint in complaints:
        first.setdefault((complaint.place, complaint.address), complaint)
    return UserError("\n".join(f"{complaint.place.text}: {complaint.text}" for complaint in sorted(first.values())))
