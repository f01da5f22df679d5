"""Which utterances and ratings a run was made from, so that runs of different ones never count as one experiment."""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from serfit.corpus.utterance import Corpus
from serfit.errors import counted
from serfit.labels import DIMENSIONS, Dimension
from serfit.system.records import Number, Record, parsed


@dataclass(frozen=True, slots=True)
class Labels:
    """The utterances of a whole corpus, whatever the parts, and their ratings.

    Attributes:
        cuts: start and end in the audio file, seconds, by utterance id; the end None for the end of the file.
        ratings: by dimension and utterance id, on the corpus's scale.
        scales: minimum and maximum by dimension.
        groups: speaker, session and dialogue by utterance id, None where unknown: by these the parts are made, and
            clusters for intervals.
    """

    cuts: Mapping[str, tuple[float, float | None]]
    ratings: Mapping[Dimension, Mapping[str, float]]
    scales: Mapping[Dimension, tuple[float, float]]
    groups: Mapping[str, tuple[str | None, ...]] = field(default_factory=dict)

    def digests(self) -> dict[str, str]:
        """SHA-256 (hex) of the utterances with their cuts, of their groups, and of each dimension's ratings and scale.

        They depend neither on the order of the utterances nor on where the audio lies. Apart by dimension, so that a
        run that predicts valence alone can be compared with one that predicts arousal too.
        """
        found = {"utterances": _digest(sorted(self.cuts.items()))}
        if self.groups:
            found["groups"] = _digest(sorted(self.groups.items()))
        for name, given in self.ratings.items():
            found[name] = _digest([self.scales[name], sorted(given.items())])
        return found

    def without(self, ids: Collection[str]) -> "Labels":
        """Those of the other utterances."""
        kept = self.cuts.keys() - set(ids)
        ratings = {name: {one: given[one] for one in kept} for name, given in self.ratings.items()}
        groups = {one: group for one, group in self.groups.items() if one in kept}
        return replace(self, cuts={one: self.cuts[one] for one in kept}, ratings=ratings, groups=groups)

    def to_text(self) -> str:
        """As one line of JSON: a list per column, utterances by id."""
        ids = sorted(self.cuts)
        columns = {
            "ids": ids,
            "starts": [self.cuts[name][0] for name in ids],
            "ends": [self.cuts[name][1] for name in ids],
            "scales": {name: list(scale) for name, scale in self.scales.items()},
            "ratings": {name: [given[one] for one in ids] for name, given in self.ratings.items()},
            "groups": [self.groups[name] for name in ids] if self.groups else [],
        }
        return json.dumps(columns, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_text(cls, text: str) -> "Labels":
        """The inverse of `to_text`. Raises UserError or ValueError where it can't be one."""
        read = parsed(_Columns, text.encode(), "the labels", "train again")
        ids, names = read.ids, [name for name in DIMENSIONS if name in read.ratings and name in read.scales]
        return cls(
            cuts={one: (start, end) for one, start, end in zip(ids, read.starts, read.ends, strict=True)},
            ratings={name: dict(zip(ids, read.ratings[name], strict=True)) for name in names},
            scales={name: read.scales[name] for name in names},
            groups=dict(zip(ids, read.groups, strict=True)) if read.groups else {},
        )


class _Columns(Record):
    """Labels as they are written: a list per column, utterances by id."""

    ids: tuple[str, ...]
    starts: tuple[Number, ...]
    ends: tuple[Number | None, ...]
    scales: dict[Dimension, tuple[Number, Number]]
    ratings: dict[Dimension, tuple[Number, ...]]
    groups: tuple[tuple[str | None, ...], ...] = ()


def labels_of(corpus: Corpus, dimensions: tuple[Dimension, ...]) -> Labels:
    """The labels of a corpus; every utterance has a rating of each of the dimensions."""
    spoken = corpus.utterances
    scales = {name: corpus.scales[name] for name in dimensions}
    return Labels(
        cuts={one.id: (float(one.start), None if one.end is None else float(one.end)) for one in spoken},
        ratings={name: {one.id: float(one.ratings[name]) for one in spoken} for name in dimensions},
        scales={name: (float(scale.minimum), float(scale.maximum)) for name, scale in scales.items()},
        groups={one.id: (one.speaker, one.session, one.dialogue) for one in spoken},
    )


def short(digests: Mapping[str, str]) -> str:
    """Eight digits that stand for all digests together."""
    return _digest(sorted(digests.items()))[:8]


def agree(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether nothing that both digests are of is known to differ; what wasn't recorded isn't known.

    >>> agree({"utterances": "a", "valence": "b"}, {"utterances": "a", "arousal": "c"})
    True
    >>> agree({"valence": "b"}, {"valence": "c"}), agree({"valence": "b"}, {})
    (False, True)
    """
    return all(other[name] == digest for name, digest in one.items() if name in other)


def differences(one: Labels, other: Labels) -> str:
    """Describe the differences between two sets of labels; dimensions that only one of them has aren't compared.

    >>> one = Labels({"a": (0.0, None)}, {"valence": {"a": 2.0}}, {"valence": (1.0, 5.0)})
    >>> differences(one, Labels(one.cuts, {"valence": {"a": 3.0}}, one.scales))
    '1 of 1 valence ratings differ'
    """
    shared = one.cuts.keys() & other.cuts.keys()
    alone = len(one.cuts.keys() | other.cuts.keys()) - len(shared)
    moved = sum(one.cuts[name] != other.cuts[name] for name in shared)
    said = [f"{counted(alone, 'utterance')} in only one of them"] if alone else []
    said += [f"{moved:,} of {len(shared):,} utterances begin or end elsewhere in their files"] if moved else []
    grouped = one.groups.keys() & other.groups.keys()
    if regrouped := sum(one.groups[name] != other.groups[name] for name in grouped):
        said.append(f"{regrouped:,} of {len(grouped):,} utterances have another speaker, session or dialogue")
    for dimension in (name for name in one.ratings if name in other.ratings):
        mine, yours = one.ratings[dimension], other.ratings[dimension]
        if changed := sum(mine[name] != yours[name] for name in shared):
            said.append(f"{changed:,} of {len(shared):,} {dimension} ratings differ")
        (low, high), (bottom, top) = one.scales[dimension], other.scales[dimension]
        if (low, high) != (bottom, top):
            said.append(
                f"the scale of {dimension} is {low:g} to {high:g} in one and {bottom:g} to {top:g} in the other"
            )
    return ", ".join(said)


def _digest(data: object) -> str:
    return hashlib.sha256(json.dumps(data).encode()).hexdigest()
