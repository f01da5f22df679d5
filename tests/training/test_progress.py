"""What timing.jsonl and progress.json say about a real, tiny training."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from serfit.errors import NumericalError
from serfit.runs import directory as runs
from serfit.runs.directory import Run
from serfit.scores.records import EpochTime, Progress
from serfit.system.records import from_plain, plain, read_lines, read_record
from serfit.system.runtime import gpu_busy, gpu_memory
from serfit.system.timer import Timer
from serfit.training import progress as story
from serfit.training.progress import EpochTimer

Runner = Callable[..., Path]


def times(directory: Path) -> list[EpochTime]:
    return read_lines(EpochTime, directory / runs.TIMING, "")


@pytest.mark.parametrize("workers", [0, 2])
def test_the_shares_of_an_epoch_add_up_to_it(run: Runner, workers: int) -> None:
    measured = times(run(data__loader__workers=workers))
    assert [one.epoch for one in measured] == [1, 2]
    for one in measured:
        parts = (one.waiting, one.computing, one.evaluating, one.writing)
        assert all(part is not None and part >= 0.0 for part in parts)
        assert sum(part for part in parts if part is not None) == pytest.approx(one.seconds, abs=0.05)
        assert (one.steps, one.utterances) == (3, 24)
        assert one.speed is not None
        assert one.speed > 0.0
        assert (one.gpu_memory, one.gpu_memory_total, one.gpu_busy) == (None, None, None)


def test_what_the_loader_did_is_counted(run: Runner) -> None:
    """24 utterances are trained on and 8 evaluated; features of the frozen CNN stay in memory once they were read, one
    of them when the store was filled."""
    stored = times(run())
    assert {kind: count for kind, (count, _) in stored[0].loading.items()} == {"store": 31}
    assert stored[1].loading == {}
    unstored = times(run(features__store=None))
    for one in unstored:
        assert {kind: count for kind, (count, _) in one.loading.items()} == {"decoding": 32, "frozen part": 32}
    heard = times(run(model__params__freeze_cnn=False, features__store=None))
    assert {kind: count for kind, (count, _) in heard[1].loading.items()} == {"decoding": 32}
    decoding = heard[1].loading["decoding"][1]
    assert 0.0 < decoding < heard[1].seconds


def test_times_survive_json_and_old_records_are_understood() -> None:
    one = EpochTime(3, 10.5, 1.0, 8.0, 1.25, 0.25, 7, 56, {"store": (64, 0.5)}, 2**30, 2**33, 0.9)
    assert from_plain(EpochTime, plain(one), "", "") == one
    progress = Progress(3, 2, 7, 0.5, 1e9, one)
    assert from_plain(Progress, plain(progress), "", "") == progress
    old = from_plain(EpochTime, {"epoch": 1, "seconds": 2.5}, "", "")
    assert (old.seconds, old.waiting, old.speed, old.step_seconds) == (2.5, None, None, None)


def test_progress_is_written_now_and_then_and_gone_at_the_end(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(story, "SECONDS_BETWEEN_LOOKS", 0.0)
    seen: list[Progress] = []
    real = story.show_step

    def look(record: Any, run: Run, *others: Any) -> None:
        seen.append(read_record(Progress, run / runs.PROGRESS, ""))
        real(record, run, *others)

    monkeypatch.setattr(story, "show_step", look)
    directory = run()
    assert [(one.epoch, one.step, one.steps) for one in seen] == [(e, s, 3) for e in (1, 2) for s in (1, 2, 3)]
    assert [one.so_far.steps for one in seen] == [1, 2, 3, 1, 2, 3]
    assert not (directory / runs.PROGRESS).exists()
    monkeypatch.setattr(story, "SECONDS_BETWEEN_LOOKS", 3600.0)
    monkeypatch.setattr(story, "show_step", real)
    wrote: list[Path] = []
    monkeypatch.setattr(story, "write_record", lambda path, *_, **__: wrote.append(path))
    run()
    assert wrote == []


def test_a_full_disk_under_progress_stops_nothing(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise story.WriteError("no room")

    monkeypatch.setattr(story, "SECONDS_BETWEEN_LOOKS", 0.0)
    monkeypatch.setattr(story, "write_record", full)
    assert (run() / runs.FINISHED).exists()


def test_how_a_run_ended_is_recorded_until_it_goes_on(
    run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "runs" / "stopped"
    with monkeypatch.context() as patch:

        def break_down(*_: Any) -> None:
            raise NumericalError("the loss isn't finite")

        patch.setattr(story, "show_step", break_down)
        with pytest.raises(NumericalError):
            run(directory, train__checkpoint_minutes=0)
    said = json.loads((directory / runs.STOPPED).read_text())
    assert said["kind"] == "NumericalError"
    assert said["message"].startswith(
        "the loss isn't finite. To try: clip harder and halve the rate (train.grad_clip=0.3 "
    )
    run(directory, resume=True, train__checkpoint_minutes=0)
    assert not (directory / runs.STOPPED).exists()


def test_a_gpu_is_asked_for_memory_and_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With stand-ins for CUDA's answers: 2 of 8 GiB, 50 % busy, and a driver that can't tell."""

    class Properties:
        total_memory = 8 * 2**30

    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 2 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties)
    monkeypatch.setattr(torch.cuda, "utilization", lambda device: 50)
    device = torch.device("cuda", 0)
    assert gpu_memory(device) == (2 * 2**30, 8 * 2**30)
    assert gpu_busy(device) == 0.5
    assert gpu_memory(torch.device("cpu")) is None
    assert gpu_busy(torch.device("cpu")) is None
    spent = EpochTimer(device, Timer()).epoch_done(1)
    assert (spent.gpu_memory, spent.gpu_memory_total) == (2 * 2**30, 8 * 2**30)

    def silent(device: torch.device) -> int:
        raise ModuleNotFoundError("pynvml")

    monkeypatch.setattr(torch.cuda, "utilization", silent)
    assert gpu_busy(device) is None
