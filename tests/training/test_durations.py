"""The batches of an epoch on durations like IEMOCAP's: the promises of docs/performance.md."""

import importlib.util
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from serfit.training.batches import plan_epoch


@pytest.fixture(scope="module")
def durations() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "speed" / "durations.py"
    spec = importlib.util.spec_from_file_location("durations", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_durations_have_the_corpus_s_quantiles(durations: ModuleType) -> None:
    seconds = durations.iemocap_durations()
    assert len(seconds) == 10_039
    assert seconds.sum() / 3600 == pytest.approx(12.44, abs=0.01)
    assert np.quantile(seconds, [0, 0.5, 0.95, 0.99, 1]) == pytest.approx([0.585, 3.52, 10.5, 15.1, 34.14], rel=0.01)


@pytest.mark.parametrize(("size", "most"), [(4, 0.02), (8, 0.025), (16, 0.032), (32, 0.048)])
def test_little_is_padding(durations: ModuleType, size: int, most: float) -> None:
    seconds = np.random.default_rng(2).permutation(durations.iemocap_durations())[:6023]
    shares = [
        durations.padding(seconds, plan_epoch(seconds, size, seed=1, epoch=epoch, bucketing=True)) for epoch in (1, 2)
    ]
    assert max(shares) < most


def test_a_large_corpus_is_planned_in_a_moment(durations: ModuleType) -> None:
    seconds = np.random.default_rng(3).choice(durations.iemocap_durations(), 265_000)
    began = time.process_time()
    plan = plan_epoch(seconds, 32, seed=1, epoch=1, bucketing=True)
    assert time.process_time() - began < 60.0  # of this process alone
    assert sum(len(batch) for batch in plan) == 265_000
