"""Trained networks scored on any rated corpus, by the code that scores a run at its end: `serfit evaluate`.

A network predicts on [0, 1], which stands for the scale of the corpus that it was trained on; here it stands for the
scale of the corpus that is scored. Nothing is trained, chosen or fitted.
"""

import hashlib
import json
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from serfit.config.load import flatten
from serfit.config.schema import ExperimentConfig
from serfit.corpus.identity import agree
from serfit.corpus.overlap import TrainedOn, both, check_unseen, doubts
from serfit.errors import UserError, counted, listed
from serfit.inference.about import About, mapped_scales
from serfit.inference.calibrated import Choice
from serfit.inference.origin import Origin
from serfit.inference.publish.tested import decisive
from serfit.labels import letter
from serfit.report.markdown import number
from serfit.runs import directory as runs
from serfit.runs.directory import Run
from serfit.runs.records import Environment, EvaluatedNetwork, Evaluation
from serfit.runs.unfinished import run_to_go_on_with
from serfit.scores.records import Predictions
from serfit.system.interrupt import Interrupted, StopRequest
from serfit.system.log import Log
from serfit.system.runtime import choose_device, environment
from serfit.training.checkpoint import latest_checkpoint, save_checkpoint
from serfit.training.closed_form import SETTINGS, finish_run, finished_before, opened
from serfit.training.material import Material, prepare
from serfit.training.predictors import Check, Predictor, open_predictors
from serfit.training.trainer import Part, evaluated_together

Scored = Literal["test", "validation", "train", "all"]

SUFFIX = "evaluated"
"""Run directories and tables call an evaluated network `<name of its experiment>_evaluated`, unless told otherwise."""

AGAIN = ", everything is saved; give the same command again to go on"


def run_evaluation(
    config: ExperimentConfig,
    models: Sequence[str],
    log: Log,
    *,
    part: Scored = "test",
    name: str | None = None,
    gpu: int | None = None,
    calibrate: Choice = None,
) -> Path:
    """Score trained networks, or the mean of several, and write a finished run directory.

    An unfinished evaluation of the same networks on the same part is gone on with; a finished one is the result.

    Args:
        config: says on what: its section data, folds included; where its sections experiment and features lie.
        models: run directories, folders of runs, bundles, names on the hub, ONNX files.
        log: where to say what happens.
        part: of the corpus.
        name: of the experiment in tables; None takes the first network's, with `SUFFIX`.
        gpu: index of a visible GPU; None takes the first, or the CPU where there is none.
        calibrate: the calibration to apply; None takes what a bundle or ONNX file was exported with.

    Returns:
        The run directory.

    Raises:
        UserError: the networks don't go together, were trained on what is to be scored, or predict nothing that the
            corpus rates; as for a training on the same configuration.
        Interrupted: a signal asked to stop; everything is saved.
    """
    device, device_line = choose_device(gpu)
    predictors = open_predictors(models, config, device, calibrate)
    config = _on_what_is_predicted(config, predictors[0].about)
    material = material_to_score(config, part)
    about = _environment(predictors, material, part, config, device)
    recorded = _configuration(config, predictors, part, name)
    unfinished = run_to_go_on_with(recorded, fits=lambda candidate: _is_of(candidate, about))
    if (before := _finished(recorded, about)) is not None:
        log.say(f"scored already, with the same networks on the same utterances: {before}")
        return before
    with opened(recorded, log, unfinished=unfinished) as run, StopRequest(AGAIN) as stop:
        run.describe(about)
        frozen = " (frozen part in bf16, as in training)" if about.frozen_precision else ""
        log.say(f"evaluation in fp32{frozen} on {device_line.removeprefix('device: ')}: {about.protocol}")
        for note in about.corpus.notes:
            log.say(note)
        predictions = _predicted(run, predictors, material.test, config.train.checkpoint_minutes, stop.check, log)
        nothing = predictions.only([False] * len(predictions.ids))
        scores = finish_run(run, recorded, material, about, nothing, predictions)
        reached = ", ".join(f"{letter(one)} {number(scores.ccc(one))}" for one in scores.dimensions)
        log.say(f"CCC on {counted(len(predictions.ids), 'utterance')}: {reached}")
    return run.directory


