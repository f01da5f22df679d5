"""What the engines of `serfit cv` promise, counted.

    uv run python benchmarks/engines/run.py [E1 E2 ...] [--runs 15] [--kills 5] [--seed 1]

Runs are stand-ins (fake_serfit.py) that last about a second, leave a journal, and can be killed: what is measured is
the scheduling, not the training.

E1  five runs on two slots, then one- and two-slot runs mixed: never more than two slots at a time
E2  two launches at once on the same two GPUs: no GPU is ever shared
E3  many runs with random kills: all finish, no finished run is started again (inline and Ray)
E4  the driver is killed: no run is left after five seconds (inline and Ray)
E5  overhead: five runs of four seconds on two slots against the ideal
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from serfit.sweep.engines import inline, on_ray
from serfit.sweep.plan import Job
from serfit.sweep.slots import Slots

HERE = Path(__file__).resolve().parent
FAKE = (sys.executable, str(HERE / "fake_serfit.py"))
LARGE = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from run import jobs, never
from serfit.sweep.engines import on_ray
from serfit.sweep.slots import Slots
list(on_ray(jobs(Path(sys.argv[2]), 2, first=4, gpus=2), Slots(gpus=("0", "1")), never, per_run=2))
"""
"""Another launch, of runs that take both GPUs."""

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


def never() -> bool:
    return False


def e1(options: argparse.Namespace) -> str:
    with world(1.0) as folder:
        outcomes = list(on_ray(jobs(folder, 5), Slots(count=2), never))
        most = most_at_once([(start, end, 1) for start, end, _ in spans(journal(folder))])
        finished = sum(outcome.fate == "finished" for outcome in outcomes)
    with world(1.0) as folder:
        small = jobs(folder, 4)
        launch = subprocess.Popen([sys.executable, "-c", LARGE, str(HERE), str(folder)])
        list(on_ray(small, Slots(gpus=("0", "1")), never))
        launch.wait()
        weighed = [(s, e, len(first["gpu"].split(","))) for s, e, first in spans(journal(folder))]
        mixed = most_at_once(weighed)
    return (
        f"{finished} of 5 finished, at most {most} at a time; one- and two-slot runs: at most {mixed} of 2 slots in use"
    )


def e2(options: argparse.Namespace) -> str:
    with world(1.0) as folder:
        code = (
            "import sys; sys.path.insert(0, sys.argv[1])\n"
            "from pathlib import Path\nfrom run import jobs, never\n"
            "from serfit.sweep.engines import inline\nfrom serfit.sweep.slots import Slots\n"
            "for gpu in ('0', '1'):\n"
            "    mine = jobs(Path(sys.argv[2]), 2, first=int(sys.argv[3]) + 2 * int(gpu))\n"
            "    list(inline(mine, Slots(gpus=(gpu,)), never))\n"
        )
        launches = [
            subprocess.Popen([sys.executable, "-c", code, str(HERE), str(folder), str(first)]) for first in (0, 10)
        ]
        for launch in launches:
            launch.wait()
        found = spans(journal(folder))
        worst = max(
            most_at_once([(start, end, 1) for start, end, first in found if first["gpu"] == gpu]) for gpu in ("0", "1")
        )
    return f"{len(found)} of 8 runs by two launches; at most {worst} run on one GPU at a time"


def e3(options: argparse.Namespace) -> str:
    said = []
    engines: dict[str, Callable[[list[Job]], Any]] = {
        "inline": lambda todo: inline(todo, Slots(), never),
        "ray": lambda todo: on_ray(todo, Slots(count=2), never),
    }
    for name, engine in engines.items():
        with world(0.6) as folder:
            todo = jobs(folder, options.runs)
            chance = random.Random(options.seed)

            def kill(folder: Path = folder, chance: random.Random = chance) -> None:
                while not (folder / "journal").exists():
                    time.sleep(0.1)
                ends = time.monotonic() + 0.3 * options.runs
                for number in range(options.kills):
                    time.sleep(chance.uniform(0.0, max(0.0, (ends - time.monotonic()) / (options.kills - number))))
                    (folder / "deaths" / str(number)).touch()

            killer = threading.Thread(target=kill)
            killer.start()
            outcomes = list(engine(todo))
            killer.join()
            events = journal(folder)
            starts = [event for event in events if event["event"] == "start"]
            ended: dict[str, float] = {event["run"]: event["time"] for event in events if event["event"] == "end"}
            again = sum(start["time"] > ended.get(start["run"], float("inf")) for start in starts)
            finished = sum(outcome.fate == "finished" for outcome in outcomes)
            for outcome in outcomes:
                if outcome.fate != "finished":
                    said.append(f"{outcome.job.name} {outcome.fate} with exit code {outcome.code} ({outcome.words})")
            said.append(
                f"{name}: {finished} of {options.runs} finished after {len(starts) - options.runs} deaths, "
                f"{again} finished runs started again"
            )
    return "; ".join(said)


def e4(options: argparse.Namespace) -> str:
    said = []
    for name, call in (
        ("inline", "inline(jobs(folder, 2), Slots(), never)"),
        ("ray", "on_ray(jobs(folder, 2), Slots(count=2), never)"),
    ):
        with world(600.0) as folder:
            code = (
                "import sys; sys.path.insert(0, sys.argv[1])\n"
                "from pathlib import Path\nfrom run import jobs, never\n"
                "from serfit.sweep.engines import inline, on_ray\nfrom serfit.sweep.slots import Slots\n"
                f"folder = Path(sys.argv[2])\nlist({call})\n"
            )
            driver = subprocess.Popen([sys.executable, "-c", code, str(HERE), str(folder)], start_new_session=True)
            wanted = 1 if name == "inline" else 2
            while not (folder / "journal").exists() or len(journal(folder)) < wanted:
                time.sleep(0.2)
            driver.send_signal(signal.SIGKILL)
            driver.wait()
            time.sleep(5.0)
            left = sum(_alive(event["pid"]) for event in journal(folder))
            said.append(f"{name}: {wanted} runs, {left} alive five seconds after the driver was killed")
    return "; ".join(said)


def e5(options: argparse.Namespace) -> str:
    with world(4.0) as folder:
        began = time.time()
        list(on_ray(jobs(folder, 5), Slots(count=2), never))
        whole = time.time() - began
        found = spans(journal(folder))
        first = min(start for start, _, _ in found)
        span = max(end for _, end, _ in found) - first
    return (
        f"five runs of 4 s on two slots: {span:.1f} s from the first start to the last end (ideal 12.0 s), "
        f"{first - began:.1f} s before the first, {whole:.1f} s in all"
    )


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", help="E1 to E5; default: all")
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rows = {"E1": e1, "E2": e2, "E3": e3, "E4": e4, "E5": e5}
    for row in options.rows or rows:
        Console().print(f"{row}  {rows[row](options)}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
