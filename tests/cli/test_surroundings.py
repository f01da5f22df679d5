"""A shell's streams and odd environments: no verb depends on them."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")
@pytest.mark.parametrize(
    ("redirection", "code", "words"),
    [
        (">&-", 2, "error: standard output is closed; send it to a file, or to /dev/null\n"),
        ("2>&-", 0, ""),
        ("<&-", 0, ""),
        ("| true", 0, ""),
        (">/dev/full", 2, "error: standard output couldn't be written to: No space left on device; make room"),
    ],
)
def test_a_shell_may_do_what_it_likes_with_the_streams(redirection: str, code: int, words: str) -> None:
    command = f"set -o pipefail; {shlex.quote(sys.executable)} -m serfit --help {redirection}"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr.startswith(words), "Traceback" in ended.stderr) == (code, True, False)
    assert len(ended.stderr.splitlines()) == (1 if words else 0)


ODD = {
    "no home": {"HOME": None},
    "no temporary folder": {"TMPDIR": "/nowhere"},
    "one column": {"COLUMNS": "1"},
    "twenty columns": {"COLUMNS": "20"},
    "dumb terminal": {"TERM": "dumb", "NO_COLOR": "1"},
    "C": {"LC_ALL": "C", "LANG": "C"},
    "POSIX": {"LC_ALL": "POSIX", "LANG": "POSIX"},
}


@pytest.mark.slow
@pytest.mark.parametrize("odd", ODD)
def test_no_environment_stops_a_verb(odd: str, trained: Callable[..., Path], tmp_path: Path) -> None:
    folder = tmp_path / "语料 a'b\"c\nd"
    shutil.copytree(trained(train__epochs=1), folder / "run")
    environment = {name: value for name, value in (dict(os.environ) | ODD[odd]).items() if value is not None}
    commands = ["--help", "train --help", f"compare {shlex.quote(str(folder))}"]
    for command in (*commands, f"watch --once {shlex.quote(str(folder))}"):
        line = [sys.executable, "-m", "serfit", *shlex.split(command)]
        ended = subprocess.run(line, capture_output=True, text=True, encoding="utf-8", check=False, env=environment)
        assert (ended.returncode, ended.stderr) == (0, ""), ended.stderr
