"""Which run the same command, given again, means to go on with."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from serfit.config.load import load_config, result_fingerprint
from serfit.config.schema import ExperimentConfig
from serfit.errors import UserError
from serfit.runs.directory import CHECKPOINTS, CONFIG, FINISHED, LOCK
from serfit.system.lock import take


def run_to_go_on_with(
    config: ExperimentConfig, directory: Path | None = None, fits: Callable[[Path], bool] = lambda candidate: True
) -> Path | None:
    """The unfinished run of this very experiment, fold and seed; None where a new one must be begun.

    Args:
        config: the experiment. Runs whose configuration can't give another result count as the same.
        directory: the run directory, where the command names one; None looks through experiment.runs_dir. Of several,
            the one that got furthest is taken.
        fits: what else a run directory must fulfil.

    Raises:
        UserError: all such runs are being written by living processes.
    """
    if directory is not None:
        return directory if directory.exists() else None
    busy: list[str] = []
    for candidate in sorted(filter(fits, _unfinished(config)), key=_progress, reverse=True):
        lock = take(candidate / LOCK)
        if isinstance(lock, ExitStack):
            lock.close()
            return candidate
        busy.append(f"{candidate} ({lock})")
    if busy:
        raise UserError(
            f"this is being run at the moment: {', '.join(busy)}; wait for it to end (`serfit train` runs it "
            "a second time without --resume auto)"
        )
    return None


def _unfinished(config: ExperimentConfig) -> list[Path]:
    wanted = result_fingerprint(config)
    found = []
    for path in config.experiment.runs_dir.glob(f"*/{CONFIG}"):
        if (path.parent / FINISHED).exists():
            continue
        try:
            other = load_config(path)
        except UserError:
            continue
        if result_fingerprint(other) == wanted:
            found.append(path.parent)
    return found


def _progress(run: Path) -> tuple[str, str]:
    """Name of the newest checkpoint, then of the run."""
    checkpoints = [path.name for path in (run / CHECKPOINTS).glob("step-*.safetensors")]
    return max(checkpoints, default=""), run.name
