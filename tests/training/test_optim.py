import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from serfit.config.schema import ModelParams, Optimizer, Schedule
from serfit.nn.model import build_model
from serfit.training.optim import build_optimizer, clip_gradients, parameter_groups, rate_factor, set_rates


@pytest.mark.parametrize("params", [{}, {"freeze_cnn": False}, {"freeze_speech_encoder": True}, {"freeze_layers": 1}])
@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_every_trainable_tensor_is_in_exactly_one_group(params: dict[str, bool], decay: float) -> None:
    model = build_model(ModelParams(speech_encoder="random:tiny", **params), dimensions=2, seed=1)
    groups = parameter_groups(model, Optimizer(lr=1e-3, encoder_lr=1e-5, weight_decay=decay))
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    trainable = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    assert sorted(grouped) == sorted(trainable)
    for group in groups:
        for parameter in group["params"]:
            name = trainable[id(parameter)]
            assert group["name"] == ("encoder" if name.startswith("encoder.") else "head")
            assert group["peak_lr"] == (1e-5 if name.startswith("encoder.") else 1e-3)
            never = name.endswith("bias") or "norm" in name or name.startswith("mix.") or parameter.ndim < 2
            assert group["weight_decay"] == (0.0 if never or "const" in name or "original0" in name else decay)


@given(st.integers(1, 500), st.floats(0.0, 0.9), st.sampled_from(["cosine", "constant"]))
def test_the_rate_rises_then_falls_and_never_leaves_its_bounds(steps: int, warmup: float, decay: str) -> None:
    schedule = Schedule(warmup=warmup, decay=decay)
    factors = [rate_factor(step, steps, schedule) for step in range(steps)]
    peak = math.ceil(warmup * steps)
    assert all(0.0 < factor <= 1.0 for factor in factors)
    assert sorted(factors[:peak]) == factors[:peak]
    assert sorted(factors[peak:], reverse=True) == factors[peak:]
    assert max(factors) == pytest.approx(1.0)


def test_rates_follow_the_groups() -> None:
    model = build_model(ModelParams(speech_encoder="random:tiny"), dimensions=2, seed=1)
    optimizer = build_optimizer(model, Optimizer(lr=1e-3, encoder_lr=1e-5))
    assert set_rates(optimizer, 0.5) == {"encoder": pytest.approx(5e-6), "head": pytest.approx(5e-4)}


@pytest.mark.parametrize("limit", [0.0, 0.5, 100.0])
def test_clipping_agrees_with_torch(limit: float) -> None:
    def parameters() -> list[torch.nn.Parameter]:
        made = [
            torch.nn.Parameter(torch.zeros(3)),
            torch.nn.Parameter(torch.zeros(2, 2)),
            torch.nn.Parameter(torch.zeros(1)),
        ]
        for index, parameter in enumerate(made[:2], start=1):
            parameter.grad = torch.full_like(parameter, float(index))
        return made

    ours, theirs = parameters(), parameters()
    norm = clip_gradients(ours, limit)
    expected = torch.nn.utils.clip_grad_norm_(theirs, limit or math.inf)
    assert norm == pytest.approx(float(expected))
    for left, right in zip(ours[:2], theirs[:2], strict=True):
        torch.testing.assert_close(left.grad, right.grad)


def test_a_norm_that_is_not_finite_is_reported_and_scales_nothing() -> None:
    parameter = torch.nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([math.inf, 1.0])
    assert clip_gradients([parameter], 1.0) == math.inf
    assert parameter.grad.tolist() == [math.inf, 1.0]
