"""What the engines of `serfit cv` promise, counted.

    uv run python benchmarks/engines/run.py [E1 E2 ...] [--runs 15] [--kills 5] [--seed 1]

Runs are stand-ins (fake_serfit.py) that last about a second, leave a journal, and can be killed: what is measured is
the scheduling, not the training.

E1  five runs on two slots, then one- and two-slot runs mixed: never more than two slots at a time
E2  two launches at once on the same two GPUs: no GPU is ever shared
E3  many runs with random kills: all finish, no finished run is started again (inline and Ray)
E4  the driver is killed: no run is left after five seconds (inline and Ray)
E5  overhead: five runs of four seconds on two slots against the ideal
E6  Ray on two nodes (two raylets on this machine), one of which is killed under way: the same files as undisturbed

On a machine that slurm_here.sh has made a Slurm cluster:
S1  never more runs at a time than --slots says, nor than the cluster has processors
S2  `serfit cv --engine slurm` with training runs that are signalled as before a time limit: the same bytes as inline
S3  Ctrl-C: no job and no process is left; the same command completes
S4  the driver is killed: its jobs go on; the same command submits none of them twice and repeats nothing finished
S5  the machine dies under a run again and again, and a program errs
S6  a real time limit: Slurm's own warning, saved, requeued, finished
S7  the node is taken down under two runs and comes back
S8  two runs are preempted by an urgent job
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from slurm_rows import SLURM
from world import HERE, alive, jobs, journal, most_at_once, never, restarted, spans, world

from serfit.sweep.engines import QUIET, inline, on_ray
from serfit.sweep.plan import Job
from serfit.sweep.slots import Slots

LARGE = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from world import jobs, never
from serfit.sweep.engines import on_ray
from serfit.sweep.slots import Slots
list(on_ray(jobs(Path(sys.argv[2]), 2, first=4, gpus=2), Slots(gpus=("0", "1")), never, per_run=2))
"""
"""Another launch, of runs that take both GPUs."""


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
            "from pathlib import Path\nfrom world import jobs, never\n"
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
            finished = sum(outcome.fate == "finished" for outcome in outcomes)
            for outcome in outcomes:
                if outcome.fate != "finished":
                    said.append(f"{outcome.job.name} {outcome.fate} with exit code {outcome.code} ({outcome.words})")
            said.append(
                f"{name}: {finished} of {options.runs} finished after {len(starts) - options.runs} deaths, "
                f"{restarted(events)} finished runs started again"
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
                "from pathlib import Path\nfrom world import jobs, never\n"
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
            left = sum(alive(event["pid"]) for event in journal(folder))
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


def e6(options: argparse.Namespace) -> str:
    trees = []
    said = []
    for disturbed in (False, True):
        with world(1.0) as folder, two_nodes() as (address, second):
            todo = jobs(folder, options.runs)
            before: list[str] = []

            def kill(folder: Path = folder, second: Callable[[], None] = second, before: list[str] = before) -> None:
                while not (folder / "journal").exists() or len(journal(folder)) < 6:
                    time.sleep(0.1)
                before += [event["run"] for event in journal(folder) if event["event"] == "end"]
                second()

            killer = threading.Thread(target=kill)
            if disturbed:
                killer.start()
            outcomes = list(on_ray(todo, Slots(), never, address=address))
            if disturbed:
                killer.join()
            events = journal(folder)
            starts = len([event for event in events if event["event"] == "start"])
            finished = sum(outcome.fate == "finished" for outcome in outcomes)
            said.append(
                f"{'one node killed after ' + str(len(before)) + ' runs' if disturbed else 'undisturbed'}: "
                f"{finished} of {options.runs} finished, {starts - options.runs} begun twice, "
                f"{restarted(events)} finished ones among them, "
                f"nodes used: {len({event['gpu'] for event in events if event['event'] == 'start'})}"
            )
            found = sorted((folder / "runs").rglob("[!.]*"))
            trees.append({str(path.relative_to(folder)): path.read_bytes() for path in found if path.is_file()})
    return "; ".join([*said, "the same files" if trees[0] == trees[1] else "DIFFERENT files"])


@contextmanager
def two_nodes() -> Iterator[tuple[str, Callable[[], None]]]:
    """A Ray cluster of two raylets with one (imagined) GPU each: its address, and what kills the second at once."""
    os.environ |= QUIET
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "num_gpus": 1, "object_store_memory": 80_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={**small, "env_vars": {"CUDA_VISIBLE_DEVICES": "0"}})
    second = cluster.add_node(**small, env_vars={"CUDA_VISIBLE_DEVICES": "1"})
    try:
        yield cluster.address, lambda: cluster.remove_node(second, allow_graceful=False)
    finally:
        cluster.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", help="E1 to S8; default: E1 to E6")
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rows = {"E1": e1, "E2": e2, "E3": e3, "E4": e4, "E5": e5, "E6": e6}
    for row in options.rows or rows:
        said = {**rows, **SLURM}[row](options)
        Console().print(f"{row}  {said}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
