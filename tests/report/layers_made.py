"""A made-up probe: two layers, five folds of two speakers."""

from collections.abc import Sequence
from pathlib import Path

from serfit.corpus.utterance import Utterance
from serfit.report.layers import Line, Probed, contrasts, grouped
from serfit.scores.records import Predictions
from serfit.scores.statistics.contrast import minus
from serfit.scores.statistics.interval import estimate
from serfit.system.counters import generator

SIZE = 30


def utterances(fold: int) -> list[Utterance]:
    """The test utterances of a fold."""
    return [
        Utterance(id=f"{fold}_{place}", path=Path("x.wav"), ratings={}, speaker=f"{fold}{'ab'[place % 2]}")
        for place in range(SIZE)
    ]


def predictions(fold: int, noise: float) -> Predictions:
    """Predictions that are off by some noise."""
    targets = generator("targets", fold).normal(size=(SIZE, 2))
    off = noise * generator("off", fold, round(1000 * noise)).normal(size=(SIZE, 2))
    return Predictions(tuple(one.id for one in utterances(fold)), ("valence", "arousal"), targets, targets + off)


def made_line(encoder: str, features: str, pooling: str, layer: int | None, noise: float) -> Line:
    """A line whose predictions are off by some noise; of the chosen layer, less those that are off by 1."""
    where = grouped([utterances(fold) for fold in range(5)])
    scores = contrasts(where, [predictions(fold, noise) for fold in range(5)])
    return Line(encoder, features, pooling, layer, {name: estimate(one) for name, one in scores.items()})


def encoder_lines(encoder: str) -> list[Line]:
    """The lines of an encoder with two layers."""
    lines = []
    for index, words in enumerate(("layer 0", "layer 1", "sum of layers", "all layers")):
        for pooling in ("mean", "mean + SD"):
            noise = 0.9 - 0.1 * index - 0.05 * (pooling != "mean")
            lines.append(made_line(encoder, words, pooling, index if index < 2 else None, noise))
    return [*lines, made_line(encoder, "chosen layer", "", None, 0.75)]


def made_probe(encoders: Sequence[str]) -> Probed:
    """A probe of some encoders."""
    lines = [made_line("", "hand-made", "", None, 1.0)]
    where = grouped([utterances(fold) for fold in range(5)])
    chosen, base = (contrasts(where, [predictions(fold, noise) for fold in range(5)]) for noise in (0.75, 1.0))
    gained = {name: estimate(minus(one, base[name])) for name, one in chosen.items()}
    for encoder in encoders:
        lines += [*encoder_lines(encoder), Line(encoder, "chosen layer", "", None, gained, minus="hand-made")]
    costs = dict.fromkeys(encoders, ("time: little",))
    return Probed("EMO-DB (proxy targets)", tuple(lines), ("an answer",), costs, ("fold 1 of 5: tests on a",))
