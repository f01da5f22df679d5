"""Finished runs beside each other: what `serfit compare` shows and the files experiment_comparison.* hold."""

from collections.abc import Sequence
from pathlib import Path

from serfit.errors import UserError
from serfit.report.comparison import Comparison, look_into
from serfit.report.evidence import weigh
from serfit.report.exports import to_csv, to_latex
from serfit.report.tables import console_table, to_markdown
from serfit.runs.directory import CONFIG
from serfit.runs.experiments import disagreements, gather
from serfit.runs.finished import FinishedRun, finished_directories, read_run
from serfit.system.files import write_text

__all__ = [
    "COMPARISON",
    "COMPARISON_CSV",
    "COMPARISON_LATEX",
    "Comparison",
    "chosen_directories",
    "compare",
    "console_table",
    "read_run",
    "to_csv",
    "to_latex",
    "to_markdown",
    "write_comparison",
]

COMPARISON = "experiment_comparison.md"
"""Name of the comparison in the folder of run directories."""

COMPARISON_CSV = "experiment_comparison.csv"
"""Every number of it, one per row."""

COMPARISON_LATEX = "experiment_comparison.tex"
"""Its results and differences as LaTeX tables."""


def chosen_directories(paths: Sequence[Path]) -> list[Path]:
    """Run directories from a mixture of run directories and folders of them, each once, by name.

    A folder stands for the finished runs in it.

    Raises:
        UserError: a path is neither.
    """
    found: list[Path] = []
    for path in paths:
        found += [path] if (path / CONFIG).is_file() else finished_directories(path)
    return sorted(dict.fromkeys(found), key=lambda directory: (directory.name, str(directory)))


def compare(runs: Path | Sequence[Path]) -> Comparison:
    """Gather finished runs into experiments and weigh the evidence.

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
    evidence = weigh(experiments)
    said = (*warnings, *remarks, *disagreements(experiments), *evidence.remarks)
    details = {result.label: look_into(result) for result in experiments}
    return Comparison(tuple(directories), experiments, evidence, details, said)


def write_comparison(runs_dir: Path, comparison: Comparison | None = None) -> Path:
    """Rewrite experiment_comparison.md, .csv and .tex from all finished runs of a folder, each atomically.

    The content depends on nothing but the finished runs. Processes that finish together may all write: each looks
    again after writing, so whoever writes last has seen every run that was finished by then.

    Args:
        runs_dir: the folder of run directories.
        comparison: what `compare` made of that very folder, where that is at hand; it isn't computed again unless
            another run has finished since.

    Returns:
        The path of the Markdown file.

    Raises:
        UserError: there is no such folder, or it can't be written.
    """
    comparison = comparison or compare(runs_dir)
    while True:
        write_text(runs_dir / COMPARISON_CSV, to_csv(comparison))
        write_text(runs_dir / COMPARISON_LATEX, to_latex(comparison))
        write_text(runs_dir / COMPARISON, to_markdown(comparison))
        if set(comparison.directories) == set(finished_directories(runs_dir)):
            return runs_dir / COMPARISON
        comparison = compare(runs_dir)
