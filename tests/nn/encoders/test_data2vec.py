"""What data2vec-audio has of its own; tests/nn/encoders/test_wav2vec2.py has what all families share."""

import torch
from torch import Tensor

from nn.small import build_hf, encode, encoder_of, padded


def test_no_convolution_for_positions_sees_what_another_wrote_into_the_padding(waveforms: list[Tensor]) -> None:
    """The first writes its bias there, and the next would carry it into valid frames."""
    hf = build_hf("data2vec-audio", "base")
    assert len(hf.encoder.pos_conv_embed.layers) == 5
    for layer in hf.encoder.pos_conv_embed.layers:
        layer.conv.bias.data.normal_(std=3.0, generator=torch.Generator().manual_seed(1))
    encoder = encoder_of(hf, keep_all=False)
    with torch.no_grad():
        batch = encode(encoder, *padded(waveforms), 0, 2)
        for row, waveform in enumerate(waveforms):
            alone = encode(encoder, *padded([waveform]), 0, 2).newest[0]
            torch.testing.assert_close(batch.newest[row, : len(alone)], alone, rtol=1e-5, atol=1e-5)
            assert not batch.layout.valid[row, len(alone) :].any()
