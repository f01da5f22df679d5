"""`serfit import`: the example of its help, from the hub's cache, and a bundle that every verb takes."""

import csv
import re
import shutil
import sys
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import soundfile

import serfit
from documented import type_in
from inference.public.published import WAVEFORMS, Published, audeering, odyssey, vox_profile, vox_profile_whisper
from serfit.cli import main
from serfit.inference.page.answers import Limits, opening
from serfit.inference.page.words import LANGUAGES
from serfit.labels import DIMENSIONS
from support import config_file

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HUB_ID = "audeering/wav2vec2-large-robust-12-ft-emotion-msp-dim"


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Published:
    """audEERING's model in the hub's cache, and a recording in the current folder."""
    repository = tmp_path / "cache" / f"models--{HUB_ID.replace('/', '--')}"
    made = audeering(repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    soundfile.write("speech.wav", WAVEFORMS[2], 16_000, subtype="FLOAT")
    return made


def failed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_the_example_of_the_help_says_what_has_to_be_known(
    published: Published, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = re.findall(r"Example: (serfit .*)", type_in("serfit import --help"))
    said = type_in(example)
    assert HUB_ID in example
    for words in (
        "outputs: arousal, dominance, valence; in the bundle: valence, arousal, dominance\n",
        "scale: 1 to 7, that of MSP-Podcast; its own outputs, about 0 to 1, are the columns _unit\n",
        "licence: cc-by-nc-sa-4.0 (its README.md); no commercial use\n",
        "written: dawn\n",
    ):
        assert words in said, said
    imported = serfit.load("dawn").about.origin.imported
    assert imported is not None
    assert (imported.name, imported.revision) == (HUB_ID, COMMIT)
    unit = serfit.load("dawn").predict("speech.wav").unit
    assert unit == pytest.approx(published.computed(WAVEFORMS[2]), abs=1e-5)
    assert failed(capsys, *example.split()[1:]).startswith("error: dawn isn't empty; name a new folder")
    assert "make a bundle of it: serfit import" in failed(capsys, "predict", HUB_ID, "speech.wav")
    assert "--order names joy; give valence" in failed(capsys, "import", HUB_ID, "new", "--order", "joy,valence")
    assert "can't be had" in failed(capsys, "import", HUB_ID, "new", "--revision", "elsewhere")
    assert not Path("new").exists()


def test_the_card_is_fetched_and_code_is_not(published: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    fetch = huggingface_hub.snapshot_download

    def snapshot_download(name: str, *, allow_patterns: list[str], **options: object) -> str:
        asked.extend(allow_patterns)
        return str(fetch(name, allow_patterns=allow_patterns, **options))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    type_in(f"serfit import {HUB_ID} dawn")
    wanted = ["README.md", "config.json", "preprocessor_config.json", "model.safetensors", "pytorch_model.bin"]
    there = [*wanted, "pipeline_utils.py", "training_args.bin"]
    assert [file for file in there if any(fnmatch(file, one) for one in asked)] == wanted


@pytest.mark.parametrize("page", ["docs/importing.md", "README.md"])
def test_the_commands_of_the_pages_label_speech(page: str, published: Published) -> None:
    text = (Path(__file__).parents[2] / page).read_text(encoding="utf-8")
    (block,) = [one for one in re.findall(r"^```bash\n(.*?)^```", text, flags=re.M | re.S) if "serfit import" in one]
    for folder in ("speech", "recordings"):
        Path(folder).mkdir()
        shutil.copy("speech.wav", folder)
    for command in block.splitlines():
        type_in(command)
    assert len(Path("labels.csv").read_text().splitlines()) == 2


def test_verbs_take_the_bundle(published: Published, capsys: pytest.CaptureFixture[str]) -> None:
    type_in(f"serfit import {HUB_ID} dawn")
    type_in("serfit predict dawn speech.wav --output labels.csv")
    header, row = (line.split(",") for line in Path("labels.csv").read_text().splitlines())
    expected = published.computed(WAVEFORMS[2])
    for name in DIMENSIONS:
        assert float(row[header.index(f"{name}_unit")]) == pytest.approx(expected[name], abs=1e-5)
        assert float(row[header.index(name)]) == pytest.approx(1 + 6 * expected[name], abs=1e-4)
    type_in("serfit export dawn --to bundle --output again")
    assert serfit.load("again").predict("speech.wav").values == serfit.load("dawn").predict("speech.wav").values
    type_in("serfit export dawn --to hub-folder --output folder")
    assert "cc-by-nc-sa-4.0" in Path("folder/README.md").read_text()
    html = opening(serfit.load("dawn"), 1, LANGUAGES["en"], Limits())
    assert "wav2vec2-large-robust-12-ft-emotion-msp-dim" in html
    assert "CCC" not in html
    assert "nor has a public model" in failed(capsys, "predict", "dawn", "speech.wav", "--calibrate", "affine")


def test_a_stream_takes_the_bundle(
    published: Published, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    type_in(f"serfit import {HUB_ID} dawn")
    Path("speech.raw").write_bytes(WAVEFORMS[2].tobytes() * 2)
    with open("speech.raw") as source, monkeypatch.context() as patched:
        patched.setattr(sys, "stdin", source)
        with pytest.raises(SystemExit) as caught:
            main(["stream", "dawn", "--window", "1", "--hop", "1", "--format", "f32le"])
    assert not caught.value.code
    _, *rows = capsys.readouterr().out.splitlines()
    expected = published.computed(WAVEFORMS[2])
    for row in rows:
        values = [float(cell) for cell in row.split(",")[2:5]]
        assert values == pytest.approx([1 + 6 * expected[name] for name in DIMENSIONS], abs=1e-4)
    assert len(rows) == 2


@pytest.mark.slow
@pytest.mark.parametrize("write", [audeering, odyssey, vox_profile, vox_profile_whisper])
def test_each_layout_is_scored_on_a_corpus(
    write: Callable[[Path], Published], published: Published, release: Path, tmp_path: Path
) -> None:
    made = write(tmp_path / "public-model")
    type_in(f"serfit import {made.folder} bundle")
    type_in(f"serfit evaluate bundle --config {config_file(tmp_path / 'tiny.yaml', release, tmp_path)} --fold 1")
    (predictions,) = (tmp_path / "runs").glob("*/predictions.csv")
    rows = list(csv.DictReader(predictions.read_text().splitlines()))
    waveforms = {path.stem: path for path in release.rglob("*.wav")}
    assert len(rows) == 8
    for row in rows:
        expected = made.computed(soundfile.read(waveforms[row["id"]], dtype="float32")[0])
        for name in ("valence", "arousal"):
            assert float(row[f"{name}_predicted"]) == pytest.approx(1 + 4 * expected[name], abs=1e-4)


@pytest.mark.slow
@pytest.mark.extra("onnx")
@pytest.mark.parametrize("write", [audeering, odyssey, vox_profile, vox_profile_whisper])
def test_each_layout_becomes_an_onnx_file_that_carries_the_licence(
    write: Callable[[Path], Published], published: Published, tmp_path: Path
) -> None:
    made = write(tmp_path / "public-model")
    type_in(f"serfit import {made.folder} bundle")
    type_in("serfit export bundle --to onnx --output model.onnx")
    model = serfit.load("model.onnx")
    expected = [[made.computed(waveform)[name] for name in DIMENSIONS] for waveform in WAVEFORMS]
    np.testing.assert_allclose(model.estimate(WAVEFORMS).unit, expected, rtol=0, atol=2e-5)
    imported = model.about.origin.imported
    assert imported is not None
    assert imported == serfit.load("bundle").about.origin.imported
    assert imported.licence in Path("model.yaml").read_text()
