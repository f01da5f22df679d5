"""Which utterances train, validate and test; nobody and nothing is heard in two of these parts."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

from serfit.config import schema
from serfit.corpus.utterance import Corpus, Part, Utterance
from serfit.errors import UserError, counted, listed
from serfit.labels import Dimension

Kind = Literal["dialogue", "speaker", "session"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""Kinds of groups that must not be divided between parts."""
PARTS: tuple[Part, ...] = get_args(Part)
"""Train, validation, test."""

Name = TypeVar("Name")


@dataclass(frozen=True, slots=True)
class Split:
    """The parts of one fold.

    Attributes:
        fold: from 1.
        folds: how many there are.
        train: utterances to learn from, in the order of the corpus.
        validation: utterances to choose the best epoch by.
        test: utterances to score, once.
        protocol: one sentence that tells who tests, validates and trains.
    """

    fold: int
    folds: int
    train: tuple[Utterance, ...]
    validation: tuple[Utterance, ...]
    test: tuple[Utterance, ...]
    protocol: str

    @property
    def parts(self) -> Mapping[Part, tuple[Utterance, ...]]:
        """The parts by name: train, validation, test."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


def make_split(corpus: Corpus, split: schema.SplitSettings) -> Split:
    """Split a corpus; a pure function of the corpus and the scheme.

    leave_one_session_out tests on session k, validates on session k % n + 1 and trains on the rest. grouped_kfold does
    the same with groups dealt into folds: the largest first, each to the fold with the fewest utterances so far;
    utterances whose group isn't known are a group each. official takes the parts that the corpus declares. everything
    trains on all utterances.

    Raises:
        UserError: a fold out of range, too few groups, parts that aren't declared, an empty part, or leakage.
    """
    match split.scheme:
        case "leave_one_session_out":
            made = _leave_one_session_out(corpus, split.fold)
        case "grouped_kfold":
            made = _grouped(corpus, split.fold, split.folds, split.group)
        case "official":
            made = _official(corpus, split.fold)
        case "everything":
            return _everything(corpus, split.fold)
    check_leakage(made)
    return made


def check_leakage(split: Split) -> None:
    """Refuse a split in which a part is empty, or a speaker, session, dialogue or stretch of audio is in two parts.

    What isn't known (None) isn't compared; the protocol sentence counts utterances of unknown speakers.

    Raises:
        UserError: naming the first few of each kind and what to do.
    """
    empty = [name for name, utterances in split.parts.items() if not utterances]
    if empty:
        raise UserError(
            f"the {' and '.join(empty)} part of fold {split.fold} is empty; every part needs utterances, "
            "so choose another data.split"
        )
    found = {
        "session": _crossing(split, lambda utterance: utterance.session),
        "dialogue": _crossing(split, lambda utterance: utterance.dialogue),
        "speaker": _crossing(split, lambda utterance: utterance.speaker),
        "audio": _crossing(split, lambda utterance: f"{utterance.path} from {utterance.start} s"),
    }
    crossing = {kind: names for kind, names in found.items() if names}
    if crossing:
        which = "; ".join(f"{kind} {listed(names)}" for kind, names in crossing.items())
        raise UserError(
            f"the parts of fold {split.fold} overlap, so the test would flatter: {which}. "
            f"{_remedy(split, next(iter(crossing)))}"
        )


def check_varying(split: Split, dimensions: Sequence[Dimension]) -> None:
    """Raise a UserError where all ratings of a trained dimension in a part are equal: its CCC is undefined or 0."""
    for part, utterances in split.parts.items():
        for name in dimensions:
            values = {utterance.ratings[name] for utterance in utterances}
            if len(values) == 1 and utterances:
                raise UserError(
                    f"{name} is {values.pop():g} in all of the {part} part ({counted(len(utterances), 'utterance')}), "
                    f"and a constant has no CCC; choose another data.split, or leave {name} out of data.dimensions"
                )


def _crossing(split: Split, key: Callable[[Utterance], str | None]) -> list[str]:
    """`name (part and part)` of all that stand in more than one part."""
    parts: dict[str, set[Part]] = {}
    for part, utterances in split.parts.items():
        for utterance in utterances:
            name = key(utterance)
            if name is not None:
                parts.setdefault(name, set()).add(part)
    shared = _sorted(name for name, where in parts.items() if len(where) > 1)
    return [f"{name} ({' and '.join(part for part in split.parts if part in parts[name])})" for name in shared]


def _remedy(split: Split, kind: str) -> str:
    if kind == "audio":
        return "Remove the utterances that list the same audio twice"
    group = _holding([utterance for utterances in split.parts.values() for utterance in utterances])
    if group is not None:
        return f"Set data.split.scheme: grouped_kfold and data.split.group: {group}"
    return (
        "Neither dialogues, speakers nor sessions hold the others together: leave out the column that needn't be kept "
        "apart, or give data.table.session one in which all that share a speaker or dialogue have the same value, and "
        "set data.split.scheme: grouped_kfold and data.split.group to what is to be kept together"
    )


def _holding(utterances: Sequence[Utterance]) -> Kind | None:
    """A kind of group by which no value of the other kinds is divided, the finest first; None when there is none."""

    def divided(inner: Kind, outer: Kind) -> bool:
        homes: dict[str, tuple[str, str]] = {}
        named = ((getattr(utterance, inner), _group_key(utterance, outer)) for utterance in utterances)
        return any(homes.setdefault(name, home) != home for name, home in named if name is not None)

    holding = (kind for kind in KINDS if not any(divided(inner, kind) for inner in KINDS if inner != kind))
    return next(holding, None)


def _group_key(utterance: Utterance, group: Kind) -> tuple[str, str]:
    """Return the group of an utterance; one whose group isn't known is a group of its own."""
    name: str | None = getattr(utterance, group)
    return ("alone", utterance.id) if name is None else ("known", name)


