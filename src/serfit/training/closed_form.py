"""What is fitted in closed form, or only scored: its folds, and the finished run directories that it leaves."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from serfit.config.load import plain_config
from serfit.config.schema import ExperimentConfig
from serfit.corpus.load import rating_scales
from serfit.errors import UserError
from serfit.labels import letter
from serfit.report.markdown import number
from serfit.runs import directory as runs
from serfit.runs.calibration import keep_calibrations
from serfit.runs.directory import Run, opened_run
from serfit.runs.records import Environment
from serfit.runs.results import results
from serfit.scores.metrics import Scores
from serfit.scores.records import Predictions
from serfit.system.files import write_json, write_text
from serfit.system.log import Log
from serfit.training.material import Material, prepare
from serfit.training.messages import prediction_tables
from serfit.training.ridge import Floats, Ridge
from serfit.training.trainer import Part

SETTINGS = ("corpus", "name", "root", "dimensions", "table", "scales", "split", "unreadable")
"""Keys of the data section that matter here; config.json holds no others of it."""


def folds_of(
    config: ExperimentConfig, suffix: str, fold: int | None = None
) -> Iterator[tuple[ExperimentConfig, Material]]:
    """The configuration of every fold (or only one), named `<experiment>_<suffix>`, with what it is made from.

    Raises:
        UserError: as for a training on the same configuration; or it keeps nothing to test on.
    """
    if config.data.split.scheme == "everything":
        raise UserError(
            "data.split.scheme is everything, which leaves nothing to score a baseline on; choose another scheme"
        )
    first = _on_fold(config, suffix, fold or 1)
    material = prepare(first)
    yield first, material
    for later in range(2, material.split.folds + 1) if fold is None else ():
        chosen = _on_fold(config, suffix, later)
        yield chosen, prepare(chosen)


def predictions_of(part: Part, line: Ridge, features: Floats) -> Predictions:
    """What a line predicts from the features [N, F] of a part."""
    ids = tuple(utterance.id for utterance in part.utterances)
    return Predictions(ids, part.dimensions, part.targets(), line.predict(features))


def record_of(material: Material, ridge: Ridge, **about: Any) -> Environment:
    """Content of environment.json: what was fitted, to what; the rest as keywords."""
    return Environment(
        precision="fp64",
        features=len(ridge.means),
        penalties=dict(zip(material.train.dimensions, ridge.penalties, strict=True)),
        corpus=material.record(),
        protocol=material.split.protocol,
        folds=material.split.folds,
        **about,
    )


@contextmanager
def opened(
    config: ExperimentConfig, log: Log, model: Mapping[str, Any] | None = None, unfinished: Path | None = None
) -> Iterator[Run]:
    """A locked run directory, as `serfit.runs.directory.opened_run`, whose config.json holds only what matters.

    Args:
        config: of one fold.
        log: where to say what happens.
        model: the section model for config.json; None leaves it out.
        unfinished: the run directory to go on with; None makes a new one.
    """
    with opened_run(config, log, unfinished, unfinished is not None) as run:
        write_json(run / runs.CONFIG, _settings(config, model))
        yield run


def is_there(config: ExperimentConfig, model: Mapping[str, Any] | None, tables: Mapping[str, str]) -> bool:
    """Whether a finished run of the same settings holds the very same predictions: another would say nothing new.

    Args:
        config: of one fold.
        model: the section model of its config.json.
        tables: of predictions, by file.
    """
    settings = json.loads(json.dumps(_settings(config, model), default=str))
    for directory in finished_before(config):
        texts = {name: (directory / name).read_text(encoding="utf-8") for name in (runs.CONFIG, *tables)}
        if json.loads(texts.pop(runs.CONFIG)) == settings and texts == tables:
            return True
    return False


def finished_before(config: ExperimentConfig) -> Iterator[Path]:
    """The directories of finished runs of the same name, fold and seed."""
    stem = f"{config.experiment.name}_fold{config.data.split.fold}_seed{config.experiment.seed}_*"
    return (marker.parent for marker in config.experiment.runs_dir.glob(f"{stem}/{runs.FINISHED}"))


def finish_run(
    run: Run,
    config: ExperimentConfig,
    material: Material,
    about: Environment,
    validated: Predictions,
    tested: Predictions,
) -> Scores:
    """Write the records of a run without epochs, and mark it as finished.

    Args:
        run: its directory.
        config: of its fold.
        material: likewise.
        about: content of environment.json.
        validated: predictions of the validation part.
        tested: predictions of the test part.

    Returns:
        Scores of the test part.
    """
    run.keep({runs.LABELS: material.labels().to_text()})
    run.describe(about)
    write_text(run / runs.METRICS, "")
    scores = results(0, validated.scores(), validated, tested, material.split)
    run.keep(prediction_tables(material, validated, tested))
    keep_calibrations(run, config.data.dimensions, rating_scales(config.data))
    run.finish(scores, _words(config, about.system or "", scores.test))
    return scores.test


def _settings(config: ExperimentConfig, model: Mapping[str, Any] | None) -> dict[str, Any]:
    """Content of config.json."""
    plain = plain_config(config)
    data = {key: plain["data"][key] for key in SETTINGS if key in plain["data"]}
    settings = {"experiment": plain["experiment"], "data": data}
    return settings if model is None else {**settings, "model": model}


def _on_fold(config: ExperimentConfig, suffix: str, fold: int) -> ExperimentConfig:
    experiment = config.experiment.model_copy(update={"name": f"{config.experiment.name}_{suffix}"})
    split = config.data.split.model_copy(update={"fold": fold})
    return config.model_copy(update={"experiment": experiment, "data": config.data.model_copy(update={"split": split})})


def _words(config: ExperimentConfig, system: str, scores: Scores) -> str:
    """The content of best_result.txt."""
    lines = [f"ccc_{letter(name).lower()}: {number(scores.ccc(name))}" for name in scores.dimensions]
    lines += [f"ccc_avg: {number(scores.average)}", f"experiment: {config.experiment.name}"]
    return "\n".join([*lines, f"fold: {config.data.split.fold}", f"system: {system}"]) + "\n"
