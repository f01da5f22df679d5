"""What wav2vec2-conformer has of its own; tests/nn/encoders/test_wav2vec2.py has what all families share."""

from typing import Any

import pytest
import torch
from torch import Tensor

from nn.small import build_hf, encode, encoder_of, padded


@pytest.mark.parametrize("positions", ["relative", "rotary", None])
@pytest.mark.parametrize("layout", ["base", "large"])
def test_every_kind_of_positions_is_that_of_transformers(layout: str, positions: Any, waveforms: list[Tensor]) -> None:
    hf = build_hf("wav2vec2-conformer", layout, position_embeddings_type=positions, conv_depthwise_kernel_size=31)
    encoder = encoder_of(hf, keep_all=True)
    with torch.no_grad():
        found = encode(encoder, *padded(waveforms[:1]), 0, encoder.last_stage)
        expected = hf(waveforms[0][None], output_hidden_states=True)
    for mine, other in zip(
        (*found.tensors[:-1], found.newest), (*expected.hidden_states[:-1], expected[0]), strict=True
    ):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=2e-5)


def test_what_no_forward_pass_reads_is_left_out() -> None:
    encoder = encoder_of(build_hf("wav2vec2-conformer", "base"), keep_all=False)
    assert not any("pos_conv_embed" in name or "embed_positions" in name for name in encoder.state_dict())
    encoder = encoder_of(build_hf("wav2vec2-conformer", "large"), keep_all=False)
    assert [name for name in encoder.state_dict() if "embed_positions" in name] == [
        "hf.encoder.embed_positions.inv_freq"
    ]
