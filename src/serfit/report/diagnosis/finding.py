"""What a diagnosis says: evidence, advice, and the settings to try."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from serfit.config.load import flatten
from serfit.config.schema import ExperimentConfig

Kind = Literal[
    "not finite",
    "exploding",
    "collapsed",
    "falling",
    "not rising",
    "overfitting",
    "below expectation",
    "one axis",
    "constant batches",
    "slow epoch",
    "seed spread",
    "fold spread",
]
"""Every diagnosis there is; docs/watching.md has a line for each."""

USUAL_ENCODER_RATE = 1e-5
"""Rate of pretrained encoders in configs/finetune.yaml: where to go from a rate that is out of all proportion."""

HIGH_ENCODER_RATE = 1e-4
"""Rate from which a large pretrained encoder is known to forget what it knew: ten times the usual one. Small ones, as
Whisper's tiny and base, learn at half of it."""

LOW_ENCODER_RATE = 2e-6
"""Rate below which a pretrained encoder hardly moves in 20 epochs: a fifth of the usual one."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One diagnosis of a run, or of several runs of one experiment.

    Attributes:
        kind: which.
        evidence: the figures it rests on, as a clause.
        advice: what to do, as a clause.
        overrides: settings to try, each "key=value"; empty where no setting helps.
    """

    kind: Kind
    evidence: str
    advice: str
    overrides: tuple[str, ...] = ()

    @property
    def settings(self) -> dict[str, str]:
        """The settings to try, value by key."""
        return dict(override.split("=", 1) for override in self.overrides)

    def agrees(self, other: "Finding") -> bool:
        """Whether no setting gets another value by one finding than by the other."""
        return all(other.settings.get(key, value) == value for key, value in self.settings.items())

    def __str__(self) -> str:
        """All of it in one line."""
        settings = f": {' '.join(self.overrides)}" if self.overrides else ""
        return f"{self.kind}: {self.evidence}; {self.advice}{settings}"


def one_voice(findings: Iterable[Finding], config: ExperimentConfig) -> Iterator[Finding]:
    """Findings that don't contradict each other, nor advise what is done already.

    A setting that is in force is left out; so is a finding that names another value for a setting than one before it:
    after the first remedy the run is another, and is judged anew.

    Args:
        findings: of one run, the most important first.
        config: of that run.
    """
    in_force, kept = flatten(config), list[Finding]()
    for finding in findings:
        pairs = finding.settings.items()
        new = (f"{key}={value}" for key, value in pairs if not _same(in_force[key], value))
        changed = replace(finding, overrides=tuple(new))
        if all(changed.agrees(other) for other in kept):
            kept.append(changed)
            yield changed


def _same(value: object, written: str) -> bool:
    """Whether a setting's value is what an override writes."""
    if isinstance(value, bool) or value is None:
        return written == {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, int | float):
        return written != "null" and float(written) == value
    return written == (f"[{', '.join(map(str, value))}]" if isinstance(value, list) else str(value))


def plain(value: float) -> str:
    """A rate as a decimal of two significant digits, as YAML takes it (1e-05 would be text there).

    >>> plain(5e-6), plain(0.00033333), plain(20.0)
    ('0.000005', '0.00033', '20')
    """
    digits = 1 - math.floor(math.log10(value))
    text = f"{round(value, digits):.{max(digits, 0)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def gentler(config: ExperimentConfig, factor: float = 2.0) -> str:
    """The setting for smaller updates: a fraction of the encoder's rate, or of the head's where that is frozen."""
    optimizer = config.train.optimizer
    if config.model.params.freeze_speech_encoder:
        return f"train.optimizer.lr={plain(optimizer.lr / factor)}"
    extreme = config.model.params.pretrained and optimizer.encoder_lr >= HIGH_ENCODER_RATE
    return f"train.optimizer.encoder_lr={plain(USUAL_ENCODER_RATE if extreme else optimizer.encoder_lr / factor)}"


def bolder(config: ExperimentConfig, factor: float = 2.0) -> str:
    """The setting for larger updates: a multiple of the same rate."""
    optimizer = config.train.optimizer
    if config.model.params.freeze_speech_encoder:
        return f"train.optimizer.lr={plain(optimizer.lr * factor)}"
    extreme = config.model.params.pretrained and optimizer.encoder_lr <= LOW_ENCODER_RATE
    return f"train.optimizer.encoder_lr={plain(USUAL_ENCODER_RATE if extreme else optimizer.encoder_lr * factor)}"


def more_frozen(config: ExperimentConfig) -> str | None:
    """The setting that leaves the lower half of the encoder's layers as they were; None where it has no bearing."""
    params = config.model.params
    layers = next((count for size, count in _HALF.items() if size in params.speech_encoder), None)
    if layers is None or params.freeze_layers >= layers or not (params.pretrained and params.freeze_cnn):
        return None
    if params.freeze_speech_encoder:
        return None
    return f"model.params.freeze_layers={layers}"


_HALF = {"large": 12, "base": 6}
"""Half of the transformer's layers, by the size that an encoder's name tells."""
