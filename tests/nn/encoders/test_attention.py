from typing import Any

import pytest
import torch

from nn.small import LAYOUTS, PLAIN, build_hf
from serfit.nn.dropout import DropoutSeeds
from serfit.nn.encoders.attention import Gated, PositionBias, attend, attention_weights, position_bias, relative_buckets
from serfit.nn.frames import Layout

CPU = torch.device("cpu")
COUNTS = (23, 9, 1)


def inputs() -> torch.Tensor:
    return torch.randn(3, 23, 32, generator=torch.Generator().manual_seed(5))


def ours(
    hf: Any, layer: int, x: torch.Tensor, layout: Layout, p: float = 0.0, noise: DropoutSeeds | None = None
) -> Any:
    attention = hf.encoder.layers[layer].attention
    wavlm = hf.config.model_type == "wavlm"
    bias = PositionBias.of(position_bias(hf.encoder.layers[0].attention, x.shape[1])) if wavlm else None
    return attend(attention, x, layout, bias, p, noise, site=4)


def theirs(hf: Any, layer: int, x: torch.Tensor, valid: torch.Tensor | None) -> Any:
    attention = hf.encoder.layers[layer].attention
    if hf.config.model_type == "wavlm":
        _, _, bias = hf.encoder.layers[0].attention(x)
        return attention(x, attention_mask=valid, position_bias=bias)[0]
    mask = None if valid is None else torch.where(valid, 0.0, -1e30).to(x.dtype)[:, None, None, :]
    return attention(x, attention_mask=mask)[0]


@pytest.mark.parametrize("family", [*PLAIN, "data2vec-audio"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("is_padded", [False, True])
@pytest.mark.parametrize("learning", [False, True], ids=["fused", "with-gradient"])
def test_attention_is_that_of_transformers(family: str, layout: str, is_padded: bool, learning: bool) -> None:
    hf, x = build_hf(family, layout), inputs()
    where = Layout.of(COUNTS if is_padded else (23, 23, 23), 23, CPU)
    with torch.set_grad_enabled(learning):
        for layer in (0, 2):
            found, expected = ours(hf, layer, x, where), theirs(hf, layer, x, where.valid)
            for row, count in enumerate(where.counts):
                torch.testing.assert_close(found[row, :count], expected[row, :count], rtol=1e-5, atol=1e-5)
            assert found.isfinite().all()


def test_gradients_are_those_of_transformers() -> None:
    hf, x = build_hf("wavlm", "large").double(), inputs().double()
    where = Layout.of(COUNTS, 23, CPU)
    assert where.valid is not None
    scale = torch.randn(3, 23, 32, generator=torch.Generator().manual_seed(6)).double() * where.valid[..., None]
    grads = []
    for forward in (lambda: ours(hf, 0, x, where), lambda: theirs(hf, 0, x, where.valid)):
        hf.zero_grad()
        (forward() * scale).sum().backward()
        attention = hf.encoder.layers[0].attention
        grads.append({name: p.grad.clone() for name, p in attention.named_parameters()})
    assert "rel_attn_embed.weight" in grads[0]
    assert "gru_rel_pos_const" in grads[0]
    for name, grad in grads[0].items():
        torch.testing.assert_close(grad, grads[1][name], rtol=1e-9, atol=1e-11, msg=name)


def test_a_rounded_bias_has_the_derivatives_of_a_product() -> None:
    random = torch.Generator().manual_seed(2)
    gate = torch.randn(3, 4, 6, 1, generator=random).double().requires_grad_()
    bias = torch.randn(4, 6, 6, generator=random).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda g, b: Gated.apply(g, b, b.detach()), (gate, bias))


def test_the_bias_learns_in_its_own_precision_under_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    hf, x = build_hf("wavlm", "large"), inputs()
    where = Layout.of(COUNTS, 23, CPU)
    table = hf.encoder.layers[0].attention.rel_attn_embed.weight
    monkeypatch.setattr(
        "serfit.nn.encoders.attention.fused_attention", lambda q, k, v, mask: attention_weights(q, k, mask) @ v
    )
    monkeypatch.setattr("serfit.nn.encoders.attention.has_mask_gradient", lambda device: True)

    def gradient(model: Any, batch: torch.Tensor, half: bool) -> Any:
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            found = ours(model, 0, batch, where)
        (found.double() * where.valid[..., None]).square().sum().backward()  # type: ignore[index]
        return table.grad.double()

    half = gradient(hf, x, half=True)
    exact = gradient(hf.double(), x.double(), half=False)
    assert float((half - exact).norm() / exact.norm()) < 0.02


def test_buckets_and_bias_are_those_of_transformers_out_to_long_distances() -> None:
    attention = build_hf("wavlm", "large").encoder.layers[0].attention
    distances = torch.arange(-3000, 3001)
    assert torch.equal(relative_buckets(distances, 320, 800), attention._relative_positions_bucket(distances))
    for frames in (1, 2, 17, 1200):
        found = position_bias(attention, frames)[..., :frames]
        assert torch.equal(found, attention.compute_bias(frames, frames))


@pytest.mark.parametrize("family", [*PLAIN, "data2vec-audio"])
def test_dropped_weights_ignore_batch_and_padding(family: str) -> None:
    hf, x = build_hf(family, "base"), inputs()
    batch = ours(hf, 1, x, Layout.of(COUNTS, 23, CPU), 0.4, DropoutSeeds((1, 2, 3)))
    clean = ours(hf, 1, x, Layout.of(COUNTS, 23, CPU))
    for row, count in enumerate(COUNTS):
        alone = ours(hf, 1, x[row : row + 1, :count], Layout.of((count,), count, CPU), 0.4, DropoutSeeds((row + 1,)))
        torch.testing.assert_close(batch[row, :count], alone[0], rtol=1e-5, atol=1e-5)
    assert (batch - clean)[0].abs().max() > 0.01


def test_dropped_weights_are_right_on_average() -> None:
    hf, x = build_hf("wavlm", "large"), inputs()[:1, :6]
    where = Layout.of((6,), 6, CPU)
    with torch.no_grad():
        clean = ours(hf, 0, x, where)
        draws = torch.stack([ours(hf, 0, x, where, 0.2, DropoutSeeds((seed,))) for seed in range(800)])
    error = (draws.mean(0) - clean).abs() / (draws.std(0) / 800**0.5)
    assert error.mean() < 1.5


def test_adapters_around_projections_learn() -> None:
    peft = pytest.importorskip("peft")
    hf, x = build_hf("wavlm", "large"), inputs()
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "k_proj", "v_proj", "out_proj"], init_lora_weights=False)
    peft.inject_adapter_in_model(config, hf)
    ours(hf, 0, x, Layout.of(COUNTS, 23, CPU)).square().sum().backward()
    lora = {n: p for n, p in hf.encoder.layers[0].attention.named_parameters() if "lora_" in n}
    assert len(lora) == 8
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in lora.values())
