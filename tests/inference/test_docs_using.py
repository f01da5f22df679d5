"""What docs/using.md and the help of its verbs say is what happens: commands and Python, to the letter."""

import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from serfit.cli import main

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "using.md").read_text()
RUN = "runs/ema_iemocap_finetune_fold1_seed1_20260101-120000"


@pytest.fixture
def desk(trained: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with everything that the page names."""
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    Path(RUN).symlink_to(trained())
    Path("speech/deep").mkdir(parents=True)
    sound = 0.1 * np.random.default_rng(1).standard_normal(5 * 16_000)
    soundfile.write("speech/talk.wav", sound, 16_000)
    soundfile.write("speech/deep/other.flac", sound[:16_000], 16_000)
    Path("speech.raw").write_bytes((sound * 32768).astype("<i2").tobytes())
    return tmp_path


def executed(command: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of a command line, with what it reads from standard input."""
    line, _, source = command.partition(" < ")
    program, *arguments = shlex.split(line)
    assert program == "serfit"
    with monkeypatch.context() as patched:
        if source:
            patched.setattr(sys, "stdin", open(source))  # noqa: SIM115
        with pytest.raises(SystemExit) as caught:
            main(arguments)
    return int(caught.value.code or 0)


@pytest.mark.extra("parquet")
def test_the_page(desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    commands = 0
    for language, block in re.findall(r"^```(\w+)\n(.*?)^```", PAGE, flags=re.M | re.S):
        if language == "python":
            exec(compile(block, "docs/using.md", "exec"), {})
            continue
        for command in block.strip().splitlines():
            assert executed(command, monkeypatch) == 0, (command, capsys.readouterr().err)
            commands += 1
    assert commands >= 5
    for name in ("labels.csv", "labels.csv.made.json", "labels.jsonl", "vectors.npz", "curve.csv", "pictures"):
        assert Path(name).exists(), name
    assert len(Path("labels.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize("verb", ["predict", "stream"])
def test_examples_of_the_help(
    desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    assert executed(f"serfit {verb} --help", monkeypatch) == 0
    shown = " ".join(capsys.readouterr().out.split())
    (example,) = re.findall(r"Example: (serfit .*?)(?= Arguments:| Options:)", shown)
    assert executed(example, monkeypatch) == 0


def test_links_and_files_named_on_the_page_exist() -> None:
    root = Path(__file__).resolve().parents[2]
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", PAGE):
        assert (root / "docs" / target).exists(), target
    for path in re.findall(r"`(src/[\w./-]+)`", PAGE):
        assert (root / path).exists(), path
