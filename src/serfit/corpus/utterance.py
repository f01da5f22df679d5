"""The one canonical utterance that every corpus is read into."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from serfit.labels import Dimension, LabelScale

Part = Literal["train", "validation", "test"]
Style = Literal["improvised", "scripted"]


@dataclass(frozen=True, slots=True)
class Utterance:
    """One rated stretch of speech.

    Attributes:
        id: unique within the corpus.
        path: audio file (absolute, or relative to the working directory).
        ratings: rating per dimension, on the corpus's own scale; a missing rating is an absent key.
        start: seconds into the file.
        end: seconds into the file, or None for the end of the file.
        duration: seconds as declared by the corpus, or None where it doesn't say.
        speaker: unique within the corpus, or None where unknown (never one common "unknown" speaker).
        session: recording session, if the corpus has them.
        dialogue: conversation the utterance comes from, if any.
        turn: position within the dialogue, from 0.
        scenario: what the speakers were asked to play; recurs across sessions.
        style: improvised or scripted, where the corpus distinguishes.
        part: the corpus's official part, if it has one.
        gender: "female" or "male" where known.
        emotion: categorical label where known, in the corpus's own words.
        transcript: the words spoken, where known.
        raters: number of raters behind the ratings, where known.
        single_ratings: what each rater gave, per dimension and in no particular order, where known.
    """

    id: str
    path: Path
    ratings: Mapping[Dimension, float]
    start: float = 0.0
    end: float | None = None
    duration: float | None = None
    speaker: str | None = None
    session: str | None = None
    dialogue: str | None = None
    turn: int | None = None
    scenario: str | None = None
    style: Style | None = None
    part: Part | None = None
    gender: str | None = None
    emotion: str | None = None
    transcript: str | None = None
    raters: int | None = None
    single_ratings: Mapping[Dimension, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Corpus:
    """A named list of utterances and the scales of their ratings.

    Attributes:
        name: short name for tables, for example "iemocap".
        utterances: in the corpus's own order, ids unique.
        scales: rating scale per dimension that the corpus rates.
        notes: what the reader found worth telling (counts that differ from the release, ratings off the scale).
    """

    name: str
    utterances: tuple[Utterance, ...]
    scales: Mapping[Dimension, LabelScale]
    notes: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Release:
    """A corpus as it is distributed: how it is read, and what is known of it before.

    Attributes:
        read: makes the corpus of the folder that holds the release; raises a UserError naming what is wrong there.
        scale: of the ratings of every dimension.
        language: ISO 639 codes of what is spoken in it, with commas.
    """

    read: Callable[[Path], Corpus]
    scale: LabelScale
    language: str
