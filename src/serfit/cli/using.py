"""The verbs that use a trained model: predict, evaluate, stream."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from serfit.cli.boundary import forget_output, needs_torch
from serfit.cli.options import Config, Cpu, experiment, new_log
from serfit.errors import UserError, below, counted, visible
from serfit.labels import SAMPLE_RATE

if TYPE_CHECKING:
    from serfit.inference.labelling.labelling import Cutting
    from serfit.inference.labelling.ledger import Target
    from serfit.inference.recogniser import Recogniser

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A finished run, a folder of runs of one experiment (an ensemble), a bundle, its name on the hub, or an "
        "ONNX file.",
    ),
]
Ensemble = Annotated[
    list[str] | None,
    typer.Option("--model", metavar="MODEL", help="A further model; may be repeated: the mean of all counts."),
]
Gpu = Annotated[int | None, typer.Option("--gpu", help="Index among the visible GPUs; default: the first, or the CPU.")]
Precision = Annotated[str, typer.Option("--precision", help="Of the encoder's passes: fp32, bf16 or auto.")]
Calibrate = Annotated[
    str | None, typer.Option("--calibrate", help="affine, isotonic or none; default: as the model was exported.")
]

MOST_TOLD = 20
"""How many recordings that couldn't be used are named on the terminal; the table names all."""


@needs_torch
def predict(
    model: Model,
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH", help="Audio files, folders, quoted globs, or CSV files with a column file."),
    ],
    models: Ensemble = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Labels as .csv or .jsonl; default: CSV on the terminal."),
    ] = None,
    embeddings: Annotated[
        Path | None,
        typer.Option("--embeddings", help="Pooled vectors as .npz or .parquet, a row for each of the labels."),
    ] = None,
    window: Annotated[
        float | None, typer.Option("--window", help="Over time: length of a window in seconds, for example 3.")
    ] = None,
    hop: Annotated[
        float | None, typer.Option("--hop", help="Seconds from one window to the next [0.5, or the window].")
    ] = None,
    segments: Annotated[
        bool, typer.Option("--segments", help="One row per stretch with voice, found by its energy.")
    ] = False,
    picture: Annotated[
        Path | None, typer.Option("--picture", help="Folder for pictures (SVG and PNG) of every recording's curve.")
    ] = None,
    gpu: Gpu = None,
    cpu: Cpu = False,
    precision: Precision = "fp32",
    calibrate: Calibrate = None,
) -> None:
    """Label recordings: values on the corpus's scale and on [0, 1], and the spread of several models.

    Values may lie a little beyond the scale; nothing is clipped.

    Repeat the command after any interruption: it goes on where it stopped. Recordings that can't be used get a row
    with the reason, and exit code 2 at the end.

    Example: serfit predict runs/ema_iemocap_finetune_fold1_seed1_20260101-120000 speech/ --output labels.csv
    """
    from serfit.system.log import Log, Terminal

    cutting = _cutting(window, hop, segments, picture)
    target = _target(output, embeddings)
    options = asked(precision, calibrate)
    from serfit.inference.labelling.inputs import list_items
    from serfit.inference.labelling.run import Request, label_to_file, label_to_lines
    from serfit.inference.source import precision_here

    log = Log(Terminal(stderr=True))
    listing = list_items(paths)
    for note in listing.notes:
        log.say(note)
    names = (model, *(models or []))
    told = options | {"precision": precision_here(cast(Any, precision), gpu)}
    request = Request(names, listing, cutting, told, picture)

    def load() -> "Recogniser":
        return load_models(names, gpu, options)

    if target is not None:
        errors = label_to_file(request, target, load, log)
    else:
        with _unless_closed():
            errors = label_to_lines(request, "csv", load(), _write, log)
    if errors:
        raise UserError(
            f"{counted(len(errors), 'recording')} couldn't be used completely; the column error gives the reason, "
            f"everything else is done:\n{below(errors, MOST_TOLD)}"
        )


