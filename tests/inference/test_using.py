"""The verbs predict and stream from the command line, with a trained model and audio of every kind."""

import contextlib
import csv
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

import serfit
from serfit.cli import main
from serfit.corpus.iemocap import read_iemocap
from serfit.inference.windows import curve
from serfit.runs import directory as runs
from serfit.system import precision
from support import PATIENCE

EMODB = Path(__file__).resolve().parents[3] / "shared/corpora/emodb"


def exit_code(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    code = caught.value.code
    return 0 if code is None else int(code)


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture
def run(trained: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return trained()


def test_the_precision_is_said_and_a_labelling_in_another_one_is_not_gone_on_with(
    run: Path, bf16_cpu: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write("a.wav", 0.1 * np.random.default_rng(1).standard_normal(16_000), 16_000)
    values = {}
    for chosen, said in {
        "fp32": "precision: fp32; --precision auto takes bf16 here: faster, and values change in the third digit",
        "auto": "precision: bf16, since the CPU computes in it, and the encoder is 64 wide",
        "bf16": "precision: bf16\n",
    }.items():
        assert exit_code("predict", run, "a.wav", "--precision", chosen) == 0
        shown = capsys.readouterr()
        assert said in shown.err
        values[chosen] = float(rows(shown.out)[0]["valence"])
    assert values["auto"] == values["bf16"] != values["fp32"]
    assert values["auto"] == pytest.approx(values["fp32"], abs=0.02)
    assert exit_code("predict", run, "a.wav", "--precision", "auto", "-o", "l.csv") == 0
    bf16_cpu.setattr(precision, "bf16_instructions", lambda: ())
    assert exit_code("predict", run, "a.wav", "--precision", "auto", "-o", "l.csv") == 0
    assert "nothing was computed" not in capsys.readouterr().err
    assert float(rows(Path("l.csv").read_text())[0]["valence"]) == values["fp32"]


def test_labels_are_the_runs_own_predictions(
    run: Path, release: Path, trained: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with (run / runs.PREDICTIONS).open() as file:
        own = {row["id"]: row for row in csv.DictReader(file)}
    heard = {spoken.id: spoken for spoken in read_iemocap(release).utterances}
    with open("list.csv", "w", newline="") as file:
        csv.writer(file).writerows([["file", "id"], *([heard[name].path.absolute(), name] for name in own)])
    assert exit_code("predict", run, "list.csv", "-o", "l.csv", "--embeddings", "e.npz") == 0
    found = rows(Path("l.csv").read_text())
    assert [row["id"] for row in found] == list(own)
    for row in found:
        for name in ("valence", "arousal"):
            assert float(row[name]) == pytest.approx(float(own[row["id"]][f"{name}_predicted"]), abs=1e-5)
            assert float(row[name]) == pytest.approx(1 + 4 * float(row[f"{name}_unit"]), abs=1e-5)
    assert np.load("e.npz")["embeddings"].shape == (len(own), serfit.load(run).about.embedding_width)
    assert f"written: l.csv with {len(own)} rows" in capsys.readouterr().err

    other = trained(data__split__fold=2)
    assert exit_code("predict", run, "list.csv", "--model", other) == 0
    several = rows(capsys.readouterr().out)
    alone = [[serfit.load(model).predict(row["file"]).valence for model in (run, other)] for row in several[:4]]
    for row, both in zip(several, alone, strict=False):
        assert float(row["valence"]) == pytest.approx(np.mean(both), abs=2e-5)
        assert float(row["valence_spread"]) == pytest.approx(np.std(both, ddof=1), abs=2e-5)


def sounds(folder: Path) -> None:
    """Audio of every kind that must be heard, and of some that can't be."""
    random = np.random.default_rng(1)

    def write(name: str, sound: np.ndarray, rate: int = 16_000, **how: str) -> None:
        soundfile.write(folder / name, sound, rate, **how)

    write("silent.wav", np.zeros(16_000))
    write("clipped.wav", np.sign(np.sin(np.arange(16_000) / 9)), subtype="PCM_16")
    write("too_loud.wav", 3e4 * random.standard_normal(16_000), subtype="FLOAT")
    write("8_khz.wav", random.uniform(-0.1, 0.1, 8_000), 8_000)
    write("96_khz.flac", random.uniform(-0.1, 0.1, 96_000), 96_000)
    write("8_channels.wav", random.uniform(-0.1, 0.1, (16_000, 8)))
    write("short.wav", random.uniform(-0.1, 0.1, 800))
    write("speech.mp3", random.uniform(-0.1, 0.1, 44_100), 44_100)
    write("x_too_short.wav", random.uniform(-0.1, 0.1, 100))
    write("x_too_long.wav", np.zeros(4_000 * 121), 4_000)
    (folder / "x_no_audio.wav").write_bytes(b"hello")
    (folder / "x_empty.wav").write_bytes(b"")
    (folder / "x_cut.wav").write_bytes((folder / "clipped.wav").read_bytes()[:8_000])


def test_audio_of_every_kind_gives_a_row_with_a_result_or_a_sentence(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("s").mkdir()
    sounds(Path("s"))
    assert exit_code("predict", run, "s", "--output", "l.jsonl") == 2
    said = capsys.readouterr().err
    assert "error: 5 recordings couldn't be used completely" in said
    assert "Traceback" not in said
    lines = [json.loads(line) for line in Path("l.jsonl").read_text().splitlines()]
    assert len(lines) == 13
    for line in lines:
        broken = line["file"].startswith("s/x_")
        assert (line["valence"] is None) == (line["arousal_unit"] is None) == broken == bool(line["error"])
        if broken:
            assert line["error"] in said
            assert "\n" not in line["error"]
    before = Path("l.jsonl").stat()
    assert exit_code("predict", run, "s", "--output", "l.jsonl") == 2
    assert "nothing was computed" in capsys.readouterr().err
    assert Path("l.jsonl").stat() == before


def test_through_time_by_segments_and_in_pictures(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(2)
    sound = 1e-4 * random.standard_normal(4 * 16_000)
    sound[16_000:40_000] += 0.2 * random.standard_normal(24_000)
    soundfile.write("a.wav", sound, 16_000, subtype="FLOAT")
    assert exit_code("predict", run, "a.wav", "--window", "1", "--hop", "0.3", "--picture", "p", "-o", "l.csv") == 0
    found, wanted = rows(Path("l.csv").read_text()), curve(serfit.load(run), "a.wav", window=1.0, hop=0.3)
    np.testing.assert_allclose([float(row["start"]) for row in found], wanted.starts, atol=1e-6)
    np.testing.assert_allclose([float(row["arousal"]) for row in found], wanted.estimates.values[:, 1], atol=1e-5)
    assert found[-1]["end"] == "4.0"
    assert sorted(path.name for path in Path("p").iterdir()) == [
        f"00001_a_{kind}.{form}" for kind in ("circumplex", "time") for form in ("png", "svg")
    ]
    capsys.readouterr()
    assert exit_code("predict", run, "a.wav", "--segments") == 0
    (segment,) = rows(capsys.readouterr().out)
    assert float(segment["start"]) == pytest.approx(0.9, abs=0.05)
    assert float(segment["end"]) == pytest.approx(2.6, abs=0.05)


@pytest.mark.skipif(not EMODB.exists(), reason="EMO-DB isn't beside the repository (../shared/corpora/emodb)")
def test_real_speech_alone_and_in_a_folder(run: Path) -> None:
    Path("s").mkdir()
    for path in sorted(EMODB.rglob("*.flac"))[::40]:
        (Path("s") / path.name).symlink_to(path)
    assert exit_code("predict", run, "s", "-o", "l.csv") == 0
    found = rows(Path("l.csv").read_text())
    assert len(found) == len(list(Path("s").iterdir())) > 10
    model = serfit.load(run)
    for row in found[:4]:
        alone = model.predict(row["file"])
        assert float(row["valence"]) == pytest.approx(alone.valence, abs=1e-5)
        assert float(row["end"]) == pytest.approx(alone.end, abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["predict", "{run}", "nowhere.wav"], r"there is no nowhere\.wav"),
        (["predict", "{run}", "a.wav", "--hop", "1"], "give --window too"),
        (["predict", "{run}", "a.wav", "--picture", "p"], "give --window too"),
        (["predict", "{run}", "a.wav", "--window", "1", "--segments"], "give one of them"),
        (["predict", "{run}", "a.wav", "--window", "1", "--hop", "2", "-o", "l.csv"], "nothing falls between"),
        (["predict", "{run}", "a.wav", "-o", "l.txt"], r"must end in \.csv or \.jsonl"),
        (["predict", "{run}", "a.wav", "--embeddings", "e.npz"], "give --output"),
        (["predict", "{run}", "a.wav", "-o", "l.csv", "--embeddings", "e.csv"], r"must end in \.npz or \.parquet"),
        (["predict", "{run}", "a.wav", "-o", "no/l.csv"], "there is no folder no"),
        (["predict", "{run}", "a.wav", "--precision", "fp8"], "it must be fp32, bf16 or auto"),
        (["predict", "{run}", "a.wav", "--gpu", "99"], "GPU 99 doesn't exist"),
        (["predict", "nothing", "a.wav"], "neither a run directory"),
        (["stream", "{run}", "--format", "mp3"], "it must be s16le or f32le"),
        (["stream", "{run}", "--window", "500"], "isn't possible"),
        (["stream", "{run}", "--rate", "10"], "10 Hz can't be"),
    ],
)
def test_bad_input_gets_a_sentence_and_no_file(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], sentence: str
) -> None:
    soundfile.write("a.wav", np.zeros(1_600), 16_000)
    piped(monkeypatch, b"")
    assert exit_code(*(argument.format(run=run) for argument in arguments)) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert re.search(sentence, said), said
    assert [path.name for path in Path().iterdir() if path.name != "stdin"] == ["a.wav"]


def piped(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    """Standard input that holds these bytes."""
    Path("stdin").write_bytes(data)
    monkeypatch.setattr(sys, "stdin", open("stdin"))  # noqa: SIM115


def test_a_stream_prints_the_curve(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = np.random.default_rng(5).integers(-9_000, 9_000, 40_000).astype("<i2")
    piped(monkeypatch, sound.tobytes() + b"x")
    assert exit_code("stream", run, "--window", "1", "--hop", "0.4") == 0
    shown = capsys.readouterr()
    found, wanted = rows(shown.out), curve(serfit.load(run), sound, rate=16_000, window=1.0, hop=0.4)
    np.testing.assert_allclose([float(row["start"]) for row in found], wanted.starts, atol=1e-6)
    for column, name in enumerate(("valence", "arousal")):
        np.testing.assert_allclose([float(row[name]) for row in found], wanted.estimates.values[:, column], atol=1e-5)
    assert all(float(row["latency_ms"]) > 0 for row in found)
    assert "ended within a sample; 1 bytes weren't used" in shown.err
    piped(monkeypatch, b"")
    assert exit_code("stream", run) == 2
    assert "no audio came in" in capsys.readouterr().err


def test_a_stream_without_standard_input_is_one_sentence(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)  # as the interpreter leaves it where it was closed
    assert exit_code("stream", run) == 2


def test_a_reader_that_goes_away_ends_it_quietly(
    run: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    piped(monkeypatch, bytes(64_000))
    source, sink = os.pipe()
    os.close(source)
    with open(sink, "w") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        assert exit_code("stream", run, "--window", "1") == 0
        monkeypatch.undo()
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full stands for a full disk, and isn't here")
def test_a_full_disk_behind_the_output_is_one_sentence(
    run: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    piped(monkeypatch, bytes(64_000))
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert exit_code("stream", run, "--window", "1") == 2
        monkeypatch.undo()
    assert "the output can't be written any further: No space left on device" in capfd.readouterr().err


@pytest.mark.slow
def test_a_terminal_obeys_no_file_name_and_a_pipe_gets_its_bytes(run: Path) -> None:
    pty = pytest.importorskip("pty")
    names = [b"\x1b]0;x\x07a.wav", "\x9b2J\u202e.wav".encode(), b"two\nlines.wav", b"\x9b\xff.wav"]
    os.mkdir("names")
    for name in names:
        soundfile.write(os.path.join(b"names", name), np.full(8000, 0.1), 16_000)
    command = [sys.executable, "-m", "serfit", "predict", str(run), "names"]
    mine, its = pty.openpty()
    shown = b""
    with subprocess.Popen(command, stdout=its, stderr=subprocess.DEVNULL) as process:
        os.close(its)
        with contextlib.suppress(OSError):  # of a terminal that the last writer has left
            while piece := os.read(mine, 4096):
                shown += piece
    os.close(mine)
    lines = shown.decode().splitlines()
    assert process.returncode == 0
    assert len(lines) == 1 + len(names)
    assert all(line.isprintable() for line in lines)
    assert "\\x1b]0;x\\x07a.wav" in shown.decode()
    piped = subprocess.run(command, capture_output=True, timeout=PATIENCE).stdout
    assert all(name in piped for name in names)
