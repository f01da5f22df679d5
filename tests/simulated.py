"""Made-up corpora whose true CCC is known: speakers, dialogues and folds like IEMOCAP's."""

from dataclasses import dataclass, replace

import numpy as np

from serfit.scores.statistics.contrast import Cell, Clustering, Contrast, clustering, contrast


@dataclass(frozen=True)
class System:
    """How predictions come about: slope * x + errors.

    All but the slope and `common` are standard deviations: between speakers, dialogues, utterances, and between folds,
    each of which has a trained model of its own. `common` is the share of these models' variance that all of them have
    in common, as models that share training data may.
    """

    slope: float = 0.6
    slope_by_fold: float = 0.0
    slope_by_speaker: float = 0.1
    fold: float = 0.0
    common: float = 0.0
    speaker: float = 0.15
    dialogue: float = 0.3
    noise: float = 0.6


@dataclass(frozen=True)
class Design:
    """How ratings come about: standard deviations between speakers, dialogues, utterances; how many there are of each.

    Where uneven, sessions differ eightfold in dialogues, and one speaker of two says 15 % of the words.
    """

    speaker: float = 0.3
    dialogue: float = 0.5
    utterance: float = 0.7
    sessions: int = 5
    dialogues: int = 30
    size: int = 67
    uneven: bool = False

    @property
    def variance(self) -> float:
        return self.speaker**2 + self.dialogue**2 + self.utterance**2


def true_ccc(design: Design, system: System) -> float:
    """CCC in the population of all trained models, speakers and dialogues."""
    slopes = system.slope**2 + system.slope_by_fold**2 + system.slope_by_speaker**2
    errors = system.fold**2 + system.speaker**2 + system.dialogue**2 + system.noise**2
    predicted = slopes * design.variance + errors
    return 2 * system.slope * design.variance / (design.variance + predicted)


def as_good(design: Design, system: System, slope: float) -> System:
    """A system with another slope and as much noise as gives it the same true CCC."""
    wanted = true_ccc(design, system)
    other = replace(system, slope=slope)
    rest = 2 * slope * design.variance * (1 / wanted - 1 / true_ccc(design, other)) + system.noise**2
    assert rest > 0, "no noise makes this slope as good"
    return replace(other, noise=rest**0.5)


_UNEVEN = (2.0, 0.25, 1.0, 0.5, 1.25)
"""Dialogues of five sessions, as shares of an even number."""


@dataclass(frozen=True)
class Corpus:
    """[N] ratings, and who said what where."""

    targets: np.ndarray
    speaker: np.ndarray
    dialogue: np.ndarray
    session: np.ndarray


def draw(random: np.random.Generator, design: Design, people: np.random.Generator | None = None) -> Corpus:
    """Two speakers a session share its dialogues; dialogues differ in length, speakers in how much they say.

    What belongs to the speakers comes from `people`, to draw other dialogues of the same ones.
    """
    people = people or random
    parts = []
    for session in range(design.sessions):
        dialogues = max(1, round(design.dialogues * _UNEVEN[session % 5])) if design.uneven else design.dialogues
        sizes = random.poisson(design.size * random.uniform(0.4, 1.6, dialogues)) + 2
        dialogue = np.repeat(np.arange(dialogues), sizes)
        second = random.random(len(dialogue)) < (0.15 if design.uneven else people.uniform(0.35, 0.65))
        speaker = people.normal(0, design.speaker, 2)[second.astype(int)]
        targets = speaker + random.normal(0, design.dialogue, dialogues)[dialogue]
        targets = targets + random.normal(0, design.utterance, len(dialogue))
        whole = np.full(len(dialogue), session)
        parts.append((targets, 2 * session + second, 1000 * session + dialogue, whole))
    return Corpus(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def predict(
    random: np.random.Generator,
    corpus: Corpus,
    system: System,
    people: np.random.Generator | None = None,
    models: np.random.Generator | None = None,
) -> np.ndarray:
    """[N] predictions; `people` as in `draw`, and likewise `models` for what belongs to the trained models."""
    people, models = people or random, models or random
    folds, speakers, dialogues = (column.max() + 1 for column in (corpus.session, corpus.speaker, corpus.dialogue))
    slope = system.slope + _models(models, system.slope_by_fold, system.common, folds)[corpus.session]
    slope = slope + people.normal(0, system.slope_by_speaker, speakers)[corpus.speaker]
    bias = _models(models, system.fold, system.common, folds)[corpus.session]
    bias = bias + people.normal(0, system.speaker, speakers)[corpus.speaker]
    bias = bias + random.normal(0, system.dialogue, dialogues)[corpus.dialogue]
    return slope * corpus.targets + bias + random.normal(0, system.noise, len(bias))


def _models(random: np.random.Generator, deviation: float, common: float, count: int) -> np.ndarray:
    """[count] effects of trained models with a given standard deviation."""
    own = random.normal(0, deviation * (1 - common) ** 0.5, count)
    return own + random.normal(0, deviation * common**0.5) if common else own


def grouped(corpus: Corpus) -> Clustering:
    """Who said what where."""
    names = [[str(number) for number in column] for column in (corpus.speaker, corpus.dialogue)]
    return clustering(*names, corpus.session.tolist())


def pooled(where: Clustering, corpus: Corpus, values: np.ndarray) -> Contrast:
    return contrast(where, [Cell(np.arange(len(values)), corpus.targets, values, 0, 0, 1.0)])


def over_folds(where: Clustering, corpus: Corpus, values: np.ndarray) -> Contrast:
    rows = [np.flatnonzero(corpus.session == fold) for fold in np.unique(corpus.session)]
    cells = [Cell(r, corpus.targets[r], values[r], fold, 0, 1.0) for fold, r in enumerate(rows)]
    return contrast(where, cells)
