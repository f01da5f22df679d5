"""The settings that decide what WavLM, HuBERT, wav2vec2 and their kin compute, validated before anything is built.

They come from files that anybody may have written. What isn't listed here (dropout, SpecAugment, heads for other tasks,
tokens) has no effect in serfit and is left out.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, NoReturn, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from serfit.errors import UserError, error_line
from serfit.nn.encoders.folder import shown

LARGEST = 1 << 20
"""Largest size, number or distance that a configuration may ask for; known encoders stay below 5,120."""

MOST_LAYERS = 256
"""Most transformer layers; each takes time to build before anything else can be checked."""


def _known(name: str) -> str:
    from transformers.activations import ACT2FN

    if name not in ACT2FN:
        raise ValueError("must be the name of an activation such as gelu")
    return name


Size = Annotated[int, Field(ge=1, le=LARGEST)]
Chain = (
    Annotated[list[Size], Field(min_length=1, max_length=64)]
    | Annotated[tuple[Size, ...], Field(min_length=1, max_length=64)]
)
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Activation = Annotated[str, AfterValidator(_known)]


class Transformer(BaseModel):
    """Settings of a transformer; defaults are those of transformers."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False, protected_namespaces=())

    hidden_size: Size = 768
    num_hidden_layers: Annotated[int, Field(ge=1, le=MOST_LAYERS)] = 12
    num_attention_heads: Size = 12
    intermediate_size: Size = 3072
    hidden_act: Activation = "gelu"
    layer_norm_eps: Annotated[float, Field(ge=0.0, le=0.1)] = 1e-5
    mask_time_prob: Share = 0.05
    mask_feature_prob: Share = 0.0
    initializer_range: Share = 0.02

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        must_divide(self, "num_attention_heads")
        return self


class Convolutional(Transformer):
    """Settings of a transformer above convolutions over the waveform."""

    num_conv_pos_embedding_groups: Size = 16
    conv_dim: Chain = (512,) * 7
    conv_kernel: Chain = (10, 3, 3, 3, 3, 2, 2)
    conv_stride: Chain = (5, 2, 2, 2, 2, 2, 2)
    conv_bias: bool = False
    feat_extract_activation: Activation = "gelu"

    @model_validator(mode="after")
    def _convolutions_fit(self) -> Self:
        lengths = {key: len(getattr(self, key)) for key in ("conv_dim", "conv_kernel", "conv_stride")}
        if len(set(lengths.values())) > 1:
            counts = ", ".join(f"{key} has {length}" for key, length in lengths.items())
            raise ValueError(f"{counts} entries, and each must have one for every layer of the CNN")
        must_divide(self, "num_conv_pos_embedding_groups")
        if any(stride > kernel for kernel, stride in zip(self.conv_kernel, self.conv_stride, strict=True)):
            raise ValueError("a conv_stride is larger than its conv_kernel, so that samples between would be left out")
        return self


class Settings(Convolutional):
    """Settings of WavLM, HuBERT and wav2vec2."""

    model_type: Literal["wavlm", "hubert", "wav2vec2"]
    num_conv_pos_embeddings: Size = 128
    num_buckets: Annotated[int, Field(ge=4, le=LARGEST)] = 320
    max_bucket_distance: Size = 800
    do_stable_layer_norm: bool = False
    feat_proj_layer_norm: bool = True
    feat_extract_norm: Literal["group", "layer"] = "group"

    @model_validator(mode="after")
    def _buckets_fit(self) -> Self:
        if self.max_bucket_distance <= self.num_buckets // 4:
            raise ValueError(
                f"max_bucket_distance is {self.max_bucket_distance}, and must be larger than a quarter of num_buckets "
                f"({self.num_buckets})"
            )
        return self


def must_divide(settings: Transformer, key: str) -> None:
    """Raise ValueError where a setting doesn't divide the width of hidden states."""
    if settings.hidden_size % getattr(settings, key):
        raise ValueError(
            f"hidden_size is {settings.hidden_size}, which {key} ({getattr(settings, key)}) doesn't divide"
        )


_FOREIGN = {
    "add_adapter": "has a convolutional adapter on top",
    "adapter_attn_dim": "has adapters inside the attention layers",
    "conv_pos_batch_norm": "has batch norm in the positional convolution",
    "quantization_config": "is quantised",
}
"""Settings that ask for something that serfit's own forward doesn't know."""


def refuse_unknown_parts(config: Any) -> None:
    """Raise UserError where a configuration asks for layers or weights that serfit doesn't know.

    Args:
        config: of transformers, or the same as a mapping.
    """
    stated = config if isinstance(config, Mapping) else config.to_dict()
    for key, meaning in _FOREIGN.items():
        if stated.get(key):
            raise UserError(
                f"this {stated.get('model_type')} encoder {meaning} ({key} in its config.json), which "
                "serfit doesn't support; use an encoder without it, for example microsoft/wavlm-large"
            )


def configured(stated: Mapping[str, Any], where: str, known: type[BaseModel] = Settings) -> Any:
    """Transformers' configuration of the settings that matter; what isn't stated is left to its defaults.

    Args:
        stated: the configuration as read.
        where: its file, for messages.
        known: the settings of the family.

    Raises:
        UserError: a setting that can't be, or one that contradicts another.
    """
    from transformers import AutoConfig

    refuse_unknown_parts(stated)
    try:
        settings = known.model_validate(dict(stated)).model_dump(exclude_unset=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if not first["loc"]:  # of several settings together
            _refuse(where, str(first["ctx"]["error"]), error)
        key = str(first["loc"][0])
        _refuse(where, f"{key} is {shown(stated[key])}, and {_in_words(first['msg'])}", error)
    try:
        return AutoConfig.for_model(**settings)
    except Exception as error:  # of huggingface_hub, which has a class of its own for each kind, around transformers'
        _refuse(where, f"its settings contradict each other ({error_line(error.__cause__ or error)})", error)


def skeleton(config: Any, where: str, build: Callable[[Any], Any] | None = None) -> Any:
    """An encoder of a configuration, on torch's default device.

    Args:
        config: of transformers.
        where: the file that it was read from, for messages.
        build: makes the encoder; None takes transformers' bare model of the configuration.

    Raises:
        UserError: it can't be built.
    """
    from transformers import AutoModel

    try:
        return (build or AutoModel.from_config)(config)
    except (ValueError, TypeError, RuntimeError, LookupError, ArithmeticError, AttributeError) as error:
        _refuse(where, f"transformers can't build it ({type(error).__name__})", error)


def _in_words(message: str) -> str:
    """Return pydantic's complaint about a value as the end of a sentence.

    >>> _in_words("Input should be less than or equal to 256")
    'must be less than or equal to 256'
    """
    return message.removeprefix("Value error, ").replace("Input should be", "must be").replace("Input should", "must")


def _refuse(where: str, what: str, error: BaseException) -> NoReturn:
    raise UserError(
        f"{where} describes an encoder that can't be built: {what}; fetch config.json and weights again, together"
    ) from error
