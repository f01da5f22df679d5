"""The forward pass on a pretended GPU: fake tensors know their device and shape, and refuse what a real one would.

An operation between tensors of different devices raises, and so does everything that would wait for the GPU.
"""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from nn.small import FAMILIES, LAYOUTS, build_hf, encoder_of
from serfit.config.schema import ModelParams
from serfit.nn.dropout import DropoutSeeds
from serfit.nn.encoders.build import Provenance
from serfit.nn.losses import ccc_loss
from serfit.nn.model import EmotionModel

SAMPLES = (12_345, 8_000, 4_000)


class Lengths:
    """Lengths [B] on the host, which may be read."""

    def __init__(self, counts: list[int]) -> None:
        self.counts = counts

    def tolist(self) -> list[int]:
        return self.counts


def model_of(family: str, layout: str, **params: Any) -> EmotionModel:
    chosen = ModelParams(**params)
    encoder = encoder_of(build_hf(family, layout), keep_all=chosen.layers == "weighted", p=0.1)
    encoder.freeze(chosen)
    return EmotionModel(encoder, chosen, 2, Provenance("small", None, "")).train()


def pretend(model: nn.Module) -> None:
    """Put fake CUDA tensors in the place of all parameters and buffers."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                fake = torch.empty(parameter.shape, device="cuda")
                module._parameters[name] = nn.Parameter(fake, requires_grad=parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device="cuda")


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"freeze_cnn": False, "layers": "last", "pooling": "attention"},
        {"freeze_layers": 1, "pooling": "mean"},
        {"freeze_layers": 2, "layers": "last"},
    ],
    ids=["cnn frozen", "all trained", "one layer frozen", "two layers frozen"],
)
def test_nothing_is_on_another_device_and_nothing_waits(
    family: str, layout: str, params: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a real GPU")
    model = model_of(family, layout, **params)
    stage = model.frozen_stages
    feature = model.prefix(torch.randn(max(SAMPLES)), stage)
    counts = [model.feature_shape(samples, stage)[0] for samples in SAMPLES]
    masks = []
    real = F.scaled_dot_product_attention

    def watched(*arguments: Any, attn_mask: Any = None, **rest: Any) -> Any:
        assert not torch.backends.cuda.cudnn_sdp_enabled(), "cuDNN's kernel gives the mask no gradient"
        assert torch.backends.cuda.mem_efficient_sdp_enabled()
        masks.append(attn_mask)
        return real(*arguments, attn_mask=attn_mask, **rest)

    monkeypatch.setattr(F, "scaled_dot_product_attention", watched)
    with FakeTensorMode():
        pretend(model)
        inputs = torch.empty((3, *feature.shape), device="cuda")
        predictions = model(inputs, Lengths(counts), start=stage, noise=DropoutSeeds((1, 2, 3)))
        loss = ccc_loss(predictions, torch.empty(3, 2, device="cuda"))[0]
        assert predictions.device == loss.device == torch.device("cuda", 0)
        assert predictions.requires_grad
        assert len(masks) == model.encoder.depth - max(0, stage - 2)
        for mask in masks:
            assert mask is not None
            assert family != "wavlm" or mask.requires_grad
            if mask.dtype != torch.bool:  # row after row, each of a length that the fused kernels read without a copy
                _, heads, frames, _ = mask.shape
                row = -(-frames // 16) * 16
                assert mask.stride() == (heads * frames * row, frames * row, row, 1)
    assert torch.backends.cuda.cudnn_sdp_enabled(), "what was switched off for one call stays off"
