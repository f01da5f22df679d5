"""YAML text as plain data that remembers its lines, without YAML's traps.

Words mean what they look like: `1e-4` is a number; only `true` and `false` are booleans (`no`, `on` and `yes` are
words, which keys for booleans still understand); dates and times of day are text (YAML 1.2's core schema). A key
given twice is a complaint. `${NAME}` and `${NAME:-default}` in text come from the environment; `$$` is a dollar.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from serfit.config.keys import Address, dotted

MOST_VALUES = 100_000
"""Most values in one document, aliases written out; a few lines of nested aliases can stand for billions."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a value was given; places sort in the order in which users read: the file's lines, then the overrides.

    Attributes:
        rank: 0 for the file, k for the k-th override.
        line: line from 1; 0 for the whole file.
        text: how a sentence names the place.
    """

    rank: int
    line: int
    text: str


@dataclass(frozen=True, slots=True, order=True)
class Complaint:
    """One thing wrong, to be told as `place: text`."""

    place: Place
    address: Address
    text: str


@dataclass(slots=True)
class Document:
    """Data read from YAML, with the place of every key and what was wrong on the way.

    Attributes:
        data: dictionaries, lists, text, numbers, booleans, None.
        places: where the key at each address stands.
        complaints: what was found wrong while reading.
    """

    data: Any = None
    places: dict[Address, Place] = field(default_factory=dict)
    complaints: list[Complaint] = field(default_factory=list)

    def place(self, address: Address) -> Place:
        """Where a key was given, or the nearest section around it."""
        while address not in self.places and address:
            address = address[:-1]
        return self.places[address]

    def complain(self, address: Address, text: str, place: Place | None = None) -> None:
        """Note what is wrong with a key."""
        self.complaints.append(Complaint(place or self.place(address), address, text))


def parse(text: str, place_of: Callable[[int], Place], environment: Mapping[str, str], top: Address = ()) -> Document:
    """Read one YAML document.

    Args:
        text: the YAML.
        place_of: how to name a line; line 0 stands for the whole document.
        environment: variables for `${NAME}`.
        top: the address at which the document's value will stand.

    Returns:
        The document; syntax errors are among its complaints and leave no data. Empty text is None.
    """
    document = Document(places={top: place_of(0)})
    try:
        node = yaml.compose(text, Loader=_CoreLoader)
        if node is not None and _values(node, {}) > MOST_VALUES:
            document.complain(top, f"its aliases (*name) stand for more than {MOST_VALUES:,} values; write them out")
        elif node is not None:
            document.data = _Reader(document, place_of, environment).read(node, top, ())
    except yaml.YAMLError as error:
        line, words = _syntax_sentence(error, text)
        document.complain(top, words, place_of(line))
    except RecursionError:
        document.data = None
        document.complain(top, "is nested too deeply to be a configuration; remove brackets or indentation")
    return document


def _values(node: yaml.Node, known: dict[int, int]) -> int:
    """Count the values under a node, aliases expanded; a node that contains itself counts once there."""
    if id(node) not in known:
        known[id(node)] = 1
        below = node.value if isinstance(node, yaml.SequenceNode | yaml.MappingNode) else []
        parts = [part for item in below for part in (item if isinstance(item, tuple) else (item,))]
        known[id(node)] = 1 + sum(_values(part, known) for part in parts)
    return known[id(node)]


class _CoreLoader(yaml.SafeLoader):
    """Knows the scalars of YAML 1.2's core schema (decimal numbers only)."""

    yaml_implicit_resolvers = {  # noqa: RUF012  (PyYAML's own protocol: first character -> tag and pattern)
        first: [
            ("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$")),
            ("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")),
            ("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]{1,300}$")),
            (
                "tag:yaml.org,2002:float",
                re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|nan)$"),
            ),
        ]
        for first in ["", *"~nNtTfF-+.0123456789"]
    }


_SCALARS: dict[str, Callable[[str], Any]] = {
    "tag:yaml.org,2002:null": lambda word: None,
    "tag:yaml.org,2002:bool": lambda word: word.lower() == "true",
    "tag:yaml.org,2002:int": int,
    "tag:yaml.org,2002:float": lambda word: float(word.replace(".inf", "inf").replace(".nan", "nan")),
    "tag:yaml.org,2002:str": str,
}


