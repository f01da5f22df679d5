import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from serfit.nn.losses import batch_ccc, ccc_loss
from serfit.scores.metrics import ccc

pairs = arrays(np.float64, (2, 8, 2), elements=st.floats(0, 1, width=32))


@given(pairs)
def test_ccc_is_that_of_the_metrics(pair: np.ndarray) -> None:
    predictions, targets = pair
    assume((targets.std(0) > 1e-2).all())
    found = batch_ccc(torch.from_numpy(predictions), torch.from_numpy(targets))
    for column in range(2):
        expected = ccc(targets[:, column], predictions[:, column])
        assert found[column].item() == pytest.approx(expected, abs=2e-4)


def test_the_epsilon_hardly_shows_on_real_spreads() -> None:
    generator = torch.Generator().manual_seed(1)
    predictions, targets = (torch.rand(32, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    expected = [ccc(targets[:, c], predictions[:, c]) for c in range(2)]
    assert batch_ccc(predictions, targets).tolist() == pytest.approx(expected, abs=1e-7)


def test_gradient() -> None:
    generator = torch.Generator().manual_seed(1)
    predictions = torch.rand(6, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.rand(6, 3, generator=generator, dtype=torch.float64)
    weights = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda p: ccc_loss(p, targets, weights, 0.3).value, predictions)


def test_loss_is_the_weighted_mean_over_dimensions() -> None:
    generator = torch.Generator().manual_seed(2)
    predictions, targets = (torch.rand(8, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    each = [1 - ccc(targets[:, c], predictions[:, c]) for c in range(2)]
    errors = ((predictions - targets) ** 2).mean(0).tolist()
    plain = ccc_loss(predictions, targets).value.item()
    weighted = ccc_loss(predictions, targets, torch.tensor([2.0, 1.0]), 0.5).value.item()
    assert plain == pytest.approx(sum(each) / 2, abs=1e-7)
    assert weighted == pytest.approx((2 * (each[0] + errors[0] / 2) + each[1] + errors[1] / 2) / 3, abs=1e-7)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8])
@pytest.mark.parametrize("constant", [0.0, 0.1, 0.3, 2 / 3])
def test_a_dimension_with_constant_targets_teaches_nothing_and_is_flagged(size: int, constant: float) -> None:
    predictions = torch.rand(size, 2, generator=torch.Generator().manual_seed(3)).requires_grad_()
    targets = torch.stack([torch.linspace(0, 1, size), torch.full((size,), constant)], dim=1)
    loss = ccc_loss(predictions, targets)
    loss.value.backward()
    assert loss.constant.tolist() == [size == 1, True]
    assert predictions.grad is not None
    assert predictions.grad[:, 0].any() == (size > 1)
    assert not predictions.grad[:, 1].any()


def test_constant_predictions_have_a_finite_gradient() -> None:
    predictions = torch.full((8, 1), 0.5, requires_grad=True)
    targets = torch.linspace(0, 1, 8)[:, None]
    ccc_loss(predictions, targets).value.backward()
    assert predictions.grad is not None
    assert predictions.grad.isfinite().all()
    assert predictions.grad.any()


def test_precision_is_at_least_float32_and_follows_float64() -> None:
    half = ccc_loss(torch.rand(4, 1).bfloat16(), torch.rand(4, 1))
    assert half.value.dtype == torch.float32
    assert ccc_loss(torch.rand(4, 1).double(), torch.rand(4, 1)).value.dtype == torch.float64
