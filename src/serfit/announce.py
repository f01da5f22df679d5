"""What an experiment says and writes down about itself before and while it trains."""

import time
from dataclasses import asdict

import torch

from serfit.features import Features
from serfit.log import Log
from serfit.material import Material
from serfit.nn.model import EmotionModel
from serfit.records import StepRecord
from serfit.runs import Run
from serfit.runtime import environment


def introduce(
    run: Run,
    log: Log,
    material: Material,
    model: EmotionModel,
    features: Features,
    device: torch.device,
    precision: str,
) -> None:
    """Say and write down what is trained, on what, from where."""
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    total = sum(parameter.numel() for parameter in model.parameters())
    frozen = model.stage_name(features.stage)
    log.say(f"model: {model.provenance.name}, {trainable:,} of {total:,} parameters are trained, in {precision}")
    log.say(f"training starts from: {frozen}" + (f", stored in {features.store.folder}" if features.store else ""))
    parts = {name: len(getattr(material.split, name)) for name in ("train", "validation", "test")}
    run.describe(
        environment(device)
        | {
            "precision": precision,
            "encoder": asdict(model.provenance),
            "trained_parameters": trainable,
            "parameters": total,
            "training_starts_from": frozen,
            "corpus": {"name": material.corpus.name, "notes": list(material.corpus.notes), "counts": parts},
            "protocol": material.split.protocol,
            "folds": material.split.folds,
        }
    )


def fill_store(features: Features, material: Material, log: Log) -> None:
    """Compute the frozen features of all parts that the store doesn't have yet."""
    utterances = [*material.split.train, *material.split.validation, *material.split.test]
    missing = features.missing(utterances)
    if missing:
        began = time.monotonic()
        for done, _ in enumerate(features.fill(missing), start=1):
            log.advance("computing frozen features", done, len(missing))
        log.settle()
        log.say(f"computed the frozen features of {len(missing)} utterances in {time.monotonic() - began:.0f} s")


def show_step(record: StepRecord, epochs: int, device: torch.device, log: Log) -> None:
    """One move of the progress bar."""
    text = f"loss {record.loss:.3f} | {record.utterances / record.seconds:.1f} utt/s"
    if device.type == "cuda":
        text += f" | {torch.cuda.max_memory_allocated(device) / 1024**3:.1f} GiB"
    log.advance(f"epoch {record.epoch}/{epochs}", record.step, record.steps, text)


def resuming(run: Run) -> str:
    """The command that goes on with a run."""
    return f"uv run serfit train --resume {run.directory}"
