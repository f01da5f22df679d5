"""The verb that puts a model on a page: serve."""

from importlib.util import find_spec
from typing import Annotated

import typer

from serfit.cli.boundary import needs_torch
from serfit.cli.options import Cpu
from serfit.cli.using import Calibrate, Gpu, Precision, asked, load_models, show_notes
from serfit.errors import UserError


@needs_torch
def serve(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL",
            help="A finished run, a folder of runs of one experiment, a bundle, its name on the hub, or an ONNX file; "
            "several make an ensemble.",
        ),
    ],
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 takes a free one.")] = 7860,
    language: Annotated[
        str | None, typer.Option("--language", help="Language of the page: en, zh, de or es; default: the browser's.")
    ] = None,
    window: Annotated[float, typer.Option("--window", help="Length of a window in seconds.")] = 3.0,
    hop: Annotated[float, typer.Option("--hop", help="Seconds from one window to the next.")] = 0.5,
    minutes: Annotated[float, typer.Option("--minutes", help="Longest recording accepted.")] = 5.0,
    megabytes: Annotated[float, typer.Option("--megabytes", help="Largest file accepted.")] = 100.0,
    gpu: Gpu = None,
    cpu: Cpu = False,
    precision: Precision = "fp32",
    calibrate: Calibrate = None,
) -> None:
    """Open a page on which to record or drop speech and see its emotion through time.

    Needs the extra "serve". Nothing is fetched from elsewhere, and recordings are deleted after analysis.

    Example: serfit serve runs/ema_iemocap_finetune_fold1_seed1_20260101-120000
    """
    if find_spec("gradio") is None:
        raise UserError("`serfit serve` needs gradio, which isn't installed: `uv sync --extra serve`")
    from serfit.inference.page.answers import Limits
    from serfit.inference.page.words import spoken
    from serfit.inference.windows import window_samples

    limits = Limits(minutes=minutes, megabytes=megabytes, window=window, hop=hop)
    chosen = None if language is None else spoken(language)
    recogniser = load_models(models, gpu, asked(precision, calibrate))
    window_samples(recogniser, window, hop)
    show_notes(recogniser)
    from serfit.inference.page.server import serve as run

    run(recogniser, host=host, port=port, language=chosen, limits=limits)
