"""Paths that can't be used, for every verb, and outputs that fail: one sentence, exit code 2, nothing lost."""

import builtins
import errno
import io
import os
import re
import shlex
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from inference.public.published import odyssey
from serfit.cli import VERBS, main
from serfit.cli.boundary import TORCH_NEEDS, system_trouble
from serfit.errors import is_out_of_memory
from support import config_file


@dataclass(frozen=True)
class Desk:
    """What the commands below work on."""

    folder: Path
    words: dict[str, str]


@pytest.fixture(scope="module")
def desk(trained: Callable[..., Path], release: Path, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    folder = tmp_path_factory.mktemp("hostile")
    run = trained(train__epochs=1)
    config = config_file(folder / "tiny.yaml", release, folder, train__epochs=1)
    assert exit_code("export", run, "--to", "bundle", "--output", folder / "bundle") == 0
    (folder / "plain").write_text("a file")
    words = {
        "config": str(config),
        "csv": f"{config} data.corpus=csv 'data.scales={{valence: [1, 5], arousal: [1, 5]}}'",
        "run": str(run),
        "runs": str(run.parent),
        "model": str(folder / "bundle"),
        "wav": str(next(release.rglob("*.wav"))),
        "new": str(folder / "new"),
        "public": str(odyssey(folder / "public").folder),
    }
    return Desk(folder, words)


READS = (
    "train --config BAD",
    "train BAD",
    "train --resume BAD",
    "train {config} data.root=BAD",
    "train {config} model.params.speech_encoder=BAD",
    "check BAD",
    "check {csv} 'data.table={{path: \"BAD\", valence: v, arousal: a}}'",
    "cv BAD",
    "cache fill BAD",
    "baseline BAD",
    "probe BAD",
    "probe {config} --encoders random:tiny BAD",
    "watch --once BAD",
    "predict BAD {wav}",
    "predict {model} BAD",
    "predict {model} {wav} --model BAD",
    "evaluate BAD --config {config}",
    "evaluate {model} --config BAD",
    "stream BAD",
    "serve BAD",
    "import BAD {new}",
    "export BAD --to bundle --output {new}",
    "calibration BAD",
    "compare BAD",
    "report BAD",
    "verdict BAD",
)
"""Commands that read something named BAD."""

WRITES = (
    "train {config} --run-dir BAD/run",
    "train {config} experiment.runs_dir=BAD",
    "train {config} features.store=BAD",
    "check {config} experiment.runs_dir=BAD",
    "check {config} features.store=BAD",
    "cv {config} --folds 1 experiment.runs_dir=BAD",
    "cv {config} --folds 1 --ensemble BAD/model",
    "cv {config} --folds 1 --retrain BAD/model",
    "cache fill {config} features.store=BAD",
    "baseline {config} --fold 1 experiment.runs_dir=BAD",
    "probe {config} experiment.runs_dir=BAD",
    "probe {config} features.store=BAD",
    "predict {model} {wav} --output BAD/labels.csv",
    "predict {model} {wav} --output {new}.csv --embeddings BAD/vectors.npz",
    "predict {model} {wav} --window 0.2 --picture BAD",
    "evaluate {model} --config {config} experiment.runs_dir=BAD",
    "import {public} BAD/model",
    "export {model} --to bundle --output BAD/model",
    "export {run} --to hub-folder --output BAD/model",
    "report {runs} --output BAD/report.html",
    "demo --folder BAD",
)
"""Commands that write below something named BAD."""

MANAGES = ("cache show --store BAD", "cache clear --store BAD")
"""Commands for which a store that isn't there is an empty one."""

KINDS = ("locked", "a device", "below a file", "too long", "NUL")


@pytest.fixture
def bad(request: pytest.FixtureRequest, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A path of the kind asked for; "locked" is one in a folder that one may not enter, for tests may run as root."""
    match request.param:
        case "locked":
            folder = tmp_path / "locked"
            (folder / "inside").mkdir(parents=True)
            lock(folder, monkeypatch)
            return str(folder / "inside")
        case "a device":
            if not Path("/dev/zero").is_char_device():
                pytest.skip("there is no /dev/zero")
            return "/dev/zero"
        case "below a file":
            return str(desk.folder / "plain" / "below")
        case "too long":
            return str(desk.folder / ("x" * 300))
        case "NUL":
            return "a\\0b"
    raise AssertionError(request.param)


def lock(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer every call about what is in a folder as the system does where one may not enter it."""

    def locked(call: Callable[..., Any]) -> Callable[..., Any]:
        def answer(*arguments: Any, **options: Any) -> Any:
            for argument in arguments:
                if isinstance(argument, str | os.PathLike) and str(argument).startswith(f"{folder}{os.sep}"):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(argument))
            return call(*arguments, **options)

        return answer

    for name in ("stat", "lstat", "open", "mkdir", "scandir", "listdir", "rename", "replace", "unlink", "utime"):
        monkeypatch.setattr(os, name, locked(getattr(os, name)))
    monkeypatch.setattr(io, "open", locked(io.open))
    monkeypatch.setattr(builtins, "open", io.open)
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).startswith(str(folder)) and allowed(path, mode))


