"""The verbs that read finished runs: compare, report, verdict."""

from pathlib import Path
from typing import Annotated

import typer


def compare(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Folders of run directories, or run directories; default: runs.")
    ] = None,
) -> None:
    """Compare finished runs: scores with intervals, and tests of which experiment is better.

    For one folder also rewrites experiment_comparison.md, .csv and .tex in it.

    Example: serfit compare runs
    """
    from serfit.report.answers import answers, one_axis_line
    from serfit.report.compare import chosen_directories, console_table, write_comparison
    from serfit.report.compare import compare as compare_runs
    from serfit.report.comparison import check_any
    from serfit.system.log import Terminal

    paths = runs or [Path("runs")]
    comparison = compare_runs(chosen_directories(paths))
    check_any(comparison)
    console = Terminal()
    console.print(console_table(comparison))
    flat = one_axis_line({label: details.together for label, details in comparison.details.items()})
    for line in [*answers(comparison.evidence.pairs), *([flat] if flat else [])]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if len(paths) == 1 and not (paths[0] / "config.json").is_file():
        print(f"written: {write_comparison(paths[0], comparison)}, with .csv and .tex next to it")


def report(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Folders of run directories, or run directories; default: runs.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The page; default: report.html in the (first) folder.")
    ] = None,
    players: Annotated[
        bool,
        typer.Option(
            "--players", help="Embed short clips of the worst utterances; mind the corpus's licence before sharing."
        ),
    ] = False,
    each: Annotated[bool, typer.Option("--each", help="Write a page for each experiment as well.")] = False,
) -> None:
    """Write one self-contained HTML page about finished runs: answers, curves, errors, costs, settings, protocol.

    Example: serfit report runs
    """
    from serfit.report.compare import chosen_directories
    from serfit.report.compare import compare as compare_runs
    from serfit.report.page import write_each, write_report

    paths = runs or [Path("runs")]
    folder = paths[0].parent if (paths[0] / "config.json").is_file() else paths[0]
    comparison = compare_runs(chosen_directories(paths))
    page = write_report(comparison, output or folder / "report.html", players=players)
    print(f"written: {page}")
    if each:
        for written in write_each(comparison, page, players=players):
            print(f"written: {written}")


def verdict(run: Annotated[Path, typer.Argument(help="A finished run directory.")]) -> None:
    """Compare a finished IEMOCAP run with a published result.

    Also says what to do next.

    Example: serfit verdict runs/ema_iemocap_finetune_fold1_seed1_20260101-120000
    """
    from serfit.report.compare import read_run
    from serfit.report.diagnosis.diagnose import next_step
    from serfit.runs.live import Reader
    from serfit.scores.reference import FROZEN
    from serfit.scores.reference import verdict as say

    finished = read_run(run)
    print(say(finished.scores.test, corpus=finished.corpus, utterances=finished.utterances))
    if finished.corpus == FROZEN.corpus:
        for history in Reader().read([run]):
            print(next_step(history, finished.scores.test.ccc("valence")))
