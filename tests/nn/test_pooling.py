import pytest
import torch
from torch import Tensor, nn

from serfit.nn.frames import Layout
from serfit.nn.pooling import AttentionPooling, LayerMix, build_pooling, mean_weights, weighted_mean
from serfit.nn.variant import TRAINED, Variant

CPU = torch.device("cpu")


def batch(garbage: float) -> tuple[Tensor, Layout]:
    """Three utterances of width 8 whose padding is full of garbage."""
    counts = (11, 1, 6)
    x = torch.randn(3, 11, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    layout = Layout.of(counts, 11, CPU)
    assert layout.valid is not None
    return torch.where(layout.valid[..., None], x, garbage), layout


def pool(kind: str, x: Tensor, layout: Layout) -> Tensor:
    if kind == "mean":
        return weighted_mean(x, mean_weights(layout, x.dtype))
    torch.manual_seed(3)
    variant = Variant(projection=5) if kind == "projected mean" else TRAINED
    module = build_pooling(kind.split()[-1], 8, variant)  # type: ignore[arg-type]
    pooled: Tensor = module.double()(x, layout)
    return pooled


@pytest.mark.parametrize("kind", ["mean", "projected mean", "attention", "attentive_statistics"])
def test_padding_has_no_influence(kind: str) -> None:
    x, layout = batch(0.0)
    y, _ = batch(1e6)
    pooled = pool(kind, x, layout)
    assert torch.equal(pooled, pool(kind, y, layout))
    for row, count in enumerate(layout.counts):
        alone = pool(kind, x[row : row + 1, :count], Layout.of((count,), count, CPU))
        torch.testing.assert_close(pooled[row], alone[0], rtol=1e-12, atol=1e-12)


def test_equal_scores_give_plain_statistics() -> None:
    x, layout = batch(0.0)
    module = AttentionPooling(8, deviation=True).double()
    nn.init.zeros_(module.score.weight)
    pooled = module(x, layout)
    torch.testing.assert_close(pooled[0, :8], x[0].mean(0))
    torch.testing.assert_close(pooled[2, 8:], x[2, :6].std(0, correction=0))
    torch.testing.assert_close(pooled[1, 8:], torch.full((8,), 1e-3, dtype=torch.float64))


def test_gradients_are_finite_for_a_single_frame() -> None:
    x, layout = batch(0.0)
    x.requires_grad_()
    AttentionPooling(8, deviation=True).double()(x, layout).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_a_variant_changes_widths_and_floors_and_nothing_else() -> None:
    x, layout = batch(0.0)
    module = build_pooling("attentive_statistics", 8, Variant(attention_width=3, least_variance=0.25)).double()
    pooled = module(x, layout)
    torch.testing.assert_close(pooled[1, 8:], torch.full((8,), 0.5, dtype=torch.float64))
    assert [tuple(one.shape) for one in module.parameters()] == [(3, 8), (3,), (1, 3)]
    for kind in ("mean", "attention", "attentive_statistics"):
        torch.manual_seed(1)
        one = build_pooling(kind, 8).state_dict()  # type: ignore[arg-type]
        torch.manual_seed(1)
        other = build_pooling(kind, 8, TRAINED).state_dict()  # type: ignore[arg-type]
        assert all(torch.equal(other[name], tensor) for name, tensor in one.items())


def test_projected_frames_are_averaged_after_three_layers() -> None:
    x, layout = batch(0.0)
    module = build_pooling("mean", 8, Variant(projection=5)).double()
    assert (module.width, module.linear) == (5, False)
    (first, a), (second, b), (third, c) = zip(*[iter(module.state_dict().values())] * 2, strict=True)
    frames = (torch.relu(torch.relu(x @ first.T + a) @ second.T + b) @ third.T + c).detach()
    torch.testing.assert_close(module(x, layout)[2], frames[2, :6].mean(0))


def test_a_mix_without_norm_is_the_weighted_sum_of_the_states_themselves() -> None:
    states = [10.0**k * torch.randn(2, 5, 8, dtype=torch.float64) for k in range(3)]
    mix = LayerMix(3, norm=False).double()
    assert mix.weights is not None
    with torch.no_grad():
        mix.weights.copy_(torch.tensor([0.3, -1.0, 0.5]))
    expected = torch.einsum("k,kbth->bth", mix.weights.softmax(0), torch.stack(states))
    torch.testing.assert_close(mix(tuple(states)), expected)
    means = torch.stack([mix.normalised(state).mean(1) for state in states], dim=1)
    torch.testing.assert_close(mix.pooled(means), expected.mean(1))


def test_mix_is_the_softmax_weighted_sum_of_normalised_states() -> None:
    generator = torch.Generator().manual_seed(2)
    states = [10.0**k * torch.randn(2, 5, 8, generator=generator, dtype=torch.float64) for k in range(3)]
    mix = LayerMix(3).double()
    assert mix.weights is not None
    with torch.no_grad():
        mix.weights.copy_(torch.tensor([0.3, -1.0, 0.5]))
    shares = mix.weights.softmax(0)
    expected = sum(
        share * (s - s.mean(-1, keepdim=True)) / (s.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
        for share, s in zip(shares, states, strict=True)
    )
    torch.testing.assert_close(mix(tuple(states)), expected)
    means = torch.stack([mix.normalised(s).mean(1) for s in states], dim=1)
    torch.testing.assert_close(mix.pooled(means), mix(tuple(states)).mean(1))
    mix(tuple(states))[..., 0].sum().backward()
    assert mix.weights.grad is not None
    assert mix.weights.grad.all()


def test_one_state_passes_unchanged() -> None:
    x = torch.randn(2, 5, 8)
    mix = LayerMix(1)
    assert mix((x,)) is x
    assert mix.normalised(x) is x
    assert not list(mix.parameters())
