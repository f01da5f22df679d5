"""A small synthetic corpus in the mould of IEMOCAP: sessions, speakers, dialogues, scenarios and raters."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np

from serfit.corpus.synthetic.release import ReleaseUtterance
from serfit.corpus.synthetic.voices import draw_speaker, speak
from serfit.labels import SAMPLE_RATE
from serfit.system.counters import generator

SCENARIOS: Mapping[str, tuple[float, float]] = {
    "impro01": (-0.15, 0.05),
    "impro02": (-0.08, -0.08),
    "impro03": (0.16, 0.05),
    "impro04": (-0.04, 0.08),
    "script01_1": (0.11, -0.02),
    "script02_1": (0.00, -0.08),
}
"""The scenarios of every session, and how each shifts valence and arousal on [0, 1]."""

RATERS = 3
"""External raters per utterance."""

_SPREAD = 0.9
_DISAGREEMENT = 0.6
"""Standard deviation of one rater around the truth, in points of the 1-5 scale."""
_WORDS = ("yes", "no", "well", "please", "really", "tomorrow", "I", "you", "know", "again", "never", "think", "so")

Rating = tuple[int | None, int | None, int | None]


def synthetic_corpus(seed: int, *, sessions: int = 5, utterances_per_dialogue: int = 16) -> Iterator[ReleaseUtterance]:
    """The utterances of a made-up IEMOCAP, dialogue by dialogue in the order of time.

    Every session has its own woman and man, who play every scenario of `SCENARIOS` once and take turns. Each
    utterance is a pure function of the seed and its name: a smaller corpus is a subset of a larger one.

    Args:
        seed: decides everything.
        sessions: 1 to 5.
        utterances_per_dialogue: at least 2, so that both speakers speak.
    """
    assert 1 <= sessions <= 5, f"IEMOCAP has five sessions, not {sessions}"
    assert utterances_per_dialogue >= 2, f"a dialogue of {utterances_per_dialogue} utterances isn't one"
    for session in range(1, sessions + 1):
        for index, scenario in enumerate(SCENARIOS):
            dialogue = f"Ses{session:02d}{'FM'[index % 2]}_{scenario}"
            yield from _dialogue(seed, session, dialogue, scenario, utterances_per_dialogue)


def _dialogue(seed: int, session: int, dialogue: str, scenario: str, utterances: int) -> Iterator[ReleaseUtterance]:
    time = 5.0
    for turn in range(utterances):
        gender: Literal["F", "M"] = "F" if turn % 2 == 0 else "M"
        name = f"{dialogue}_{gender}{turn // 2:03d}"
        random = generator(seed, "demo", "utterance", name)
        speaker = draw_speaker(generator(seed, "demo", "speaker", session, gender), gender)
        truth = np.clip(0.5 + np.array(SCENARIOS[scenario]) + _SPREAD * random.uniform(-0.5, 0.5, 2), 0.0, 1.0)
        samples = speak(random, speaker, valence=float(truth[0]), arousal=float(truth[1]))
        raters = tuple(_rating(random, *truth) for _ in range(RATERS))
        valence, arousal, dominance = np.array(raters, dtype=np.float64).mean(axis=0).round(4).tolist()
        start = time + float(random.uniform(0.1, 0.8))
        time = start + len(samples) / SAMPLE_RATE
        yield ReleaseUtterance(
            name=name,
            start=start,
            end=time,
            emotion=majority([vote(*rating[:2]) for rating in raters]),
            valence=valence,
            arousal=arousal,
            dominance=dominance,
            transcript=_transcript(random),
            samples=samples,
            raters=raters,
        )


def _rating(random: np.random.Generator, valence: float, arousal: float) -> tuple[int, int, int]:
    """Return one rater's V, A and D on 1 to 5; dominance follows arousal halfway."""
    dominance = 0.5 * arousal + 0.25
    points = 1.0 + 4.0 * np.array([valence, arousal, dominance]) + random.normal(0.0, _DISAGREEMENT, 3)
    v, a, d = np.clip(np.rint(points), 1, 5).astype(int).tolist()
    return v, a, d


def vote(valence: int, arousal: int) -> str:
    """The category that goes with a rating on 1 to 5.

    >>> vote(2, 4), vote(2, 2), vote(4, 3), vote(3, 4)
    ('ang', 'sad', 'hap', 'neu')
    """
    if valence == 3:
        return "neu"
    if valence > 3:
        return "hap"
    return "ang" if arousal >= 3 else "sad"


def majority(votes: list[str]) -> str:
    """The category that most raters chose, or xxx where no one has more than half of the votes.

    >>> majority(["hap", "neu", "hap"]), majority(["hap", "neu", "sad"])
    ('hap', 'xxx')
    """
    category, count = Counter(votes).most_common(1)[0]
    return category if 2 * count > len(votes) else "xxx"


def _transcript(random: np.random.Generator) -> str:
    words = " ".join(random.choice(_WORDS, size=random.integers(2, 6)).tolist())
    return words[0].upper() + words[1:] + "."
