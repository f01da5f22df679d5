"""One run gets one advice: no two pull a setting in opposite directions, and none names a value that is in force."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import yaml

from report.histories import RECORDED, config, prefixes, recorded, rising, simulate
from report.live.written import write
from serfit.config.load import flatten
from serfit.config.schema import ExperimentConfig
from serfit.report.diagnosis.diagnose import diagnose, doubts, next_step
from serfit.report.diagnosis.finding import Finding, one_voice
from serfit.report.live.board import look
from serfit.runs.live import History, Reader
from serfit.scores.records import EpochTime
from serfit.scores.reference import verdict

COURSES: list[Callable[[int], float]] = [
    rising(0.65, 1.5),
    rising(0.01, 1.0),
    rising(0.5, 9.0),
    rising(0.6, 1.0, fall=0.03),
    lambda epoch: 0.6 if epoch < 5 else 0.2,
    lambda epoch: 0.04 * epoch,
    rising(0.97, 3.0),
]


def advised(history: History) -> list[str]:
    """Every text with advice that is shown for a run: before it, at its end, and in its verdict."""
    valence = history.records[-1].validation.ccc("valence") if history.records else None
    scored = history.records[-1].validation if history.records else None
    told = [] if scored is None else [verdict(scored)]
    return [*doubts(history.config), *map(str, diagnose(history)), *told, next_step(history, valence)]


def settings(text: str) -> set[tuple[str, str]]:
    """Settings named in a text, except those that only choose a run."""
    found = re.findall(r"\b((?:data|features|model|train|experiment)\.[a-z_.]+)=([^\s,;:()]+)", text)
    return {(key, value) for key, value in found if not key.endswith((".fold", ".seed"))}


def contradictions(history: History) -> list[str]:
    """What is wrong with the advice for a run."""
    in_force, named, wrong = flatten(history.config), dict[str, str](), []
    for text in advised(history):
        rate = "usual: 0.00001" in text  # names the rate it warns of
        for key, value in settings(text):
            if in_force[key] == yaml.safe_load(value) and not rate:
                wrong.append(f"{key}={value} is in force: {text}")
            if not rate and named.setdefault(key, value) != value:
                wrong.append(f"{key} should be {named[key]} and {value}")
    high = any("can destroy a pretrained" in text for text in advised(history))
    if high and float(named.get("train.optimizer.encoder_lr", 0.0)) > in_force["train.optimizer.encoder_lr"]:
        wrong.append("warned of a high rate, then a higher one advised")
    return wrong


@pytest.mark.parametrize("name", sorted(path.stem for path in RECORDED.glob("*.json")))
def test_real_trainings_get_one_advice(name: str) -> None:
    assert [contradictions(history) for history in prefixes(recorded(name))] == [[]] * len(recorded(name).records)


def drawn_config(random: np.random.Generator, epochs: int) -> dict[str, Any]:
    def one(*values: Any) -> Any:
        return values[int(random.integers(len(values)))]

    return {
        "train__epochs": one(epochs, epochs + 1, 2 * epochs),
        "train__grad_clip": one(0.0, 0.3, 1.0),
        "train__gradient_checkpointing": one(True, False),
        "train__checkpoint_minutes": one(10.0, 60.0),
        "train__optimizer": {"lr": one(1e-5, 1e-4, 1e-3), "encoder_lr": one(1e-7, 1e-6, 1e-5, 5e-5, 1e-3)},
        "train__schedule": {"warmup": one(0.0, 0.1, 0.5)},
        "model__params": {
            "speech_encoder": one("random:tiny", "microsoft/wavlm-large", "microsoft/wavlm-base"),
            "freeze_speech_encoder": one(True, False),
            "freeze_layers": one(0, 6, 12) if random.uniform() < 0.5 else 0,
            "head_dropout": one(0.0, 0.2, 0.5),
        },
        "data__loader": {"workers": one(0, 2, 4), "crop_seconds": one(None, 12.0)},
    }


def drawn_history(seed: int) -> History:
    """Valence and arousal on unrelated courses, good or bad, with a configuration drawn as freely."""
    random = np.random.default_rng(seed)
    epochs = int(random.integers(4, 16))
    courses = [COURSES[index] for index in random.integers(len(COURSES), size=4)]
    flat = random.uniform() < 0.2
    changes = drawn_config(random, epochs)
    history = simulate(
        random,
        epochs,
        courses[:2],
        courses[2:],
        count=int(random.choice([200, 2000])),
        spread=lambda epoch: 0.03 if flat else 0.9,
        comparable=bool(random.uniform() < 0.5),
        constant=int(random.choice([0, 200])),
    )
    shares = random.dirichlet([0.5] * 4) * 3600.0
    slow = EpochTime(epochs, 3600.0, *map(float, shares), 700, 5600, {"decoding": (5600, 4000.0)})
    times = (*history.times[:-1], slow) if random.uniform() < 0.3 else history.times
    return replace(history, config=config(**changes), times=times, device=str(random.choice(["cpu", "cuda"])))


def test_simulated_trainings_get_one_advice() -> None:
    """400 histories, among them those whose dimensions fail in different ways."""
    spoken = 0
    for seed in range(400):
        history = drawn_history(seed)
        assert not contradictions(history), seed
        spoken += len(diagnose(history)) > 1
    assert spoken > 20


def test_no_advice_on_a_pretrained_encoder_for_one_that_began_at_random() -> None:
    checked = 0
    for seed in range(400):
        history = drawn_history(seed)
        if history.config.model.params.speech_encoder == "random:tiny":
            words = " ".join(advised(history))
            assert "freeze_layers" not in words, seed
            assert "as it was" not in words, seed
            assert "pretrained" not in words, seed
            assert "below expectation" not in words, seed
            checked += bool(diagnose(history))
    assert checked > 50


def test_fewer_epochs_means_fewer_than_were_trained() -> None:
    """Eight epochs with the best at their end aren't shortened to eight."""
    never = [lambda epoch: 0.01 * epoch] * 2
    history = simulate(np.random.default_rng(1), 8, never, [rising(0.97, 3.0)] * 2, wander=0.0, comparable=False)
    tiny = config(model__params={"speech_encoder": "random:tiny"}, train__epochs=8)
    (finding, *_) = diagnose(replace(history, config=tiny))
    assert finding.kind == "overfitting"
    assert "train.epochs" not in str(finding)
    assert "fewer epochs" not in finding.advice
    assert finding.overrides


