"""The speakers and recordings that a network was trained on, as digests that travel with it, and where they reappear.

Whoever has a corpus can find out which of its speakers and recordings were trained on; nobody else learns a name. A
speaker is a name within a corpus of a certain name, since corpora number their speakers alike. A recording is the bytes
of its file, so one that was converted isn't found again.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import Field

from serfit.corpus.audio import file_digest
from serfit.corpus.copies import ROUNDING, THREADS
from serfit.corpus.utterance import Utterance
from serfit.errors import UserError, listed
from serfit.system.records import Number, VersionedRecord

DIGITS = 16
"""Hexadecimal digits of a digest: two of a million recordings agree by chance once in ten million."""

Stretch = tuple[Number, Number | None]
"""Start and end in a file, in seconds; None for its end."""


class TrainedOn(VersionedRecord):
    """trained.json: what a network has seen in training, that of the network it started from included.

    Attributes:
        speakers: digests of corpus and speaker.
        recordings: stretches of each file by the digest of its bytes.
        validation: digests of corpus and speaker by whose scores an epoch was chosen.
        unknown: networks it started from whose training data isn't recorded.
    """

    speakers: tuple[str, ...] = ()
    recordings: dict[str, tuple[Stretch, ...]] = Field(default_factory=dict)
    validation: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


def trained_on(corpus: str, utterances: Sequence[Utterance], validation: Sequence[Utterance] = ()) -> TrainedOn:
    """The record of a training part, and of the speakers of the validation part. Raises UserError for unread files."""
    digests = _digests(utterances)
    recordings: dict[str, list[Stretch]] = {}
    for spoken in utterances:
        recordings.setdefault(digests[spoken.path], []).append((spoken.start, spoken.end))
    found = {name: tuple(stretches) for name, stretches in sorted(recordings.items())}
    speakers, others = (
        tuple(sorted(_speaker(corpus, name) for name in speakers_of(part))) for part in (utterances, validation)
    )
    return TrainedOn(speakers=speakers, recordings=found, validation=others)


def both(one: TrainedOn, other: TrainedOn) -> TrainedOn:
    """What a network has seen that went on from another one."""
    names = sorted(one.recordings.keys() | other.recordings.keys())
    stretches = {name: {*one.recordings.get(name, ()), *other.recordings.get(name, ())} for name in names}
    return TrainedOn(
        speakers=tuple(sorted({*one.speakers, *other.speakers})),
        recordings={name: tuple(sorted(found, key=_bounds)) for name, found in stretches.items()},
        validation=tuple(sorted({*one.validation, *other.validation})),
        unknown=tuple(dict.fromkeys((*one.unknown, *other.unknown))),
    )


def check_unseen(trained: TrainedOn, model: str, corpus: str, parts: Mapping[str, Sequence[Utterance]]) -> None:
    """Refuse to score a network on what it was trained on.

    Args:
        trained: what it was trained on.
        model: what to call it.
        corpus: name of the corpus that it is to be scored on.
        parts: the utterances to be scored, by the name of their part.

    Raises:
        UserError: naming speakers and utterances that it was trained on.
    """
    digests, seen = _digests([spoken for utterances in parts.values() for spoken in utterances]), {*trained.speakers}
    for part, utterances in parts.items():
        speakers = [name for name in speakers_of(utterances) if _speaker(corpus, name) in seen]
        audio = [
            spoken.id
            for spoken in utterances
            if any(
                _overlap((spoken.start, spoken.end), one) for one in trained.recordings.get(digests[spoken.path], ())
            )
        ]
        known = [f"speakers {listed(speakers)}"] if speakers else []
        known += [f"the audio of {listed(audio)}"] if audio else []
        if known:
            raise UserError(
                f"{model} was trained on {' and '.join(known)}, which the {part} part of {corpus} holds too, so its "
                "scores there would flatter; choose a part or fold that it wasn't trained on (of a cross-validated "
                "run, the fold of its own), or, where other people only have the same names, call this corpus "
                "otherwise with data.name"
            )


def doubts(trained: TrainedOn, corpus: str, utterances: Sequence[Utterance]) -> list[str]:
    """Warnings about scores of a network on utterances of a corpus: what isn't known, and what it was chosen by."""
    said = [
        f"warning: what {name} learnt from isn't recorded, so whether it knows speakers or recordings of {corpus} "
        "isn't known"
        for name in trained.unknown
    ]
    chosen_by = {*trained.validation}
    speakers = [name for name in speakers_of(utterances) if _speaker(corpus, name) in chosen_by]
    if speakers:
        said.append(
            f"warning: the best epoch was chosen by the scores of speakers {listed(speakers)}, which are scored here, "
            "so these scores flatter a little"
        )
    return said


def speakers_of(utterances: Sequence[Utterance]) -> list[str]:
    """The known speakers, in order."""
    return sorted({spoken.speaker for spoken in utterances if spoken.speaker is not None})


def _digests(utterances: Sequence[Utterance]) -> dict[Path, str]:
    """Digest of each file's bytes; every file is read once."""
    paths = list(dict.fromkeys(spoken.path for spoken in utterances))
    with ThreadPoolExecutor(THREADS) as pool:
        return {path: digest[:DIGITS] for path, digest in zip(paths, pool.map(file_digest, paths), strict=True)}


def _speaker(corpus: str, name: str) -> str:
    return hashlib.sha256(json.dumps([corpus, name]).encode()).hexdigest()[:DIGITS]


def _bounds(stretch: Stretch) -> tuple[float, float]:
    start, end = stretch
    return start, math.inf if end is None else end


def _overlap(one: Stretch, other: Stretch) -> bool:
    """Whether two stretches of a file share more than what rounding makes of their times."""
    (start, end), (begin, stop) = _bounds(one), _bounds(other)
    return min(end, stop) - max(start, begin) > ROUNDING