def _leave_one_session_out(corpus: Corpus, fold: int) -> Split:
    unknown = [utterance.id for utterance in corpus.utterances if utterance.session is None]
    if unknown:
        raise UserError(
            f"data.split.scheme is leave_one_session_out, but {len(unknown)} of {len(corpus.utterances)} utterances of "
            f"{corpus.name} have no session: {listed(unknown)}; name the column in data.table.session, or use "
            "data.split.scheme: grouped_kfold"
        )
    sizes = Counter(str(utterance.session) for utterance in corpus.utterances)
    sessions = _sorted(sizes)
    if len(sessions) < 3:
        raise UserError(
            f"{corpus.name} has {counted(len(sessions), 'session')} ({listed(sessions)}), and leave_one_session_out "
            "needs 3 or more: to test, to validate and to train; use data.split.scheme: grouped_kfold"
        )
    _check_fold(fold, len(sessions), f"the sessions {listed(sessions, most=10)}")
    parts = _rotated({name: index for index, name in enumerate(sessions)}, fold, len(sessions))

    who: dict[Part, str] = {part: listed([name for name in sessions if parts[name] == part], most=10) for part in PARTS}
    part_of = [parts[str(utterance.session)] for utterance in corpus.utterances]
    return _split(corpus, part_of, fold, len(sessions), who)


def _grouped(corpus: Corpus, fold: int, folds: int, group: Kind) -> Split:
    _check_fold(fold, folds, "set by data.split.folds")
    keys = [_group_key(utterance, group) for utterance in corpus.utterances]
    sizes = Counter(keys)
    if len(sizes) < folds:
        raise UserError(
            f"{corpus.name} has {counted(len(sizes), group)} and data.split.folds is {folds}, but every fold needs "
            "one; lower data.split.folds (3 is the least), or choose another data.split.group"
        )
    parts = _rotated(_dealt(sizes, folds), fold, folds)

    def who(part: Part) -> str:
        known = _sorted(name for (kind, name), where in parts.items() if where == part and kind == "known")
        alone = sum(where == part and kind == "alone" for (kind, _), where in parts.items())
        known_text = [f"{group}{'s' * (len(known) > 1)} {listed(known, most=8)}"] if known else []
        alone_text = [f"{alone} without known {group}"] if alone else []
        return " and ".join(known_text + alone_text)

    return _split(corpus, [parts[key] for key in keys], fold, folds, {part: who(part) for part in PARTS})


