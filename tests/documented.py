"""Executes what a page of docs/ says: its bash blocks through serfit's command line, its Python blocks as they are."""

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest

from serfit.cli import main

DOCS = Path(__file__).parents[1] / "docs"


def execute(page: str, folder: Path) -> dict[str, str]:
    """Execute a page's blocks in order, in a folder; only what installs an extra is passed over.

    Returns:
        What each serfit command printed.
    """
    printed = {}
    blocks = re.findall(r"^```(bash|python)\n(.*?)^```", (DOCS / page).read_text(), flags=re.M | re.S)
    assert blocks, f"{page} has no blocks"
    with contextlib.chdir(folder):
        for language, text in blocks:
            if language == "python":
                exec(compile(text, page, "exec"), {})
                continue
            for command in text.replace("\\\n", " ").splitlines():
                if not command.startswith("uv sync "):
                    printed[command] = type_in(command)
    return printed


def type_in(command: str) -> str:
    """What a serfit command prints, typed in here and now; it must succeed."""
    program, *arguments = shlex.split(command.removeprefix("uv run "), comments=True)
    assert program == "serfit", command
    expanded = [found for one in arguments for found in (sorted(map(str, Path().glob(one))) if "*" in one else [one])]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), pytest.raises(SystemExit) as left:
        main(expanded)
    assert not left.value.code, f"{command}: exit code {left.value.code}"
    return said.getvalue()
