"""How the network of a public model differs from those that serfit trains, besides what a configuration chooses."""

from typing import Annotated, Literal

from pydantic import Field

from serfit.system.records import Record

Width = Annotated[int, Field(ge=1, le=65536)]
"""Units of a layer, as in `serfit.config.schema.ModelParams`."""


class Variant(Record):
    """Parts of a network that no configuration asks for; the defaults are those of every network that serfit trains.

    Attributes:
        mix_norm: whether each hidden state is normalised before the weighted sum.
        attention_width: hidden units of an attention that pools frames.
        least_variance: of the frames of an utterance; a smaller one counts as this in attentive statistics.
        projection: width of three layers, with ReLU between them, that each frame passes before the mean; None has
            no such layers.
        head_norm: whether the head's hidden layer has a layer norm.
        activation: of the head's hidden layer.
    """

    mix_norm: bool = True
    attention_width: Width = 128
    least_variance: Annotated[float, Field(gt=0.0, le=1.0)] = 1e-6
    projection: Width | None = None
    head_norm: bool = True
    activation: Literal["relu", "tanh"] = "relu"


TRAINED = Variant()
"""The variant of every network that serfit trains."""
