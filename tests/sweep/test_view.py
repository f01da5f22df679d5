"""The table of a sweep says what the records of its runs say, and what became of them here."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console

from report.histories import rising, simulate
from report.live.written import write
from serfit.runs.live import History
from serfit.sweep.plan import Job
from serfit.sweep.view import View
from serfit.sweep.worker import Outcome


def history(done: int, epochs: int = 6) -> History:
    courses = [rising(0.6, 1.0)] * 2
    whole = simulate(np.random.default_rng(0), epochs, courses, courses, count=50)
    return replace(whole, records=whole.records[:done], times=whole.times[:done])


def job(folder: Path, name: str) -> Job:
    return Job(name, Path("none.yaml"), (), folder / name)


def shown(view: View, width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    view.console = console
    console.print(view.table())
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_runs_in_every_state_stand_in_one_table(tmp_path: Path) -> None:
    jobs = [job(tmp_path, name) for name in ("one", "two", "three", "four")]
    write(replace(history(3), card="5"), jobs[0].directory, "running")
    write(history(6), jobs[1].directory, "finished")
    (jobs[2].directory).mkdir()
    (jobs[2].directory / "config.json").write_text("torn")
    view = View(Console(file=io.StringIO()), jobs)
    lines = {line.split()[1]: line for line in shown(view, 200).splitlines() if line.startswith("│")}
    heading = next(line for line in shown(view, 200).splitlines() if "CCC-V" in line)
    assert all(word in heading for word in ("epoch", "CCC-A", "utt/s", "left", "card"))
    last = history(3).records[-1].validation.ccc("valence")
    assert f"{last:.3f}" in lines["one"]
    assert "running" in lines["one"]
    assert " 5 " in lines["one"]
    assert "finished" in lines["two"]
    assert "running" in lines["three"], "begun, and nothing can be read yet"
    assert "waiting" in lines["four"]
    view.ended(Outcome(jobs[0], "failed", 2, "error: something"))
    assert "failed" in next(line for line in shown(view, 200).splitlines() if " one " in line)
    narrow = shown(view, 70)
    assert max(map(len, narrow.splitlines())) <= 70
    assert "CCC-V" in narrow


def test_without_a_terminal_every_new_epoch_is_a_line(tmp_path: Path) -> None:
    shared = job(tmp_path, "one")
    console = Console(file=io.StringIO(), width=200)
    write(history(2), shared.directory, "running")
    view = View(console, [shared])
    view.refresh()
    assert console.file.getvalue() == ""  # type: ignore[attr-defined]
    (tmp_path / "one").rename(tmp_path / "before")
    write(history(3), shared.directory, "running")
    view._looked = 0.0
    view.refresh()
    view._looked = 0.0
    view.refresh()
    (line,) = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    value = history(3).records[-1].validation.ccc("valence")
    assert f"one: epoch 3/{history(3).config.last_epoch}, validation CCC-V {value:.4f}" in line
