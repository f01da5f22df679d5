"""Made-up corpora whose true CCC is known: speakers, dialogues and folds like IEMOCAP's."""

from dataclasses import dataclass, replace

import numpy as np

from serfit.statistics.contrast import Cell, Contrast, Layout, contrast, layout


@dataclass(frozen=True)
class System:
    """How predictions come about: slope * x + errors that belong to speakers, dialogues and utterances (deviations)."""

    slope: float = 0.6
    slope_by_speaker: float = 0.1
    speaker: float = 0.15
    dialogue: float = 0.3
    noise: float = 0.6


@dataclass(frozen=True)
class Design:
    """How ratings come about: deviations between speakers, dialogues, utterances; how many there are of each."""

    speaker: float = 0.3
    dialogue: float = 0.5
    utterance: float = 0.7
    sessions: int = 5
    dialogues: int = 30
    size: int = 67

    @property
    def variance(self) -> float:
        return self.speaker**2 + self.dialogue**2 + self.utterance**2


def true_ccc(design: Design, system: System) -> float:
    """CCC in the population of all speakers and dialogues."""
    errors = system.speaker**2 + system.dialogue**2 + system.noise**2
    predicted = (system.slope**2 + system.slope_by_speaker**2) * design.variance + errors
    return 2 * system.slope * design.variance / (design.variance + predicted)


def as_good(design: Design, system: System, slope: float) -> System:
    """A system with another slope and as much noise as gives it the same true CCC."""
    wanted = true_ccc(design, system)
    other = replace(system, slope=slope)
    rest = 2 * slope * design.variance / wanted - design.variance
    rest -= (slope**2 + system.slope_by_speaker**2) * design.variance + system.speaker**2 + system.dialogue**2
    assert rest > 0, "no noise makes this slope as good"
    return replace(other, noise=rest**0.5)


@dataclass(frozen=True)
class Corpus:
    """[N] ratings, and who said what where."""

    targets: np.ndarray
    speaker: np.ndarray
    dialogue: np.ndarray
    session: np.ndarray


def draw(random: np.random.Generator, design: Design) -> Corpus:
    """Two speakers a session share its dialogues; dialogues differ in length, speakers in how much they say."""
    parts = []
    for session in range(design.sessions):
        sizes = random.poisson(design.size * random.uniform(0.4, 1.6, design.dialogues)) + 2
        dialogue = np.repeat(np.arange(design.dialogues), sizes)
        second = random.random(len(dialogue)) < random.uniform(0.35, 0.65)
        speaker = random.normal(0, design.speaker, 2)[second.astype(int)]
        targets = speaker + random.normal(0, design.dialogue, design.dialogues)[dialogue]
        targets = targets + random.normal(0, design.utterance, len(dialogue))
        whole = np.full(len(dialogue), session)
        parts.append((targets, 2 * session + second, design.dialogues * session + dialogue, whole))
    return Corpus(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def predict(random: np.random.Generator, corpus: Corpus, system: System) -> np.ndarray:
    """[N] predictions."""
    speakers, dialogues = corpus.speaker.max() + 1, corpus.dialogue.max() + 1
    slope = system.slope + random.normal(0, system.slope_by_speaker, speakers)[corpus.speaker]
    bias = random.normal(0, system.speaker, speakers)[corpus.speaker]
    bias = bias + random.normal(0, system.dialogue, dialogues)[corpus.dialogue]
    return slope * corpus.targets + bias + random.normal(0, system.noise, len(bias))


def layouts(corpus: Corpus) -> tuple[Layout, Layout]:
    """Of one CCC over everything, and of the mean over sessions."""
    names = [[str(number) for number in column] for column in (corpus.speaker, corpus.dialogue)]
    return layout(*names, [0] * len(corpus.session)), layout(*names, corpus.session.tolist())


def pooled(where: Layout, corpus: Corpus, values: np.ndarray) -> Contrast:
    return contrast(where, [Cell(np.arange(len(values)), corpus.targets, values, 0, 0, 1.0)])


def over_folds(where: Layout, corpus: Corpus, values: np.ndarray) -> Contrast:
    rows = [np.flatnonzero(corpus.session == fold) for fold in np.unique(corpus.session)]
    cells = [Cell(r, corpus.targets[r], values[r], fold, 0, 1.0) for fold, r in enumerate(rows)]
    return contrast(where, cells)
