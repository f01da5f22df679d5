"""The command line. Verbs parse, call one function of the package and turn its errors into exit codes.

Exit codes: 0 done, 2 something the user can put right, 3 a number wasn't finite, 75 stopped on request and resumable.
A mistake of serfit's own ends in a traceback and exit code 1.
Nothing heavy is imported before a verb runs.
"""

import io
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Annotated, NoReturn

import typer

from serfit import __version__
from serfit.cli import cache, importing, publishing, reading, serving, training, using, watching
from serfit.cli.boundary import lasting_output, system_trouble
from serfit.cli.wording import USAGE_ERROR, help_text, usage_words
from serfit.errors import NumericalError, UserError, visible
from serfit.system.interrupt import Interrupted

app = typer.Typer(
    name="serfit",
    help="Fine-tune speech encoders for valence, arousal and dominance, with numbers one can trust.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
INTERRUPTED = 130
"""Exit code after Ctrl-C where nothing was to be saved."""

VERBS: tuple[tuple[Callable[..., None], str], ...] = (
    (training.train, "Train, test and record one fold of one experiment."),
    (training.cv, "Run folds and seeds of experiments, and compare them."),
    (training.check, "Check settings, labels and all audio before training."),
    (watching.watch, "Show the progress of runs, and problems with a remedy."),
    (using.predict, "Label recordings, whole or over time."),
    (using.evaluate, "Score a trained model on any rated corpus."),
    (using.stream, "Label speech from standard input as it arrives."),
    (importing.import_, "Make a bundle of a public model."),
    (publishing.export, "Write a model as ONNX, bundle or folder for the hub."),
    (publishing.calibration, "Show what calibration changes."),
    (reading.compare, "Compare finished runs, with intervals and tests."),
    (reading.report, "Write one HTML page about finished runs."),
    (reading.verdict, "Compare an IEMOCAP run with a published result."),
    (training.baseline, "Score hand-made features with ridge regression."),
    (training.probe, "Score every layer of frozen encoders in a minute."),
    (training.demo, "Try everything on synthetic speech, offline."),
    (training.doctor, "Show device, memory and versions."),
    (serving.serve, "Serve a page to try a model in the browser."),
)
"""The verbs with the summaries that `serfit --help` shows."""

for verb, summary in VERBS:
    app.command(help=help_text(verb), short_help=summary)(verb)
app.add_typer(cache.app, name="cache")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave the process with the exit code that fits."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that can't show a sign gets "?", and no traceback
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if sys.flags.optimize > 1:
            raise UserError("PYTHONOPTIMIZE=2 (python -OO) removes texts that transformers needs; unset it")
        for argument in given:
            _check(argument)
        with lasting_output():
            code = app(args=given, prog_name="serfit", standalone_mode=False)
            if code == INTERRUPTED:  # by typer, which is silent about it
                raise KeyboardInterrupt
            sys.exit(code)
    except (UserError, NumericalError, Interrupted) as error:
        _leave("stopped" if isinstance(error, Interrupted) else "error", str(error), error.exit_code)
    except USAGE_ERROR as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()
            sys.exit(UserError.exit_code)
        _leave("error", usage_words(error), UserError.exit_code)
    except (KeyboardInterrupt, typer.Abort) as error:
        if isinstance(error.__context__, EOFError):
            raise error.__context__ from None
        _leave("stopped", "by Ctrl-C", INTERRUPTED)
    except (OSError, MemoryError, RuntimeError, ImportError) as error:
        trouble = system_trouble(error)
        if trouble is None:
            raise
        _leave("error", trouble, UserError.exit_code)


def _check(argument: str) -> None:
    """Raise UserError for an argument that no command means; an empty path would be the current folder."""
    if "\0" in argument:
        raise UserError(f"the argument {argument!r} holds a NUL character, which no path can; remove it")
    if not argument.strip() or (argument.startswith("--") and argument.endswith("=")):
        raise UserError(
            f"the argument {argument or repr(argument)} is empty; give a value (a variable of the shell may not be set)"
        )


def _leave(kind: str, words: str, code: int) -> NoReturn:
    with suppress(OSError):  # the terminal may be gone
        print(f"{kind}: {visible(words)}", file=sys.stderr)
    sys.exit(code)


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    """Fine-tune speech encoders for valence, arousal and dominance, with numbers one can trust."""
    if version:
        print(__version__)
        raise typer.Exit
