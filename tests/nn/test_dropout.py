import pytest
import torch

from serfit.nn.dropout import DropoutSeeds, _mixed, dropout, dropped, hashed_masks, keep_mask


def test_without_noise_or_probability_nothing_changes() -> None:
    x = torch.randn(2, 3, 4)
    assert dropout(x, 0.5, None, 1, (3, 2)) is x
    assert dropout(x, 0.0, DropoutSeeds((1, 2)), 1, (3, 2)) is x


def test_masks_ignore_batch_order_and_padding() -> None:
    x = torch.ones(3, 50, 8)
    counts, noise = (50, 20, 31), DropoutSeeds((5, 6, 7))
    batch = dropout(x, 0.3, noise, 2, counts)
    for row, (count, seed) in enumerate(zip(counts, noise.seeds, strict=True)):
        alone = dropout(x[:1, :count], 0.3, DropoutSeeds((seed,)), 2, (count,))
        wider = dropout(torch.ones(1, 77, 8), 0.3, DropoutSeeds((seed,)), 2, (count,))
        assert torch.equal(batch[row, :count], alone[0])
        assert torch.equal(wider[0, :count], alone[0])
        assert not batch[row, count:].any()


def test_every_seed_and_site_has_a_mask_of_its_own() -> None:
    x = torch.ones(1, 40, 16)
    masks = [dropout(x, 0.5, DropoutSeeds((seed,)), site, (40,)) for seed in (1, 2) for site in (0, 1)]
    assert all(not torch.equal(a, b) for i, a in enumerate(masks) for b in masks[:i])


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_share_and_scale(p: float) -> None:
    generator = torch.Generator().manual_seed(3)
    kept = keep_mask((1000, 1001), p, generator).double().mean().item()
    assert abs(kept - (1 - p)) < 5 * (p * (1 - p) / 1_001_000) ** 0.5 + 2**-16
    mean = dropout(torch.ones(1, 1000, 1001, dtype=torch.float64), p, DropoutSeeds((4,)), 1, (1000,)).mean().item()
    assert mean == pytest.approx(1.0, abs=0.02)


def test_extreme_probabilities_stay_finite() -> None:
    x = torch.ones(1, 64)
    assert torch.equal(dropout(x, 1e-9, DropoutSeeds((1,)), 1), x)
    assert dropout(x, 1 - 1e-9, DropoutSeeds((1,)), 1).isfinite().all()


def test_both_precisions_drop_the_same() -> None:
    x = torch.randn(2, 30, 4)
    single = dropout(x, 0.4, DropoutSeeds((1, 2)), 1, (30, 12))
    double = dropout(x.double(), 0.4, DropoutSeeds((1, 2)), 1, (30, 12))
    assert double.dtype == torch.float64
    assert torch.equal(single == 0, double == 0)


def test_the_global_generator_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    dropped(torch.ones(1, 4, 4), [(2, 2)], 0.5, DropoutSeeds((1,)), 0)
    assert torch.equal(before, torch.random.get_rng_state())


def test_noise_can_be_sliced_with_its_batch() -> None:
    assert DropoutSeeds((1, 2, 3))[1:] == DropoutSeeds((2, 3))
    with pytest.raises(AssertionError):
        dropout(torch.ones(2, 4), 0.5, DropoutSeeds((1,)), 0)


def test_the_hash_is_splitmix64() -> None:
    """The first outputs for seed 0, as Vigna's reference program prints them, and Python's own big integers."""
    golden, low = 0x9E3779B97F4A7C15, 2**64 - 1
    steps = torch.tensor([golden - 2**64, 2 * golden - 2**64])
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]
    assert [int(word) & low for word in _mixed(steps)] == expected
    words = torch.randint(-(2**63), 2**63 - 1, (1000,), generator=torch.Generator().manual_seed(1))
    for word, found in zip(words.tolist(), _mixed(words).tolist(), strict=True):
        z = word & low
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & low
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB & low
        assert found & low == z ^ (z >> 31)


@pytest.mark.parametrize("shapes", [((30, 9), (12, 9)), ((4, 11, 11), (4, 7, 7)), ((5,), (5,))])
def test_hashed_masks_ignore_batch_and_padding(shapes: tuple[tuple[int, ...], ...]) -> None:
    seeds = torch.tensor([5, -7])
    batch = hashed_masks(shapes[0], shapes, 0.3, seeds, 2)
    for row, shape in enumerate(shapes):
        alone = hashed_masks(shape, [shape], 0.3, seeds[row : row + 1], 2)[0]
        block = tuple(slice(size) for size in shape)
        assert torch.equal(batch[row][block], alone)
        assert int(batch[row].sum()) == int(alone.sum())
    other = hashed_masks(shapes[0], shapes, 0.3, seeds, 3)
    assert not torch.equal(batch, other)


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_hashed_masks_are_as_random_as_coins(p: float) -> None:
    """Share kept, and no correlation between neighbours, rows, seeds that differ by one, and neighbouring sites."""
    shape = (400, 512)
    masks = [hashed_masks(shape, [shape] * 2, p, torch.tensor([1, 2]), site).double() for site in (0, 1)]
    count = 400 * 512
    for mask in (*masks[0], *masks[1]):
        assert abs(float(mask.mean()) - (1 - p)) < 5 * (p * (1 - p) / count) ** 0.5
    first = masks[0][0] - (1 - p)
    others = [first.roll(1, 0), first.roll(1, 1), first.roll(4, 1), masks[0][1] - (1 - p), masks[1][0] - (1 - p)]
    for other in others:
        assert abs(float((first * other).mean())) / (p * (1 - p)) < 5 / count**0.5
