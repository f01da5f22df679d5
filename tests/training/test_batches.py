import itertools
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from serfit.nn.passes import plan_passes
from serfit.training.batches import Example, collate, plan_epoch, prefetched


@settings(max_examples=60)
@given(
    count=st.integers(1, 400),
    size=st.integers(2, 40),
    seed=st.integers(0, 5),
    epoch=st.integers(1, 3),
    bucketing=st.booleans(),
)
def test_a_plan_deals_everything_once_in_even_batches(
    count: int, size: int, seed: int, epoch: int, bucketing: bool
) -> None:
    seconds = np.linspace(1, 9, count)
    plan = plan_epoch(seconds, size, seed=seed, epoch=epoch, bucketing=bucketing)
    sizes = [len(batch) for batch in plan]
    assert sorted(np.concatenate(plan).tolist()) == list(range(count))
    assert max(sizes) <= size or (size, count % 2, max(sizes)) == (2, 1, 3)
    assert min(sizes) >= 2 or count == 1, "one utterance has no CCC"
    assert max(sizes) - min(sizes) <= 1
    again = plan_epoch(seconds, size, seed=seed, epoch=epoch, bucketing=bucketing)
    assert plan == again


def test_every_epoch_and_seed_has_its_own_order() -> None:
    seconds = np.random.default_rng(0).uniform(1, 9, 100)
    plans = [
        np.concatenate(plan_epoch(seconds, 8, seed=seed, epoch=epoch, bucketing=True)).tolist()
        for seed in (1, 2)
        for epoch in (1, 2)
    ]
    assert len({tuple(plan) for plan in plans}) == 4


def test_bucketing_saves_padding_and_still_shuffles() -> None:
    seconds = np.random.default_rng(0).lognormal(1.3, 0.6, 4000)

    def waste(bucketing: bool) -> float:
        plan = plan_epoch(seconds, 8, seed=1, epoch=1, bucketing=bucketing)
        padded = sum(len(batch) * seconds[batch].max() for batch in plan)
        return 1 - seconds.sum() / padded

    assert waste(bucketing=True) < 0.05 < 0.3 < waste(bucketing=False)
    plan = plan_epoch(seconds, 8, seed=1, epoch=1, bucketing=True)
    means = np.array([seconds[batch].mean() for batch in plan])
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.2


def test_collate_pads_with_zeros_and_keeps_order() -> None:
    examples = [
        Example("a", torch.ones(3, 2), torch.tensor([0.1, 0.2]), 11),
        Example("b", torch.ones(5, 2), torch.tensor([0.3, 0.4]), 12, torch.tensor([True, False, True, False, False])),
    ]
    batch = collate(examples)
    assert batch.inputs.shape == (2, 5, 2)
    assert batch.inputs.sum(dim=(1, 2)).tolist() == [6, 10]
    assert batch.lengths.tolist() == [3, 5]
    assert batch.noise_seeds == (11, 12)
    assert batch.time_mask is not None
    assert batch.time_mask.sum(dim=1).tolist() == [0, 2]
    assert collate(examples[:1]).time_mask is None


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_prefetching_keeps_order_and_raises_where_it_belongs(workers: int) -> None:
    def prepare(item: int) -> int:
        if item == 7:
            raise ValueError("seven")
        return item * item

    batches = [[0, 1], [2], [3, 4, 5], [6, 7], [8]]
    seen = []
    with pytest.raises(ValueError, match="seven"):
        seen.extend(prefetched(batches, prepare, workers))
    assert seen == [[0, 1], [4], [9, 16, 25]]


def test_an_abandoned_prefetch_leaves_no_threads() -> None:
    before = threading.active_count()
    stream = prefetched([[n] for n in range(100)], lambda n: n, workers=2)
    next(stream)
    stream.close()
    assert threading.active_count() == before


def cost_of(plan: list[list[int]], lengths: list[int], overhead: float, again: float) -> float:
    costs = [len(micro) * max(lengths[index] for index in micro) + overhead for micro in plan]
    return sum(costs) + again * sum(costs[:-1])


def all_cuts(lengths: list[int], budget: int | None) -> Iterator[list[list[int]]]:
    """Every way of cutting the utterances, longest first, into runs within the budget, with every choice of a last."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    for bars in itertools.product([False, True], repeat=len(order) - 1):
        runs: list[list[int]] = [[order[0]]]
        for bar, index in zip(bars, order[1:], strict=True):
            runs.append([index]) if bar else runs[-1].append(index)
        if all(budget is None or len(run) == 1 or len(run) * lengths[run[0]] <= budget for run in runs):
            for last in range(len(runs)):
                yield [*runs[:last], *runs[last + 1 :], runs[last]]


@given(
    st.lists(st.integers(1, 100), min_size=1, max_size=8),
    st.integers(1, 400) | st.none(),
    st.sampled_from([0.0, 3.0, 60.0]),
    st.sampled_from([0.0, 1 / 3]),
)
def test_no_way_of_cutting_a_batch_costs_less(
    lengths: list[int], budget: int | None, overhead: float, again: float
) -> None:
    plan = plan_passes(lengths, budget, overhead=overhead, again=again)
    assert sorted(index for micro in plan for index in micro) == list(range(len(lengths)))
    for micro in plan:
        padded = len(micro) * max(lengths[index] for index in micro)
        assert micro
        assert budget is None or padded <= budget or len(micro) == 1
    least = min(cost_of(cut, lengths, overhead, again) for cut in all_cuts(lengths, budget))
    assert cost_of(plan, lengths, overhead, again) == pytest.approx(least)


def test_an_empty_batch_takes_no_pass() -> None:
    assert plan_passes([]) == []
