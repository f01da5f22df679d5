"""What a network predicts, on which scales, and how it wants its audio."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from serfit.errors import UserError, error_line
from serfit.inference.origin import Origin
from serfit.labels import DIMENSIONS, SAMPLE_RATE, Dimension, LabelScale
from serfit.system.records import from_plain, plain

MOST = 10_000_000
"""Largest size that a description may state: ten minutes of samples, or numbers in a vector."""


@dataclass(frozen=True, slots=True)
class About:
    """All that is needed to use a network; JSON in a bundle.

    Attributes:
        name: of the experiment it comes from.
        dimensions: names of the D values it gives, in order.
        scales: the corpus's rating scale of each.
        normalise: whether it wants waveforms at zero mean and unit variance.
        shortest: fewest samples at 16 kHz that it can hear.
        embedding_width: length P of its pooled vectors; 0 where it doesn't give them.
        origin: where it comes from: configuration, encoder, corpus, protocol, scores; for people and model cards.
    """

    name: str
    dimensions: tuple[Dimension, ...]
    scales: Mapping[Dimension, LabelScale]
    normalise: bool
    shortest: int
    embedding_width: int = 0
    origin: Origin = field(default_factory=Origin, repr=False)

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "name": self.name,
            "dimensions": list(self.dimensions),
            "scales": {name: [scale.minimum, scale.maximum] for name, scale in self.scales.items()},
            "sample_rate": SAMPLE_RATE,
            "normalise": self.normalise,
            "shortest": self.shortest,
            "embedding_width": self.embedding_width,
            "origin": plain(self.origin),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], where: str) -> "About":
        """The inverse of `to_json`.

        Args:
            data: plain data, from a file that anybody may have written.
            where: the file, for the message.

        Raises:
            UserError: something is missing or can't be.
        """
        try:
            if data["sample_rate"] != SAMPLE_RATE:
                raise ValueError(f"sample_rate is {data['sample_rate']} and must be {SAMPLE_RATE}")
            named = [str(name) for name in data["dimensions"]]
            dimensions = tuple(name for name in DIMENSIONS if name in named)
            if not named or list(dimensions) != named:
                raise ValueError(f"dimensions are {named}")
            scales = {}
            for name in dimensions:
                minimum, maximum = (float(end) for end in data["scales"][name])
                if not -math.inf < minimum < maximum < math.inf:
                    raise ValueError(f"the scale of {name} is {minimum} to {maximum}")
                scales[name] = LabelScale(minimum, maximum)
            if not isinstance(data["normalise"], bool):
                raise ValueError(f"normalise is {data['normalise']!r:.40} and must be true or false")
            shortest, width = data["shortest"], data["embedding_width"]
            for key, size, least in (("shortest", shortest, 1), ("embedding_width", width, 0)):
                if not isinstance(size, int) or isinstance(size, bool) or not least <= size <= MOST:
                    raise ValueError(f"{key} is {size!r:.40} and must be a whole number from {least} to {MOST:,}")
            return cls(
                name=str(data["name"]),
                dimensions=dimensions,
                scales=scales,
                normalise=data["normalise"],
                shortest=shortest,
                embedding_width=width,
                origin=from_plain(Origin, data["origin"], f"{where}, origin", "export the run again"),
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise UserError(
                f"{where} doesn't describe a serfit model ({type(error).__name__}: {error_line(error)}); export the "
                "run again with `serfit export`"
            ) from error


def mapped_scales(about: About, scales: Mapping[Dimension, LabelScale], corpus: str) -> list[str]:
    """Sentences about the scales of a network that stand for other ones of a corpus.

    >>> about = About("a", ("valence",), {"valence": LabelScale(1, 5)}, True, 400)
    >>> mapped_scales(about, {"valence": LabelScale(-3, 3)}, "radio"), mapped_scales(about, about.scales, "radio")
    (["valence: the model's 1 to 5 stands for -3 to 3 of radio"], [])
    """
    pairs = [(name, scale, scales[name]) for name, scale in about.scales.items() if name in scales]
    return [
        f"{name}: the model's {mine.minimum:g} to {mine.maximum:g} stands for {yours.minimum:g} to {yours.maximum:g} "
        f"of {corpus}"
        for name, mine, yours in pairs
        if mine != yours
    ]
