"""The whole path on a tiny corpus: same seed, same bytes; with and without the store; interrupted or not."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from serfit.config.schema import ExperimentConfig
from serfit.errors import NumericalError, UserError
from serfit.report.compare import read_run
from serfit.runs import directory as runs
from serfit.system.interrupt import Interrupted
from serfit.training import progress as story
from serfit.training.executor import Executor
from support import RESULTS


def contents(directory: Path) -> dict[str, bytes]:
    return {name: (directory / name).read_bytes() for name in RESULTS}


EVERYTHING = {
    "model__params__freeze_cnn": False,
    "model__params__encoder_dropout": 0.2,
    "data__loader__crop_seconds": 0.2,
    "data__augmentation": {"gain_db": 3, "noise_snr_db": [5, 20], "mixup_alpha": 0.3, "time_mask_share": 0.2},
}


def test_a_finished_run_describes_itself(run: Callable[..., Path]) -> None:
    directory = run()
    names = {path.name for path in directory.iterdir()}
    assert names == {
        *RESULTS,
        runs.BEST_VALENCE_WEIGHTS,
        runs.CONFIG,
        runs.ENVIRONMENT,
        runs.LABELS,
        runs.TRAINED,
        runs.FINISHED,
        runs.TIMING,
        runs.TRAIN_LOG,
        "loss.png",
        "ccc.png",
    }
    finished = read_run(directory)
    for dimension, scores in finished.predictions.scores().dimensions.items():
        assert scores.ccc == pytest.approx(finished.scores.test.ccc(dimension), abs=1e-4)
    environment = json.loads((directory / runs.ENVIRONMENT).read_text())
    assert environment["encoder"]["sha256"]
    assert environment["packages"]["transformers"]
    trained = runs.read_trained(directory)
    assert trained is not None
    assert len(trained.speakers) == 3 * 2  # sessions 3 to 5
    assert len(trained.recordings) == environment["corpus"]["counts"]["train"]
    assert "  2/2 " in (directory / runs.TRAIN_LOG).read_text()
    assert ExperimentConfig.model_validate_json((directory / runs.CONFIG).read_text()).train.epochs == 2


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, EVERYTHING], ids=["plain", "everything random"])
def test_same_seed_same_bytes_whatever_the_workers(run: Callable[..., Path], changes: dict[str, Any]) -> None:
    first = contents(run(**changes))
    assert contents(run(**changes, data__loader__workers=2)) == first
    assert contents(run(**changes, experiment__seed=2)) != first


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["mean", "attentive_statistics"])
def test_a_frozen_encoder_gives_the_same_weights_with_and_without_the_store(
    run: Callable[..., Path], pooling: str
) -> None:
    frozen = {"model__params__freeze_speech_encoder": True, "model__params__pooling": pooling}
    cold, warm = run(**frozen), run(**frozen)
    without = run(**frozen, features__store=None)
    assert contents(cold) == contents(warm) == contents(without)
    assert all(not name.startswith("encoder.") for name in load_file(cold / runs.BEST_WEIGHTS))


@pytest.mark.parametrize("frozen", [False, True])
def test_where_auto_takes_bf16_it_is_said_and_recorded(
    run: Callable[..., Path], bf16_cpu: pytest.MonkeyPatch, frozen: bool
) -> None:
    changes = {"model__params__freeze_speech_encoder": frozen}
    half, exact = run(**changes), run(**changes, train__precision="fp32")
    log = (half / runs.TRAIN_LOG).read_text()
    assert ", bf16 on CPU" in log
    assert "precision: bf16, since the CPU computes in it, and the encoder is 64 wide; train.precision=fp32" in log
    assert "precision:" not in (exact / runs.TRAIN_LOG).read_text()
    assert contents(half) != contents(exact)
    about = runs.read_environment(half)
    assert about is not None
    assert (about.precision, about.frozen_precision) == ("bf16", "bf16")  # the CNN is frozen in any case


def test_a_trained_encoder_changes_and_its_frozen_part_does_not(run: Callable[..., Path]) -> None:
    from serfit.config.schema import ModelParams
    from serfit.nn.model import build_model

    trained = load_file(run() / runs.BEST_WEIGHTS)
    before = build_model(ModelParams(speech_encoder="random:tiny", head_hidden=16), dimensions=2, seed=1).state_dict()
    assert not any("feature_extractor" in name for name in trained)
    unchanged = [name for name, tensor in trained.items() if torch.equal(tensor, before[name])]
    assert unchanged == []


class Stop(Exception):
    """The power cut of these tests."""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("changes", [{}, EVERYTHING], ids=["plain", "everything random"])
def test_an_interrupted_run_ends_in_the_same_bytes(
    run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], workers: int, tmp_path: Path
) -> None:
    """Cut after every single step, resuming each time."""
    whole = contents(run(**changes, data__loader__workers=workers))
    directory = tmp_path / "runs" / "cut"
    real = story.save_if_possible

    def save_then_stop(*arguments: Any) -> None:
        real(*arguments)
        raise Stop

    monkeypatch.setattr(story, "save_if_possible", save_then_stop)
    changes = {**changes, "train__checkpoint_minutes": 0, "data__loader__workers": workers}
    with pytest.raises(Stop):
        run(directory=directory, **changes)
    cuts = 1
    while True:
        try:
            run(directory=directory, resume=True, **changes)
            break
        except Stop:
            cuts += 1
    assert cuts == 2 * 3 + 2
    assert contents(directory) == whole


def test_a_signal_saves_and_the_run_goes_on(
    run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import os
    import signal

    whole = contents(run())
    directory = tmp_path / "runs" / "stopped"
    real = story.show_step

    def step_then_signal(*arguments: Any) -> None:
        real(*arguments)
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(story, "show_step", step_then_signal)
        with pytest.raises(Interrupted, match=r"SIGTERM, everything is saved; go on with: .*--resume"):
            run(directory=directory)
    run(directory=directory, resume=True)
    assert contents(directory) == whole


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("step", [1, 2], ids=["in the first step", "later"])
def test_a_gradient_that_is_not_finite_beside_a_finite_loss_changes_no_weight(
    run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float, step: int
) -> None:
    real, before, calls = Executor.gradients, {}, []

    def poisoned(executor: Executor, *arguments: Any) -> Any:
        calls.append(executor.model)
        found = real(executor, *arguments)
        if len(calls) == step:
            before.update({name: tensor.clone() for name, tensor in executor.model.state_dict().items()})
            next(p for p in reversed(list(executor.model.parameters())) if p.grad is not None).grad[0] = value
        return found

    monkeypatch.setattr(Executor, "gradients", poisoned)
    words = (
        "the gradients of 1 tensor aren't finite in the first step: head" if step == 1 else "this step was not taken"
    )
    with pytest.raises(NumericalError, match=words):
        run(directory=tmp_path / "poisoned")
    assert len(calls) == step
    after = calls[0].state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_a_tensor_that_gets_no_gradient_stops_the_first_step(
    run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Executor.gradients

    def cut_off(executor: Executor, *arguments: Any) -> Any:
        found = real(executor, *arguments)
        list(executor.model.head.parameters())[-1].grad = None
        return found

    monkeypatch.setattr(Executor, "gradients", cut_off)
    with pytest.raises(NumericalError, match=r"1 trainable tensor got no gradient in the first step: head\."):
        run(directory=tmp_path / "dead")


def test_a_number_that_is_not_finite_stops_before_the_update(run: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(NumericalError, match=r"step was not taken.*Utterances: Ses.*To try: .*train\.grad_clip=0\.3"):
        run(train__optimizer={"lr": 1e18, "encoder_lr": 1e18}, train__schedule={"warmup": 0.0}, train__grad_clip=0.0)
    (directory,) = (tmp_path / "runs").glob("tiny*")
    assert not (directory / runs.FINISHED).exists()
    assert "NumericalError" in (directory / runs.TRAIN_LOG).read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__augmentation": {"gain_db": 3}}, "changes the waveform"),
        (
            {"data__augmentation": {"time_mask_share": 0.1}, "model__params__freeze_speech_encoder": True},
            "hides frames",
        ),
        (
            {
                "data__loader__crop_seconds": 1,
                "model__params__freeze_speech_encoder": True,
                "model__params__pooling": "mean",
            },
            "no time axis left",
        ),
        ({"model__params__speech_encoder": "random:huge"}, "random weights come as"),
        ({"model__params__freeze_layers": 9}, "freeze_layers is 9"),
        ({"data__split": {"fold": 6}}, "fold"),
    ],
)
def test_what_cannot_be_leaves_no_directory(
    run: Callable[..., Path], tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run(**changes)
    assert not list((tmp_path / "runs").glob("*"))


def test_waveform_augmentation_works_on_a_frozen_cnn_without_the_store(run: Callable[..., Path]) -> None:
    directory = run(features__store=None, data__augmentation={"noise_snr_db": [5, 20], "mixup_alpha": 0.3})
    assert json.loads((directory / runs.ENVIRONMENT).read_text())["training_starts_from"] == "waveform"


def test_weights_of_one_epoch_are_stored_once(run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    shared = run()
    best, valence = (shared / name for name in (runs.BEST_WEIGHTS, runs.BEST_VALENCE_WEIGHTS))
    epochs = [json.loads(line) for line in (shared / runs.METRICS).read_text().splitlines()]
    last = [max(one["epoch"] for one in epochs if one[key]) for key in ("best", "best_valence")]
    together = last[0] == last[1]
    assert best.samefile(valence) == together

    def unable(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", unable)  # a file system without links
    apart = run()
    assert not (apart / runs.BEST_WEIGHTS).samefile(apart / runs.BEST_VALENCE_WEIGHTS)
    for name in (runs.BEST_WEIGHTS, runs.BEST_VALENCE_WEIGHTS):
        assert (apart / name).read_bytes() == (shared / name).read_bytes()


def test_a_finished_run_is_never_touched(run: Callable[..., Path]) -> None:
    directory = run()
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in directory.iterdir()}
    with pytest.raises(UserError, match="is finished and is never changed"):
        run(directory=directory, resume=True)
    with pytest.raises(UserError, match="exists; name another"):
        run(directory=directory)
    run()
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in directory.iterdir()} == before


def test_everything_can_be_trained_on_for_some_epochs_of_a_schedule(run: Callable[..., Path], tmp_path: Path) -> None:
    directory = run(data__split__scheme="everything", train__epochs=3, train__stop_after=2)
    whole = run(data__split__scheme="everything", train__epochs=3, directory=tmp_path / "whole")
    stopped, records = ((one / runs.METRICS).read_text().splitlines() for one in (directory, whole))
    assert stopped == records[:2], "the schedule is that of all three epochs"
    assert all(json.loads(line)["validation"]["ccc_average"] is None for line in records)
    assert not {runs.PREDICTIONS, runs.VALIDATION, runs.CALIBRATION} & {path.name for path in directory.iterdir()}
    assert json.loads((directory / runs.SCORES).read_text())["best_epoch"] == 2
    assert "nothing was left to test on" in (directory / runs.TRAIN_LOG).read_text()
