from pathlib import Path
from typing import Any

import pytest
import torch

from nn.small import LAYOUTS, build_hf, load_encoder
from serfit.config.schema import ModelParams
from serfit.errors import UserError
from serfit.nn.encoders.microsoft import completed, configuration, convolutions
from serfit.nn.saved import weights_digest


def as_microsoft(hf: Any) -> dict[str, Any]:
    """A checkpoint as Microsoft's code would write it: every tensor is fetched from its module, by hand."""
    c, tensors = hf.config, {}

    def put(name: str, module: Any) -> None:
        tensors.update({f"{name}.{key}": value for key, value in module.state_dict().items()})

    large = c.do_stable_layer_norm
    for i, layer in enumerate(hf.feature_extractor.conv_layers):
        put(f"feature_extractor.conv_layers.{i}.0", layer.conv)
        if hasattr(layer, "layer_norm"):
            put(f"feature_extractor.conv_layers.{i}.2" + (".1" if large else ""), layer.layer_norm)
    put("layer_norm", hf.feature_projection.layer_norm)
    put("post_extract_proj", hf.feature_projection.projection)
    conv = hf.encoder.pos_conv_embed.conv
    tensors["encoder.pos_conv.0.bias"] = conv.bias.detach()
    tensors["encoder.pos_conv.0.weight_g"] = conv.parametrizations.weight.original0.detach()
    tensors["encoder.pos_conv.0.weight_v"] = conv.parametrizations.weight.original1.detach()
    put("encoder.layer_norm", hf.encoder.layer_norm)
    tensors["mask_emb"] = hf.masked_spec_embed.detach()
    for i, layer in enumerate(hf.encoder.layers):
        name, attention = f"encoder.layers.{i}", layer.attention
        for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
            put(f"{name}.self_attn.{projection}", getattr(attention, projection))
        put(f"{name}.self_attn.grep_linear", attention.gru_rel_pos_linear)
        tensors[f"{name}.self_attn.grep_a"] = attention.gru_rel_pos_const.detach()
        if i == 0:
            put(f"{name}.self_attn.relative_attention_bias", attention.rel_attn_embed)
        put(f"{name}.self_attn_layer_norm", layer.layer_norm)
        put(f"{name}.fc1", layer.feed_forward.intermediate_dense)
        put(f"{name}.fc2", layer.feed_forward.output_dense)
        put(f"{name}.final_layer_norm", layer.final_layer_norm)
    cfg = {
        "extractor_mode": "layer_norm" if large else "default",
        "encoder_layers": 3,
        "encoder_embed_dim": 32,
        "encoder_ffn_embed_dim": 48,
        "encoder_attention_heads": 4,
        "activation_fn": "gelu",
        "layer_norm_first": large,
        "conv_feature_layers": "[(16,10,5)] + [(16,3,2)] * 4 + [(16,2,2)] * 2",
        "conv_bias": large,
        "normalize": large,
        "conv_pos": 16,
        "conv_pos_groups": 4,
        "num_buckets": 64,
        "max_distance": 200,
    }
    return {"cfg": cfg, "model": tensors | {"label_embs_concat": torch.zeros(3), "final_proj.weight": torch.zeros(3)}}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_microsofts_file_gives_the_same_encoder(layout: str, tmp_path: Path) -> None:
    hf = build_hf("wavlm", layout, num_buckets=64, max_bucket_distance=200)
    torch.save(as_microsoft(hf), tmp_path / "WavLM.pt")
    encoder, provenance = load_encoder(ModelParams(speech_encoder=str(tmp_path / "WavLM.pt")), seed=1)
    assert provenance.sha256 == weights_digest(hf)
    assert encoder.normalise is (layout == "large")
    same = ("conv_kernel", "conv_stride", "num_attention_heads", "max_bucket_distance", "do_stable_layer_norm")
    assert all(tuple_or(getattr(encoder.config, key)) == tuple_or(getattr(hf.config, key)) for key in same)


