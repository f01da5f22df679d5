"""10,039 durations like IEMOCAP's, made from published quantiles, and what batching wastes on them.

    python benchmarks/speed/durations.py

The corpus can't be shipped. Its full release has 10,039 utterances, 12.44 h, mean 4.46 s, median 3.52, least 0.585,
95 % below 10.5, 99 % below 15.1, longest 34.14. In between the quantile function is log-linear in the normal score,
as speech durations nearly are; its middle is bent until the mean fits too.
"""

import time
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from serfit.nn.passes import PASS_SECONDS, plan_passes
from serfit.training.batches import plan_epoch
from serfit.training.executor import AGAIN

COUNT = 10_039
QUANTILES = ((0.0, 0.585), (0.5, 3.52), (0.95, 10.5), (0.99, 15.1), (1.0, 34.14))
MEAN = 4.46


def iemocap_durations() -> NDArray[np.float64]:
    """Seconds [10039], ascending."""
    shares = (np.arange(COUNT) + 0.5) / COUNT
    score = NormalDist().inv_cdf
    scores = np.array([score(share) for share in shares])
    low, high = 0.2, 3.0
    for _ in range(60):  # the lower quartile that gives the mean
        quartile = 0.5 * (low + high)
        points = sorted([*QUANTILES, (0.25, quartile)])
        indices = [scores[0] if q == 0 else scores[-1] if q == 1 else score(q) for q, _ in points]
        seconds = np.exp(np.interp(scores, indices, np.log([value for _, value in points])))
        low, high = (quartile, high) if seconds.mean() < MEAN else (low, quartile)
    return seconds


def padding(seconds: NDArray[np.float64], plan: list[list[int]]) -> float:
    """Share of padded seconds that are padding."""
    padded = sum(len(batch) * seconds[batch].max() for batch in plan)
    return float(1 - sum(seconds[batch].sum() for batch in plan) / padded)


def cut(seconds: NDArray[np.float64], plan: list[list[int]], overhead: float) -> tuple[list[list[int]], float]:
    """The passes in which the executor computes the batches, and what they cost beside one pass for each batch.

    Cost is padded seconds and overhead, a third more for passes whose forward part is computed twice.
    """
    passes, cost, undivided = [], 0.0, 0.0
    for batch in plan:
        made = plan_passes([round(16_000 * seconds[index]) for index in batch], overhead=16_000 * overhead, again=AGAIN)
        members = [[batch[index] for index in micro] for micro in made]
        prices = [len(micro) * float(seconds[micro].max()) + overhead for micro in members]
        cost += sum(prices) + AGAIN * sum(prices[:-1])
        undivided += len(batch) * float(seconds[batch].max()) + overhead
        passes += members
    return passes, cost / undivided


def main() -> None:
    seconds = np.random.default_rng(1).permutation(iemocap_durations())
    fold = seconds[: round(COUNT * 0.6)]
    print(
        f"{COUNT} durations: {seconds.sum() / 3600:.2f} h, mean {seconds.mean():.2f}, median {np.median(seconds):.2f}, "
        f"least {seconds.min():.3f}, 95 % {np.quantile(seconds, 0.95):.1f}, 99 % {np.quantile(seconds, 0.99):.1f}, "
        f"longest {seconds.max():.2f}; a fold trains on {len(fold)}, {fold.sum() / 3600:.2f} h"
    )
    for size in (4, 8, 16, 32, 64):
        shares = [
            [padding(fold, plan_epoch(fold, size, seed=1, epoch=epoch, bucketing=bucketing)) for epoch in range(1, 6)]
            for bucketing in (False, True)
        ]
        words = f"batches of {size}: {np.mean(shares[0]):.1%} padding at random, {np.mean(shares[1]):.2%} in buckets"
        plan = plan_epoch(fold, size, seed=1, epoch=1, bucketing=True)
        for device, overhead in PASS_SECONDS.items():
            passes, cost = cut(fold, plan, overhead)
            words += (
                f"; cut as on {device} {padding(fold, passes):.2%} in {len(passes)} passes for {len(plan)} batches, "
                f"cost {cost:.3f}"
            )
        print(words)
    many = np.random.default_rng(1).choice(seconds, 265_000)
    began = time.perf_counter()
    plan_epoch(many, 32, seed=1, epoch=1, bucketing=True)
    print(f"planning an epoch of 265,000 utterances: {time.perf_counter() - began:.2f} s")


if __name__ == "__main__":
    main()
