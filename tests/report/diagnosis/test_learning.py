"""Bad histories, real and simulated, get the right diagnosis with settings that exist; good ones get none."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from report.histories import config, healthy, prefixes, recorded, rising, simulate
from serfit.config.load import load_config, plain_config
from serfit.report.diagnosis.diagnose import diagnose
from serfit.report.diagnosis.finding import Finding, plain
from serfit.report.diagnosis.learning import exploding, standing
from serfit.report.diagnosis.spread import of_runs
from serfit.runs.live import History
from serfit.scores.metrics import Correlation, score

GOOD = ("good", "good_seed2")

RUINED = {
    "rate_too_high": ("collapsed", "train.optimizer.encoder_lr=0.01", "too high"),
    "rate_too_low": ("collapsed", "train.optimizer.encoder_lr=0.000001", "too low"),
    "unclipped": ("collapsed", "train.optimizer.encoder_lr=0.002", "too high"),
    "collapsed": ("collapsed", "train.optimizer.encoder_lr=0.01", "too high"),
    "destroyed": ("exploding", "train.grad_clip=0.3", "0.389 (epoch 4) to 1.000 (epoch 14)"),
    "overfit": ("overfitting", "train.epochs=", "CCC-A was never above"),
    "constant": ("constant batches", "train.accumulation_steps=2", "24 of 144"),
    "nan": ("not finite", "train.grad_clip=0.3", "epoch 1, step 2: loss nan"),
}


@pytest.mark.parametrize("name", GOOD)
def test_nothing_is_said_of_good_real_trainings_at_any_time(name: str) -> None:
    assert [diagnose(history) for history in prefixes(recorded(name))] == [()] * len(recorded(name).records)


@pytest.mark.parametrize("name", RUINED)
def test_ruined_real_trainings_are_diagnosed(name: str) -> None:
    kind, setting, words = RUINED[name]
    (finding,) = diagnose(recorded(name))
    assert finding.kind == kind
    assert any(override.startswith(setting) for override in finding.overrides), finding.overrides
    assert words in f"{finding.evidence}; {finding.advice}"


def test_a_rate_that_was_too_high_is_seen_in_the_epoch_after_the_damage() -> None:
    """`destroyed` lost everything in epochs 11 and 12."""
    said = [bool(diagnose(history)) for history in prefixes(recorded("destroyed"))]
    assert said.index(True) + 1 == 13


def drawn(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


BAD: dict[str, tuple[Callable[[int], History], str, str]] = {
    "destroyed late": (
        lambda seed: simulate(
            drawn(seed),
            12,
            [lambda epoch: 0.6 if epoch < 7 else 0.3] * 2,
            [lambda epoch: 0.6 if epoch < 7 else 0.45] * 2,
        ),
        "falling",
        "train.optimizer.encoder_lr=0.000005",
    ),
    "overfitting": (
        lambda seed: simulate(drawn(seed), 16, [rising(0.6, 1.0, fall=0.02)] * 2, [rising(0.97, 3.0)] * 2),
        "overfitting",
        "train.epochs=",
    ),
    "rate of a head": (
        lambda seed: simulate(
            drawn(seed), 8, [rising(0.02, 1.0)] * 2, [rising(0.04, 1.0)] * 2, train__optimizer={"encoder_lr": 1e-3}
        ),
        "not rising",
        "train.optimizer.encoder_lr=0.00001",
    ),
    "hardly any rate": (
        lambda seed: simulate(
            drawn(seed), 8, [rising(0.02, 1.0)] * 2, [rising(0.04, 1.0)] * 2, train__optimizer={"encoder_lr": 2e-7}
        ),
        "not rising",
        "train.optimizer.encoder_lr=0.00001",
    ),
    "slow": (
        lambda seed: simulate(drawn(seed), 10, [rising(0.55, 9.0)] * 2, [rising(0.55, 9.0)] * 2),
        "below expectation",
        "train.optimizer.encoder_lr=0.00002",
    ),
    "exploding": (
        lambda seed: simulate(
            drawn(seed), 8, [rising(0.5, 2.0)] * 2, [rising(0.5, 2.0)] * 2, loss=lambda epoch: 0.5 if epoch < 7 else 1.1
        ),
        "exploding",
        "train.grad_clip=0.3",
    ),
    "outside of the scale": (
        lambda seed: simulate(
            drawn(seed), 3, [rising(0.1, 2.0)] * 2, [rising(0.1, 2.0)] * 2, loss=lambda epoch: 40.0 - epoch
        ),
        "exploding",
        "train.grad_clip=0.3",
    ),
    "collapsed": (
        lambda seed: simulate(
            drawn(seed), 6, [rising(0.3, 1.0)] * 2, [rising(0.3, 1.0)] * 2, spread=lambda epoch: 0.03
        ),
        "collapsed",
        "train.optimizer.encoder_lr=",
    ),
    "small batches": (
        lambda seed: simulate(drawn(seed), 6, [rising(0.62, 1.0)] * 2, [rising(0.7, 1.0)] * 2, constant=70),
        "constant batches",
        "train.accumulation_steps=4",
    ),
}


def test_a_loss_with_a_share_of_squared_error_may_be_above_two() -> None:
    """Outputs at one end of the scale and ratings at the other: 1 - CCC is 2 at most, the squared error 1."""

    def after(loss: float, share: float) -> list[str]:
        random, course = np.random.default_rng(1), [rising(0.1, 2.0)] * 2
        history = simulate(random, 3, course, course, loss=lambda epoch: loss, train__loss__mse_share=share)
        return [finding.evidence for finding in exploding(history)]

    assert after(2.2, 0.5) == []
    assert "1 - CCC + 0.5 MSE of outputs on the rating scale can't exceed 2.5" in after(3.0, 0.5)[0]
    assert "and 1 - CCC of outputs on the rating scale can't exceed 2" in after(3.0, 0.0)[0]


@pytest.mark.parametrize("case", BAD)
def test_bad_simulated_histories_are_diagnosed(case: str) -> None:
    """At least 19 of 20 draws; a diagnosis of another kind beside it is a mistake."""
    make, kind, setting = BAD[case]
    right = 0
    for seed in range(20):
        found = diagnose(make(seed))
        kinds = {finding.kind for finding in found}
        right += kinds == {kind} and any(setting in " ".join(finding.overrides) for finding in found)
    assert right >= 19


def test_healthy_histories_hardly_ever_raise_an_alarm() -> None:
    """200 runs of 5 to 30 epochs on 100 to 2,000 validation utterances, each looked at after every epoch."""
    alarmed = 0
    for seed in range(200):
        alarmed += any(diagnose(history) for history in prefixes(healthy(drawn(seed))))
    print(f"false alarms: {alarmed} of 200 healthy runs")
    assert alarmed <= 200 * 0.02


def test_every_advised_setting_is_one_that_the_configuration_takes(tmp_path: Path) -> None:
    histories = [recorded(name) for name in RUINED] + [make(1) for make, _, _ in BAD.values()]
    frozen = config(model__params={"freeze_speech_encoder": True})
    histories += [replace(history, config=frozen) for history in histories if history.directory.name == "simulated"]
    checked = 0
    for index, history in enumerate(histories):
        path = tmp_path / f"{index}.yaml"
        path.write_text(yaml.safe_dump(plain_config(history.config)))
        for finding in diagnose(history):
            assert load_config(path, finding.overrides) != history.config, finding
            checked += 1
    assert checked >= len(RUINED) + len(BAD)


def test_the_expected_range() -> None:
    def run(value: float, epochs: int, **changes: bool) -> History:
        steady = [rising(value, 0.1)] * 2
        return simulate(drawn(1), epochs, steady, steady, wander=0.0, spread=lambda epoch: 1.0, **changes)  # type: ignore[arg-type]

    assert [standing(run(value, 4)) for value in (0.3, 0.5, 0.7)] == ["below", "within", "above"]
    assert [standing(run(value, 15)) for value in (0.5, 0.625, 0.7)] == ["below", "within", "above"]
    assert standing(run(0.3, 4, comparable=False)) is None
    assert not diagnose(run(0.35, 4))  # the span isn't over yet
    assert [finding.kind for finding in diagnose(run(0.35, 5))] == ["below expectation"]
    assert not diagnose(run(0.35, 5, comparable=False))


def test_a_run_without_a_validation_part_is_not_blamed_for_it() -> None:
    courses = [rising(0.6, 1.0)] * 2
    history = simulate(drawn(1), 20, courses, courses)
    nothing = score(np.zeros((0, 2)), np.zeros((0, 2)), history.config.data.dimensions)
    unheard = replace(history, records=[replace(one, validation=nothing) for one in history.records])
    assert diagnose(unheard) == ()
    assert standing(unheard) is None
    assert list(of_runs([unheard])) == []


def test_a_frozen_encoder_is_not_told_to_change_its_rate() -> None:
    make, _, _ = BAD["collapsed"]
    frozen = replace(make(1), config=config(model__params={"freeze_speech_encoder": True}))
    (finding,) = diagnose(frozen)
    assert "encoder_lr" not in str(finding)
    assert any(override.startswith("train.optimizer.lr=") for override in finding.overrides)


def test_two_dimensions_predicted_as_one_are_told() -> None:
    """Good scores in both dimensions, and yet one axis: no score alone shows it."""
    courses = [rising(0.6, 1.0)] * 2
    history = simulate(drawn(1), 12, courses, courses)
    collapsed = replace(history, correlations=(Correlation("valence", "arousal", 0.99, 0.45, 2000),))
    assert diagnose(history) == ()
    (finding,) = diagnose(collapsed)
    assert finding.kind == "one axis"
    assert "valence and arousal correlate 0.990 over the validation part, and their ratings 0.450" in finding.evidence
    assert finding.overrides == ("data.dimensions=[valence]",)
    healthy = replace(history, correlations=(Correlation("valence", "arousal", 0.7, 0.45, 2000),))
    assert diagnose(healthy) == ()


def test_a_finding_in_one_line() -> None:
    assert str(Finding("falling", "it fell", "halve it", ("a=1", "b=2"))) == "falling: it fell; halve it: a=1 b=2"
    assert str(Finding("slow epoch", "it is slow", "wait")) == "slow epoch: it is slow; wait"


def test_rates_are_numbers_to_yaml() -> None:
    for value in np.geomspace(1e-9, 10, 200):
        text = plain(float(value))
        assert isinstance(yaml.safe_load(text), int | float)
        assert yaml.safe_load(text) == pytest.approx(value, rel=0.06)