def _on_what_is_predicted(config: ExperimentConfig, about: About) -> ExperimentConfig:
    """A configuration without the dimensions that a network doesn't predict. Raises UserError where none is left."""
    wanted = config.data.dimensions
    shared = tuple(name for name in wanted if name in about.dimensions)
    if not shared:
        raise UserError(
            f"{about.name} predicts {listed(about.dimensions)}, and data.dimensions is {listed(wanted)}; name one that "
            "it predicts"
        )
    return config.model_copy(update={"data": config.data.model_copy(update={"dimensions": shared})})


def material_to_score(config: ExperimentConfig, part: Scored) -> Material:
    """The corpus, split, with the chosen part in the place of the test part. Raises UserError as `prepare`."""
    if part == "all":
        everything = config.data.split.model_copy(update={"scheme": "everything", "fold": 1})
        config = config.model_copy(update={"data": config.data.model_copy(update={"split": everything})})
    material = prepare(config)
    moved = "train" if part == "all" else part
    split, nobody = material.split, replace(material.train, utterances=(), seconds=())
    if not getattr(split, moved):
        raise UserError(
            f"the {part} part is empty, for data.split.scheme is {config.data.split.scheme}; score --part all, or "
            "choose another scheme"
        )
    words = f"all {counted(len(split.train), 'utterance')}" if part == "all" else f"{split.protocol}; the {part} part"
    emptied: dict[str, Any] = {} if moved == "test" else {moved: ()}
    split = replace(split, **emptied, test=getattr(split, moved), protocol=words)
    emptied = {} if moved == "test" else {moved: nobody}
    return replace(material, split=split, **emptied, test=getattr(material, moved))


def _predicted(
    run: Run, predictors: Sequence[Predictor], part: Part, minutes: float, check: Check, log: Log
) -> Predictions:
    """Predictions of a part, the mean over all networks; what is done is kept, and read again by the next process."""
    groups = evaluated_together(part.seconds)
    found = latest_checkpoint(run / runs.CHECKPOINTS)
    done = {} if found is None else found[0]
    saved = time.monotonic()
    total = len(predictors) * len(groups)
    if done:
        log.say(f"going on with {len(done)} of {counted(total, 'group')} of utterances predicted")
    try:
        for number, one in enumerate(predictors):
            names = [f"{number}/{index}" for index in range(len(groups))]
            left = [(name, group) for name, group in zip(names, groups, strict=True) if name not in done]
            predicted = one.predict(part.utterances, [group for _, group in left], check)
            for (name, _), values in zip(left, predicted, strict=True):
                done[name] = values
                log.advance("evaluation", len(done), total)
                if time.monotonic() - saved > 60.0 * minutes:
                    save_checkpoint(run / runs.CHECKPOINTS, len(done), done, {})
                    saved = time.monotonic()
    except Interrupted:
        save_checkpoint(run / runs.CHECKPOINTS, len(done), done, {})
        raise
    log.settle()
    each = [torch.cat([done[f"{number}/{index}"] for index in range(len(groups))]) for number in range(len(predictors))]
    unit = np.average(torch.stack(each).numpy(), axis=0, weights=[one.members for one in predictors])
    columns = [predictors[0].about.dimensions.index(name) for name in part.dimensions]
    by_length = [index for group in groups for index in group]
    ordered = torch.empty(len(by_length), len(columns), dtype=torch.float64)
    ordered[by_length] = torch.from_numpy(unit[:, columns])
    return part.predictions(range(len(by_length)), ordered)


