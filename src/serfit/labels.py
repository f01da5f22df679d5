"""The emotion dimensions, their order and rating scales, and the sampling rate of all audio."""

from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast, get_args

Dimension = Literal["valence", "arousal", "dominance"]
DIMENSIONS: tuple[Dimension, ...] = get_args(Dimension)
"""All dimensions in the order used by every tensor, table and file: valence, arousal, dominance."""

SAMPLE_RATE = 16_000
"""Samples per second of every waveform: what pretrained speech encoders are trained on."""

Numbers = TypeVar("Numbers")
"""A float, a numpy array or a torch tensor: whatever takes part in arithmetic."""


def letter(dimension: Dimension) -> str:
    """The letter that tables use for a dimension.

    >>> [letter(dimension) for dimension in DIMENSIONS]
    ['V', 'A', 'D']
    """
    return dimension[0].upper()


@dataclass(frozen=True, slots=True)
class LabelScale:
    """A closed interval on which a corpus rates a dimension, for example 1 to 5.

    >>> LabelScale(1, 5).to_unit(3.0)
    0.5
    >>> LabelScale(-2, 2).from_unit(0.75)
    1.0
    """

    minimum: float
    maximum: float

    def __post_init__(self) -> None:
        assert self.minimum < self.maximum, f"a label scale needs minimum < maximum, not {self}"

    def to_unit(self, rating: Numbers) -> Numbers:
        """Map ratings on this scale to [0, 1]; values outside the scale fall outside [0, 1], nothing is clipped."""
        return cast(Numbers, (cast(Any, rating) - self.minimum) / (self.maximum - self.minimum))

    def from_unit(self, value: Numbers) -> Numbers:
        """Map values on [0, 1] back to this scale."""
        return cast(Numbers, cast(Any, value) * (self.maximum - self.minimum) + self.minimum)

    def contains(self, rating: float) -> bool:
        """Whether a rating lies on the scale (ends included)."""
        return self.minimum <= rating <= self.maximum
