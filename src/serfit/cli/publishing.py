"""The verbs that pass a model on: export, calibration."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serfit.cli.boundary import needs_torch
from serfit.errors import UserError, counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serfit.inference.bundle import Member
    from serfit.scores.calibration import Kind

FORMATS = ("onnx", "bundle", "hub-folder")

Models = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN...",
        help="A finished run, several of them, or a folder of runs of one experiment (an ensemble, which predicts the "
        "mean); or a bundle or its name on the hub; the model card of a bundle holds what is recorded in it.",
    ),
]


@needs_torch
def export(
    models: Models,
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help="onnx, bundle or hub-folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A file that ends with .onnx, or a new folder.")],
    calibrate: Annotated[
        str | None, typer.Option("--calibrate", help="Put a calibration inside: affine or isotonic. [none]")
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="To onnx: also write NAME.int8.onnx, with its measured difference.")
    ] = False,
) -> None:
    """Write a trained model as something that works without encoder, corpus or run. Nothing is overwritten.

    onnx: one file, waveform in, values out, held against the network before it is left behind, and a YAML file about
    it. bundle: a folder for serfit.load. hub-folder: a bundle with a model card written from the runs' records.

    Example: serfit export runs/ema_iemocap_finetune_fold1_seed1_20260101-120000 --to bundle --output mine
    """
    if to not in FORMATS:
        raise UserError(f"--to is {to}, and a model goes to {', '.join(FORMATS)}; choose one of these")
    if int8 and to != "onnx":
        raise UserError(
            f"--int8 makes an ONNX file smaller and means nothing to a {to}; leave it out, or use --to onnx"
        )
    if to == "onnx":
        _to_onnx(models, output, calibrate, int8)
        return
    from serfit.inference.bundle import write_bundle
    from serfit.inference.publish.hub import write_hub_folder

    members, applied = _members(models, calibrate)
    if to == "bundle":
        write_bundle(output, members)
    else:
        write_hub_folder(output, [Path(model).expanduser() for model in models], members, applied)
    card = ", with the model card README.md" if to == "hub-folder" else ""
    print(f"written: {output}, {_count(len(members))}{card}")


def calibration(
    runs: Annotated[list[Path], typer.Argument(help="Finished runs, or folders of them; folds count together.")],
) -> None:
    """Show what calibration changes: scores before and after, on the validation part and on the test part.

    For several folds their test parts together. Nothing is written; `serfit predict --calibrate` and
    `serfit export --calibrate` use the maps.

    Example: serfit calibration runs/ema_iemocap_finetune_fold1_seed1_20260101-120000
    """
    from serfit.config.load import load_config
    from serfit.corpus.load import rating_scales
    from serfit.report.compare import chosen_directories, read_run
    from serfit.report.coverage import examine, interval_rows, score_rows, sentences, spread_rows
    from serfit.runs.directory import CONFIG
    from serfit.runs.experiments import gather, ranges
    from serfit.system.log import Terminal

    found = [read_run(directory) for directory in chosen_directories(runs)]
    fitted = [run for run in found if run.environment.evaluation is None]
    experiments, remarks = gather(fitted)
    if not experiments:
        but = f"; it holds {counted(len(found), 'evaluation')}, and nothing was fitted there" if found else ""
        raise UserError(f"there is no finished run in {runs[0]}{but}; name a run directory, or a folder of them")
    console = Terminal()
    for result in experiments:
        scales = rating_scales(load_config(result.runs[0].directory / CONFIG).data)
        findings = examine(result.runs, scales)
        count = sum(len(run.predictions.ids) for run in result.runs)
        tested = counted(count, "test prediction")
        console.print(f"{result.label}: {ranges('fold', result.folds)}, {tested}", markup=False)
        for table in (score_rows(findings), interval_rows(findings), spread_rows(findings)):
            if table is not None:
                console.print(_shown(table.header, table.rows, table.left))
        for sentence in (*sentences(findings), *remarks):
            console.print(f"- {sentence}", markup=False, highlight=False, soft_wrap=True)


def _to_onnx(models: "Sequence[str]", output: Path, calibrate: str | None, int8: bool) -> None:
    from serfit.inference.calibrated import chosen
    from serfit.inference.publish.export import check_onnx_target, onnx_paths, write_onnx
    from serfit.inference.publish.heldout import heldout_speech

    check_onnx_target(output, onnx_paths(output, int8))
    members, _ = _members(models, calibrate)
    maps = [chosen(one.calibration, None, one.about.dimensions, one.about.name) for one in members]
    print(f"tracing {_count(len(members))}; large encoders take minutes", flush=True)
    speech = heldout_speech(models, max(one.about.shortest for one in members))
    for one in write_onnx(members, maps, output, int8=int8, speech=speech):
        values = ", ".join(f"{name} {value:.2g}" for name, value in one.values.items())
        path = output.with_name(one.file)
        size = path.stat().st_size / 1e6
        print(
            f"written: {path} ({one.precision}, {size:.1f} MB); greatest difference to torch, on {one.measured_on}: "
            f"{values}"
        )
    print(f"written: {output.with_suffix('.yaml')}")


def _members(models: "Sequence[str]", calibrate: str | None) -> "tuple[list[Member], Kind | None]":
    """The networks named, with the calibration that is to be applied, and which one that is."""
    from serfit.inference.source import calibrated_members
    from serfit.scores.calibration import KINDS

    if calibrate not in (None, "none", *KINDS):
        raise UserError(f"--calibrate is {calibrate}, and there is {', '.join(KINDS)} and none; choose one of these")
    return calibrated_members(models, calibrate)  # type: ignore[arg-type]


def _count(members: int) -> str:
    return "one network" if members == 1 else f"{members} networks"


def _shown(header: "Sequence[str]", rows: "Sequence[Sequence[str]]", left: int) -> object:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for index, title in enumerate(header):
        table.add_column(title, justify="left" if index < left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table
