"""All finished runs of a folder beside each other: what `serfit compare` shows and experiment_comparison.md holds."""

from collections.abc import Sequence
from pathlib import Path

from serfit.errors import UserError
from serfit.files import write_text
from serfit.report.experiments import Comparison, disagreements, gather
from serfit.report.finished import FinishedRun, finished_directories, read_run
from serfit.report.tables import console_table, to_markdown

__all__ = ["COMPARISON", "Comparison", "compare", "console_table", "read_run", "to_markdown", "write_comparison"]

COMPARISON = "experiment_comparison.md"
"""Name of the comparison in the folder of run directories."""


def compare(runs: Path | Sequence[Path]) -> Comparison:
    """Gather finished runs into experiments.

    Args:
        runs: the folder of run directories, in which unfinished ones are passed over without a word, or a list of run
            directories. A directory that can't be read is left out with a warning, and never stops the others.

    Raises:
        UserError: there is no such folder.
    """
    directories = finished_directories(runs) if isinstance(runs, Path) else runs
    read: list[FinishedRun] = []
    warnings: list[str] = []
    for directory in directories:
        try:
            read.append(read_run(directory))
        except UserError as error:
            warnings.append(f"left out: {error}")
    experiments, remarks = gather(read)
    return Comparison(experiments, (*warnings, *remarks, *disagreements(experiments)))


def write_comparison(runs_dir: Path) -> Path:
    """Rewrite experiment_comparison.md from all finished runs of a folder, atomically, and return its path.

    The content depends on nothing but the finished runs. Processes that finish together may all write: each looks
    again after writing, so whoever writes last has seen every run that was finished by then.

    Raises:
        UserError: there is no such folder, or it can't be written.
    """
    path = runs_dir / COMPARISON
    finished = finished_directories(runs_dir)
    while True:
        write_text(path, to_markdown(compare(runs_dir)))
        before, finished = finished, finished_directories(runs_dir)
        if finished == before:
            return path
