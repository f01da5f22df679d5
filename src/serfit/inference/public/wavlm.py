"""WavLM's settings, read off the shapes of its tensors, for checkpoints that come without its config.json."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

STRIDES = (5, 2, 2, 2, 2, 2, 2)
"""Of the CNN's layers in every published WavLM; no tensor shows them."""


def wavlm_settings(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The configuration of a WavLM in transformers' words.

    WavLM comes in two forms: with layer norms in its CNN and before the blocks of its layers (large), or with a group
    norm and norms after them (base). What no shape shows (strides, activations, the largest distance) is as in both.

    Args:
        tensors: by the names that transformers gives them, with either name of a weight norm.

    Raises:
        KeyError: a tensor is missing.
        ValueError: one has another shape than in any WavLM.
    """
    cnn = [tensors[f"feature_extractor.conv_layers.{layer}.conv.weight"].shape for layer in range(len(STRIDES))]
    channels, _, kernels = zip(*cnn, strict=True)
    old, new = (f"encoder.pos_conv_embed.conv.{one}" for one in ("weight_v", "parametrizations.weight.original1"))
    width, per_group, positions = tensors[old if old in tensors else new].shape
    buckets, heads = tensors["encoder.layers.0.attention.rel_attn_embed.weight"].shape
    inner, _ = tensors["encoder.layers.0.feed_forward.intermediate_dense.weight"].shape
    large = "feature_extractor.conv_layers.1.layer_norm.weight" in tensors
    layers = {match[1] for key in tensors if (match := re.match(r"encoder\.layers\.(\d+)\.", key))}
    return {
        "model_type": "wavlm",
        "hidden_size": width,
        "num_hidden_layers": len(layers),
        "num_attention_heads": heads,
        "intermediate_size": inner,
        "num_conv_pos_embeddings": positions,
        "num_conv_pos_embedding_groups": width // per_group,
        "num_buckets": buckets,
        "max_bucket_distance": 800,
        "conv_dim": channels,
        "conv_kernel": kernels,
        "conv_stride": STRIDES,
        "conv_bias": "feature_extractor.conv_layers.0.conv.bias" in tensors,
        "feat_extract_norm": "layer" if large else "group",
        "do_stable_layer_norm": large,
    }
