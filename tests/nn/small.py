"""Small random encoders of every family and layout that serfit reads, and waveforms of unequal length."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

FAMILIES = ("wavlm", "hubert", "wav2vec2")
LAYOUTS = ("base", "large")


def build_hf(family: str, layout: str, **changes: Any) -> Any:
    """A transformers model with three narrow layers, no weight of which is at its initial 0 or 1."""
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.for_model(
        family,
        conv_dim=(16,) * 7,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=48,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        initializer_range=0.2,
        feat_extract_norm="layer" if layout == "large" else "group",
        do_stable_layer_norm=layout == "large",
        **{"conv_bias": layout == "large"} | changes,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = AutoModel.from_config(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
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
