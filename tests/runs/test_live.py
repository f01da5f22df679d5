"""Run directories are read in whatever state they are, and never written."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from report.histories import rising, simulate
from report.live.written import NOBODY, write
from serfit.errors import UserError
from serfit.runs import directory as runs
from serfit.runs.live import History, Reader, run_directories
from serfit.runs.records import Stopped
from serfit.scores.records import EpochTime, Progress
from serfit.system.lease import Holder
from serfit.system.lock import take


def some(epochs: int = 3, **changes: object) -> History:
    courses = [rising(0.6, 1.0)] * 2
    return simulate(np.random.default_rng(0), epochs, courses, courses, count=50, **changes)  # type: ignore[arg-type]


def read(directory: Path, reader: Reader | None = None) -> History:
    (history,) = (reader or Reader()).read([directory])
    return history


@pytest.mark.parametrize("state", ["running", "stopped", "died", "finished"])
def test_a_run_is_read_back_as_it_is(tmp_path: Path, state: str) -> None:
    before = some()
    found = read(write(before, tmp_path / "run", state))  # type: ignore[arg-type]
    lists = {"records": list(before.records), "times": list(before.times)}
    assert found == replace(before, directory=tmp_path / "run", state=state, **lists)  # type: ignore[arg-type]


def test_a_real_lock_means_running_and_its_release_stopped(tmp_path: Path) -> None:
    directory = write(some(), tmp_path / "run", "stopped")
    with take(directory / runs.LOCK):  # type: ignore[union-attr]
        assert read(directory).state == "running"
    assert read(directory).state == "stopped"


def test_a_killed_process_leaves_a_run_that_died(tmp_path: Path) -> None:
    directory = write(some(), tmp_path / "run", "stopped")
    code = (
        "import sys, time; from pathlib import Path; from serfit.system.lock import take\n"
        "lock = take(Path(sys.argv[1])); print('held', flush=True); time.sleep(10_000)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(directory / runs.LOCK)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert read(directory).state == "running"
        holder.kill()
    assert read(directory).state == "died"


def test_a_lock_of_another_machine_counts_until_it_has_not_been_touched_for_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = write(some(), tmp_path / "run", "stopped")
    (directory / runs.LOCK).write_bytes(Holder("elsewhere", NOBODY).to_bytes())
    reader, clock = Reader(), [0.0]
    monkeypatch.setattr("serfit.system.lease.time.monotonic", lambda: clock[0])
    for clock[0], state in ((0.0, "running"), (59.0, "running"), (61.0, "died")):
        assert read(directory, reader).state == state


def test_a_run_on_a_file_system_without_locks_is_known_by_its_claim(tmp_path: Path) -> None:
    directory = write(some(), tmp_path / "run", "stopped")
    (directory / runs.LOCK).touch()
    (directory / f"{runs.LOCK}.claim").write_bytes(Holder.me().to_bytes())
    assert read(directory).state == "running"


def test_reading_writes_nothing(tmp_path: Path) -> None:
    for state in ("running", "stopped", "died", "finished"):
        write(some(), tmp_path / state, state)  # type: ignore[arg-type]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    Reader().read(run_directories([tmp_path]))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_time_left_follows_the_measured_pace(tmp_path: Path) -> None:
    history = some(3)
    twenty = history.config.model_copy(update={"train": history.config.train.model_copy(update={"epochs": 20})})
    history = replace(history, config=twenty, state="running")
    assert history.seconds_left == pytest.approx(17 * 600)
    half = Progress(4, 350, 700, 0.4, 0.0, EpochTime(4, 260.0, 10.0, 250.0, 0.0, 0.0, 350, 2800))
    assert replace(history, progress=half).seconds_left == pytest.approx(16.5 * 600)
    first = replace(history, records=(), times=(), progress=replace(half, epoch=1))
    assert first.seconds_left == pytest.approx(19.5 * 700 * 260 / 350)
    assert replace(first, progress=None).seconds_left is None
    assert replace(history, state="finished").seconds_left is None


def test_what_cannot_be_read_is_told_and_hides_nothing_else(tmp_path: Path) -> None:
    good = write(some(), tmp_path / "good", "finished")
    broken = write(some(), tmp_path / "broken", "finished")
    (broken / runs.METRICS).write_text('{"epoch": 1')
    wrong = write(some(), tmp_path / "wrong", "finished")
    (wrong / runs.CONFIG).write_text(json.dumps({"experiment": {}}))
    reader = Reader()
    assert [one.directory for one in reader.read([good, broken, wrong])] == [good]
    assert set(reader.troubles) == {broken, wrong}
    assert all("Traceback" not in words for words in reader.troubles.values())
    with pytest.raises(UserError, match=r"there is no folder .*nowhere"):
        run_directories([tmp_path / "nowhere"])


def test_the_end_of_a_run_is_told_only_while_it_is_stopped(tmp_path: Path) -> None:
    history = replace(some(), stopped=Stopped("NumericalError", "loss nan"))
    directory = write(history, tmp_path / "run", "stopped")
    assert read(directory).stopped == history.stopped
    (directory / runs.LOCK).write_bytes(Holder.me().to_bytes())
    assert read(directory).stopped is None
