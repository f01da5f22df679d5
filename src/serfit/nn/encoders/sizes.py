"""How large an encoder is, and what it keeps in memory."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of an encoder.

    Attributes:
        width: H, the width of hidden states.
        heads: attention heads of a layer.
        inner: width of a layer's feed-forward block.
        channels: C, the width of the CNN's output.
        hop: samples per frame.
    """

    width: int
    heads: int
    inner: int
    channels: int
    hop: int


@dataclass(frozen=True, slots=True)
class Activations:
    """Memory of one utterance in a batch, besides the network.

    Attributes:
        kept: bytes that stay from its forward to its backward pass.
        passing: bytes on top while the backward pass goes through one layer.
    """

    kept: float
    passing: float