def files(desk: Desk) -> set[Path]:
    return {path for path in desk.folder.rglob("*") if path.is_file()}


def exit_code(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return int(caught.value.code or 0)


def outcome(command: str, bad: str, desk: Desk) -> int:
    """The exit code of a command with BAD put in; NUL as itself, and in settings as YAML writes it."""
    words = []
    for word in shlex.split(command):
        setting = "=" in word
        put = bad if setting and '"BAD' in word else f'"{bad}"' if setting and "\\0" in bad else bad
        words.append(word.replace("BAD", put if setting else put.replace("\\0", "\0")))
    return exit_code(*words)


@pytest.mark.slow
@pytest.mark.parametrize("bad", KINDS, indirect=True)
@pytest.mark.parametrize("command", [*READS, *WRITES, *MANAGES])
def test_a_path_that_cannot_be_used_gets_a_sentence(
    command: str, bad: str, desk: Desk, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    before = files(desk)
    kind = request.node.callspec.params["bad"]
    code = outcome(command.format(**desk.words), bad, desk)
    said = capsys.readouterr().err.removeprefix("precision: fp32\n")
    if command in MANAGES and kind in ("a device", "below a file"):
        assert code == 0
        return
    assert code == 2, said
    assert said.startswith("error: "), said
    assert len(said) < 1500
    assert "Traceback" not in said
    assert files(desk) == before
    assert kind != "a device" or stat.S_ISCHR(os.stat(bad).st_mode)


NAMED = [command for command in (*READS, *WRITES, *MANAGES) if not re.search(r"\w=BAD|\{csv\}", command)]
"""Those that take BAD as an argument or option: `serfit.config.load` judges settings, where nothing means null."""


@pytest.mark.parametrize("command", [*NAMED, "cache show --store=BAD", "export {model} --output=BAD"])
def test_an_empty_path_is_not_the_current_folder(
    command: str, desk: Desk, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = command.format(**{**desk.words, "new": "new"})
    before = files(desk)
    assert exit_code(*(re.sub(r"BAD(/\S+)?$", "", word) for word in shlex.split(words))) == 2
    assert re.match("error: the argument (''|--\\w+=) is empty; give a value", capsys.readouterr().err)
    assert files(desk) == before
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="there is no /dev/full")
@pytest.mark.parametrize("name", ["a folder", "a device", "a link to a device"])
def test_a_report_replaces_files_only(
    name: str, desk: Desk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "link").symlink_to("/dev/full")
    indices = {"a folder": tmp_path, "a device": "/dev/full", "a link to a device": tmp_path / "link"}
    assert exit_code("report", desk.words["runs"], "--output", indices[name]) == 2
    assert re.match(r"error: can't write .*: it is a (folder|device)", capsys.readouterr().err)
    assert Path("/dev/full").is_char_device()


PRINTS = (
    "--help",
    "--version",
    "train {config}",
    "check {config}",
    "predict {model} {wav}",
    "watch --once {runs}",
    "calibration {run}",
    "compare {runs}",
    "report {runs} --output {new}.html",
    "verdict {run}",
    "cache show --store {new}",
    "doctor",
)


@pytest.fixture
def ends(request: pytest.FixtureRequest) -> Iterator[io.TextIOWrapper]:
    """Standard output on a full disk, or a pipe whose reader has gone."""
    if request.param == "full":
        if not Path("/dev/full").exists():
            pytest.skip("there is no /dev/full")
        descriptor = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, descriptor = os.pipe()
        os.close(reader)
    stream = io.TextIOWrapper(os.fdopen(descriptor, "wb"))
    yield stream
    stream.close()  # fails where what is left would still go to the broken end


@pytest.mark.parametrize("ends", ["full", "gone"], indirect=True)
@pytest.mark.parametrize("command", PRINTS)
def test_an_output_that_fails_stops_no_work_and_gets_a_sentence(
    command: str,
    ends: io.TextIOWrapper,
    desk: Desk,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.setattr(sys, "stdout", ends)  # here, as pytest puts its own there before every test
    finished = len(list(desk.folder.rglob("FINISHED")))
    code = exit_code(*shlex.split(command.format(**desk.words)))
    said = capsys.readouterr().err
    if request.node.callspec.params["ends"] == "gone":
        assert (code, "error" in said) == (0, False), said
    else:
        assert code == 2
        assert re.search("^error: .*No space left on device", said, re.MULTILINE), said
    assert len(list(desk.folder.rglob("FINISHED"))) == finished + command.startswith("train")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory: you tried\nC++"),
        RuntimeError("can't start new thread"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    ],
)
def test_memory_that_runs_out_is_said_so(error: BaseException) -> None:
    trouble = system_trouble(error)
    assert trouble is not None
    assert trouble.startswith("memory ran out")
    assert "\n" not in trouble


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs limits of address space")
def test_too_little_memory_for_torch_gets_a_sentence_before_torch_aborts(desk: Desk) -> None:
    """Every verb of `serfit --help`, below and above what it needs."""
    words = {**desk.words, "store": str(desk.folder / "store")}
    commands = {
        "train": "{config}", "cv": "{config}", "check": "{config}", "baseline": "{config}",
        "probe": "{config}", "demo": "--folder {new}",
        "doctor": "", "predict": "{model} {wav}", "stream": "{model}", "serve": "{model}", "cache fill": "{config}",
        "export": "{model} --to bundle --output {new}", "import": "{public} {new}", "cache show": "--store {store}",
        "evaluate": "{model} --config {config}",
        "cache clear": "--store {store}",
    }  # fmt: skip
    light = {"compare": "{runs}", "report": "{runs}", "watch": "--once {runs}", "verdict": "{run}"}
    light["calibration"] = "{run}"
    assert {name.split()[0] for name in (*commands, *light)} == {*(verb.__name__ for verb, _ in VERBS), "cache"}
    code = """
import resource, sys
kilobytes, *given = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_AS, (int(kilobytes) * 1024,) * 2)
from serfit.cli import main
main(given)
"""

    def ended(kilobytes: int, command: str) -> subprocess.CompletedProcess[str]:
        given = shlex.split(command.format(**words))
        line = [sys.executable, "-c", code, str(kilobytes), *given]
        return subprocess.run(line, capture_output=True, text=True, check=False)

    before = files(desk)
    for index, (verb, rest) in enumerate(commands.items()):
        kilobytes = (1_800_000, 3_000_000, 3_400_000, 4_800_000)[index % 4]
        refused = ended(kilobytes, f"{verb} {rest}")
        assert refused.returncode == 2, (verb, refused.stderr)
        assert re.fullmatch(
            rf"error: memory is limited to .* \(ulimit -v {kilobytes}\), and torch needs 5\.1 GB.*\n", refused.stderr
        )
    assert files(desk) == before
    for verb, rest in light.items():
        done = ended(1_800_000, f"{verb} {rest}")
        assert done.returncode == 0, (verb, done.stderr)
    trained = ended(TORCH_NEEDS // 1024, "train {config}")
    assert trained.returncode == 0, trained.stderr


@pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")
@pytest.mark.parametrize(
    ("command", "code"), [("doctor", 2), ("check {config}", 2), ("compare {runs}", 0), ("compare", 2), ("--help", 0)]
)
def test_a_current_folder_that_is_gone_ends_no_library(command: str, code: int, desk: Desk, tmp_path: Path) -> None:
    serfit = f"{shlex.quote(sys.executable)} -m serfit {command.format(**desk.words)}"
    script = f"mkdir gone; cd gone; rmdir ../gone; {serfit}"
    ended = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ended.returncode == code, ended.stderr
    assert not code or re.fullmatch("error: .*\n", ended.stderr), ended.stderr


def test_mistakes_of_ours_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    for mistake in (RuntimeError("shape"), ImportError("cannot import name"), OSError("no number"), KeyError("x")):
        assert system_trouble(mistake) is None
        assert not is_out_of_memory(mistake)

        def fail(*_: object, mistake: BaseException = mistake) -> None:
            raise mistake

        monkeypatch.setattr("serfit.report.compare.chosen_directories", fail)
        with pytest.raises(type(mistake)):
            main(["compare", "x"])


def test_a_training_that_memory_is_too_small_for_is_said_so(
    desk: Desk, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(*_: object) -> None:
        torch.empty(2**60)

    monkeypatch.setattr("serfit.training.experiment.begun", too_large)
    before = files(desk)
    assert exit_code("train", desk.words["config"]) == 2
    assert capsys.readouterr().err.startswith("error: memory ran out")
    assert {path.name for path in files(desk) - before} <= {"config.json", "train.log", "stopped.json"}
