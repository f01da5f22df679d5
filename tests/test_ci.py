"""What CI does first is what a newcomer does; programs that would take minutes are replaced by ones that take notes."""

import os
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
NOTE = """#!/usr/bin/env bash
echo "$(basename "$0") $*|$PWD|${VIRTUAL_ENV-}" >>"$NOTES"
case "$(basename "$0") $*" in
"$FAILS") exit 1 ;;
"git clone"*) mkdir "${@: -1}" && cp README.md "${@: -1}" ;;
"uv venv"*) mkdir -p "${@: -1}/bin" && cp "$0" "${@: -1}/bin/serfit" ;;
esac
"""

pytestmark = pytest.mark.skipif(not (REPOSITORY / ".ci" / "run").is_file(), reason="not in a checkout")


def calls(folder: Path, fails: str = "nothing") -> tuple[int, list[list[str]]]:
    """The exit code of .ci/run, and command, folder and active environment of everything that it called."""
    (folder / "bin").mkdir()
    for name in ("git", "uv", "chromium", "apt-get"):
        (folder / "bin" / name).write_text(NOTE)
        (folder / "bin" / name).chmod(0o755)
    given = {"PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}", "TMPDIR": str(folder), "VIRTUAL_ENV": "mine"}
    given |= {"NOTES": str(folder / "notes"), "FAILS": fails}
    ended = subprocess.run(["bash", REPOSITORY / ".ci" / "run"], env=os.environ | given, capture_output=True, text=True)
    return ended.returncode, [line.split("|") for line in (folder / "notes").read_text().splitlines()]


def test_a_newcomers_commands_come_first_then_the_wheel_then_everything(tmp_path: Path) -> None:
    code, called = calls(tmp_path)
    assert code == 0
    commands = [command for command, _, _ in called]
    assert commands[0].startswith("git clone")
    assert [(command, active) for command, _, active in called[1:3]] == [
        ("uv run serfit demo", ""),
        ("uv run pytest", ""),
    ]
    assert {where for _, where, _ in called[1:3]} == {commands[0].split()[-1]}
    alone = [(command, where) for command, where, _ in called if command.startswith("serfit ")]
    assert [command.split()[1] for command, _ in alone] == ["demo", "train"]
    assert "--config recipe.yaml" in alone[1][0]
    assert not any(Path(where).is_relative_to(REPOSITORY) for _, where in alone)
    (synced,) = (index for index, command in enumerate(commands) if "--all-extras" in command)
    (everything,) = (index for index, command in enumerate(commands) if command.startswith("uv run pytest -n 2"))
    assert commands.index(alone[1][0]) < synced < everything


@pytest.mark.parametrize("command", ["uv run serfit demo", "uv run pytest"])
def test_a_newcomers_command_that_fails_ends_it(command: str, tmp_path: Path) -> None:
    code, called = calls(tmp_path, command)
    assert code != 0
    assert called[-1][0] == command
