"""Conformer layers: transformers' own on valid frames, and blind to padding and to other utterances."""

from typing import Any

import pytest
import torch
from torch import Tensor

from nn.small import build_hf
from serfit.nn.dropout import DropoutSeeds
from serfit.nn.encoders.conformer import Rotation, attend, conformer_layer, convolve, positions_of
from serfit.nn.frames import Layout

CPU = torch.device("cpu")
KINDS = [("wav2vec2-conformer", "relative"), ("wav2vec2-bert", "relative"), ("wav2vec2-bert", "relative_key")]
KINDS += [("wav2vec2-conformer", "rotary"), ("wav2vec2-bert", "rotary"), ("wav2vec2-bert", None)]


def build(family: str, kind: Any) -> Any:
    return build_hf(family, "base", position_embeddings_type=kind).double()


def inputs(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def theirs(hf: Any, x: Tensor) -> Tensor:
    """Attention of a layer by transformers."""
    embedded = hf.encoder.embed_positions
    found: Tensor = hf.encoder.layers[1].self_attn(x, None, embedded(x) if embedded is not None else None)[0]
    return found


@pytest.mark.parametrize(("family", "kind"), KINDS)
@pytest.mark.parametrize("frames", [1, 2, 40])
@pytest.mark.parametrize("step", [1, 16])
def test_attention_and_its_gradient_are_those_of_transformers(
    family: str, kind: Any, frames: int, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serfit.nn.encoders.conformer.mask_row_step", lambda device: step)
    hf, x = build(family, kind), inputs(2, frames, 32).requires_grad_()
    layout = Layout.of((frames, frames), frames, CPU)
    attention = hf.encoder.layers[1].self_attn
    mine = attend(attention, x, layout, positions_of(hf, frames), 0.0, None, 0)
    other, scale = theirs(hf, x), inputs(2, frames, 32)
    torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-6)  # transformers' sinusoids and angles are float32
    named = dict(attention.named_parameters()) | {"x": x}
    for name, a, b in zip(
        named, *(torch.autograd.grad((out * scale).sum(), list(named.values())) for out in (mine, other)), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.parametrize(("family", "kind"), KINDS)
def test_a_layer_sees_no_padding_and_no_other_utterance(family: str, kind: Any) -> None:
    hf, counts = build(family, kind), (23, 9, 1)
    batch = inputs(3, 23, 32)
    for row, count in enumerate(counts):
        batch[row, count:] = 1e3
    layer, seeds = hf.encoder.layers[1].train(), DropoutSeeds((1, 2, 3))
    whole = conformer_layer(layer, batch, Layout.of(counts, 23, CPU), positions_of(hf, 23), 0.2, 0.2, seeds, 12)
    assert whole.isfinite().all()
    for row, count in enumerate(counts):
        alone = Layout.of((count,), count, CPU)
        noise = DropoutSeeds((row + 1,))
        found = conformer_layer(
            layer, batch[row : row + 1, :count], alone, positions_of(hf, count), 0.2, 0.2, noise, 12
        )
        torch.testing.assert_close(whole[row, :count], found[0], rtol=1e-9, atol=1e-9)


def test_a_batch_norm_keeps_the_statistics_of_pretraining() -> None:
    block = build("wav2vec2-conformer", "relative").encoder.layers[0].conv_module.train()
    before = {name: tensor.clone() for name, tensor in block.state_dict().items()}
    x = inputs(2, 9, 32)
    found = convolve(block, x, Layout.of((9, 9), 9, CPU))
    assert all(torch.equal(tensor, before[name]) for name, tensor in block.state_dict().items())
    torch.testing.assert_close(found, block.eval()(x), rtol=1e-9, atol=1e-9)


def test_a_rotation_turns_pairs_and_leaves_lengths() -> None:
    frequencies = torch.tensor([1.0, 0.1], dtype=torch.float64)
    x = inputs(1, 5, 8)
    turned = Rotation.of(frequencies, 5).of_heads(x, 2)
    assert torch.equal(turned[:, 0], x[:, 0])
    torch.testing.assert_close(turned.square().sum(), x.square().sum())
    pair = torch.view_as_complex(torch.stack([x[0, 3, 0], x[0, 3, 2]]))
    expected = pair * torch.exp(1j * 3.0 * frequencies[0])
    torch.testing.assert_close(torch.stack([turned[0, 3, 0], turned[0, 3, 2]]), torch.view_as_real(expected))


def test_adapters_around_projections_learn() -> None:
    peft = pytest.importorskip("peft")
    hf = build("wav2vec2-bert", "relative_key")
    config = peft.LoraConfig(
        r=2, target_modules=["linear_q", "linear_k", "linear_v", "linear_out"], init_lora_weights=False
    )
    peft.inject_adapter_in_model(config, hf)
    attention = hf.encoder.layers[0].self_attn
    attend(
        attention, inputs(1, 6, 32), Layout.of((6,), 6, CPU), positions_of(hf, 6), 0.0, None, 0
    ).square().sum().backward()
    lora = {name: p for name, p in attention.named_parameters() if "lora_" in name}
    assert len(lora) == 8
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in lora.values())
