"""What the rows share: tallies, a tiny experiment, and children that are forked from this process and killed."""

import io
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from rich.console import Console  # noqa: E402

from serfit.config.schema import ExperimentConfig  # noqa: E402
from serfit.errors import NumericalError, UserError  # noqa: E402
from serfit.runs import directory as runs  # noqa: E402
from serfit.system.interrupt import Interrupted  # noqa: E402
from serfit.system.log import Log  # noqa: E402
from serfit.training.experiment import run_experiment  # noqa: E402
from serfit.training.ranks import Ranks, _joined, take_part  # noqa: E402
from support import settings, small_release  # noqa: E402

RESULTS = (
    runs.METRICS,
    runs.PREDICTIONS,
    runs.SCORES,
    runs.BEST_RESULT,
    runs.BEST_WEIGHTS,
    runs.BEST_VALENCE_WEIGHTS,
    runs.VALIDATION,
    runs.CALIBRATION,
)

EVERYTHING: dict[str, Any] = {
    "model__params__freeze_cnn": False,
    "model__params__encoder_dropout": 0.2,
    "data__loader__crop_seconds": 0.2,
    "data__augmentation": {"gain_db": 3, "noise_snr_db": [5, 20], "mixup_alpha": 0.3, "time_mask_share": 0.2},
}
"""Dropout, all augmentations and random crops."""


@dataclass
class Timer:
    """How many cases of a row passed, and what the others did.

    Attributes:
        row: its id.
        passed: cases that did what is claimed.
        failures: one line for each that didn't.
        notes: figures worth printing.
    """

    row: str
    passed: int = 0
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def case(self, name: str, held: bool, why: str = "") -> None:
        """Count one case."""
        if held:
            self.passed += 1
        else:
            self.failures.append(f"{name}: {why}" if why else name)

    @property
    def total(self) -> int:
        """Cases tried."""
        return self.passed + len(self.failures)


@dataclass
class Place:
    """A scratch folder with a tiny IEMOCAP release, and draws that the seed decides."""

    seed: int
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="serfit-reliability-")))

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.release = small_release(self.folder / "iemocap")
        self._fresh = 0

    def fresh(self, name: str = "d") -> Path:
        """A new empty folder."""
        self._fresh += 1
        made = self.folder / f"{name}{self._fresh}"
        made.mkdir()
        return made

    def config(self, folder: Path, **changes: Any) -> ExperimentConfig:
        """The tiny experiment."""
        return ExperimentConfig.model_validate(settings(self.release, folder, **changes))

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


def quiet() -> Log:
    """A log that says nothing on the terminal."""
    return Log(Console(file=io.StringIO()))


def contents(directory: Path) -> dict[str, bytes]:
    """The bytes of a run's results."""
    return {name: (directory / name).read_bytes() for name in RESULTS if (directory / name).exists()}


def forked(work: Callable[[], object], errors: Path | None = None) -> int:
    """Fork a child that does some work and leaves; returns its process id.

    Exit codes: 0 done, 2 UserError, 3 NumericalError, 75 Interrupted, 1 anything else.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        torch.set_num_threads(1)
        if errors is not None:
            descriptor = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
        work()
        code = 0
    except (UserError, NumericalError, Interrupted) as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        code = error.exit_code
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(child: int, seconds: float = 1800.0) -> int:
    """Wait for a child; its exit code, minus the signal that killed it, or 124 when it had to be killed for time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return 124


def train(
    config: ExperimentConfig,
    directory: Path,
    *,
    resume: bool,
    before: Callable[[int], None] = lambda rank: None,
    ranks: int = 1,
    errors: Path | None = None,
    seconds: float = 120.0,
    during: Callable[[Sequence[int]], None] = lambda children: None,
) -> list[int]:
    """Run or resume an experiment in forked children, one per rank; returns their exit codes.

    Args:
        config: the experiment.
        directory: its run directory.
        resume: whether to go on.
        before: called with the rank in each child before it begins, to set traps.
        ranks: 1, or several that compute one run over gloo.
        errors: file for what the children print.
        seconds: after which a child is killed and counts as hanging.
        during: called in this process with the children's ids once they have started.
    """
    meeting = directory.parent / f".meeting-{directory.name}-{time.monotonic_ns()}"

    def work(rank: int) -> None:
        before(rank)
        program = partial(run_experiment, config, directory=directory, resume=resume)
        if ranks == 1:
            program(quiet())
            return
        us = Ranks(rank, ranks)
        with _joined(us, f"file://{meeting}"):
            take_part(program, quiet(), None, us)

    children = [forked(lambda rank=rank: work(rank), errors) for rank in range(ranks)]
    during(children)
    codes = [ended(child, seconds) for child in children]
    meeting.unlink(missing_ok=True)
    return codes
