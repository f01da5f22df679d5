"""A network that needs no torch model: it hears loudness as arousal and brightness as valence."""

from collections.abc import Sequence

import numpy as np

from report.written import scores_of
from serfit.inference.about import About
from serfit.inference.networks import Outputs, Waveform
from serfit.inference.origin import Origin
from serfit.inference.recogniser import Recogniser
from serfit.labels import Dimension, LabelScale
from serfit.runs.records import TestScores


class StandIn:
    def __init__(self, shift: float = 0.0, dimensions: tuple[Dimension, ...] = ("valence", "arousal")) -> None:
        self.shift = shift
        scored = scores_of(**dict.fromkeys(dimensions, 0.5 + shift))
        self.about = About(
            name="stand_in",
            dimensions=dimensions,
            scales={name: LabelScale(1, 5) for name in dimensions},
            normalise=False,
            shortest=400,
            origin=Origin(scores=TestScores(test=scored, best_epoch=1, validation=scored)),
        )

    def __call__(self, waveforms: Sequence[Waveform]) -> Outputs:
        unit = np.array([[self._heard(name, waveform) for name in self.about.dimensions] for waveform in waveforms])
        return Outputs(unit, np.empty((len(waveforms), 0), dtype=np.float32))

    def _heard(self, name: Dimension, waveform: Waveform) -> float:
        loudness = np.sqrt(np.mean(np.square(waveform.astype(np.float64))))
        crossings = np.mean(np.diff(np.signbit(waveform).astype(int)) != 0) if len(waveform) > 1 else 0.0
        return self.shift + {"valence": 8 * crossings, "arousal": 1.5 * loudness, "dominance": 0.5}[name]


def recogniser(networks: int = 1, dimensions: tuple[Dimension, ...] = ("valence", "arousal")) -> Recogniser:
    return Recogniser(tuple(StandIn(0.05 * number, dimensions) for number in range(networks)))


def speechlike(seconds: float, rate: int = 16_000) -> np.ndarray:
    """A tone that swells and brightens."""
    time = np.arange(int(seconds * rate)) / rate
    swell = 0.1 + 0.5 * np.sin(np.pi * time / max(seconds, 1e-9)) ** 2
    pitch = 150 + 300 * time / seconds + 100 * np.sin(2 * np.pi * 0.3 * time)
    return (swell * np.sin(2 * np.pi * np.cumsum(pitch) / rate)).astype(np.float32)
