"""The settings of an encoder's configuration that decide what it computes, checked one by one before it is built.

They come from files that anybody may have written. What isn't listed here (dropout, SpecAugment, heads for other tasks,
tokens) has no effect in serfit and is left out.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from serfit.errors import UserError, error_line

MODEL_TYPES = ("wavlm", "hubert", "wav2vec2")
"""Architectures that load by name."""

LARGEST = 1 << 20
"""Largest size, number or distance that a configuration may ask for; known encoders stay below 5,120."""

MOST_LAYERS = 256
"""Most transformer layers; each takes time to build before anything else can be checked."""

_Check = Callable[[Any], bool]


def _size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST


def _sizes(value: Any) -> bool:
    return isinstance(value, list | tuple) and 1 <= len(value) <= 64 and all(_size(one) for one in value)


def _switch(value: Any) -> bool:
    return isinstance(value, bool)


def _share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0.0 <= value <= 1.0


def _small(value: Any) -> bool:
    return isinstance(value, float) and math.isfinite(value) and 0.0 <= value <= 0.1


def _activation(value: Any) -> bool:
    from transformers.activations import ACT2FN

    return isinstance(value, str) and value in ACT2FN


_NUMBER, _NUMBERS = f"a whole number from 1 to {LARGEST:,}", f"a list of whole numbers from 1 to {LARGEST:,}"

_CHECKS: Mapping[str, tuple[_Check, str]] = {
    "hidden_size": (_size, _NUMBER),
    "num_hidden_layers": (
        lambda value: _size(value) and value <= MOST_LAYERS,
        f"a whole number from 1 to {MOST_LAYERS}",
    ),
    "num_attention_heads": (_size, _NUMBER),
    "intermediate_size": (_size, _NUMBER),
    "num_conv_pos_embeddings": (_size, _NUMBER),
    "num_conv_pos_embedding_groups": (_size, _NUMBER),
    "num_buckets": (_size, _NUMBER),
    "max_bucket_distance": (_size, _NUMBER),
    "conv_dim": (_sizes, _NUMBERS),
    "conv_kernel": (_sizes, _NUMBERS),
    "conv_stride": (_sizes, _NUMBERS),
    "conv_bias": (_switch, "true or false"),
    "do_stable_layer_norm": (_switch, "true or false"),
    "feat_proj_layer_norm": (_switch, "true or false"),
    "feat_extract_norm": (lambda value: value in ("group", "layer"), "group or layer"),
    "hidden_act": (_activation, "the name of an activation such as gelu"),
    "feat_extract_activation": (_activation, "the name of an activation such as gelu"),
    "layer_norm_eps": (_small, "a number from 0.0 to 0.1"),
    "mask_time_prob": (_share, "a number from 0 to 1"),
    "mask_feature_prob": (_share, "a number from 0 to 1"),
}
"""Each setting, what it may be, and that in words."""

CHECKED = frozenset(_CHECKS)
"""Names of the settings that decide what an encoder computes."""

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


def checked(stated: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The settings that matter, with model_type; what isn't stated is left to transformers' defaults.

    Args:
        stated: the configuration as read.
        where: its file, for messages.

    Raises:
        UserError: a type that serfit doesn't support, or a setting that can't be.
    """
    model_type = stated.get("model_type")
    if model_type not in MODEL_TYPES:
        plain = model_type if isinstance(model_type, str) and model_type.isidentifier() else _shown(model_type)
        raise UserError(
            f"{where} is of type {plain}, which serfit doesn't support; use a {', '.join(MODEL_TYPES)} encoder"
        )
    refuse_unknown_parts(stated)
    found = {key: stated[key] for key in _CHECKS if key in stated}
    for key, value in found.items():
        fits, words = _CHECKS[key]
        if not fits(value):
            _refuse(where, f"{key} is {_shown(value)}, and must be {words}")
    return {"model_type": model_type, **found}


def configured(settings: Mapping[str, Any], where: str) -> Any:
    """Transformers' configuration of settings that `checked` has found possible one by one.

    Args:
        settings: what `checked` returned.
        where: their file, for messages.

    Raises:
        UserError: they contradict each other.
    """
    from transformers import AutoConfig

    lengths = {
        key: len(settings.get(key, range(7))) for key in ("conv_dim", "conv_kernel", "conv_stride")
    }  # default: 7
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{key} has {length}" for key, length in lengths.items())
        _refuse(where, f"{said} entries, and each must have one for every layer of the CNN")
    try:
        config: Any = AutoConfig.for_model(**settings)
    except Exception as error:  # of huggingface_hub, which has a class of its own for each kind, around transformers'
        _refuse(where, f"its settings contradict each other ({error_line(error.__cause__ or error)})", error)
    for key in ("num_attention_heads", "num_conv_pos_embedding_groups"):
        if config.hidden_size % getattr(config, key):
            _refuse(where, f"hidden_size is {config.hidden_size}, which {key} ({getattr(config, key)}) doesn't divide")
    if any(stride > kernel for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True)):
        _refuse(where, "a conv_stride is larger than its conv_kernel, so that samples between would be left out")
    buckets, farthest = getattr(config, "num_buckets", 4), getattr(config, "max_bucket_distance", LARGEST)
    if buckets < 4 or farthest <= buckets // 4:
        _refuse(where, f"num_buckets is {buckets} and max_bucket_distance {farthest}; there must be 4 buckets or more, "
                       "and the distance be larger than a quarter of their number")  # fmt: skip
    return config


def skeleton(config: Any, where: str) -> Any:
    """An encoder without memory for its weights, on the meta device. Raises UserError where it can't be built."""
    import torch
    from transformers import AutoModel

    try:
        with torch.device("meta"):
            return AutoModel.from_config(config)
    except (ValueError, TypeError, RuntimeError, LookupError, ArithmeticError, AttributeError) as error:
        _refuse(where, f"transformers can't build it ({type(error).__name__})", error)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _refuse(where: str, what: str, error: BaseException | None = None) -> NoReturn:
    raise UserError(
        f"{where} describes an encoder that can't be built: {what}; fetch config.json and weights again, together"
    ) from error
