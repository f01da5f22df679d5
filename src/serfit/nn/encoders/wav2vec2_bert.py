"""wav2vec2-BERT 2.0: conformer layers above a log-mel filterbank, two windows of which make one frame.

Barrault et al., "Seamless: multilingual expressive and streaming speech translation", 2023. The filterbank has no
weights. It is the encoder's first stage, in place of a CNN, so that whatever changes a waveform acts before it.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from serfit.nn.encoders.base import CNN, States
from serfit.nn.encoders.conformer import ConformerSettings
from serfit.nn.encoders.filterbank import HOP, WINDOW, filterbank
from serfit.nn.encoders.source import Source
from serfit.nn.encoders.wav2vec2_config import Activation, Size
from serfit.nn.encoders.wav2vec2_conformer import Wav2Vec2ConformerEncoder
from serfit.nn.frames import Layout, frame_count, shortest_input, valid_mask

_STRIDE = 2
"""Windows per frame."""


class Settings(ConformerSettings):
    """Settings of wav2vec2-BERT."""

    model_type: Literal["wav2vec2-bert"]
    hidden_size: Size = 1024
    num_hidden_layers: Annotated[int, Field(ge=1, le=256)] = 24
    num_attention_heads: Size = 16
    intermediate_size: Size = 4096
    hidden_act: Activation = "swish"
    feature_projection_input_dim: Annotated[int, Field(ge=2, le=1024)] = 160
    position_embeddings_type: Literal["relative", "relative_key", "rotary"] | None = "relative_key"
    left_max_position_embeddings: Size = 64
    right_max_position_embeddings: Size = 8

    @model_validator(mode="after")
    def _bands_fit(self) -> Self:
        if self.feature_projection_input_dim % _STRIDE:
            raise ValueError(
                f"feature_projection_input_dim is {self.feature_projection_input_dim}, and must be even: the "
                "mel bands of two windows"
            )
        return self


class Wav2Vec2BertEncoder(Wav2Vec2ConformerEncoder):
    """wav2vec2-BERT 2.0."""

    known = Settings
    described_by = (
        "model_type", "feature_projection_input_dim", "layer_norm_eps", "hidden_act", "num_attention_heads",
        "position_embeddings_type", "left_max_position_embeddings", "right_max_position_embeddings",
        "rotary_embedding_base",
    )  # fmt: skip
    front_name = "log-mel filterbank"

    def __init__(self, hf: nn.Module, *, normalise: bool | None = None, **options: Any) -> None:
        """As for `Wav2Vec2Encoder`, but that waveforms are never normalised: bands are, so that level has no effect."""
        super().__init__(hf, normalise=False, **options)
        if self.position_modules:  # a bundle holds what a state dict holds
            positions = self.hf.encoder.embed_positions
            positions.register_buffer("inv_freq", positions.inv_freq, persistent=True)

    @classmethod
    def of(cls, source: Source, **options: Any) -> Self:
        """As for `Wav2Vec2Encoder`. Raises UserError too where a file states spectra that it doesn't compute."""
        encoder = super().of(source, **options)
        taken = {"num_mel_bins": encoder.bands, "stride": _STRIDE}
        source.normalisation.check_spectra(source.name, taken, "its config.json wants")
        return encoder

    @property
    def bands(self) -> int:
        """Mel bands of a window."""
        return self.sizes.channels // _STRIDE

    @property
    def preparation(self) -> str:
        """See `Encoder`."""
        return f"{self.bands} mel bands are computed, and each is normalised over the utterance"

    @staticmethod
    def front_sizes(config: Any) -> tuple[int, int]:
        """See `Wav2Vec2Encoder`."""
        return config.feature_projection_input_dim, _STRIDE * HOP

    @property
    def shortest_input(self) -> int:
        """See `Encoder`."""
        return shortest_input((WINDOW, _STRIDE), (HOP, _STRIDE))

    def frame_count(self, samples: Any) -> Any:
        """See `Encoder`."""
        return frame_count(samples, (WINDOW, _STRIDE), (HOP, _STRIDE))

    def stage_modules(self, stage: int) -> dict[str, nn.Module]:
        """See `Encoder`."""
        return {} if stage == CNN else super().stage_modules(stage)

    def front_bytes(self, stage: int, seconds: float, word: int, *, checkpointing: bool) -> float:
        """See `Encoder`: nothing before the projection is trained."""
        return super().front_bytes(CNN, seconds, word, checkpointing=checkpointing)

    def traced(self, waveforms: Tensor, lengths: Tensor) -> States:
        """See `Encoder`; everything is that of `run`."""
        hidden, counts = self._stacked(waveforms, lengths), self.frame_count(lengths)
        frames = hidden.shape[1]
        states = States((hidden,), Layout((), frames, counts, valid_mask(counts, frames)))
        return self.run(states, CNN, self.last_stage)

    def _front(self, inputs: Tensor, layout: Layout, call: Any) -> tuple[Tensor, Layout]:
        hidden = self._stacked(inputs, layout.lengths)
        return hidden, Layout.of([self.frame_count(count) for count in layout.counts], hidden.shape[1], hidden.device)

    def _stacked(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Log-mel spectra of waveforms [B, S], two side by side: [B, T, C]."""
        spectra = filterbank(waveforms, lengths, self.bands)
        frames = spectra.shape[1] // _STRIDE
        batch = spectra.shape[0]  # len() would fix a graph to the batch that it was made with
        return spectra[:, : _STRIDE * frames].reshape(batch, frames, -1)
