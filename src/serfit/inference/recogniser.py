"""One network or several, asked what they hear in arrays and files."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from serfit.corpus.audio import as_waveform, read_audio
from serfit.errors import UserError
from serfit.inference.about import About
from serfit.inference.networks import Network, Waveform
from serfit.labels import DIMENSIONS, SAMPLE_RATE, Dimension, LabelScale

LONGEST = 120.0
"""Most seconds of speech of one utterance; the memory of attention grows with their square."""

AT_ONCE = 32
"""Most sounds of a list that are held in memory at a time."""

LOUDEST = 1e9
"""Samples from here on are no sound; in float32 their squares would soon be infinite, and the rest be silence."""

Sound = str | Path | NDArray[Any]
"""An audio file, or samples [S] or [S, C]."""


@dataclass(frozen=True, slots=True)
class Estimates:
    """Predictions for N stretches of speech.

    Attributes:
        dimensions: names of the D columns.
        unit: [N, D] on [0, 1], a little beyond is possible; the mean over the networks.
        values: [N, D] on the corpus's scale.
        spread: [N, D] standard deviation over the networks, on the corpus's scale; None with one network.
        embeddings: [N, P] float32, pooled vectors of all networks side by side.
    """

    dimensions: tuple[Dimension, ...]
    unit: NDArray[np.float64]
    values: NDArray[np.float64]
    spread: NDArray[np.float64] | None
    embeddings: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Emotion:
    """The prediction for one stretch of speech.

    Each dimension that is predicted is an attribute too: `emotion.valence` is `emotion.values["valence"]`. Values may
    lie a little beyond the scale: the head is linear unless model.params.output is sigmoid, and nothing is clipped,
    so that they are the values that the run was scored with.

    Attributes:
        start: where it begins, in seconds.
        end: where it ends, in seconds.
        values: per dimension, on the corpus's scale.
        unit: per dimension, the scale as [0, 1]; a little beyond is possible.
        spread: per dimension, how far several networks differ (standard deviation, on the corpus's scale); empty
            where there is one network.
        embedding: pooled vector [P], float32.
    """

    start: float
    end: float
    values: Mapping[Dimension, float]
    unit: Mapping[Dimension, float]
    spread: Mapping[Dimension, float]
    embedding: NDArray[np.float32] = field(repr=False)

    @property
    def valence(self) -> float:
        """Valence on the corpus's scale. Raises AttributeError if it isn't predicted."""
        return self._value("valence")

    @property
    def arousal(self) -> float:
        """Arousal on the corpus's scale. Raises AttributeError if it isn't predicted."""
        return self._value("arousal")

    @property
    def dominance(self) -> float:
        """Dominance on the corpus's scale. Raises AttributeError if it isn't predicted."""
        return self._value("dominance")

    def __dir__(self) -> list[str]:
        """Name the attributes that can be read; of the dimensions, those that are predicted."""
        return sorted({*object.__dir__(self)} - {*DIMENSIONS} | {*self.values})

    def _value(self, name: Dimension) -> float:
        try:
            return self.values[name]
        except KeyError:
            raise AttributeError(f"{name} isn't predicted by this model, only {', '.join(self.values)}") from None


@dataclass(frozen=True, slots=True)
class Recogniser:
    """One network, or several whose mean counts (an ensemble, for example the five folds of an experiment).

    Attributes:
        networks: at least one; all predict the same dimensions on the same scales.
        notes: sentences for whoever uses them: in which precision they compute.
    """

    networks: tuple[Network, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_together([network.about for network in self.networks])

    @property
    def about(self) -> About:
        """Description of the predictions, from the first network."""
        return self.networks[0].about

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """Names of what is predicted, in the order of every array and table."""
        return self.about.dimensions

    @property
    def scales(self) -> Mapping[Dimension, LabelScale]:
        """The corpus's rating scale of each dimension."""
        return self.about.scales

    @property
    def members(self) -> int:
        """Number of networks in all; with more than one there is a spread."""
        return sum(network.members for network in self.networks)

    @property
    def shortest(self) -> float:
        """Fewest seconds of audio that can be heard."""
        return max(network.about.shortest for network in self.networks) / SAMPLE_RATE

    @overload
    def predict(  # type: ignore[overload-overlap]  # a str is a sequence of str, too
        self, sound: Sound, rate: int | None = None, start: float = 0.0, end: float | None = None
    ) -> Emotion: ...

    @overload
    def predict(
        self, sound: Sequence[Sound], rate: int | None = None, start: float = 0.0, end: float | None = None
    ) -> list[Emotion]: ...

    def predict(
        self, sound: Sound | Sequence[Sound], rate: int | None = None, start: float = 0.0, end: float | None = None
    ) -> Emotion | list[Emotion]:
        """Predict the emotion of a file or an array, taken as one utterance, or of each in a list.

        Args:
            sound: a file, or samples [S] or [S, C]; or a list of them.
            rate: of samples, in Hz; required for arrays, unused for files.
            start: where to begin, in seconds.
            end: where to end, in seconds; None for the end.

        Returns:
            One emotion, or a list of them in the order given.

        >>> import serfit
        >>> emotion = serfit.load("mine").predict("speech.wav", start=1.0, end=2.5)
        >>> scale = serfit.load("mine").scales["valence"]
        >>> scale.from_unit(emotion.unit["valence"]) == emotion.valence
        True
        >>> serfit.load("mine").predict(np.zeros((8000, 2)), rate=8000).end
        1.0
        >>> [emotion.end for emotion in serfit.load("mine").predict(["speech.wav", "speech.wav"])]
        [4.0, 4.0]

        Raises:
            UserError: an array without a rate; audio that can't be read, or is too short or too long for one utterance.
        """
        if isinstance(sound, str | Path | np.ndarray):
            return self._predict([sound], rate, start, end)[0]
        sounds = _sounds(sound)
        begins = range(0, len(sounds), AT_ONCE)
        return [one for at in begins for one in self._predict(sounds[at : at + AT_ONCE], rate, start, end, at)]

    def _predict(
        self, sounds: Sequence[Sound], rate: int | None, start: float, end: float | None, first: int = 0
    ) -> list[Emotion]:
        waveforms = [waveform_of(sound, rate, start, end) for sound in sounds]
        names = [name_of(sound) for sound in sounds]
        if len(names) > 1:
            names = [f"{name} at index {first + index} of the list" for index, name in enumerate(names)]
        estimates = self.estimate(waveforms, names)
        return emotions(estimates, [(start, start + len(waveform) / SAMPLE_RATE) for waveform in waveforms])

    def estimate(self, waveforms: Sequence[Waveform], names: Sequence[str] = ()) -> Estimates:
        """Predict N waveforms, each as one utterance; the other waveforms make no difference.

        Args:
            waveforms: mono at 16 kHz, float32 [S] each, as `serfit.corpus.audio.read_audio` gives them.
            names: what to call each in an error.

        >>> import serfit
        >>> estimates = serfit.load("mine").estimate([np.zeros(16000, np.float32), np.ones(8000, np.float32)])
        >>> estimates.values.shape, estimates.spread, len(estimates.embeddings)
        ((2, 2), None, 2)

        Raises:
            UserError: one is too short or too long, or what comes out isn't finite.
        """
        called = list(names) or [f"waveform {number}" for number in range(1, len(waveforms) + 1)]
        for name, waveform in zip(called, waveforms, strict=True):
            self.check_length(name, len(waveform) / SAMPLE_RATE)
            if not np.abs(waveform, dtype=np.float64).max() < LOUDEST:
                raise UserError(f"the samples of {name} reach {np.abs(waveform).max():.3g}, and sound lies within 1")
        outputs = [network(waveforms) for network in self.networks]
        units = np.concatenate([output.each for output in outputs])
        for index, name in enumerate(called):
            if not np.isfinite(units[:, index]).all():
                raise UserError(
                    f"the prediction for {name} isn't finite; its samples reach {np.abs(waveforms[index]).max():.3g}, "
                    "and sound lies within 1: where they do, the network overflows (with bf16, try --precision fp32)"
                )
        ranges = np.array([self.scales[name].maximum - self.scales[name].minimum for name in self.dimensions])
        unit = units.mean(axis=0)
        values = [self.scales[name].from_unit(unit[:, column]) for column, name in enumerate(self.dimensions)]
        return Estimates(
            dimensions=self.dimensions,
            unit=unit,
            values=np.stack(values, axis=1),
            spread=units.std(axis=0, ddof=1) * ranges if len(units) > 1 else None,
            embeddings=np.concatenate([output.embeddings for output in outputs], axis=1),
        )

    def check_length(self, name: str, seconds: float) -> None:
        """Raise UserError where so much speech is too little, or too much for one utterance."""
        if seconds < self.shortest:
            raise UserError(
                f"{name} lasts {1000 * seconds:.1f} ms, and the encoder needs at least {1000 * self.shortest:.0f} ms; "
                "leave it out"
            )
        if seconds > LONGEST:
            raise UserError(
                f"{name} lasts {seconds:.0f} s, and at most {LONGEST:.0f} s can be one utterance; cut it into "
                "windows (--window 3 --hop 0.5), or name a shorter stretch"
            )


def check_together(abouts: Sequence[About]) -> None:
    """Raise UserError where networks predict different things, so that their mean means nothing."""
    first, *others = abouts
    for other in others:
        if (other.dimensions, dict(other.scales)) != (first.dimensions, dict(first.scales)):
            raise UserError(
                f"{first.name} predicts {_said(first)} and {other.name} {_said(other)}, so their mean means "
                "nothing; name models of the same dimensions and scales"
            )


def _sounds(given: Any) -> list[Sound]:
    sounds = list(given) if isinstance(given, Iterable) else [given]
    for one in sounds:
        if not isinstance(one, str | Path | np.ndarray):
            raise UserError(
                f"{type(one).__name__} is neither an audio file nor an array of samples; give a path, a NumPy array "
                "with its rate, or a list of these"
            )
    return sounds


def waveform_of(sound: Sound, rate: int | None = None, start: float = 0.0, end: float | None = None) -> Waveform:
    """A file, or samples, or a stretch of them, as mono float32 [S] at 16 kHz. Raises UserError."""
    if isinstance(sound, str | Path):
        return read_audio(Path(sound).expanduser(), start, end)
    if rate is None:
        raise UserError(
            "an array doesn't contain its sampling rate, and at a wrong one the values are wrong; give it in Hz, for "
            "example rate=16000"
        )
    waveform = as_waveform(sound, rate)
    seconds = len(waveform) / SAMPLE_RATE
    stop = seconds if end is None else end
    if not 0.0 <= start < stop <= seconds + 0.01:
        raise UserError(f"the stretch from {start:g} s to {stop:g} s lies outside these {seconds:.3f} s of samples")
    return waveform[round(start * SAMPLE_RATE) : round(stop * SAMPLE_RATE)]


def name_of(sound: Sound) -> str:
    """What to call a sound in a sentence."""
    return str(sound) if isinstance(sound, str | Path) else "the array"


def emotions(estimates: Estimates, stretches: Sequence[tuple[float, float]]) -> list[Emotion]:
    """Estimates of N stretches (start and end in seconds) one by one."""
    return list(_emotions(estimates, stretches))


def _emotions(estimates: Estimates, stretches: Sequence[tuple[float, float]]) -> Iterator[Emotion]:
    names = estimates.dimensions
    for index, (start, end) in enumerate(stretches):
        spread = {} if estimates.spread is None else dict(zip(names, estimates.spread[index].tolist(), strict=True))
        yield Emotion(
            start=start,
            end=end,
            values=dict(zip(names, estimates.values[index].tolist(), strict=True)),
            unit=dict(zip(names, estimates.unit[index].tolist(), strict=True)),
            spread=spread,
            embedding=estimates.embeddings[index],
        )


def _said(about: About) -> str:
    """Dimensions and scales in words."""
    return ", ".join(
        f"{name} ({about.scales[name].minimum:g} to {about.scales[name].maximum:g})" for name in about.dimensions
    )
