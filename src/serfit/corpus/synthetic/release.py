"""Writes utterances in the layout of the IEMOCAP release, byte for byte in its form."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from serfit.labels import SAMPLE_RATE

Rating = tuple[int | None, int | None, int | None]
"""Valence, arousal and dominance from 1 to 5 by one rater, None where the rater gave none."""

_CLASSES = {
    "neu": "Neutral",
    "hap": "Happiness",
    "sad": "Sadness",
    "ang": "Anger",
    "exc": "Excited",
    "fru": "Frustration",
    "fea": "Fear",
    "sur": "Surprise",
    "dis": "Disgust",
    "oth": "Other",
}
_NAME = re.compile(r"Ses\d\d[FM]_(?:impro|script)\d\d\w*_[FM]\d{3}")


@dataclass(frozen=True, slots=True, eq=False)
class ReleaseUtterance:
    """One utterance as the release describes it.

    Attributes:
        name: for example Ses01F_impro01_F000: session, who wore the markers, dialogue, speaker, number.
        start: seconds into the dialogue.
        end: seconds into the dialogue.
        emotion: three-letter class, "xxx" where the raters don't agree.
        valence: mean rating, from 1 to 5.
        arousal: mean rating, from 1 to 5.
        dominance: mean rating, from 1 to 5.
        transcript: the words.
        samples: [S] float32 in [-1, 1] at 16 kHz; without any no wav file is written.
        raters: what each external rater gave.
    """

    name: str
    start: float
    end: float
    emotion: str
    valence: float
    arousal: float
    dominance: float
    transcript: str
    samples: NDArray[np.float32]
    raters: tuple[Rating, ...] = ()

    def __post_init__(self) -> None:
        assert _NAME.fullmatch(self.name), self.name
        assert self.emotion == "xxx" or self.emotion in _CLASSES, self.emotion

    @property
    def session(self) -> str:
        """The session's folder, Session1 to Session5."""
        return f"Session{int(self.name[3:5])}"

    @property
    def dialogue(self) -> str:
        """The dialogue's name."""
        return self.name.rpartition("_")[0]


def write_release(root: Path, utterances: Iterable[ReleaseUtterance]) -> None:
    """Write label files, transcriptions and wav files (16 kHz mono PCM-16) below `root`.

    As in the release, labels are ordered by name, transcriptions by time. Files of the same name are replaced, all
    others stay.
    """
    ordered = sorted(utterances, key=lambda utterance: utterance.name)
    for (session, dialogue), group in groupby(ordered, key=lambda utterance: (utterance.session, utterance.dialogue)):
        spoken = list(group)
        dialog = root / session / "dialog"
        _write_text(dialog / "EmoEvaluation" / f"{dialogue}.txt", _evaluation(spoken))
        _write_text(dialog / "transcriptions" / f"{dialogue}.txt", _transcription(spoken))
        wavs = root / session / "sentences" / "wav" / dialogue
        wavs.mkdir(parents=True, exist_ok=True)
        for utterance in spoken:
            if utterance.samples.size:
                soundfile.write(wavs / f"{utterance.name}.wav", utterance.samples, SAMPLE_RATE, subtype="PCM_16")


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode("latin-1", errors="replace"))


def _evaluation(utterances: Sequence[ReleaseUtterance]) -> str:
    blocks = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n", *map(_block, utterances)]
    return "\n".join(blocks) + "\n"


def _block(utterance: ReleaseUtterance) -> str:
    """Header, three votes on the class, the raters' numbers, and the speaker's own report of both."""
    means = (utterance.valence, utterance.arousal, utterance.dominance)
    speaker = f"{utterance.name[-4]}{int(utterance.name[3:5])}"
    own: Rating = (round(means[0]), round(means[1]), round(means[2]))
    lines = [
        f"[{utterance.start:.4f} - {utterance.end:.4f}]\t{utterance.name}\t{utterance.emotion}\t"
        f"[{means[0]:.4f}, {means[1]:.4f}, {means[2]:.4f}]",
        *(f"C-E{number}:\t{vote}\t()" for number, vote in enumerate(_votes(utterance.emotion), start=2)),
        f"C-{speaker}:\t{_votes(utterance.emotion)[0]}\t()",
        *(f"A-E{number}:\t{_rated(rating)}\t()" for number, rating in enumerate(utterance.raters, start=3)),
        f"A-{speaker}:\t{_rated(own)}\t()",
    ]
    return "\n".join(lines) + "\n"


def _votes(emotion: str) -> tuple[str, str, str]:
    """Three raters' classes; one may tick several, and without agreement they all differ."""
    if emotion == "xxx":
        return "Neutral state;", "Frustration;", "Sadness; Other;"
    return f"{_CLASSES[emotion]};", f"{_CLASSES[emotion]};", f"{_CLASSES[emotion]}; Other;"


def _rated(rating: Rating) -> str:
    """One rater's numbers in the release's spelling: two spaces after dom, and no dom at all where it is missing."""
    valence, arousal, dominance = rating
    text = f"val {_digit(valence)}; act {_digit(arousal)};"
    return text if dominance is None else f"{text} dom  {dominance};"


def _digit(value: int | None) -> str:
    return "" if value is None else str(value)


def _transcription(utterances: Sequence[ReleaseUtterance]) -> str:
    spoken = sorted(utterances, key=lambda utterance: (utterance.start, utterance.end, utterance.name))
    return "".join(
        f"{utterance.name} [{utterance.start:08.4f}-{utterance.end:08.4f}]: {utterance.transcript}\n"
        for utterance in spoken
    )
