"""R1 and R9: kills and signals at any moment, then the same bytes."""

import itertools
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from common import EVERYTHING, Place, Timer, contents, train

from serfit.runs import directory as runs
from serfit.training import progress as story

STEPS = {"data__loader__batch_size": 2, "train__accumulation_steps": 1}
"""Twelve optimisation batches of two utterances: a run of two epochs takes 24 steps."""


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_after_call(name: str, count: int) -> Callable[[int], None]:
    """A trap: SIGKILL right after the `count`-th call of a function of the writer of progress."""

    def set_trap(rank: int) -> None:
        if rank != 0:
            return
        real = getattr(story, name)
        calls = 0

        def counted(*arguments: Any, **named: Any) -> Any:
            nonlocal calls
            result = real(*arguments, **named)
            calls += 1
            if calls == count:
                _die()
            return result

        setattr(story, name, counted)

    return set_trap


def identical_after_kills(index: Place, timer: Timer, name: str, plan: Sequence[Any], **how: Any) -> None:
    """Run once without kills, then with each kill of a plan, and compare the bytes.

    A plan holds traps, or seconds after which to kill; a kill counts where it happened.
    """
    ranks = how.pop("ranks", 1)
    changes = {**EVERYTHING, **STEPS, "train__checkpoint_minutes": 0, **how}
    folder = index.fresh("resume")
    config = index.config(folder, **changes)
    whole, cut, errors = folder / "runs" / "whole", folder / "runs" / "cut", folder / "errors"
    (folder / "runs").mkdir()
    codes = train(config, whole, resume=False, ranks=ranks, errors=errors)
    if codes != [0] * ranks:
        timer.case(name, False, f"the run without kills ended with {codes}: {errors.read_text()[-400:]}")
        return
    kills = 0
    for kill in plan:
        timed = isinstance(kill, float)

        def strike(children: Sequence[int], after: float = kill if timed else 0.0) -> None:
            if after:
                time.sleep(after)
                try:
                    os.kill(children[0], signal.SIGKILL)
                except ProcessLookupError:
                    return

        resume = (cut / runs.CONFIG).exists()
        before = (lambda rank: None) if timed else kill
        codes = train(config, cut, resume=resume, ranks=ranks, errors=errors, before=before, during=strike)
        if codes[0] == -signal.SIGKILL:
            kills += 1
        elif codes == [0] * ranks:
            break
        elif codes[0] != 2 or (cut / runs.CONFIG).exists():
            timer.case(name, False, f"after a kill the run ended with {codes}: {errors.read_text()[-600:]}")
            return
        if cut.exists() and not (cut / runs.CONFIG).exists():
            cut.rmdir()  # killed before it was a run directory at all
    if not (cut / runs.FINISHED).exists():
        codes = train(config, cut, resume=(cut / runs.CONFIG).exists(), ranks=ranks, errors=errors)
    first, second = contents(whole), contents(cut)
    same = first == second
    differing = [file for file in first if first[file] != second.get(file)]
    for number in range(kills):
        timer.case(f"{name}, kill {number + 1}", same, f"{differing} differ, {codes}: {errors.read_text()[-400:]}")


def r1(index: Place, scale: int) -> Timer:
    """Kills after every step of a 24-step run, and at random moments, in all combinations of the table."""
    timer = Timer("R1")
    began = time.monotonic()
    identical_after_kills(index, timer, "after every step", [die_after_call("save_if_possible", 1)] * 26)
    timer.notes.append(f"a kill after every one of 24 steps and two epochs took {time.monotonic() - began:.0f} s")
    grid = [(workers, precision, 1) for workers in (0, 2) for precision in ("fp32", "bf16")]
    grid += [(0, "fp32", 2), (2, "bf16", 2)] if scale == 1 else [(w, p, 2) for w in (0, 2) for p in ("fp32", "bf16")]
    for (workers, precision, ranks), again in itertools.product(grid, range(scale)):
        draw = random.Random(f"{index.seed} {workers} {precision} {ranks} {again}")
        plan: list[Any] = [die_after_call("show_step", draw.randint(2, 9)), die_after_call("save_if_possible", 3)]
        plan += [die_after_call("save_best", 1)]
        if scale > 1:
            plan += [draw.uniform(0.2, 2.0), die_after_call("show_step", 2), draw.uniform(0.1, 0.8)]
            plan += [die_after_call("show_step", draw.randint(1, 4)), die_after_call("show_step", 1)]
        identical_after_kills(
            index,
            timer,
            f"{workers} workers, {precision}, {ranks} ranks",
            plan,
            ranks=ranks,
            data__loader__workers=workers,
            train__precision=precision,
        )
    return timer


def r9(index: Place, scale: int) -> Timer:
    """Stop signals at random moments: saved, exit code 75, the same bytes afterwards."""
    timer = Timer("R9")
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
    draw = random.Random(f"{index.seed} signals")
    slowest, late = 0.0, 0
    for case in range(8 if scale == 1 else 88):
        number, ranks = numbers[case % 4], 2 if case % 8 == 7 else 1
        folder = index.fresh("signal")
        (folder / "runs").mkdir()
        config = index.config(folder, **EVERYTHING, **STEPS, train__checkpoint_minutes=1000, train__epochs=6)
        errors, whole, cut = folder / "errors", folder / "runs" / "whole", folder / "runs" / "cut"
        took = 0.0
        sent = [False]

        def strike(
            children: Sequence[int],
            cut: Path = cut,
            number: signal.Signals = number,
            pause: float = draw.uniform(0.0, 0.6),
            target: int = ranks - 1,
            sent: list[bool] = sent,
        ) -> None:
            nonlocal took
            until = time.monotonic() + 600
            while not (cut / runs.ENVIRONMENT).exists() and time.monotonic() < until:
                time.sleep(0.01)
            time.sleep(pause + (0.5 if target else 0.0))
            began = time.monotonic()
            os.kill(children[target], number)
            sent[0] = True
            while not _gone(children[0]) and time.monotonic() < began + 600:
                time.sleep(0.01)
            took = time.monotonic() - began

        codes = train(config, cut, resume=False, ranks=ranks, errors=errors, during=strike)
        slowest = max(slowest, took)
        name = f"{number.name}, {ranks} ranks"
        if codes[0] == 0 and (cut / runs.FINISHED).exists():  # it came too late
            late += 1
            continue
        held = codes[0] == 75
        train(config, cut, resume=True, ranks=ranks, errors=errors)
        train(config, whole, resume=False, ranks=ranks, errors=errors)
        same = contents(whole) == contents(cut) != {}
        timer.case(name, held and same, f"codes {codes}, {took:.1f} s, same {same}: {errors.read_text()[-300:]}")
    if late:
        timer.notes.append(f"{late} signals came when the run was finished, and don't count")
    timer.notes.append(f"slowest from signal to exit: {slowest:.2f} s")
    return timer


def _gone(child: int) -> bool:
    """Whether a child has ended (and waits to be asked for its exit code)."""
    with open(f"/proc/{child}/stat") as about:
        return about.read().rsplit(")", 1)[1].split()[0] == "Z"
