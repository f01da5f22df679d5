"""wav2vec2-conformer: wav2vec2's CNN below conformer layers, with relative or rotary positions.

Baevski et al., "wav2vec 2.0", 2020, with the layers of Gulati et al., 2020. Every checkpoint holds a convolution for
positions that no forward pass reads, not even transformers' own; it is left out.
"""

from typing import Any, Literal

from torch import Tensor, nn

from serfit.nn.dropout import DropoutSeeds
from serfit.nn.encoders.base import EMBEDDING
from serfit.nn.encoders.conformer import ConformerSettings, conformer_layer, positions_of
from serfit.nn.encoders.wav2vec2 import Wav2Vec2Encoder
from serfit.nn.encoders.wav2vec2_config import Convolutional, Size, Transformer
from serfit.nn.frames import Layout


class Settings(Convolutional, ConformerSettings):
    """Settings of wav2vec2-conformer."""

    model_type: Literal["wav2vec2-conformer"]
    position_embeddings_type: Literal["relative", "rotary"] | None = "relative"
    num_conv_pos_embeddings: Size = 128
    feat_extract_norm: Literal["group", "layer"] = "group"


class Wav2Vec2ConformerEncoder(Wav2Vec2Encoder):
    """wav2vec2-conformer."""

    known: type[Transformer] = Settings
    described_by: tuple[str, ...] = (
        "model_type", "conv_kernel", "conv_stride", "feat_extract_norm", "feat_extract_activation", "layer_norm_eps",
        "hidden_act", "num_attention_heads", "position_embeddings_type", "rotary_embedding_base",
    )  # fmt: skip

    position_numbers = 0

    def __init__(self, hf: nn.Module, **options: Any) -> None:
        """As for `Wav2Vec2Encoder`."""
        super().__init__(hf, **options)
        self.norm_stage = self.last_stage if hasattr(self.hf.encoder, "layer_norm") else None
        self.hf.encoder.pos_conv_embed = None
        rotary = self.config.position_embeddings_type == "rotary"
        self.position_modules = ("encoder.embed_positions",) if rotary else ()
        if not rotary:  # positions are computed for each pass
            self.hf.encoder.embed_positions = None

    @property
    def keeps_pairs(self) -> bool:
        """See `Encoder`. Relative positions depend on the query, and learn."""
        return self.config.position_embeddings_type in ("relative", "relative_key") or super().keeps_pairs

    def layer_bytes(self, row: float, word: int, *, gpu: bool) -> float:
        """See `Encoder`.

        32 H bytes in float32, 12 H + 4 F numbers, and on CPUs three dropout masks. With relative positions, a row of
        their bias or the attention weights per head, and the queries as they meet it: 2 H more, or a score for each
        distance.
        """
        width, heads, config = self.width, self.sizes.heads, self.config
        numbers = 12 * width + 4 * self.sizes.inner + heads * row
        match config.position_embeddings_type:
            case "relative":
                numbers += 2 * width
            case "relative_key":
                numbers += heads * (config.left_max_position_embeddings + config.right_max_position_embeddings + 1)
        return 32 * width + word * numbers + (0 if gpu else 3 * width)

    def shared_bytes(self, stage: int, frames: float, *, half: bool) -> float:
        """See `Encoder`: sinusoids and their projections, or the distances of all pairs of frames."""
        match self.config.position_embeddings_type:
            case "relative":
                return 2 * frames * self.width * (4 + (2 if half else 4) * self.layers_above(stage))
            case "relative_key":
                return 8 * frames**2
        return 0.0

    def _placed(self, hidden: Tensor, layout: Layout) -> Tensor:
        """See `Wav2Vec2Encoder`: positions are the layers' business."""
        return hidden

    def _shared(self, layout: Layout) -> Any:
        return positions_of(self.hf, layout.frames)

    def _layer(self, stage: int, hidden: Tensor, layout: Layout, shared: Any, noise: DropoutSeeds | None) -> Tensor:
        layer = self.hf.encoder.layers[stage - EMBEDDING - 1]
        hidden = conformer_layer(layer, hidden, layout, shared, self.p, self.attention_p, noise, 4 * stage)
        return self.hf.encoder.layer_norm(hidden) if stage == self.norm_stage else hidden