@needs_torch
def evaluate(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL... [KEY=VALUE]...",
            help="Finished runs, folders of runs of one experiment, bundles, their names on the hub or ONNX files, of "
            "which the mean is scored; and settings that replace those of the file.",
        ),
    ],
    config: Config = None,
    part: Annotated[
        str, typer.Option("--part", help="What to score: test, validation, train, or all of the corpus.")
    ] = "test",
    fold: Annotated[int | None, typer.Option("--fold", help="Fold to score, from 1 [data.split.fold].")] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Name in tables; default: that of the model, with _evaluated.")
    ] = None,
    gpu: Gpu = None,
    cpu: Cpu = False,
    calibrate: Calibrate = None,
) -> None:
    """Score a trained model on any rated corpus, and write a finished run that compare and report show with others.

    The configuration says on what: of it, the sections data, features and experiment.runs_dir are used. The model's
    scale is mapped to that of the corpus. A model that was trained on speakers or recordings that are to be scored is
    refused. Repeat the command after any interruption: it goes on where it stopped.

    Example: serfit evaluate runs/ema_iemocap_finetune_fold1_seed1_20260101-120000 --config configs/finetune.yaml
    """
    overrides = [given for given in models if "=" in given]
    overrides += [] if fold is None else [f"data.split.fold={fold}"]
    overrides += [] if name is None else [f"experiment.name={name}"]
    named = [given for given in models if "=" not in given]
    _one_of("--part", part, ("test", "validation", "train", "all"))
    asked("fp32", calibrate)
    if not named:
        raise UserError("no model is named; give a run directory, a bundle, its name on the hub or an ONNX file")
    if config is None:
        raise UserError("nothing says what to score; name the configuration of a corpus with --config")
    on = experiment(config, overrides, None, None)
    from serfit.report.compare import write_comparison
    from serfit.training.evaluation import run_evaluation

    directory = run_evaluation(
        on, named, new_log(), part=cast(Any, part), name=name, gpu=gpu, calibrate=cast(Any, calibrate)
    )
    print(f"run directory: {directory}")
    print(f"comparison of all finished runs: {write_comparison(directory.parent)}")


@needs_torch
def stream(
    model: Model,
    models: Ensemble = None,
    rate: Annotated[int, typer.Option("--rate", help="Samples per second that come in.")] = SAMPLE_RATE,
    form: Annotated[
        str, typer.Option("--format", help="s16le: signed 16-bit integers; f32le: 32-bit floats; one channel.")
    ] = "s16le",
    window: Annotated[float, typer.Option("--window", help="Length of a window in seconds.")] = 3.0,
    hop: Annotated[float, typer.Option("--hop", help="Seconds from one window to the next.")] = 0.5,
    microphone: Annotated[
        bool, typer.Option("--microphone", help='Listen to the microphone (extra "microphone") instead of stdin.')
    ] = False,
    gpu: Gpu = None,
    cpu: Cpu = False,
    precision: Precision = "fp32",
    calibrate: Calibrate = None,
) -> None:
    """Follow emotion in live speech: raw samples on standard input, a CSV line per hop with its latency.

    Values may lie a little beyond the scale; nothing is clipped.

    Example: serfit stream runs/ema_iemocap_finetune_fold1_seed1_20260101-120000 --hop 1 < speech.raw
    """
    _one_of("--format", form, ("s16le", "f32le"))
    options = asked(precision, calibrate)
    if not microphone and (sys.stdin is None or sys.stdin.isatty()):
        raise UserError(
            "nothing is piped into `serfit stream`; pipe raw samples into it, for example from ffmpeg, or use "
            "--microphone"
        )
    from serfit.inference import stream as streams
    from serfit.inference.windows import window_samples

    recogniser = load_models((model, *(models or [])), gpu, options)
    window_samples(recogniser, window, hop)
    encoding = cast(streams.Encoding, form)
    read = streams.microphone(rate, encoding) if microphone else streams.pipe(sys.stdin.buffer)
    samples = streams.Samples(read, rate, encoding)
    names = recogniser.dimensions
    spreads = [f"{name}_spread" for name in names] if recogniser.members > 1 else []
    lines, slow = 0, 0
    show_notes(recogniser)
    with _unless_closed():
        _write(",".join(["start", "end", *names, *spreads, "latency_ms"]) + "\n")
        for heard in streams.listen(recogniser, samples, window=window, hop=hop):
            emotion = heard.emotion
            cells = [emotion.start, emotion.end, *emotion.values.values(), *emotion.spread.values()]
            told = [*(f"{cell:.6f}" for cell in cells), f"{1000 * heard.latency:.1f}"]
            _write(",".join(told) + "\n")
            lines += 1
            slow = slow + 1 if heard.seconds > hop else 0
            if slow == 5:
                print(
                    f"warning: a window takes {heard.seconds:.2f} s and one begins every {hop:g} s, so live audio is "
                    f"analysed later and later; take a longer --hop, for example {2 * heard.seconds:.1f}",
                    file=sys.stderr,
                )
    if samples.odd:
        print(f"warning: the audio ended within a sample; {samples.odd} bytes weren't used", file=sys.stderr)
    if not lines:
        raise UserError("no audio came in; pipe raw samples into `serfit stream`")


