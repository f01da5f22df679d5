"""Fine-tune speech encoders for valence, arousal and dominance, with numbers one can trust.

In a program, a trained model is used in three lines:

    import serfit
    model = serfit.load("runs/ema_iemocap_finetune_fold1_seed1_20260101-120000")
    print(model.predict("speech.wav").valence)

Importing this package does nothing: no seeds, threads, handlers or warning filters, and no torch.
One experiment from start to end: `serfit.training.experiment`; `docs/architecture.md` maps the rest.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from serfit.errors import NumericalError, UserError
    from serfit.inference.recogniser import Emotion, Recogniser
    from serfit.inference.windows import Curve, curve

__all__ = ["Curve", "Emotion", "NumericalError", "Recogniser", "UserError", "__version__", "curve", "load"]

__version__ = "0.1.0"

_HOMES = {
    "Curve": "inference.windows",
    "Emotion": "inference.recogniser",
    "NumericalError": "errors",
    "Recogniser": "inference.recogniser",
    "UserError": "errors",
    "curve": "inference.windows",
}
"""Where public names are defined; they are imported when first asked for, since some need torch."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'serfit' has no attribute {name!r}")
    return getattr(import_module(f"serfit.{_HOMES[name]}"), name)


def load(
    *sources: str | Path,
    gpu: int | None = None,
    precision: Literal["auto", "fp32", "bf16"] = "fp32",
    calibrate: Literal["affine", "isotonic", "none"] | None = None,
) -> "Recogniser":
    """A trained model, ready to be asked.

    Args:
        sources: a run directory, a bundle or an ONNX file made by `serfit export`, or a bundle's name on the hub;
            several of them, or a folder of runs of one experiment, make an ensemble, which predicts the mean.
        gpu: index of a visible GPU; None takes the first, or the CPU where there is none.
        precision: of the encoder's passes. With fp32 the values are those of the run's own predictions.csv (up to
            rounding, where its environment.json has a frozen_precision of bf16); auto takes bf16 where it pays.
        calibrate: bring the values onto the scale as raters use it (see docs/calibration.md); None does so only where
            a bundle or an ONNX file was exported so.

    The folder "mine" is a bundle here; a run directory is opened alike:

    >>> model = load("mine")
    >>> model.dimensions, model.members
    (('valence', 'arousal'), 1)
    >>> emotion = model.predict("speech.wav")
    >>> emotion.start, emotion.end, sorted(emotion.values)
    (0.0, 4.0, ['arousal', 'valence'])

    Raises:
        UserError: what is named isn't there, isn't finished, was damaged or doesn't go together.
    """
    from serfit.inference.source import open_recogniser

    return open_recogniser(sources, gpu=gpu, precision=precision, calibrate=calibrate)
