"""Microsoft's own WavLM checkpoints, {"cfg", "model"}, in the words of transformers."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

_RENAMED = {
    r"mask_emb": "masked_spec_embed",
    r"feature_extractor\.conv_layers\.(\d+)\.0\.(weight|bias)": r"feature_extractor.conv_layers.\1.conv.\2",
    r"feature_extractor\.conv_layers\.(\d+)\.2(?:\.1)?\.(\w+)": r"feature_extractor.conv_layers.\1.layer_norm.\2",
    r"layer_norm\.(weight|bias)": r"feature_projection.layer_norm.\1",
    r"post_extract_proj\.(weight|bias)": r"feature_projection.projection.\1",
    r"encoder\.pos_conv\.0\.bias": "encoder.pos_conv_embed.conv.bias",
    r"encoder\.pos_conv\.0\.weight_g": "encoder.pos_conv_embed.conv.parametrizations.weight.original0",
    r"encoder\.pos_conv\.0\.weight_v": "encoder.pos_conv_embed.conv.parametrizations.weight.original1",
    r"encoder\.layer_norm\.(weight|bias)": r"encoder.layer_norm.\1",
    r"encoder\.layers\.(\d+)\.self_attn\.([kqv]|out)_proj\.(\w+)": r"encoder.layers.\1.attention.\2_proj.\3",
    r"encoder\.layers\.(\d+)\.self_attn\.grep_linear\.(\w+)": r"encoder.layers.\1.attention.gru_rel_pos_linear.\2",
    r"encoder\.layers\.(\d+)\.self_attn\.grep_a": r"encoder.layers.\1.attention.gru_rel_pos_const",
    r"encoder\.layers\.0\.self_attn\.relative_attention_bias\.(\w+)": r"encoder.layers.0.attention.rel_attn_embed.\1",
    r"encoder\.layers\.(\d+)\.self_attn_layer_norm\.(\w+)": r"encoder.layers.\1.layer_norm.\2",
    r"encoder\.layers\.(\d+)\.fc1\.(\w+)": r"encoder.layers.\1.feed_forward.intermediate_dense.\2",
    r"encoder\.layers\.(\d+)\.fc2\.(\w+)": r"encoder.layers.\1.feed_forward.output_dense.\2",
    r"encoder\.layers\.(\d+)\.final_layer_norm\.(\w+)": r"encoder.layers.\1.final_layer_norm.\2",
}  # fmt: skip


def renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint's tensors under transformers' names; those that aren't the encoder's keep their own."""
    return {_renamed(name): tensor for name, tensor in tensors.items()}


def _renamed(name: str) -> str:
    for pattern, new in _RENAMED.items():
        if match := re.fullmatch(pattern, name):
            return match.expand(new)
    return name


_DEFAULTS: Mapping[str, Any] = {
    "extractor_mode": "default",
    "encoder_layers": 12,
    "encoder_embed_dim": 768,
    "encoder_ffn_embed_dim": 3072,
    "encoder_attention_heads": 12,
    "activation_fn": "gelu",
    "layer_norm_first": False,
    "conv_feature_layers": "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2",
    "conv_bias": False,
    "normalize": False,
    "conv_pos": 128,
    "conv_pos_groups": 16,
    "num_buckets": 320,
    "max_distance": 1280,
}
"""What Microsoft's own class takes where `cfg` says nothing (WavLMConfig in unilm/wavlm/WavLM.py)."""


def completed(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """The checkpoint's `cfg` with the defaults of Microsoft's class where it is silent."""
    return {**_DEFAULTS, **cfg}


def configuration(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of transformers' WavLMConfig from the checkpoint's `completed` cfg.

    Raises:
        ValueError: a convolutional geometry that isn't a sum of [(channels, kernel, stride)] * n.
    """
    layers = convolutions(cfg["conv_feature_layers"])
    channels, kernels, strides = zip(*layers, strict=True)
    return {
        "conv_dim": channels,
        "conv_kernel": kernels,
        "conv_stride": strides,
        "conv_bias": bool(cfg["conv_bias"]),
        "num_feat_extract_layers": len(layers),
        "feat_extract_norm": "layer" if cfg["extractor_mode"] == "layer_norm" else "group",
        "do_stable_layer_norm": bool(cfg["layer_norm_first"]),
        "hidden_size": cfg["encoder_embed_dim"],
        "num_hidden_layers": cfg["encoder_layers"],
        "num_attention_heads": cfg["encoder_attention_heads"],
        "intermediate_size": cfg["encoder_ffn_embed_dim"],
        "hidden_act": cfg["activation_fn"],
        "num_conv_pos_embeddings": cfg["conv_pos"],
        "num_conv_pos_embedding_groups": cfg["conv_pos_groups"],
        "num_buckets": cfg["num_buckets"],
        "max_bucket_distance": cfg["max_distance"],
    }


def convolutions(text: str) -> list[tuple[int, int, int]]:
    """(channels, kernel, stride) of each convolution; the text is parsed, never evaluated.

    >>> convolutions("[(512,10,5)] + [(512,3,2)] * 2")
    [(512, 10, 5), (512, 3, 2), (512, 3, 2)]
    """
    found: list[tuple[int, int, int]] = []
    for term in text.replace(" ", "").split("+"):
        match = re.fullmatch(r"\[\((\d+),(\d+),(\d+)\)\](?:\*(\d+))?", term)
        if match is None:
            raise ValueError(f"conv_feature_layers is {text!r}")
        channels, kernel, stride, times = (int(group) for group in match.groups(default="1"))
        found += [(channels, kernel, stride)] * times
    return found
