"""The keys of a configuration as the schema declares them: what each may hold, in words, its default, its meaning."""

import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from serfit.config.schema import ExperimentConfig, Section
from serfit.errors import nearest

Address = tuple[str, ...]
"""Where a key stands: ("train", "optimizer", "lr") for train.optimizer.lr."""

PATTERNS = {
    r"^[A-Za-z0-9][A-Za-z0-9._-]*$": 'letters, digits, ".", "_" and "-", beginning with a letter or digit',
    r"^[^\x00-\x1f\x7f]*$": "1 to 80 characters on one line",
    r"^[a-z]{2,3}(, ?[a-z]{2,3})*$": "ISO 639 codes with commas between them, such as en or en, de",
}
"""Regular expressions of the schema in words."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a configuration file.

    Attributes:
        address: where it stands.
        annotation: its Python type.
        allowed: what it may hold, in words that follow "it must be".
        meaning: one or two sentences.
        required: whether a file must give it.
        default: its value where a file doesn't give it (None for required keys).
        section: the class of the keys below it, or None for a key that holds a value.
    """

    address: Address
    annotation: Any
    allowed: str
    meaning: str
    required: bool
    default: Any
    section: type[Section] | None

    @property
    def nullable(self) -> bool:
        """Whether null is a value of this key."""
        return type(None) in _alternatives(self.annotation)

    def holds(self, kind: type) -> bool:
        """Whether a value of this type has a place in the key, be it inside a list or mapping."""
        return kind in _types(self.annotation)


def schema_keys(section: type[Section] = ExperimentConfig, above: Address = ()) -> dict[Address, Key]:
    """Every section and key of the schema by address, in the order of the schema, sections before their keys."""
    found: dict[Address, Key] = {}
    for name, field in section.model_fields.items():
        address = (*above, name)
        below = _section(field.annotation)
        required = field.is_required()
        found[address] = Key(
            address=address,
            annotation=field.annotation,
            allowed=allowed_words(field.annotation, field.metadata),
            meaning=" ".join((field.description or "").split()),
            required=required,
            default=None if required else field.get_default(call_default_factory=True),
            section=below,
        )
        if below is not None:
            found |= schema_keys(below, address)
    return found


def find_key(keys: Mapping[Address, Key], address: Address) -> Key | None:
    """The key at an address, also below a key that holds a mapping (data.scales.valence), or None."""
    if address in keys:
        return keys[address]
    above = keys.get(address[:-1])
    if above is None or above.section is not None:
        return None
    if address[-1] not in _mapping_names(above.annotation):
        return None
    value = next(get_args(part)[1] for part in _alternatives(above.annotation) if get_origin(part) is dict)
    return Key(address, value, allowed_words(value), above.meaning, required=False, default=None, section=None)


def unknown_key(keys: Mapping[Address, Key], address: Address) -> str:
    """A sentence about a key that doesn't exist, with the one that was probably meant.

    >>> unknown_key(schema_keys(), ("train", "epoch"))
    'unknown key train.epoch; did you mean train.epochs?'
    >>> unknown_key(schema_keys(), ("train", "batch_size"))
    'unknown key train.batch_size; did you mean data.loader.batch_size?'
    """
    meant = _meant(keys, address)
    if meant is not None:
        return f"unknown key {dotted(address)}; did you mean {meant}?"
    above = address[:-1]
    while above and above not in keys:
        above = above[:-1]
    if above and keys[above].section is None:
        return f"unknown key {dotted(address)}; {dotted(above)} must be {keys[above].allowed}"
    names = ", ".join(name[-1] for name in keys if name[:-1] == above)
    return f"unknown key {dotted(address)}; {dotted(above) or 'the top level'} takes {names}"


def dotted(address: Sequence[str]) -> str:
    """An address as users write it."""
    return ".".join(address)