def _cutting(window: float | None, hop: float | None, segments: bool, picture: Path | None) -> "Cutting":
    from serfit.inference.labelling.labelling import Voiced, Whole, Windows
    from serfit.inference.windows import HOP

    if segments and (window is not None or hop is not None):
        raise UserError("--segments and --window both say how recordings are cut; give one of them")
    if hop is not None and window is None:
        raise UserError("--hop sets how far windows are apart; give --window too, for example --window 3")
    if picture is not None and window is None:
        raise UserError("--picture draws emotion through time; give --window too, for example --window 3")
    if window is not None:
        return Windows(window, min(HOP, window) if hop is None else hop)
    return Voiced() if segments else Whole()


def _target(output: Path | None, embeddings: Path | None) -> "Target | None":
    from serfit.inference.labelling.ledger import Target
    from serfit.inference.labelling.vectors import form_of

    if embeddings is not None:
        form_of(embeddings)
    if embeddings is not None and output is None:
        raise UserError("--embeddings needs the labels that its rows belong to: give --output labels.csv too")
    if output is None:
        return None
    match output.suffix.lower():
        case ".csv":
            return Target(output, "csv", embeddings)
        case ".jsonl":
            return Target(output, "jsonl", embeddings)
    raise UserError(f"--output is {output}; its name must end in .csv or .jsonl, which sets the format")


def asked(precision: str, calibrate: str | None) -> dict[str, str]:
    """The keywords of `serfit.load`. Raises UserError for words that it doesn't know."""
    _one_of("--precision", precision, ("fp32", "bf16", "auto"))
    if calibrate is not None:
        _one_of("--calibrate", calibrate, ("affine", "isotonic", "none"))
    return {"precision": precision} | ({} if calibrate is None else {"calibrate": calibrate})


def _one_of(option: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise UserError(f"{option} is {value}; it must be {', '.join(allowed[:-1])} or {allowed[-1]}")


def load_models(names: Sequence[str], gpu: int | None, options: dict[str, str]) -> "Recogniser":
    """Open models with what `asked` gave."""
    import serfit

    return serfit.load(*names, gpu=gpu, **cast(Any, options))


def show_notes(recogniser: "Recogniser") -> None:
    """Print what there is to say about models, beside the output proper."""
    for note in recogniser.notes:
        print(note, file=sys.stderr, flush=True)


def _write(line: str) -> None:
    """Write a line of a table: its bytes as they are, but on a terminal nothing that it would obey."""
    from serfit.inference.labelling.table import encoded

    if sys.stdout.isatty():
        shown = visible(line.removesuffix("\n")).replace("\n", "\\n")
        data = f"{shown}\n".encode(errors="backslashreplace")
    else:
        data = encoded(line)
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        forget_output()
        raise UserError(f"the output can't be written any further: {error.strerror or error}; make room") from error


@contextmanager
def _unless_closed() -> Iterator[None]:
    """Stop quietly when nobody reads the output any more."""
    try:
        yield
    except BrokenPipeError:
        forget_output()
        raise typer.Exit from None