@pytest.mark.parametrize(
    ("encoder", "rate", "warned"),
    [
        ("microsoft/wavlm-large", 1e-4, True),
        ("microsoft/wavlm-large", 1e-5, False),
        ("random:tiny", 0.5, False),
    ],
)
def test_a_rate_that_destroys_what_was_pretrained_is_doubted(encoder: str, rate: float, warned: bool) -> None:
    changed = config(model__params={"speech_encoder": encoder}, train__optimizer={"encoder_lr": rate})
    assert bool(list(doubts(changed))) == warned
    frozen = config(model__params={"speech_encoder": encoder, "freeze_speech_encoder": True})
    assert not list(doubts(frozen))


def test_what_is_in_force_or_contradicts_an_earlier_finding_is_left_out() -> None:
    low = Finding("not rising", "low", "raise it", ("train.optimizer.encoder_lr=0.00002", "train.grad_clip=1.0"))
    high = Finding("falling", "fell", "lower it", ("train.optimizer.encoder_lr=0.000005",))
    other = Finding("constant batches", "equal", "more", ("train.accumulation_steps=4",))
    assert list(one_voice([low, high, other], ExperimentConfig.model_validate(recorded_config()))) == [
        replace(low, overrides=("train.optimizer.encoder_lr=0.00002",)),
        other,
    ]


def recorded_config() -> dict[str, Any]:
    return config().model_dump()


def test_the_runs_of_an_experiment_and_the_experiment_agree(tmp_path: Any) -> None:
    """Seeds that lie far apart ask for smaller steps; not where one of the runs was trained with too small ones."""
    good, bad = [rising(0.65, 1.5)] * 2, [rising(0.3, 9.0)] * 2
    for seed, courses in enumerate((good, good, bad), start=1):
        history = simulate(np.random.default_rng(seed), 10, courses, courses)
        changed = config(train__epochs=10, experiment={"name": "three", "seed": seed})
        write(replace(history, config=changed), tmp_path / f"run{seed}", "finished")
    board = look([tmp_path], Reader())
    rates = {dict(said.finding.settings).get("train.optimizer.encoder_lr") for said in board.said} - {None}
    assert len(rates) == 1, board.said