def _dealt(sizes: Mapping[tuple[str, str], int], folds: int) -> dict[tuple[str, str], int]:
    """Fold, from 0, of each group: the largest first, each to the fold with the fewest utterances, then the lowest."""
    totals = [0] * folds
    dealt = {}
    for key in sorted(sizes, key=lambda key: (-sizes[key], key)):
        smallest = totals.index(min(totals))
        dealt[key] = smallest
        totals[smallest] += sizes[key]
    return dealt


def _official(corpus: Corpus, fold: int) -> Split:
    _check_fold(fold, 1, "data.split.scheme: official")
    undeclared = [utterance.id for utterance in corpus.utterances if utterance.part is None]
    if undeclared:
        raise UserError(
            f"data.split.scheme is official, but {len(undeclared)} of {len(corpus.utterances)} utterances of "
            f"{corpus.name} belong to no declared part: {listed(undeclared)}; name the column in data.table.part, or "
            "use another data.split.scheme"
        )
    who: dict[Part, str] = {part: f"the official {part} part" for part in PARTS}
    return _split(corpus, [utterance.part for utterance in corpus.utterances], fold, 1, who)


def _everything(corpus: Corpus, fold: int) -> Split:
    _check_fold(fold, 1, "data.split.scheme: everything")
    count = len(corpus.utterances)
    if not count:
        raise UserError(f"{corpus.name} has no utterances; see to data.root and data.table")
    trained = counted(count, "utterance")
    protocol = f"trains on all {trained}; none are left to validate or test on, so nothing here is a score"
    return Split(1, 1, corpus.utterances, (), (), protocol)


def _check_fold(fold: int, folds: int, why: str) -> None:
    if not 1 <= fold <= folds:
        allowed = "1" if folds == 1 else f"1 to {folds}"
        raise UserError(f"fold is {fold}; it must be {allowed} ({why}); set data.split.fold or --fold")


def _rotated(indices: Mapping[Name, int], fold: int, folds: int) -> dict[Name, Part]:
    """Part of everything, given its fold from 0: fold k tests, k % n + 1 validates, the rest trains."""
    special: dict[int, Part] = {fold - 1: "test", fold % folds: "validation"}
    return {name: special.get(index, "train") for name, index in indices.items()}


def _split(corpus: Corpus, part_of: Sequence[Part | None], fold: int, folds: int, who: Mapping[Part, str]) -> Split:
    """Deal the utterances out and say so, with the number of those whose speaker nothing keeps in one part."""
    parts = {
        part: tuple(utterance for utterance, where in zip(corpus.utterances, part_of, strict=True) if where == part)
        for part in PARTS
    }
    unknown = sum(utterance.speaker is None for utterance in corpus.utterances)
    protocol = (
        f"fold {fold} of {folds}: tests on {who['test']} ({len(parts['test'])} utterances), validates on "
        f"{who['validation']} ({len(parts['validation'])}), trains on {who['train']} ({len(parts['train'])})"
        + (f"; the speaker of {unknown} of {len(corpus.utterances)} utterances is unknown" if unknown else "")
    )
    return Split(fold, folds, parts["train"], parts["validation"], parts["test"], protocol)


def _sorted(names: Iterable[str]) -> list[str]:
    """Names in order, numbers in them by value: 2 before 10."""

    def key(name: str) -> tuple[list[str | int], str]:
        return [int(piece) if piece.isdecimal() else piece for piece in re.split(r"(\d+)", name)], name

    return sorted(names, key=key)