def test_what_cfg_leaves_out_is_as_in_microsofts_class(tmp_path: Path) -> None:
    """The right column is theirs: the constructor of WavLMConfig in unilm/wavlm/WavLM.py."""
    theirs = {"layer_norm_first": False, "conv_bias": False, "extractor_mode": "default", "activation_fn": "gelu"}
    hf = build_hf("wavlm", "base", num_buckets=320, max_bucket_distance=1280)
    checkpoint = as_microsoft(hf)
    kept = {"encoder_layers", "encoder_embed_dim", "encoder_ffn_embed_dim", "encoder_attention_heads"}
    kept |= {"conv_feature_layers", "conv_pos", "conv_pos_groups"}
    assert {key: checkpoint["cfg"][key] for key in theirs} == theirs
    checkpoint["cfg"] = {key: value for key, value in checkpoint["cfg"].items() if key in kept}
    torch.save(checkpoint, tmp_path / "WavLM.pt")
    encoder, provenance = load_encoder(ModelParams(speech_encoder=str(tmp_path / "WavLM.pt")), seed=1)
    assert provenance.sha256 == weights_digest(hf)
    assert (encoder.normalise, encoder.config.max_bucket_distance) == (False, 1280)
    base = configuration(completed({}))
    assert (base["hidden_size"], base["num_hidden_layers"], base["num_attention_heads"]) == (768, 12, 12)
    assert (base["intermediate_size"], base["num_conv_pos_embeddings"], base["num_conv_pos_embedding_groups"]) == (
        3072,
        128,
        16,
    )
    assert base["conv_kernel"] == (10, 3, 3, 3, 3, 2, 2)


def tuple_or(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else value


class Payload:
    """Would run code when unpickled."""

    def __reduce__(self) -> Any:
        return (print, ("unpickled",))


def test_other_files_give_one_sentence(tmp_path: Path) -> None:
    good = as_microsoft(build_hf("wavlm", "large", num_buckets=64, max_bucket_distance=200))
    file = tmp_path / "WavLM.pt"
    broken: list[tuple[Any, str]] = [
        ({"state_dict": {}}, "can't be read as a WavLM checkpoint"),
        ({"cfg": Payload(), "model": {}}, "can't be read as a WavLM checkpoint"),
        ({**good, "cfg": good["cfg"] | {"conv_feature_layers": "exit()"}}, "conv_feature_layers"),
        ({**good, "cfg": good["cfg"] | {"encoder_layers": 4}}, "lacks weights"),
        ({**good, "model": {"encoder.layer_norm.weight": torch.zeros(5)}}, "lacks weights"),
        (
            {**good, "cfg": good["cfg"] | {"encoder_embed_dim": "32"}},
            "hidden_size is '32', and must be a valid integer",
        ),
    ]
    for content, message in broken:
        torch.save(content, file)
        with pytest.raises(UserError, match=message) as caught:
            load_encoder(ModelParams(speech_encoder=str(file)), seed=1)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"can't be read as a WavLM checkpoint"):
        load_encoder(ModelParams(speech_encoder=str(tmp_path / "none.pt")), seed=1)


def test_convolutions_are_parsed_not_evaluated() -> None:
    assert len(convolutions("[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2")) == 7
    with pytest.raises(ValueError, match="conv_feature_layers"):
        convolutions("__import__('os').getcwd()")


def test_tensors_of_heads_are_left_out_and_unknown_ones_of_the_encoder_are_not(tmp_path: Path) -> None:
    good = as_microsoft(build_hf("wavlm", "large", num_buckets=64, max_bucket_distance=200))
    for name in (
        "encoder.layers.0.fc3.weight",
        "encoder.layers.3.fc1.weight",
        "feature_extractor.conv_layers.0.3.bias",
    ):
        torch.save({**good, "model": good["model"] | {name: torch.zeros(3)}}, tmp_path / "WavLM.pt")
        with pytest.raises(UserError, match=r"holds weights that its configuration leaves out \((encoder|feature)"):
            load_encoder(ModelParams(speech_encoder=str(tmp_path / "WavLM.pt")), seed=1)
