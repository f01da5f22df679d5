"""What a run's records say about it, and what to try: the only place in serfit that advises settings for a training."""

import shlex
from collections.abc import Iterator

from serfit.config.schema import ExperimentConfig
from serfit.report.diagnosis.duration import slow_epoch
from serfit.report.diagnosis.finding import HIGH_ENCODER_RATE, Finding, one_voice
from serfit.report.diagnosis.learning import of_learning
from serfit.runs import directory as runs
from serfit.runs.live import History
from serfit.scores.reference import FROZEN


def diagnose(history: History) -> tuple[Finding, ...]:
    """Everything there is to say about one run as it stands; nothing about a healthy one.

    No two findings name different values for one setting, and none names a value that is in force.
    """
    return tuple(one_voice((*of_learning(history), *slow_epoch(history)), history.config))


def doubts(config: ExperimentConfig) -> Iterator[str]:
    """A warning before the first epoch about a rate that destroys pretrained encoders.

    At such a rate a diagnosis never calls for a higher one (`serfit.report.diagnosis.learning.too`).
    """
    optimizer = config.train.optimizer
    frozen = config.model.params.freeze_speech_encoder
    if not frozen and config.model.params.pretrained and optimizer.encoder_lr >= HIGH_ENCODER_RATE:
        yield (
            f"warning: train.optimizer.encoder_lr={optimizer.encoder_lr:g} is a rate for new weights and can destroy a "
            "pretrained encoder (usual: 0.00001, for small ones 0.00005)"
        )


def command(history: History, finding: Finding) -> str:
    """The command that repeats a run with the settings that a finding advises; "" where it advises none."""
    settings = " ".join(map(shlex.quote, finding.overrides))
    return f"uv run serfit train --config {_config(history)} {settings}" if settings else ""


def next_step(history: History, valence: float | None) -> str:
    """Advise what to do after a finished run on the whole of IEMOCAP, in one or two lines.

    Args:
        history: the run.
        valence: its test CCC of valence; None where undefined.
    """
    found = diagnose(history)
    if found:
        first = found[0]
        words = f"next: {first.kind}: {first.evidence}; {first.advice}"
        return "\n  ".join(filter(None, (words, command(history, first))))
    if valence is None:
        return (
            "next: see whether the run predicts valence at all (data.dimensions), and look for numbers that aren't "
            "finite in predictions.csv"
        )
    if valence >= FROZEN.ccc["valence"]:
        return f"next: run all five folds\n  uv run serfit cv {_config(history)} --folds 1-5"
    return (
        "next: its records show no fault; see how another recipe does on the same fold\n"
        f"  uv run serfit train --config configs/recommended.yaml --fold {history.fold}"
    )


def _config(history: History) -> str:
    return shlex.quote(str(history.directory / runs.CONFIG))
