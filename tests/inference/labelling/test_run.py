"""A labelling on disk: killed at any byte it ends in the same files; finished, nothing is computed again."""

import contextlib
import csv
import io
import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from rich.console import Console

from extras import need
from inference.heard import Ear, listener
from serfit.corpus import audio
from serfit.errors import UserError
from serfit.inference import windows
from serfit.inference.labelling import labelling
from serfit.inference.labelling import run as story
from serfit.inference.labelling.inputs import list_items
from serfit.inference.labelling.labelling import Cutting, Voiced, Whole, Windows
from serfit.inference.labelling.ledger import Ledger, Target
from serfit.inference.labelling.run import Request, label_to_file, label_to_lines
from serfit.inference.recogniser import Recogniser
from serfit.system.interrupt import Interrupted
from serfit.system.lock import take
from serfit.system.log import Log


class Killed(Exception):
    """Stands for a kill: nothing after it runs."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(labelling, "POOL_ITEMS", 3)
    random = np.random.default_rng(1)
    Path("speech").mkdir()
    for number in range(10):
        sound = random.uniform(-0.5, 0.5, random.integers(2_000, 20_000))
        soundfile.write(f"speech/{number}.wav", sound, 16_000, subtype="FLOAT")
    Path("speech/7.wav").write_bytes(b"RIFF")
    Path(os.fsdecode(b'speech/\xfc, "x".wav')).write_bytes(Path("speech/1.wav").read_bytes())
    return tmp_path


def quiet() -> tuple[Log, io.StringIO]:
    text = io.StringIO()
    return Log(Console(file=text, width=400)), text


def request(cutting: Cutting | None = None, *paths: str, pictures: Path | None = None, models: str = "m") -> Request:
    return Request((models,), list_items(paths or ["speech"]), cutting or Whole(), {"precision": "fp32"}, pictures)


def run(wanted: Request, target: Target, load: Callable[[], Recogniser] = lambda: listener(0.0, 0.1)) -> str:
    log, text = quiet()
    label_to_file(wanted, target, load, log)
    return text.getvalue()


def never() -> Recogniser:
    raise AssertionError("a model was loaded")


def test_the_table_says_what_was_heard(folder: Path) -> None:
    errors = label_to_file(
        request(), Target(Path("l.csv"), "csv", Path("e.npz")), lambda: listener(0.0, 0.1), quiet()[0]
    )
    assert len(errors) == 1
    with open("l.csv", encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = list(csv.DictReader(file))
    names = [*map(str, range(10)), os.fsdecode(b'\xfc, "x"')]
    assert [row["file"] for row in rows] == [f"speech/{name}.wav" for name in names]
    found = np.load("e.npz")
    assert found["embeddings"].shape == (11, 6)
    assert found["embeddings"].dtype == np.float32
    for index, row in enumerate(rows):
        if index == 7:
            assert row["valence"] == row["arousal_unit"] == row["arousal_spread"] == ""
            assert errors == (row["error"],)
            assert np.isnan(found["embeddings"][7]).all()
            continue
        emotion = listener(0.0, 0.1).predict(row["file"])
        assert row["error"] == ""
        for name in ("valence", "arousal"):
            assert float(row[name]) == pytest.approx(emotion.values[name], abs=1e-6)  # type: ignore[index]
            assert float(row[f"{name}_unit"]) == pytest.approx(emotion.unit[name], abs=1e-6)  # type: ignore[index]
            assert float(row[f"{name}_spread"]) == pytest.approx(emotion.spread[name], abs=1e-6)  # type: ignore[index]
        assert float(row["end"]) == pytest.approx(emotion.end, abs=1e-6)
        np.testing.assert_allclose(found["embeddings"][index], emotion.embedding, rtol=1e-6)
        assert found["end"][index] == float(row["end"])
        assert found["files"][index] == row["file"]


def test_lines_of_json_and_of_csv_say_the_same(folder: Path) -> None:
    run(request(), Target(Path("l.csv"), "csv"))
    run(request(), Target(Path("l.jsonl"), "jsonl"))
    text: list[str] = []
    label_to_lines(request(), "csv", listener(0.0, 0.1), text.append, quiet()[0])
    assert "".join(text).encode("utf-8", "surrogateescape") == Path("l.csv").read_bytes()
    with open("l.csv", encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = list(csv.DictReader(file))
    lines = Path("l.jsonl").read_bytes().decode("utf-8", "surrogateescape").splitlines()
    for row, line in zip(rows, lines, strict=True):
        known = json.loads(line)
        assert list(known) == list(row)
        assert ["" if value is None else str(value) for value in known.values()] == list(row.values())


@pytest.mark.parametrize("form", ["npz", pytest.param("parquet", marks=pytest.mark.extra("parquet"))])
@pytest.mark.parametrize("cutting", [Whole(), Windows(0.3, 0.1)], ids=["whole", "windows"])
def test_killed_at_any_byte_it_ends_in_the_same_bytes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, cutting: Cutting, form: str
) -> None:
    run(request(cutting), Target(Path("l.csv"), "csv", Path(f"e.{form}")))
    wanted = Path("l.csv").read_bytes(), Path(f"e.{form}").read_bytes()
    target = Target(Path("k.csv"), "csv", Path(f"k.{form}"))
    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "finish", lambda *_: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            run(request(cutting), target)
    whole = Path("k.csv.partial").read_bytes()
    random = np.random.default_rng(4)
    begun = set()
    for damage in ["none", *["cut", "bit", "zeros", "behind"] * 6]:
        torn, index = bytearray(whole), random.integers(len(whole))
        match damage:
            case "cut":
                del torn[index:]
            case "bit":
                torn[index] ^= 4
            case "zeros":
                torn[index:] = bytes(len(torn) - index)
            case "behind":
                torn += bytes(index)
        Path("k.csv.partial").write_bytes(torn)
        said = run(request(cutting), target)
        begun.add(re.findall(r"going on: (\d+) of", said)[0] if "going on" in said else "0")
        assert (Path("k.csv").read_bytes(), Path(f"k.{form}").read_bytes()) == wanted, damage
        assert sorted(path.name for path in folder.glob("k.*")) == ["k.csv", "k.csv.made.json", f"k.{form}"]
        for path in folder.glob("k.*"):
            path.unlink()
    assert len(begun) >= 4, begun
    assert "11" in begun


@pytest.mark.parametrize("broken", [False, True], ids=["sound", "broken at its end"])
@pytest.mark.parametrize("cutting", [Windows(0.3, 0.1), Voiced()], ids=["windows", "voiced"])
def test_killed_within_a_recording_it_goes_on_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch, cutting: Cutting, broken: bool
) -> None:
    """Killed after every piece in turn: the same bytes, and nothing is heard twice."""
    monkeypatch.setattr(audio, "_BLOCK", 8_000)
    monkeypatch.setattr(windows, "AT_ONCE", 1.0)
    monkeypatch.setattr(labelling, "BATCH_SECONDS", 2 * labelling.LONGEST)
    random = np.random.default_rng(3)
    bursts = [random.uniform(-0.5, 0.5, 8_000) * loud for _ in range(7) for loud in (1.0, 1e-4)]
    sound = np.concatenate(bursts)
    if broken and isinstance(cutting, Windows):  # voice is looked for in all of it first, so nothing comes before that
        sound[-100] = np.nan
    soundfile.write("long.wav", sound, 16_000, subtype="FLOAT")
    wanted = request(cutting, "speech/1.wav", "long.wav", "speech/2.wav")
    ears = [listener(0.0)]
    run(wanted, Target(Path("l.csv"), "csv", Path("e.npz")), lambda: ears[0])
    (heard,) = (ear.asked for ear in ears[0].networks if isinstance(ear, Ear))
    assert len(heard) > 5
    real, target, pieces, said = labelling.label, Target(Path("k.csv"), "csv", Path("k.npz")), [0], ""

    def cut(*arguments: object) -> object:
        for piece in real(*arguments):  # type: ignore[arg-type]
            yield piece
            pieces[0] += 1
            if piece.rows:
                raise Killed

    monkeypatch.setattr(story, "label", cut)
    again: list[list[int]] = []
    while not Path("k.csv").exists():
        model = listener(0.0)
        text = io.StringIO()
        with contextlib.suppress(Killed):
            label_to_file(wanted, target, lambda model=model: model, Log(Console(file=text, width=400)))  # type: ignore[misc]
        said += text.getvalue()
        again += [asked for ear in model.networks if isinstance(ear, Ear) for asked in ear.asked]
        assert pieces[0] < 100
    assert again == heard
    assert re.search(r"going on: 1 of 3 recordings were labelled before, and the next up to [\d.]+ s", said)
    assert Path("k.csv").read_bytes() == Path("l.csv").read_bytes()
    assert Path("k.npz").read_bytes() == Path("e.npz").read_bytes()
    errors = [row["error"] for row in csv.DictReader(Path("l.csv").read_text().splitlines())]
    assert any(errors) == (broken and isinstance(cutting, Windows))


def test_pictures_are_of_whole_recordings_after_a_kill_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "AT_ONCE", 1.0)
    wanted = request(Windows(0.3, 0.1), "speech/1.wav", "speech/2.wav", pictures=Path("pictures"))
    run(wanted, Target(Path("l.csv"), "csv"))
    whole = {path.name: path.read_bytes() for path in Path("pictures").iterdir()}
    real = labelling.label

    def cut(*arguments: object) -> object:
        for number, piece in enumerate(real(*arguments)):  # type: ignore[arg-type]
            yield piece
            if number == 0:
                raise Killed

    monkeypatch.setattr(story, "label", cut)
    with pytest.raises(Killed):
        run(wanted, Target(Path("k.csv"), "csv"))
    monkeypatch.setattr(story, "label", real)
    run(wanted, Target(Path("k.csv"), "csv"))
    assert Path("k.csv").read_bytes() == Path("l.csv").read_bytes()
    assert {path.name: path.read_bytes() for path in Path("pictures").iterdir()} == whole


@pytest.mark.parametrize("cutting", [Whole(), Windows(0.3, 0.1)], ids=["whole", "windows"])
def test_vectors_are_the_same_from_npz_and_parquet(folder: Path, cutting: Cutting) -> None:
    parquet = need("parquet", "pyarrow.parquet")
    run(request(cutting), Target(Path("l.csv"), "csv", Path("e.npz")))
    run(request(cutting), Target(Path("k.csv"), "csv", Path("e.parquet")))
    arrays, table = np.load("e.npz"), parquet.read_table("e.parquet")
    flat = table["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, 6)
    np.testing.assert_array_equal(flat.view(np.uint32), arrays["embeddings"].view(np.uint32))
    assert len(table) == len(Path("l.csv").read_bytes().splitlines()) - 1
    np.testing.assert_array_equal(table["start"].to_numpy(), arrays["start"])
    np.testing.assert_array_equal(table["end"].to_numpy(), arrays["end"])


def test_going_on_computes_only_what_is_left(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = Target(Path("l.csv"), "csv")

    def stopped(*arguments: object) -> object:
        for piece in labelling.label(*arguments):  # type: ignore[arg-type]
            yield piece
            if piece.done == 6:
                os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(story, "label", stopped)
    with pytest.raises(Interrupted, match=r"stopped by SIGTERM; what was labelled is kept: repeat the command"):
        run(request(), target)
    monkeypatch.setattr(story, "label", labelling.label)
    model = listener(0.0, 0.1)
    assert "going on: 6 of 11 recordings were labelled before" in run(request(), target, lambda: model)
    (ear, _) = model.networks
    assert isinstance(ear, Ear)
    assert sum(map(len, ear.asked)) == 4  # 11 less 6 less the broken one


def test_nothing_is_computed_twice_and_everything_when_something_changed(folder: Path) -> None:
    target = Target(Path("l.csv"), "csv")
    Path("m").mkdir()
    Path("m/best.safetensors").write_bytes(b"1")
    run(request(), target)
    assert "nothing has changed" in run(request(), target, never)
    log, _ = quiet()
    assert "speech/7.wav" in label_to_file(request(), target, never, log)[0]
    others: list[Callable[[], Request]] = [
        lambda: request(Windows(0.3, 0.1)),
        lambda: request(None, "speech/1.wav"),
        lambda: request(models="n"),
        request,
        request,
    ]
    for number, other in enumerate(others):
        if number == 3:
            Path("speech/2.wav").write_bytes(Path("speech/1.wav").read_bytes())
        if number == 4:
            Path("m/best.safetensors").write_bytes(b"22")
        with pytest.raises(AssertionError, match="a model was loaded"):
            run(other(), target, never)
        assert "written" in run(other(), target)
        assert "nothing has changed" in run(other(), target, never)


def test_what_others_made_is_never_overwritten(folder: Path) -> None:
    target = Target(Path("l.csv"), "csv", Path("e.npz"))
    Path("l.csv").write_text("mine")
    with pytest.raises(UserError, match=r"l\.csv exists and isn't what an earlier `serfit predict` wrote"):
        run(request(), target, never)
    Path("l.csv").unlink()
    run(request(), target)
    with Path("l.csv").open("a") as file:
        file.write("a note\n")
    with pytest.raises(UserError, match="nothing is overwritten"):
        run(request(), target, never)
    Path("l.csv").unlink()
    run(request(), target)
    assert Path("l.csv").exists()
    Path("l.csv.partial").touch()  # killed, and then somebody put a file of his own there
    Path("l.csv").write_text("mine")
    with pytest.raises(UserError, match="nothing is overwritten"):
        run(request(), target)
    assert Path("l.csv").read_text() == "mine"
    Path("folder.csv").mkdir()
    with pytest.raises(UserError, match=r"folder\.csv is a folder"):
        run(request(), Target(Path("folder.csv"), "csv"), never)


def test_a_folder_that_cant_be_written_to_is_one_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(story, "take", refuse)
    with pytest.raises(UserError, match="can't write into speech: Permission denied"):
        run(request(), Target(Path("speech/l.csv"), "csv"), never)


def test_a_broken_file_whose_name_isnt_utf8_is_told_and_remembered(folder: Path) -> None:
    broken = Path(os.fsdecode(b"broken\xff.wav"))
    broken.write_bytes(b"RIFF")
    target = Target(Path("l.jsonl"), "jsonl")
    said = label_to_file(request(None, str(broken)), target, lambda: listener(0.0, 0.1), quiet()[0])
    assert said[0].startswith(f"{broken} is not audio")
    assert label_to_file(request(None, str(broken)), target, never, quiet()[0]) == said
    assert json.loads(Path("l.jsonl").read_text(encoding="utf-8"))["file"] == str(broken)


def test_an_unfinished_labelling_by_others_goes_with_a_word(folder: Path) -> None:
    def killed(ledger: Ledger, about: object) -> None:
        raise Killed

    for models, word in (("m", False), ("other", True)):
        wanted, target = request(models=models), Target(Path("l.csv"), "csv")
        log, text = quiet()
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Ledger, "finish", killed)
            with pytest.raises(Killed):
                label_to_file(wanted, target, listener, log)
        assert ("begun anew" in text.getvalue()) == word


def test_an_unfinished_labelling_by_an_older_version_goes_with_a_word(folder: Path) -> None:
    Path("l.csv.partial").write_text('1a2b3c4d {"format": 2}\n')
    assert "by another model, setting, list or version; it is begun anew" in run(
        request(), Target(Path("l.csv"), "csv")
    )
    assert not Path("l.csv.partial").exists()


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="limits of file sizes are Unix's")
def test_on_a_full_disk_one_sentence_says_how_to_go_on_and_it_does(folder: Path) -> None:
    import resource

    run(request(), Target(Path("l.csv"), "csv", Path("e.npz")))
    target, limits = Target(Path("k.csv"), "csv", Path("k.npz")), resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        for most in (200, 1_000, 1_500):
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
            with pytest.raises(UserError, match=r"^can't write k\.csv\.partial: File too large; make room, or see to"):
                run(request(), target)
            assert not Path("k.csv").exists()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert "going on: 6 of 11" in run(request(), target)
    assert Path("k.csv").read_bytes() == Path("l.csv").read_bytes()
    assert Path("k.npz").read_bytes() == Path("e.npz").read_bytes()


def test_two_at_once_dont_mix(folder: Path) -> None:
    lock = take(folder / ".l.csv.lock")
    with lock, pytest.raises(UserError, match=r"is being written by process \d+"):  # type: ignore[union-attr]
        run(request(), Target(folder / "l.csv", "csv"), never)
    lock = take(folder / ".e.npz.lock")
    with lock, pytest.raises(UserError, match=r"e\.npz is being written by process \d+"):  # type: ignore[union-attr]
        run(request(), Target(folder / "l.csv", "csv", folder / "e.npz"), never)
    with pytest.raises(UserError, match="there is no folder nowhere"):
        run(request(), Target(Path("nowhere/l.csv"), "csv"), never)


def test_pictures_of_every_recording(folder: Path) -> None:
    wanted = request(Windows(0.3, 0.1), "speech/1.wav", "speech/7.wav", "speech/2.wav", pictures=Path("pictures"))
    run(wanted, Target(Path("l.csv"), "csv"))
    assert sorted(path.name for path in Path("pictures").iterdir()) == [
        f"{number}_{kind}.{form}"
        for number in ("00001_1", "00003_2")
        for kind in ("circumplex", "time")
        for form in ("png", "svg")
    ]
    assert Path("pictures/00001_1_time.svg").read_text().startswith("<svg xmlns=")
    alone = request(Windows(0.3, 0.1), "speech/1.wav", pictures=Path("others"))
    run(alone, Target(Path("a.csv"), "csv"), lambda: listener(dimensions=("arousal",)))
    assert sorted(path.name for path in Path("others").iterdir()) == ["00001_1_time.png", "00001_1_time.svg"]


@pytest.mark.parametrize("name", ["x" * 250, "é" * 120, os.fsdecode(b"\xff" * 240)], ids=["long", "wide", "no UTF-8"])
def test_pictures_of_recordings_with_the_longest_of_names(folder: Path, name: str) -> None:
    Path(f"speech/{name}.wav").write_bytes(Path("speech/1.wav").read_bytes())
    run(request(Windows(0.3, 0.1), f"speech/{name}.wav", pictures=Path("pictures")), Target(Path("l.csv"), "csv"))
    assert len(list(Path("pictures").iterdir())) == 4
    assert all(path.name.startswith(f"00001_{name[:9]}") for path in Path("pictures").iterdir())
