"""Encoders of every family and layout, and waveforms of unequal length."""

from typing import Any

import pytest
import torch
from torch import Tensor

from nn.small import FAMILIES, LAYOUTS, build_hf


@pytest.fixture(params=[f"{family}-{layout}" for family in FAMILIES for layout in LAYOUTS])
def hf(request: pytest.FixtureRequest) -> Any:
    return build_hf(*request.param.rsplit("-", 1))


@pytest.fixture
def waveforms() -> list[Tensor]:
    """Four waveforms whose lengths differ, one of them with a single frame."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(count, generator=generator) for count in (16000, 9000, 4321, 700)]
