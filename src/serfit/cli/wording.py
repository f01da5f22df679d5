"""What the command line says about itself: the help of a verb, and what is wrong with a command."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import typer

USAGE_ERROR: Any = typer.BadParameter.__base__
"""What the parser raises about a command it can't read; typer has it from click, or a copy of its own."""


def help_text(verb: Callable[..., object]) -> str:
    """A verb's docstring, its example in a paragraph that isn't wrapped, so that it can be copied."""
    return (inspect.getdoc(verb) or "").replace("Example: ", "\b\nExample: ")


def usage_words(error: Any) -> str:
    """An error of the command line, with the correct form."""
    words, context = error.format_message(), error.ctx
    if context is None:
        return str(words)
    settings = list(_settings(getattr(error, "option_name", None) or "", context))
    if settings:
        hint = f"settings of the configuration follow without dashes: {' or '.join(f'{key}=VALUE' for key in settings)}"
    else:
        hint = f"see {context.command_path} --help"
    return f"{words[:1].lower()}{words[1:].rstrip('.')}; {hint}"


def _settings(option: str, context: Any) -> Iterator[str]:
    """Settings of a configuration that end like a mistaken option, where the verb takes settings."""
    if not {"overrides", "configs"} & {parameter.name for parameter in context.command.params}:
        return
    from serfit.config.keys import dotted, schema_keys

    wanted = tuple(option.lstrip("-").partition("=")[0].replace("-", "_").split("."))
    for address, key in schema_keys().items():
        if wanted[0] and address[-len(wanted) :] == wanted and not key.section:
            yield dotted(address)
