"""Seeds and folds that lie apart are told, those of healthy experiments aren't."""

from dataclasses import replace

import numpy as np

from report.histories import rising, simulate
from serfit.report.diagnosis.spread import experiments, of_runs
from serfit.runs.live import History


def experiment(random: np.random.Generator, values: dict[tuple[int, int], float]) -> list[History]:
    """A finished run of three epochs per fold and seed, at these correlations."""
    return [
        simulate(
            random,
            3,
            [rising(value, 0.3)] * 2,
            [rising(value, 0.3)] * 2,
            count=400,
            spread=lambda epoch: 1.0,
            data__split={"fold": fold},
            experiment__name="spread",
            experiment__seed=seed,
        )
        for (fold, seed), value in values.items()
    ]


def kinds(runs: list[History]) -> list[str]:
    return [finding.kind for finding in of_runs(runs)]


def test_healthy_experiments_raise_no_alarm() -> None:
    """Five folds with a standard deviation of 0.035, three seeds with one of 0.015."""
    random, alarms = np.random.default_rng(0), 0
    for _ in range(25):
        of_fold = dict(zip(range(1, 6), 0.62 + 0.035 * random.standard_normal(5), strict=True))
        values = {
            (fold, seed): of_fold[fold] + 0.015 * random.standard_normal() for fold in of_fold for seed in (1, 2, 3)
        }
        alarms += bool(kinds(experiment(random, values)))
    print(f"false alarms: {alarms} of 25 experiments")
    assert alarms <= 1


def test_a_fold_that_failed_is_named() -> None:
    runs = experiment(np.random.default_rng(1), {(fold, 1): 0.2 if fold == 3 else 0.62 for fold in range(1, 6)})
    (finding,) = of_runs(runs)
    assert finding.kind == "fold spread"
    assert "fold 3" in finding.evidence
    assert finding.overrides == ("data.split.fold=3", "experiment.seed=2")
    assert kinds([replace(run, state="running") for run in runs]) == []
    assert kinds(runs[2:4]) == []


def test_seeds_that_lie_apart_are_named() -> None:
    runs = experiment(np.random.default_rng(2), {(2, 1): 0.62, (2, 2): 0.2, (2, 3): 0.55})
    (finding,) = of_runs(runs)
    assert finding.kind == "seed spread"
    assert "fold 2" in finding.evidence
    assert "(seed 2)" in finding.evidence
    assert finding.overrides[:2] == ("data.split.fold=2", "train.optimizer.encoder_lr=0.000005")


def test_runs_belong_together_when_only_fold_and_seed_differ() -> None:
    random = np.random.default_rng(3)
    same = experiment(random, {(1, 1): 0.5, (2, 1): 0.5, (1, 2): 0.5})
    other = [simulate(random, 2, [rising(0.5, 1.0)] * 2, [rising(0.5, 1.0)] * 2, experiment__name="spread")]
    groups = experiments([*same, *other])
    assert sorted(len(group) for group in groups.values()) == [1, 3]
    assert set(groups) == {"spread (train.epochs=2)", "spread (train.epochs=3)"}
    assert [(run.fold, run.seed) for run in max(groups.values(), key=len)] == [(1, 1), (1, 2), (2, 1)]
