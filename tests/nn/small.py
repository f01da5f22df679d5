"""Small random encoders of every family and layout that serfit reads, and waveforms of unequal length."""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

PLAIN = ("wavlm", "hubert", "wav2vec2")
FAMILIES = (*PLAIN, "data2vec-audio", "wav2vec2-conformer", "wav2vec2-bert")
LAYOUTS = ("base", "large")
POSITIONS = {
    "wav2vec2-conformer": {"base": "relative", "large": "rotary"},
    "wav2vec2-bert": {"base": "relative_key", "large": "rotary"},
}
"""Position embeddings of conformers, by layout."""


def build_hf(family: str, layout: str, **changes: Any) -> Any:
    """A transformers model with three narrow layers, no weight of which is at its initial 0 or 1."""
    from transformers import AutoConfig, AutoModel

    large = layout == "large"
    settings: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "initializer_range": 0.2,
    }
    if family in POSITIONS:
        settings |= {"position_embeddings_type": POSITIONS[family][layout], "conv_depthwise_kernel_size": 7}
    if family == "wav2vec2-bert":
        settings |= {"left_max_position_embeddings": 6, "right_max_position_embeddings": 3}
    else:
        settings |= {"conv_dim": (16,) * 7, "conv_bias": large, "num_conv_pos_embedding_groups": 4}
    if family in (*PLAIN, "wav2vec2-conformer"):
        settings |= {"feat_extract_norm": "layer" if large else "group", "num_conv_pos_embeddings": 16}
    if family in PLAIN:
        settings["do_stable_layer_norm"] = large
    config = AutoConfig.for_model(family, **settings | changes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = AutoModel.from_config(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
            for name, statistic in model.named_buffers():
                if "running" in name:
                    statistic.add_(torch.rand_like(statistic))
    return model


def build_whisper(positions: int = 50, **changes: Any) -> Any:
    """Whisper's encoder with three narrow layers and windows of `positions` frames; its sinusoids are as they are."""
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    config = WhisperConfig(
        d_model=32,
        encoder_layers=3,
        encoder_attention_heads=4,
        encoder_ffn_dim=48,
        max_source_positions=positions,
        decoder_layers=1,
        decoder_attention_heads=4,
        decoder_ffn_dim=48,
        vocab_size=60,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=3,
        init_std=0.2,
        **changes,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = WhisperEncoder(config).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if not name.startswith("embed_positions"):
                    parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def encoder_of(hf: Any, **options: Any) -> Any:
    """The encoder around a copy of a transformers model: some leave out what no forward pass reads."""
    from serfit.nn.encoders.data2vec import Data2VecEncoder
    from serfit.nn.encoders.wav2vec2 import Wav2Vec2Encoder
    from serfit.nn.encoders.wav2vec2_bert import Wav2Vec2BertEncoder
    from serfit.nn.encoders.wav2vec2_conformer import Wav2Vec2ConformerEncoder

    others = {
        "data2vec-audio": Data2VecEncoder,
        "wav2vec2-conformer": Wav2Vec2ConformerEncoder,
        "wav2vec2-bert": Wav2Vec2BertEncoder,
    }
    return others.get(hf.config.model_type, Wav2Vec2Encoder)(deepcopy(hf), **options)


def theirs(hf: Any, encoder: Any, waveform: Tensor, **how: Any) -> Any:
    """What transformers' own forward pass gives for one utterance."""
    if hf.config.model_type != "wav2vec2-bert":
        return hf(waveform[None], **how)
    return hf(encode(encoder, *padded([waveform]), 0, 1).newest, **how)


def padded(tensors: list[Tensor]) -> tuple[Tensor, Tensor]:
    """A batch [B, T, ...] and its lengths [B]."""
    return pad_sequence(tensors, batch_first=True), torch.tensor([len(tensor) for tensor in tensors])


def encode(encoder: Any, batch: Tensor, lengths: Tensor, start: int, stop: int, **how: Any) -> Any:
    """Run a batch of features of a stage [B, T, ...] through an encoder."""
    from serfit.nn.encoders.base import States
    from serfit.nn.frames import Layout

    layout = Layout.of(lengths.tolist(), batch.shape[1], batch.device)
    return encoder.run(States((batch,), layout), start, stop, **how)


def load_encoder(params: Any, seed: int) -> tuple[Any, Any]:
    """The encoder that a configuration names, and what is recorded of it."""
    from serfit.nn.encoders.build import Provenance, build_encoder
    from serfit.nn.encoders.source import find_encoder

    source = find_encoder(params.speech_encoder, params.encoder_revision)
    encoder = build_encoder(source, params, seed)
    return encoder, Provenance.of(source, encoder)
