"""Going on with a run: which one, whether it is still the same, and what a failing disk does to it."""

import io
import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from serfit.cli import main
from serfit.errors import NumericalError, UserError
from serfit.runs import directory as runs
from serfit.runs.directory import locked
from serfit.runs.records import CorpusRecord, Environment
from serfit.system import precision
from serfit.system.files import WriteError
from serfit.system.interrupt import Interrupted
from serfit.system.log import Log
from serfit.training import checkpoint, resume
from serfit.training import progress as story
from serfit.training.executor import Executor
from serfit.training.resume import precision_as_begun
from serfit.training.store import FeatureStore
from support import RESULTS, config_file, small_release


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_release(tmp_path_factory.mktemp("iemocap"))


Runner = Callable[..., Path]


def contents(directory: Path) -> dict[str, bytes]:
    return {name: (directory / name).read_bytes() for name in RESULTS}


class Stop(Exception):
    """The power cut of these tests."""


@pytest.fixture
def cut(run: Runner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Path]:
    """A run that was cut after its second step."""

    def make(name: str = "tiny_cut", steps: int = 2, **changes: Any) -> Path:
        left = [steps]
        real = story.save_if_possible

        def save_then_stop(*arguments: Any) -> None:
            real(*arguments)
            left[0] -= 1
            if left[0] == 0:
                raise Stop

        with monkeypatch.context() as patch:
            patch.setattr(story, "save_if_possible", save_then_stop)
            with pytest.raises(Stop):
                run(tmp_path / "runs" / name, train__checkpoint_minutes=0, **changes)
        return tmp_path / "runs" / name

    return make