def allowed_words(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """Describe in words what a type allows.

    >>> allowed_words(Literal["last", "weighted"])
    'last or weighted'
    >>> allowed_words(tuple[float, float] | None)
    'a list of 2 numbers, or null'
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner, *notes = arguments
        flat = [part for note in notes for part in (note.metadata if isinstance(note, FieldInfo) else [note])]
        return allowed_words(inner, [*metadata, *flat])
    if origin in (Union, types.UnionType):
        words = [allowed_words(part, metadata) for part in arguments if part is not type(None)]
        return " or ".join(words) + (", or null" if type(None) in arguments else "")
    if origin is Literal:
        return _choice([str(part) for part in arguments])
    if origin is tuple and arguments[-1] is not Ellipsis:
        return f"a list of {len(arguments)} {_plural(arguments[0])}"
    if origin in (list, tuple):
        return f"a list of {_plural(arguments[0])}"
    if origin is dict:
        return f"a mapping from {allowed_words(arguments[0])} to {allowed_words(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return f"a section with keys such as {', '.join(list(annotation.model_fields)[:3])}"
    return _plain_words(annotation, metadata)


def _plain_words(annotation: Any, metadata: Sequence[Any]) -> str:
    if annotation is bool:
        return "true or false"
    if annotation is Path:
        return "a path"
    if annotation is str:
        patterns = [note.pattern for note in metadata if getattr(note, "pattern", None)]
        return f"text of {PATTERNS.get(patterns[0], patterns[0])}" if patterns else "text"
    assert annotation in (int, float), f"no words for {annotation}"
    noun = "a whole number" if annotation is int else "a number"
    return " ".join([noun, *_bounds(metadata)])


def _bounds(metadata: Sequence[Any]) -> list[str]:
    """Lower and upper bound in words: ["of 0 or more", "and below 1"]."""
    forms = {"gt": "above {:g}", "ge": "of {:g} or more", "lt": "below {:g}", "le": "at most {:g}"}
    limits = {name: getattr(note, name) for name in forms for note in metadata if getattr(note, name, None) is not None}
    words = [forms[name].format(limit) for name, limit in limits.items()]
    return words[:1] + [f"and {word}" for word in words[1:]]


def _plural(annotation: Any) -> str:
    words = allowed_words(annotation)
    return {"a number": "numbers", "a whole number": "whole numbers", "text": "texts"}.get(words, words)


def _choice(words: Sequence[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    """The members of a union; any other type alone."""
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _mapping_names(annotation: Any) -> tuple[str, ...]:
    """The keys that a mapping type allows; none for other types."""
    for part in _alternatives(annotation):
        if get_origin(part) is dict:
            return get_args(get_args(part)[0])
    return ()


def _types(annotation: Any) -> set[Any]:
    """All plain types that a composed type is made of; choices and the keys of mappings don't count."""
    arguments = get_args(annotation)
    if get_origin(annotation) is Literal:
        return set()
    if get_origin(annotation) is Annotated:
        return _types(arguments[0])
    if get_origin(annotation) is dict:
        return _types(arguments[1])
    return set().union(*(_types(part) for part in arguments)) if arguments else {annotation}


def _section(annotation: Any) -> type[Section] | None:
    for part in _alternatives(annotation):
        if isinstance(part, type) and issubclass(part, Section):
            return part
    return None


def _meant(keys: Mapping[Address, Key], address: Address) -> str | None:
    """The existing key that a wrong one stands for: same name elsewhere, a sibling, or the closest of all."""
    names = {dotted(key): key for key in keys}
    wrong, above = dotted(address), address[:-1]
    owner = keys.get(above)
    if owner is not None and owner.section is None:
        close = nearest(address[-1], _mapping_names(owner.annotation))
        return f"{dotted(above)}.{close}" if close else None
    same = [name for name, key in names.items() if key[-1] == address[-1]]
    if same:
        return nearest(wrong, same) or same[0]
    sibling = nearest(address[-1], [key[-1] for key in keys if key[:-1] == above])
    if sibling is not None:
        return dotted((*above, sibling))
    if above and above not in keys:
        return nearest(wrong, [name for name, key in names.items() if len(key) == len(address)])
    leaf = nearest(address[-1], [key[-1] for key in keys])
    return next((name for name, key in names.items() if key[-1] == leaf), None)
