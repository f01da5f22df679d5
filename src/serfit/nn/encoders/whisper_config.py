"""The settings of Whisper's encoder that decide what it computes, validated before anything is built."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from serfit.nn.encoders.wav2vec2_config import MOST_LAYERS, Activation, Size


class Settings(BaseModel):
    """A configuration; defaults are those of transformers."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False, protected_namespaces=())

    model_type: Literal["whisper"]
    num_mel_bins: Annotated[int, Field(ge=1, le=1024)] = 80
    d_model: Size = 384
    encoder_layers: Annotated[int, Field(ge=1, le=MOST_LAYERS)] = 4
    encoder_attention_heads: Size = 6
    encoder_ffn_dim: Size = 1536
    max_source_positions: Size = 1500
    activation_function: Activation = "gelu"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.d_model % self.encoder_attention_heads:
            raise ValueError(
                f"d_model is {self.d_model}, which encoder_attention_heads ({self.encoder_attention_heads}) doesn't "
                "divide"
            )
        if self.d_model % 2:
            raise ValueError(f"d_model is {self.d_model}, and must be even: positions are pairs of a sine and a cosine")
        return self
