"""Synthetic finished runs, written the way a training writes them."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from serfit.config.schema import ExperimentConfig
from serfit.corpus.identity import Labels
from serfit.corpus.utterance import Utterance
from serfit.labels import Dimension
from serfit.runs.directory import ENVIRONMENT, FINISHED, LABELS, METRICS, PREDICTIONS, Run, predictions_csv
from serfit.runs.records import Environment, TestScores
from serfit.scores.agreement import Agreement
from serfit.scores.metrics import DimensionScores, Scores, score
from serfit.scores.records import EpochRecord, EpochTime, Predictions
from serfit.system.counters import generator
from serfit.system.records import from_plain

SIZES = (40, 44, 48, 52, 56)
"""Test utterances of folds 1 to 5."""


@dataclass(frozen=True)
class Written:
    """A run on the disk and the predictions behind it."""

    directory: Path
    predictions: Predictions


def epoch_record(epoch: int, dimensions: Sequence[Dimension], best: bool, value: float = 0.5) -> EpochRecord:
    numbers = generator("record", epoch)
    targets = numbers.normal(size=(30, len(dimensions)))
    noisy = [value * targets + numbers.normal(size=targets.shape) / (epoch + 1) for _ in range(2)]
    parts = [score(targets, predicted, dimensions) for predicted in noisy]
    return EpochRecord(epoch, 10 * epoch, 1 / epoch, *parts, {"encoder": 1e-5, "head": 1e-4}, 1.5, 0, best, best)


def part_predictions(fold: int, seed: int, dimensions: Sequence[Dimension], noise: float, size: int) -> Predictions:
    """Targets depend on the fold alone, predictions on everything."""
    targets = generator("targets", fold).uniform(1, 5, size=(size, 3))[:, : len(dimensions)]
    values = targets + noise * generator("values", fold, seed, f"{noise}").normal(size=targets.shape)
    ids = tuple(f"Ses{fold:02d}_{number:03d}" for number in range(size))
    return Predictions(ids, tuple(dimensions), targets.round(6), values.round(6))


def settings(name: str, fold: int, seed: int, dimensions: Sequence[Dimension], corpus: str) -> dict[str, Any]:
    data: dict[str, Any] = {
        "corpus": corpus,
        "root": "somewhere",
        "dimensions": list(dimensions),
        "split": {"fold": fold},
    }
    if corpus == "csv":
        data |= {
            "table": {"path": "table.csv", **{d: d for d in dimensions}},
            "scales": dict.fromkeys(dimensions, (1, 5)),
        }
    return {"experiment": {"name": name, "seed": seed}, "data": data}


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A nested mapping with dotted keys replaced."""
    for key, value in changes.items():
        *path, last = key.split(".")
        inner = base
        for step in path:
            inner = inner.setdefault(step, {})
        inner[last] = value
    return base


def utterance(name: str, fold: int, place: int, described: bool) -> Utterance:
    """One of two speakers of a session takes turns in one of six dialogues, or nothing is known."""
    if not described:
        return Utterance(id=name, path=Path("x.wav"), ratings={})
    return Utterance(
        id=name,
        path=Path("x.wav"),
        ratings={},
        duration=0.5 + 0.5 * (place % 20),
        speaker=f"Ses{fold:02d}_{'FM'[place % 2]}",
        session=f"Ses{fold:02d}",
        dialogue=f"Ses{fold:02d}_{place % 6}",
        scenario=f"{place % 4}",
        style="improvised" if place % 4 < 2 else "scripted",
        gender=("female", "male")[place % 2],
        emotion=("ang", "sad", "hap")[place % 3],
    )


def write_run(
    runs_dir: Path,
    tick: int,
    name: str = "alpha",
    fold: int = 1,
    seed: int = 1,
    *,
    dimensions: Sequence[Dimension] = ("valence", "arousal"),
    noise: float = 0.5,
    best_epoch: int = 2,
    epochs: int = 3,
    total: int = sum(SIZES),
    corpus: str = "iemocap",
    corpus_name: str | None = None,
    predictions: Predictions | None = None,
    baseline: bool = True,
    raters: Agreement | None = None,
    finished: bool = True,
    changes: dict[str, Any] | None = None,
    environment: dict[str, Any] | None = None,
    described: bool = False,
    labels: Labels | None = None,
) -> Written:
    """Write a run that finished at a given second into a folder."""
    config = merged(settings(name, fold, seed, dimensions, corpus), changes or {})
    directory = runs_dir / f"{name}_fold{fold}_seed{seed}_{tick:04d}"
    run = Run.create(ExperimentConfig.model_validate(config), directory)
    found = predictions or part_predictions(fold, seed, dimensions, noise, SIZES[fold - 1])
    size = len(found.ids)
    counts = {"train": total - size - 10, "validation": 10, "test": size}
    described = {
        "encoder": {"name": "microsoft/wavlm-large", "revision": None, "sha256": "abc"},
        "precision": "fp32",
        "commit": "c0ffee",
        "packages": {"torch": "2.10"},
        "corpus": {"name": corpus_name or corpus, "notes": ["a note"], "counts": counts},
        "protocol": f"fold {fold} of 5: tests on Ses{fold:02d} ({size} utterances)",
    }
    about = described | (environment or {})
    if labels is not None:
        about["corpus"] = {**about["corpus"], "labels": labels.digests()}
        run.keep({LABELS: labels.to_text()})
    run.describe(from_plain(Environment, about, "environment", ""))
    records = [epoch_record(epoch, dimensions, epoch <= best_epoch) for epoch in range(1, epochs + 1)]
    for record in records:
        run.add(record, EpochTime(record.epoch, 60.0))
    half = found.only([index % 2 == 0 for index in range(size)]).scores()
    scores = TestScores(
        test=found.scores(),
        best_epoch=best_epoch,
        validation=records[best_epoch - 1].validation,
        scenario_baseline=half if baseline else None,
        within_scenario=half if baseline else None,
        styles={"improvised": half, "scripted": half} if baseline else {},
        raters_agreement=raters,
    )
    utterances = [utterance(name, fold, place, described) for place, name in enumerate(found.ids)]
    run.keep({PREDICTIONS: predictions_csv(found, utterances)})
    run.finish(scores, "")
    if finished:
        os.utime(directory / FINISHED, ns=(tick * 10**9, tick * 10**9))
    else:
        (directory / FINISHED).unlink()
    assert (directory / METRICS).is_file()
    assert (directory / ENVIRONMENT).is_file()
    return Written(directory, found)


def change_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Edit a JSON file in place."""
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def numpy_ccc(predictions: Predictions, dimension: Dimension) -> float:
    """CCC by the definition with numpy's covariance, apart from the program's own formula."""
    column = predictions.dimensions.index(dimension)
    x, y = predictions.targets[:, column], predictions.values[:, column]
    cov = np.cov(x, y, bias=True)
    return float(2 * cov[0, 1] / (cov[0, 0] + cov[1, 1] + (x.mean() - y.mean()) ** 2))


def scores_of(**ccc: float | None) -> Scores:
    """Scores with nothing but CCC in them."""
    return Scores({name: DimensionScores(value, None, None, None, None, None, 10) for name, value in ccc.items()})  # type: ignore[misc]
