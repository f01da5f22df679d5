"""The network as one graph: what the network itself says, whatever stands in the padding."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nn.small import build_hf, encoder_of, padded
from serfit.config.schema import ModelParams
from serfit.nn.encoders.attention import position_bias
from serfit.nn.encoders.base import normalised
from serfit.nn.encoders.build import Provenance
from serfit.nn.encoders.wav2vec2 import group_norm
from serfit.nn.encoders.wav2vec2_graph import bias_of_pairs, group_norm_rows, normalised_rows
from serfit.nn.frames import valid_mask
from serfit.nn.model import EmotionModel

RECIPES = [("weighted", "attentive_statistics"), ("last", "mean"), ("weighted", "mean"), ("last", "attention")]


def build(hf: Any, layers: str, pooling: str) -> EmotionModel:
    params = ModelParams.model_validate({"layers": layers, "pooling": pooling, "head_hidden": 8})
    encoder = encoder_of(hf, keep_all=layers == "weighted")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = EmotionModel(encoder, params, 3, Provenance("small", None, "")).eval()
        for parameter in model.head.parameters():
            nn.init.normal_(parameter, std=0.3)
        if model.mix.weights is not None:
            nn.init.normal_(model.mix.weights)
    return model.requires_grad_(False)


@pytest.mark.parametrize(("layers", "pooling"), RECIPES)
def test_the_graph_says_what_the_network_says(hf: Any, waveforms: list[Tensor], layers: str, pooling: str) -> None:
    model = build(hf, layers, pooling)
    quiet = [0.1 * waveform + 0.3 for waveform in waveforms]
    batch, lengths = padded([model.encoder.prepare(one) for one in quiet])
    pooled = model.embed(batch, lengths, 0)
    raw, _ = padded(quiet)
    rubbish = torch.where(valid_mask(lengths, raw.shape[1] + 777), nn.functional.pad(raw, (0, 777)), torch.nan)
    for inputs in (raw, rubbish):
        embedding = model.pool(model.encoder.traced(inputs, lengths))
        torch.testing.assert_close(model.head(embedding), model.head(pooled), atol=2e-5, rtol=2e-5)
        torch.testing.assert_close(embedding, pooled, atol=2e-5, rtol=2e-5)
    alone = model.pool(model.encoder.traced(quiet[1][None], lengths[1:2]))
    torch.testing.assert_close(model.head(alone)[0], model.head(pooled)[1], atol=2e-5, rtol=2e-5)


def test_rows_are_normalised_and_group_normed_as_each_alone() -> None:
    generator = torch.Generator().manual_seed(2)
    rows = [5.0 + torch.randn(count, generator=generator, dtype=torch.float64) for count in (30, 7, 19)]
    batch, lengths = padded(rows)
    found = normalised_rows(batch, lengths, valid_mask(lengths, 30))
    for row, one in zip(found, rows, strict=True):
        torch.testing.assert_close(row[: len(one)], normalised(one))
        assert not row[len(one) :].any()
    for groups in (2, 6):
        norm = nn.GroupNorm(groups, 6).double()
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
        hidden = torch.randn(3, 6, 30, generator=generator, dtype=torch.float64)
        expected = group_norm(norm, hidden, tuple(lengths.tolist()))
        torch.testing.assert_close(group_norm_rows(norm, hidden, lengths), expected)


def test_the_bias_of_pairs_is_the_bias_of_distances() -> None:
    attention = build_hf("wavlm", "large").encoder.layers[0].attention
    for frames in (1, 2, 57):
        torch.testing.assert_close(bias_of_pairs(attention, frames), position_bias(attention, frames), rtol=0, atol=0)
