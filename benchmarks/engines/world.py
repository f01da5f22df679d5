"""What the rows share: stand-ins for runs, the journal they leave, and what it says."""

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from serfit.sweep.plan import Job

HERE = Path(__file__).resolve().parent
FAKE = (sys.executable, str(HERE / "fake_serfit.py"))

Event = dict[str, Any]


@contextmanager
def world(seconds: float) -> Iterator[Path]:
    """An empty folder for the runs and journal of one experiment."""
    with tempfile.TemporaryDirectory(prefix="e") as name:
        folder = Path(name)
        (folder / "deaths").mkdir()
        os.environ |= {
            "FAKE_JOURNAL": str(folder / "journal"),
            "FAKE_DEATHS": str(folder / "deaths"),
            "FAKE_SECONDS": str(seconds),
        }
        yield folder


def jobs(folder: Path, count: int, first: int = 0, gpus: int = 1) -> list[Job]:
    return [
        Job(f"run {n}", Path("none"), (), folder / "runs" / f"run{n}", gpus=gpus, program=FAKE)
        for n in range(first, first + count)
    ]


def journal(folder: Path) -> list[Event]:
    return [json.loads(line) for line in (folder / "journal").read_text().splitlines()]


def spans(events: list[Event]) -> list[tuple[float, float, Event]]:
    """Start, end and first event of each process; one that was killed ends at its last sign of life."""
    by_pid: dict[int, list[Event]] = {}
    for event in events:
        by_pid.setdefault(event["pid"], []).append(event)
    return [(own[0]["time"], own[-1]["time"], own[0]) for own in by_pid.values()]


def most_at_once(weighed: list[tuple[float, float, int]]) -> int:
    edges = sorted([(start, weight) for start, _, weight in weighed] + [(end, -weight) for _, end, weight in weighed])
    running = most = 0
    for _, change in edges:
        running += change
        most = max(most, running)
    return most


def restarted(events: list[Event]) -> int:
    """How often a finished run was started again."""
    ended: dict[str, float] = {event["run"]: event["time"] for event in events if event["event"] == "end"}
    starts = [event for event in events if event["event"] == "start"]
    return sum(start["time"] > ended.get(start["run"], float("inf")) for start in starts)


def never() -> bool:
    return False


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