def _environment(
    predictors: Sequence[Predictor], material: Material, part: Scored, config: ExperimentConfig, device: torch.device
) -> Environment:
    """What is scored and on what. Raises UserError where networks were trained on it."""
    origins = [origin for one in predictors for origin in one.origins]
    named = [(origin.run or one.about.name, origin.trained_on) for one in predictors for origin in one.origins]
    seen = reduce(both, [record or TrainedOn(unknown=(name,)) for name, record in named])
    corpus = material.corpus.name
    check_unseen(seen, listed([name for name, _ in named]), corpus, {part: material.split.test})
    evaluation = Evaluation(
        model=_in_short(predictors, config, material),
        networks=tuple(
            EvaluatedNetwork(name=one.about.name, run=one.about.origin.run, sha256=one.sha256) for one in predictors
        ),
        part=part,
        calibration=predictors[0].calibration,
        unknown=seen.unknown,
    )
    record = material.record()
    scales = {name: material.corpus.scales[name] for name in material.test.dimensions}
    notes = [*mapped_scales(predictors[0].about, scales, corpus), *doubts(seen, corpus, material.split.test)]
    notes += [note for one in predictors for note in one.notes]
    return Environment(
        kind="evaluation",
        evaluation=evaluation,
        system=evaluation.model,
        **environment(device),
        precision="fp32",
        frozen_precision="bf16" if any(one.frozen_precision for one in predictors) else None,
        encoder=origins[0].encoder,
        corpus=record.model_copy(update={"notes": (*record.notes, *notes)}),
        protocol=f"{material.split.protocol}, predicted by {evaluation.model}",
        folds=material.split.folds,
    )


def _in_short(predictors: Sequence[Predictor], config: ExperimentConfig, material: Material) -> str:
    """The networks in words; equal for those that differ in seed, or in a fold that is their own, alone.

    A cross-validated experiment whose runs are each scored on their own fold is so one experiment again.
    """
    names, told, seeds = [], [], set()
    for one in predictors:
        names.append(one.about.name)
        for origin in one.origins:
            fold = origin.settings.get("data.split.fold")
            words = "" if fold is None or _own_fold(origin, config, material) else f", fold {fold}"
            told.append([decisive(origin) if origin.settings else one.sha256, words])
            names[-1] += words if len(one.origins) == 1 else ""
            seeds.add(origin.settings.get("experiment.seed"))
    if len(seeds) > 1:
        told.append([str(seed) for seed in sorted(map(str, seeds))])
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:8]
    return f"{listed(list(dict.fromkeys(names)), most=5)} ({digest})"


def _own_fold(origin: Origin, config: ExperimentConfig, material: Material) -> bool:
    """Whether a network was trained on this very corpus and fold."""
    split = {key: value for key, value in flatten(config).items() if key.startswith("data.split.")}
    same = origin.corpus.name == material.corpus.name and agree(origin.corpus.labels, material.labels().digests())
    return same and all(origin.settings.get(key) == value for key, value in split.items())


def _configuration(
    config: ExperimentConfig, predictors: Sequence[Predictor], part: Scored, name: str | None
) -> ExperimentConfig:
    """The configuration to be recorded: on what was scored, and by which name and seed it stands in tables."""
    seeds = {origin.settings.get("experiment.seed") for one in predictors for origin in one.origins}
    seed = seeds.pop() if len(seeds) == 1 else None
    plain_name = re.sub(r"[^A-Za-z0-9._-]+", "-", predictors[0].about.name).lstrip("._-")
    experiment = config.experiment.model_dump(mode="json") | {"name": name or f"{plain_name or 'model'}_{SUFFIX}"}
    experiment |= {} if seed is None else {"seed": seed}
    data = {key: value for key, value in config.data.model_dump(mode="json").items() if key in SETTINGS}
    if part == "all":  # there are no folds then
        data["split"] = {"scheme": "official"}
    return ExperimentConfig.model_validate({"experiment": experiment, "data": data})


def _finished(config: ExperimentConfig, about: Environment) -> Path | None:
    """The directory of a finished run of the same evaluation, the newest, or None."""
    return max((before for before in finished_before(config) if _is_of(before, about)), default=None)


def _is_of(candidate: Path, about: Environment) -> bool:
    """Whether a run directory is of the same evaluation."""
    then = runs.read_environment(candidate)
    same = ("evaluation", "frozen_precision", "corpus.digest")
    return then is not None and attrgetter(*same)(then) == attrgetter(*same)(about)
