"""The verb: what it says before it serves, and a whole life of it as a process of its own."""

import importlib
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from extras import need
from inference.page.asking import answer, upload, wav
from serfit.cli import main
from serfit.config.schema import ModelParams
from serfit.errors import UserError
from serfit.inference.about import About
from serfit.inference.bundle import Member, write_bundle
from serfit.inference.page.words import LANGUAGES
from serfit.labels import LabelScale
from serfit.nn.model import build_model
from support import PATIENCE

httpx = need("serve", "httpx")
server = importlib.import_module("serfit.inference.page.server")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a tiny network that nobody trained."""
    params = ModelParams(speech_encoder="random:tiny", head_hidden=16)
    model = build_model(params, dimensions=2, seed=1, gradient_checkpointing=False).requires_grad_(False).eval()
    about = About(
        name="untrained",
        dimensions=("valence", "arousal"),
        scales={"valence": LabelScale(1, 5), "arousal": LabelScale(1, 5)},
        normalise=bool(model.encoder.normalise),
        shortest=model.encoder.shortest_input,
        embedding_width=model.embedding_width,
    )
    folder = tmp_path_factory.mktemp("bundles") / "untrained"
    write_bundle(folder, [Member(about, params, model)])
    return folder


def test_an_address_that_cant_be_had_is_said_so() -> None:
    from serfit.inference.page.server import listening

    with listening("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"can't listen on 127\.0\.0\.1, port {port} \(.*another --port or --host"):
            listening("127.0.0.1", port)
    with pytest.raises(UserError, match=r"can't listen on 192\.0\.2\.1, port 0"):
        listening("192.0.2.1", 0)


def exit_code(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    return int(caught.value.code or 0)


def test_bad_options_are_told_before_the_model_is_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options, sentence in (
        (["--language", "tlh"], "--language is tlh and must be one of en, zh, de, es"),
        (["--calibrate", "twice"], "--calibrate is twice; it must be affine, isotonic or none"),
        (["--minutes", "0"], "--minutes is 0 and must be above 0"),
        ([], "neither a run directory"),
    ):
        assert exit_code("serve", str(tmp_path / "nothing"), *options) == 2
        said = capsys.readouterr().err
        assert sentence in said
        assert "Traceback" not in said


def test_without_the_extra_one_sentence_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from serfit.cli import serving

    monkeypatch.setattr(serving, "find_spec", lambda name: None)
    assert exit_code("serve", str(tmp_path)) == 2
    assert capsys.readouterr().err == (
        "error: `serfit serve` needs gradio, which isn't installed: `uv sync --extra serve`\n"
    )


PAGE = Path(__file__).parents[3] / "docs" / "page.md"


def commands(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    """The commands of the documentation and the example of --help, as arguments of serfit."""
    assert exit_code("serve", "--help") == 0
    (example,) = re.findall(r"Example: serfit (.*)", capsys.readouterr().out)
    found = re.findall(r"^uv run serfit (.*)$", PAGE.read_text(), flags=re.M)
    assert len(found) >= 3
    return [shlex.split(command) for command in (example, *found)]


def test_the_commands_of_the_documentation_and_of_help_serve_a_model(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    served = []
    monkeypatch.setattr(server, "serve", lambda recogniser, **options: served.append((recogniser, options)))
    for arguments in commands(capsys):
        assert exit_code(*[str(bundle) if part.startswith("runs") else part for part in arguments]) == 0
    assert {recogniser.about.name for recogniser, _ in served} == {"untrained"}
    assert {options["host"] for _, options in served} == {"127.0.0.1", "0.0.0.0"}
    assert {options["language"] for _, options in served} == {None, "zh"}
    _, plain = served[0]
    assert plain["port"] == 7860
    text = PAGE.read_text()
    assert f"| {plain['limits'].minutes:g} minutes |" in text
    assert f"| {plain['limits'].megabytes:g} MB |" in text
    assert f"({plain['limits'].window:g}), one every `--hop` seconds ({plain['limits'].hop:g})" in text


def test_other_machines_are_let_in_with_a_warning(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = []
    monkeypatch.setattr(server.uvicorn.Server, "run", lambda self, sockets: ran.append(sockets))
    monkeypatch.setattr(server.signal, "signal", lambda *_: None)
    assert exit_code("serve", str(bundle), "--host", "0.0.0.0", "--port", "0") == 0
    shown = capsys.readouterr()
    assert len(ran) == 1
    assert "http://0.0.0.0:" in shown.out
    assert "everybody who reaches port" in shown.err


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_the_verb_serves_a_bundle_until_it_is_stopped_and_leaves_nothing(bundle: Path, tmp_path: Path) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "serfit", "serve", str(bundle), "--port", "0", "--language", "zh"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+/", line)
        assert address is not None, line + (process.stderr.read() if process.stderr else "")
        with httpx.Client(base_url=address[0], timeout=PATIENCE, trust_env=False) as client:
            page = client.get("/", follow_redirects=True)
            assert page.url.path == "/zh/"
            assert "untrained" in page.text
            (path,) = upload(client, wav(4.0), language="zh").json()
            assert Path(path).is_relative_to(tmp_path)
            said = answer(client, path, "zh")
            assert LANGUAGES["zh"].meaning in said
            assert "<svg" in said
            assert not Path(path).exists()
        assert len(list(tmp_path.glob("serfit-page-*"))) == 1
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, errors
        assert "Traceback" not in errors
        assert list(tmp_path.glob("serfit-page-*")) == []
    finally:
        process.kill()
        process.communicate()