@dataclass(frozen=True, slots=True)
class _Reader:
    """Turns nodes into data, noting places and complaints in the document."""

    document: Document
    place_of: Callable[[int], Place]
    environment: Mapping[str, str]

    def read(self, node: yaml.Node, address: Address, around: tuple[int, ...]) -> Any:
        """The data of a node; `around` holds the nodes it lies in, for a node may contain itself."""
        place = self.place_of(node.start_mark.line + 1)
        if id(node) in around:
            self.document.complain(address, f"{_name(address)} contains itself through an alias; write it out", place)
            return None
        inside = (*around, id(node))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, address, inside)
        if isinstance(node, yaml.SequenceNode):
            return [self.read(item, address, inside) for item in node.value]
        return self._scalar(node, address, place)

    def _mapping(self, node: yaml.MappingNode, address: Address, around: tuple[int, ...]) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                self.document.complain(address, f"{_name(address)} has a key that isn't a word", self.place_of(line))
                continue
            below = (*address, key.value)
            if key.value in data:
                first = self.document.places[below].line
                earlier = f" (first in line {first})" if first else ""
                self.document.complain(below, f"{dotted(below)} is given twice{earlier}; keep one", self.place_of(line))
                continue
            self.document.places[below] = self.place_of(line)
            data[key.value] = self.read(value, below, around)
        return data

    def _scalar(self, node: yaml.Node, address: Address, place: Place) -> Any:
        if node.tag not in _SCALARS:
            self.document.complain(address, f"{_name(address)} has the tag {node.tag}; leave the tag out", place)
            return node.value
        try:
            value = _SCALARS[node.tag](node.value)
            return fill_in(value, self.environment) if isinstance(value, str) else value
        except ValueError as error:
            self.document.complain(address, f"{_name(address)} {error}", place)
            return node.value


def fill_in(text: str, environment: Mapping[str, str]) -> str:
    """Replace `${NAME}` and `${NAME:-default}`; a variable that is empty counts as not set, as in the shell.

    Raises:
        ValueError: for a variable that isn't set and has no default, a malformed `${`, or `$NAME`, which would
            stand for itself and make a folder of that name; a sentence without subject.

    >>> fill_in("${ROOT:-data}/x costs $$5", {})
    'data/x costs $5'
    """

    def value(match: re.Match[str]) -> str:
        if match["dollar"]:
            return "$"
        name, default = match["name"], match["default"]
        if match["bare"]:
            raise ValueError(
                f'is "{text}"; write ${{{match["bare"]}}}, or $${match["bare"]} for the characters themselves'
            )
        if name is None:
            raise ValueError(f'is "{text}"; write ${{NAME}}, ${{NAME:-default}}, or $${{ for the characters themselves')
        if environment.get(name):
            return environment[name]
        if default is None:
            raise ValueError(
                f"needs the environment variable {name}, which isn't set; export {name}=..., or write "
                f"${{{name}:-default}}"
            )
        return default

    form = (
        r"(?P<dollar>\$\$)|\$(?P<bare>[A-Za-z_][A-Za-z0-9_]*)|"
        r"\$\{(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\})?"
    )
    return re.sub(form, value, text)


def _name(address: Address) -> str:
    return dotted(address) or "the file"


def _syntax_sentence(error: yaml.YAMLError, text: str) -> tuple[int, str]:
    """The line (from 1) and the sentence for text that isn't YAML."""
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        code = error.character if isinstance(error.character, int) else ord(error.character)
        return line, f"not valid YAML: the character U+{code:04X} isn't allowed; remove it"
    mark = getattr(error, "problem_mark", None)
    line = mark.line + 1 if mark is not None else 0
    problem = " ".join(str(getattr(error, "problem", None) or error).split())
    if "'\\t'" in problem:
        return line, "a tab where YAML wants spaces; replace it by spaces"
    return line, f"not valid YAML: {problem}; look at the brackets, colons, quotes and indentation before that point"
