"""data2vec-audio: wav2vec2's post-norm transformer with layer norms in its CNN and five convolutions for positions.

Baevski et al., "data2vec: a general framework for self-supervised learning", ICML 2022.
"""

from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor, nn

from serfit.nn.encoders.convolution import grouped_convolution
from serfit.nn.encoders.wav2vec2 import Wav2Vec2Encoder
from serfit.nn.encoders.wav2vec2_config import Convolutional, Size
from serfit.nn.frames import Layout


class Settings(Convolutional):
    """Settings of data2vec-audio."""

    model_type: Literal["data2vec-audio"]
    num_conv_pos_embeddings: Annotated[int, Field(ge=1, le=64)] = 5
    conv_pos_kernel_size: Size = 19


class Data2VecEncoder(Wav2Vec2Encoder):
    """data2vec-audio, base or large: both are post-norm."""

    known = Settings
    described_by = (
        "model_type", "conv_kernel", "conv_stride", "feat_extract_activation", "layer_norm_eps", "hidden_act",
        "num_attention_heads", "num_conv_pos_embeddings", "conv_pos_kernel_size", "num_conv_pos_embedding_groups",
    )  # fmt: skip

    def __init__(self, hf: nn.Module, **options: Any) -> None:
        """As for `Wav2Vec2Encoder`."""
        super().__init__(hf, **options)
        self.position_numbers = 3 * self.config.num_conv_pos_embeddings

    def shared_bytes(self, stage: int, frames: float, *, half: bool) -> float:
        """See `Encoder`: neither a bias, nor norms of weights."""
        return 0.0

    def _placed(self, hidden: Tensor, layout: Layout) -> Tensor:
        """See `Wav2Vec2Encoder`. What a convolution writes into the padding is 0 again for the next."""
        positions = hidden
        for layer in self.hf.encoder.pos_conv_embed.layers:
            positions = grouped_convolution(layer, positions.transpose(1, 2)).transpose(1, 2)
            if layout.valid is not None:
                positions = positions.masked_fill(~layout.valid[..., None], 0.0)
        return hidden + positions
