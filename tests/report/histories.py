"""Simulated histories of runs: predictions are drawn and scored, so that the noise of a CCC is its own."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from serfit.config.schema import ExperimentConfig
from serfit.runs.live import History
from serfit.runs.records import Stopped
from serfit.scores.metrics import Scores, score
from serfit.scores.records import EpochRecord, EpochTime
from serfit.system.records import from_plain

DIMENSIONS = ("valence", "arousal")
RECORDED = Path(__file__).parent / "recorded"

Course = Callable[[int], float]
"""Epoch, from 1 -> correlation of predictions and targets."""


def config(**changes: Any) -> ExperimentConfig:
    """The recipe of configs/finetune.yaml; changes by dotted key with __ for a dot."""
    plain: dict[str, Any] = {"experiment": {"name": "simulated"}, "data": {"root": "somewhere"}}
    for key, value in changes.items():
        *sections, name = key.split("__")
        section = plain
        for part in sections:
            section = section.setdefault(part, {})
        section[name] = value
    return ExperimentConfig.model_validate(plain)


class Ratings:
    """Targets of a part and the directions in which a system errs, most of them for good."""

    def __init__(self, random: np.random.Generator, count: int) -> None:
        self.random = random
        self.truth = random.standard_normal((count, 2))
        self.errors = random.standard_normal((count, 2))

    def scores(self, correlations: Sequence[float], spread: float = 1.0) -> Scores:
        """Scores of predictions with these correlations (per dimension) and a spread relative to the targets'."""
        fresh = self.random.standard_normal(self.errors.shape)
        self.errors = 0.9 * self.errors + np.sqrt(1 - 0.9**2) * fresh
        rho = np.clip(np.asarray(correlations), -0.99, 0.99)
        values = spread * (rho * self.truth + np.sqrt(1 - rho**2) * self.errors)
        return score(3 + 0.9 * self.truth, 3 + 0.9 * values, DIMENSIONS)


def simulate(
    random: np.random.Generator,
    epochs: int,
    validation: Sequence[Course],
    train: Sequence[Course],
    *,
    count: int = 2000,
    steps: int = 700,
    wander: float = 0.015,
    spread: Course = lambda epoch: 0.9,
    loss: Course | None = None,
    gradient: Course = lambda epoch: 5.0,
    comparable: bool = True,
    constant: int = 0,
    **changes: Any,
) -> History:
    """A finished run whose correlations follow courses, wander a little from epoch to epoch, and are then measured."""
    heard, learnt = Ratings(random, count), Ratings(random, count)
    records: list[EpochRecord] = []
    best = -1.0
    for epoch in range(1, epochs + 1):
        drift = wander * random.standard_normal(2)
        scores = heard.scores([course(epoch) + by for course, by in zip(validation, drift, strict=True)], spread(epoch))
        trained = learnt.scores([course(epoch) for course in train], spread(epoch))
        mean = 1 - (trained.average or 0.0) if loss is None else loss(epoch)
        average = scores.average or 0.0
        records.append(
            EpochRecord(
                epoch=epoch,
                step=steps * epoch,
                train_loss=mean + 0.3 / np.sqrt(steps) * random.standard_normal(),
                train=trained,
                validation=scores,
                learning_rates={"encoder": 1e-5, "head": 1e-4},
                gradient_norm=gradient(epoch) * float(np.exp(0.5 * random.standard_normal())),
                constant_batches=constant,
                best=average > best,
                best_valence=average > best,
            )
        )
        best = max(best, average)
    return History(
        directory=Path("runs/simulated"),
        config=config(train__epochs=epochs, **changes),
        state="finished",
        records=tuple(records),
        times=tuple(EpochTime(1 + one, 600.0, 20.0, 500.0, 70.0, 10.0, steps, 8 * steps) for one in range(epochs)),
        corpus="iemocap" if comparable else "another",
        utterances=10_039,
        device="cuda",
        precision="bf16",
    )


def rising(end: float, pace: float, fall: float = 0.0) -> Course:
    """An exponential approach to `end`, less `fall` per epoch once there."""
    return lambda epoch: end * (1 - np.exp(-epoch / pace)) - fall * max(0.0, epoch - 3 * pace)


def healthy(random: np.random.Generator) -> History:
    """A run as one wants it: large or small corpora, fast or slow, with harmless overfitting at its end."""
    comparable = bool(random.uniform() < 0.5)
    epochs = int(random.integers(5, 31))
    count = 2000 if comparable else int(random.choice([100, 300, 1000]))
    valence = random.uniform(0.62, 0.70) if comparable else random.uniform(0.35, 0.8)
    arousal = random.uniform(0.6, 0.8) if comparable else random.uniform(0.35, 0.8)
    pace = random.uniform(0.7, 2.2) if comparable else random.uniform(0.7, 4.0)
    fall = random.uniform(0.0, 0.04) / epochs
    return simulate(
        random,
        epochs,
        [rising(valence, pace, fall), rising(arousal, 0.7 * pace, fall)],
        [rising(random.uniform(valence, 0.97), 2 * pace), rising(random.uniform(arousal, 0.97), 1.5 * pace)],
        count=count,
        steps=700 if comparable else max(6, 4 * count // 16),
        wander=random.uniform(0.005, 0.025) + 0.15 / np.sqrt(count),
        spread=lambda epoch: min(0.9, 0.3 + 0.2 * epoch),
        comparable=comparable,
    )


def prefixes(history: History) -> list[History]:
    """The history as it stood after each epoch."""
    return [
        replace(history, records=history.records[:epoch], times=history.times[:epoch])
        for epoch in range(1, len(history.records) + 1)
    ]


def recorded(name: str) -> History:
    """A real training of the demo's network that was recorded once; see recorded/README.md."""
    data = json.loads((RECORDED / f"{name}.json").read_text())
    return History(
        directory=Path("runs") / name,
        config=ExperimentConfig.model_validate(data["config"]),
        state="stopped" if "stopped" in data else "finished",
        stopped=Stopped(**data["stopped"]) if "stopped" in data else None,
        records=tuple(from_plain(EpochRecord, record, name, "") for record in data["records"]),
        corpus=data["corpus"],
        utterances=data["utterances"],
        device="cpu",
        precision="fp32",
    )
