"""The reliability of runs, one command per row: `uv run python benchmarks/reliability/run.py R1 --long`.

Rows without arguments: all of them. Every case is drawn from the seed. Exit code 1 when a case failed.
"""

import argparse
import os
import platform
import sys
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import torch
from checkpoints import r2, r3, r4, r5
from common import Place, quiet, run_experiment
from gradients import r6, r7, r8
from inputs import r12
from resuming import r1, r9
from stores import r13

ROWS = {
    "R1": r1,
    "R2": r2,
    "R3": r3,
    "R4": r4,
    "R5": r5,
    "R6": r6,
    "R7": r7,
    "R8": r8,
    "R9": r9,
    "R12": r12,
    "R13": r13,
}
CLAIMS = {
    "R1": "identical bytes after SIGKILL",
    "R2": "the newest whole checkpoint always loads",
    "R3": "disk full: what was there is untouched, path and bytes are named",
    "R4": "bit flips and truncation are detected",
    "R5": "hostile files are refused, nothing is executed",
    "R6": "the gradient is that of the whole batch",
    "R7": "out-of-memory changes nothing but the plan",
    "R8": "numbers that aren't finite never reach weights or best",
    "R9": "signals: saved, exit code 75, identical resume",
    "R12": "malformed inputs: a result, or one sentence with exit code 2",
    "R13": "the store under concurrent writers, readers and kills",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; none means all")
    tier = parser.add_mutually_exclusive_group()
    tier.add_argument("--short", action="store_true", help="the counts of the short tier (the default)")
    tier.add_argument("--long", action="store_true", help="five to ten times as many cases")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(1)
    warm = Place(given.seed)
    run_experiment(warm.config(warm.folder, train__epochs=1), quiet())  # children are forked with everything imported
    warm.close()
    failed = 0
    began = time.monotonic()
    print(f"{platform.machine()}, {os.cpu_count()} CPU cores, torch {torch.__version__}, seed {given.seed}", flush=True)
    for row in given.rows or ROWS:
        index = Place(given.seed)
        started = time.monotonic()
        try:
            timer = ROWS[row.upper()](index, 5 if given.long else 1)
        finally:
            index.close()
        failed += len(timer.failures)
        seconds = time.monotonic() - started
        print(f"{row:<4} {timer.passed:>6} of {timer.total:<6} {CLAIMS[row.upper()]} ({seconds:.0f} s)", flush=True)
        for line in (*timer.notes, *(f"FAILED {failure}" for failure in timer.failures)):
            print(f"       {line}", flush=True)
    print(f"{time.monotonic() - began:.0f} s in all, load {os.getloadavg()[0]:.1f}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