def exit_code(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return int(caught.value.code or 0)


@pytest.mark.slow
def test_the_same_command_goes_on_with_what_is_unfinished(
    cut: Callable[..., Path], run: Runner, release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = contents(run())
    further = cut("tiny_further", steps=3)
    nearer = cut("tiny_nearer", steps=1)
    config = config_file(tmp_path / "tiny.yaml", release, tmp_path)
    command = ("train", "--config", config, "train.checkpoint_minutes=5", "--resume", "auto")
    assert exit_code(*command) == 0
    assert (further / runs.FINISHED).exists()
    assert contents(further) == whole
    shown = capsys.readouterr().out
    assert "going on with train.checkpoint_minutes=5.0 (was 0.0)" in shown
    assert "going on after step 3, in epoch 1" in shown
    assert json.loads((further / runs.CONFIG).read_text())["train"]["checkpoint_minutes"] == 5.0
    assert exit_code(*command) == 0
    assert contents(nearer) == whole
    assert len(list((tmp_path / "runs").glob("tiny*"))) == 3
    assert exit_code(*command, "--seed", "9") == 0
    assert len(list((tmp_path / "runs").glob("tiny*"))) == 4


def test_a_run_directory_that_is_named_is_begun_or_gone_on_with(
    cut: Callable[..., Path], release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = cut("mine")
    config = config_file(tmp_path / "tiny.yaml", release, tmp_path)
    new = tmp_path / "runs" / "new"
    for index in (directory, new):
        assert exit_code("train", "--config", config, "--run-dir", index, "--resume", "auto") == 0
        assert (index / runs.FINISHED).exists()
    assert exit_code("train", "--config", config, "--run-dir", directory, "--resume", "auto") == 2
    assert "is finished and is never changed" in capsys.readouterr().err


def test_a_run_that_is_being_written_is_left_alone(
    cut: Callable[..., Path], run: Runner, release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = cut()
    config = config_file(tmp_path / "tiny.yaml", release, tmp_path)
    with locked(directory):
        before = sorted(path.name for path in directory.rglob("*"))
        assert exit_code("train", "--config", config, "--resume", "auto") == 2
        assert "is being run at the moment: " in capsys.readouterr().err
        with pytest.raises(UserError, match=r"is being written by process \d+ on "):
            run(directory, resume=True)
        assert sorted(path.name for path in directory.rglob("*")) == before
    assert not (directory / runs.LOCK).exists()


def test_leftovers_of_a_kill_are_swept(cut: Callable[..., Path], run: Runner) -> None:
    directory = cut()
    for name in (".metrics.jsonl.1-a.tmp", "checkpoints/.step-00000003.safetensors.1-a.tmp"):
        (directory / name).write_bytes(b"half")
    run(directory, resume=True)
    assert not list(directory.rglob("*.tmp"))


PARTLY_FROZEN = {"model__params__freeze_layers": 1}


@pytest.mark.slow
def test_a_run_goes_on_in_the_precision_it_was_begun_in(
    cut: Callable[..., Path], run: Runner, bf16_cpu: pytest.MonkeyPatch
) -> None:
    """To the byte, whatever auto would take by now; older versions took float32 on every CPU."""
    half, in_half = contents(run(**PARTLY_FROZEN)), cut("half", **PARTLY_FROZEN)
    bf16_cpu.setattr(precision, "NARROWEST", 1000)
    exact, in_exact = contents(run(**PARTLY_FROZEN)), cut("exact", **PARTLY_FROZEN)
    assert half != exact
    assert contents(run(in_half, resume=True, **PARTLY_FROZEN)) == half
    bf16_cpu.setattr(precision, "NARROWEST", 1)
    assert contents(run(in_exact, resume=True, **PARTLY_FROZEN)) == exact
    for directory, expected in ((in_half, ("bf16", "bf16")), (in_exact, ("fp32", None))):
        about = runs.read_environment(directory)
        assert about is not None
        assert (about.precision, about.frozen_precision) == expected
        assert "was begun with other" not in (directory / runs.TRAIN_LOG).read_text()


def test_a_run_that_was_begun_in_bf16_goes_on_in_float32_where_nothing_computes_in_it(
    cut: Callable[..., Path], run: Runner, bf16_cpu: pytest.MonkeyPatch
) -> None:
    directory = cut(**PARTLY_FROZEN)
    bf16_cpu.setattr(precision, "bf16_instructions", lambda: ())
    run(directory, resume=True, **PARTLY_FROZEN)
    about = runs.read_environment(directory)
    assert about is not None
    assert (about.precision, about.frozen_precision) == ("fp32", None)
    assert "was begun with other precision, frozen_precision" in (directory / runs.TRAIN_LOG).read_text()


@pytest.mark.parametrize("wanted", ["fp32", "bf16"])
def test_what_a_configuration_asks_for_outdoes_the_record(
    wanted: Literal["fp32", "bf16"], bf16_cpu: pytest.MonkeyPatch
) -> None:
    """The frozen part of a run that an older version began was in float32, whatever was asked for."""
    before = Environment(precision="bf16", corpus=CorpusRecord(name="iemocap"))
    chosen = precision_as_begun(before, wanted, torch.device("cpu"), width=64)
    assert (chosen.name, chosen.frozen) == (wanted, "fp32")


def test_another_configuration_is_refused(cut: Callable[..., Path], run: Runner) -> None:
    directory = cut()
    with pytest.raises(UserError, match=r"begun with another configuration \(train\.epochs differs: .* was 2 and is 3"):
        run(directory, resume=True, train__epochs=3)


def test_another_corpus_or_encoder_is_refused(cut: Callable[..., Path], run: Runner, release: Path) -> None:
    directory = cut()
    path = directory / runs.ENVIRONMENT
    whole = path.read_text()
    changes: dict[str, Callable[[dict[str, Any]], None]] = {
        "the corpus has changed": lambda about: about["corpus"].update(digest="0" * 64),
        "the split has changed": lambda about: about.update(protocol="another"),
        "the encoder has changed": lambda about: about["encoder"].update(sha256="0" * 64),
    }
    for words, change in changes.items():
        about = json.loads(whole)
        change(about)
        path.write_text(json.dumps(about))
        with pytest.raises(UserError, match=f"{words} since this run was begun"):
            run(directory, resume=True)
    about = json.loads(whole)
    about["packages"]["torch"] = "1.0"
    path.write_text(json.dumps(about))
    run(directory, resume=True)
    assert "begun with other packages" in (directory / runs.TRAIN_LOG).read_text()


def test_labels_corrected_since_are_named(cut: Callable[..., Path], run: Runner) -> None:
    directory = cut()
    labels = runs.read_labels(directory)
    assert labels is not None
    valence = dict(labels.ratings["valence"])
    for name in list(valence)[:3]:
        valence[name] += 0.25
    (directory / runs.LABELS).write_text(replace(labels, ratings={**labels.ratings, "valence": valence}).to_text())
    about = json.loads((directory / runs.ENVIRONMENT).read_text())
    about["corpus"]["digest"] = "0" * 64
    (directory / runs.ENVIRONMENT).write_text(json.dumps(about))
    with pytest.raises(UserError, match=rf"the corpus has changed .*3 of {len(valence)} valence ratings differ"):
        run(directory, resume=True)


@pytest.mark.parametrize("damage", ["foreign", "torn"])
def test_without_a_whole_checkpoint_nothing_is_guessed(cut: Callable[..., Path], run: Runner, damage: str) -> None:
    directory = cut()
    other = cut("other", experiment__seed=5)
    for path in (directory / runs.CHECKPOINTS).iterdir():
        path.write_bytes((other / runs.CHECKPOINTS / path.name).read_bytes() if damage == "foreign" else b"")
    with pytest.raises(UserError, match=r"none of the 2 checkpoints in .* is whole and of this run"):
        run(directory, resume=True)


def test_records_that_were_changed_are_refused(cut: Callable[..., Path], run: Runner) -> None:
    directory = cut(steps=5)
    assert (directory / runs.METRICS).exists()
    (directory / runs.METRICS).write_text("{}\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 1: epoch is missing; start a new run"):
        run(directory, resume=True)
    (directory / runs.METRICS).unlink()
    with pytest.raises(UserError, match=r"holds 0 epochs, and the checkpoint of step"):
        run(directory, resume=True)


def test_a_disk_that_is_full_for_a_while_costs_only_checkpoints(
    run: Runner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = contents(run())
    real, calls = resume.save_checkpoint, [0]

    def full_at_first(*arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] < 4:
            raise WriteError("can't write x: No space left on device")
        return real(*arguments)

    monkeypatch.setattr(resume, "save_checkpoint", full_at_first)
    directory = run(tmp_path / "runs" / "r", train__checkpoint_minutes=0)
    assert contents(directory) == whole
    log = (directory / runs.TRAIN_LOG).read_text()
    assert log.count("warning: no checkpoint of step") == 3


def test_a_full_disk_at_the_end_of_an_epoch_stops_and_the_run_goes_on(
    run: Runner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = contents(run())
    directory = tmp_path / "runs" / "r"

    def full(*_: Any) -> None:
        raise WriteError("can't write best.safetensors: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(resume, "save_weights", full)
        with pytest.raises(WriteError):
            run(directory)
    assert directory.exists()
    run(directory, resume=True)
    assert contents(directory) == whole


def test_pictures_and_log_lines_are_no_reason_to_stop(
    run: Runner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: Any) -> None:
        raise WriteError("can't write loss.png: No space left on device")

    monkeypatch.setattr("serfit.training.messages.plot_curves", full)
    directory = run()
    assert "warning: the curves weren't drawn" in (directory / runs.TRAIN_LOG).read_text()
    assert (directory / runs.FINISHED).exists()
    log = Log(Console(file=io.StringIO()))
    log.attach(Path("/dev/full"))
    log.say("goes nowhere")
    log.close()


def test_a_number_that_is_not_finite_leaves_a_checkpoint_of_the_state_before(
    run: Runner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from serfit.training import trainer

    whole = contents(run())
    directory = tmp_path / "runs" / "nan"
    real, calls = trainer.clip_gradients, [0]

    def poisoned(parameters: Any, *rest: Any) -> float:
        calls[0] += 1
        return float("nan") if calls[0] == 3 else real(parameters, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "clip_gradients", poisoned)
        with pytest.raises(NumericalError, match=r"step 3: .*Learning rates: .*Utterances: Ses"):
            run(directory)
    (saved,) = (directory / runs.CHECKPOINTS).iterdir()
    assert saved.name == "step-00000002.safetensors"
    assert all(tensor.isfinite().all() for tensor in load_file(saved).values())
    run(directory, resume=True)
    assert contents(directory) == whole


@pytest.mark.slow
@pytest.mark.parametrize("call", [2, 6, 10], ids=["first validation", "second validation", "test"])
def test_a_signal_in_the_middle_of_an_evaluation_stops_there(
    run: Runner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, call: int
) -> None:
    from serfit.training import trainer

    monkeypatch.setattr(trainer, "EVALUATED_TOGETHER", 2)
    whole = contents(run())
    directory, real, calls = tmp_path / "runs" / "r", Executor.predict, [0]

    def counted(self: Executor, examples: Any) -> Any:
        calls[0] += 1
        if calls[0] == call:
            os.kill(os.getpid(), signal.SIGUSR1)
        return real(self, examples)

    with monkeypatch.context() as patch:
        patch.setattr(Executor, "predict", counted)
        with pytest.raises(Interrupted, match=r"stopped by SIGUSR1, everything is saved; go on with: .*--resume"):
            run(directory)
    assert calls[0] == call
    run(directory, resume=True)
    assert contents(directory) == whole


def test_a_signal_while_the_store_is_filled_stops_there(
    run: Runner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    directory, real, calls = tmp_path / "runs" / "r", FeatureStore.put, [0]

    def counted(self: FeatureStore, key: str, feature: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        if calls[0] == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, key, feature)

    with monkeypatch.context() as patch:
        patch.setattr(FeatureStore, "put", counted)
        with pytest.raises(Interrupted, match="stopped by SIGTERM"):
            run(directory)
    assert calls[0] == 5
    whole = contents(run())
    run(directory, resume=True)
    assert contents(directory) == whole


def test_a_checkpoint_that_reads_back_otherwise_is_an_error_and_the_old_ones_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save_checkpoint(tmp_path, 1, {"x": torch.zeros(9)}, {"step": 1})
    real = checkpoint.write_tensors

    def rotten(path: Path, *rest: Any) -> int:
        size = real(path, *rest)
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(bytes(data))
        return size

    monkeypatch.setattr(checkpoint, "write_tensors", rotten)
    for step in (2, 3, 4):
        with pytest.raises(WriteError, match="isn't what was written when read back"):
            checkpoint.save_checkpoint(tmp_path, step, {"x": torch.ones(9)}, {"step": step})
    found = checkpoint.latest_checkpoint(tmp_path)
    assert found is not None
    assert found[1] == {"step": 1}


def test_an_undefined_ccc_is_never_best(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    from serfit.scores import metrics

    monkeypatch.setattr(metrics, "ccc", lambda targets, values: None)
    with pytest.raises(UserError, match=r"undefined in every epoch \(2\).*choose another data\.split"):
        run()
