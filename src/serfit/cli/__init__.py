"""The command line. Verbs parse, call one function of the package and turn its errors into exit codes.

Exit codes: 0 done, 2 something the user can put right, 3 a number wasn't finite, 75 stopped on request and resumable.
A mistake of serfit's own ends in a traceback and exit code 1.
Nothing heavy is imported before a verb runs.
"""

import io
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, NoReturn

import typer

from serfit import __version__
from serfit.cli import cache, publishing, reading, serving, training, using, watching
from serfit.cli.boundary import lasting_output, system_trouble
from serfit.errors import NumericalError, UserError
from serfit.interrupt import Interrupted

app = typer.Typer(
    name="serfit",
    help="Fine-tune speech encoders for valence, arousal and dominance, with numbers one can trust.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(training.train)
app.command()(training.cv)
app.command()(training.check)
app.command()(watching.watch)
app.command()(using.predict)
app.command()(using.stream)
app.command()(publishing.export)
app.command()(publishing.calibration)
app.command()(reading.compare)
app.command()(reading.report)
app.command()(reading.verdict)
app.command()(training.baseline)
app.command()(training.demo)
app.command()(training.doctor)
app.command()(serving.serve)
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
            if "\0" in argument:
                raise UserError(f"the argument {argument!r} holds a NUL character, which no path can; remove it")
        with lasting_output():
            app(args=given, prog_name="serfit")
    except (UserError, NumericalError, Interrupted) as error:
        _leave("stopped" if isinstance(error, Interrupted) else "error", str(error), error.exit_code)
    except (OSError, MemoryError, RuntimeError, ImportError) as error:
        trouble = system_trouble(error)
        if trouble is None:
            raise
        _leave("error", trouble, UserError.exit_code)
    except KeyboardInterrupt:
        _leave("stopped", "by Ctrl-C", 130)


def _leave(kind: str, words: str, code: int) -> NoReturn:
    with suppress(OSError):  # the terminal may be gone
        print(f"{kind}: {words}", file=sys.stderr)
    sys.exit(code)


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    """Fine-tune speech encoders for valence, arousal and dominance, with numbers one can trust."""
    if version:
        print(__version__)
        raise typer.Exit
