"""The page of what is public names what there is, and asking for it imports no more than it needs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import serfit
from serfit.cli import INTERRUPTED, VERBS
from serfit.runs import directory

PAGE = (Path(__file__).parents[1] / "docs" / "api.md").read_text(encoding="utf-8")


def test_the_page_names_every_public_name_and_no_other() -> None:
    assert sorted(re.findall(r"^\| `serfit\.(\w+)`", PAGE, flags=re.M)) == sorted(serfit.__all__)
    assert all(getattr(serfit, name) is not None for name in serfit.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = serfit.nothing


def test_the_page_names_every_verb() -> None:
    (commands,) = re.findall(r"## Commands\n\n(.*?), with", PAGE, flags=re.S)
    assert re.findall(r"`(\w+)`", commands) == [*(verb.__name__ for verb, _ in VERBS), "cache"]


def test_the_page_names_exit_codes_and_files_that_there_are() -> None:
    codes = re.findall(r"^\| (\d+) \|", PAGE, flags=re.M)
    assert codes == ["0", "1", "2", "3", "75", str(INTERRUPTED)]
    (files,) = re.findall(r"\*\*Files of a run directory\*\*: (.*?)\. Fields", PAGE, flags=re.S)
    written = {value for value in vars(directory).values() if isinstance(value, str)}
    assert set(re.findall(r"`([\w.]+)`", files)) <= written


def test_importing_serfit_and_its_errors_imports_no_torch() -> None:
    code = "import sys, serfit; serfit.UserError, serfit.NumericalError; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
