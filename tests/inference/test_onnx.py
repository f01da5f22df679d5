"""ONNX files: what torch says, whatever the batch; nothing of this machine in them; left behind only if they agree."""

import csv
import json
import shutil
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import serfit
from extras import need
from serfit.cli import main
from serfit.errors import UserError
from serfit.inference.onnx import METADATA, open_onnx
from serfit.inference.publish import export
from serfit.inference.publish.export import write_onnx
from serfit.inference.publish.heldout import heldout_speech
from serfit.inference.source import calibrated_members, open_members
from serfit.runs import directory as runs

pytestmark = pytest.mark.slow  # exporting a network takes seconds

onnx = need("onnx", "onnx")

WAVEFORMS = [
    np.random.default_rng(size).standard_normal(size).astype(np.float32) * level + level
    for size, level in ((400, 0.1), (16_000, 1.0), (5_123, 0.01), (48_000, 0.3), (720, 3.0))
]
BASE = {"model__params__speech_encoder": "random:tiny-base", "model__params__pooling": "mean"}


def left(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return int(caught.value.code or 0)


@pytest.fixture(scope="module")
def folds(trained: Callable[..., Path]) -> list[Path]:
    return [trained(**BASE, data__split__fold=fold) for fold in (1, 2)]


@pytest.fixture(scope="module")
def ensemble(folds: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two networks of base's layout, isotonic maps inside, the weights in a second file."""
    path = tmp_path_factory.mktemp("onnx") / "both.onnx"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "MOST_INLINE_BYTES", 0)
        assert left("export", *folds, "--to", "onnx", "--output", path, "--calibrate", "isotonic") == 0
    return path


def same(one: Any, other: Any, atol: float = 1e-4) -> None:
    np.testing.assert_allclose(one.unit, other.unit, atol=atol)
    np.testing.assert_allclose(one.values, other.values, atol=4 * atol)
    np.testing.assert_allclose(one.embeddings, other.embeddings, atol=1e-4 * np.abs(other.embeddings).max())
    assert (one.spread is None) == (other.spread is None)
    if one.spread is not None:
        np.testing.assert_allclose(one.spread, other.spread, atol=8 * atol)


def test_one_network_says_what_it_said(published: Path) -> None:
    (run,) = (published / "runs").glob("*fold1*")
    model, network = serfit.load(published / "published" / "model.onnx"), serfit.load(run)
    same(model.estimate(WAVEFORMS), network.estimate(WAVEFORMS))
    assert (model.dimensions, model.scales) == (network.dimensions, network.scales)
    assert str(model.about.origin.run).startswith("ema_iemocap_finetune_fold1")
    for name in ("speech.wav", *(f"speech/{path.name}" for path in (published / "speech").iterdir())):
        heard = model.predict(published / name), network.predict(published / name)
        assert heard[0].values == pytest.approx(heard[1].values, abs=1e-4)


def test_an_ensemble_with_maps_inside_says_what_its_members_say(ensemble: Path, folds: list[Path]) -> None:
    assert ensemble.with_name("both.onnx.data").is_file()
    model, network = serfit.load(ensemble), serfit.load(*folds, calibrate="isotonic")
    same(model.estimate(WAVEFORMS), network.estimate(WAVEFORMS))
    again = serfit.load(ensemble, *folds, calibrate="isotonic").estimate(WAVEFORMS)
    assert again.spread is not None  # of four networks, two of them twice
    np.testing.assert_allclose(again.values, network.estimate(WAVEFORMS).values, atol=1e-4)
    np.testing.assert_allclose(again.spread, network.estimate(WAVEFORMS).spread * np.sqrt(2 / 3), atol=1e-3)
    assert serfit.load(ensemble, calibrate="isotonic").about == model.about
    with pytest.raises(UserError, match="exported with the calibration isotonic, and affine is asked for"):
        serfit.load(ensemble, calibrate="affine")


def test_the_graph_alone_gives_values_on_the_scale(ensemble: Path, folds: list[Path]) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(ensemble))
    batch = np.full((3, 20_000), 1e9, dtype=np.float32)  # rubbish wherever nothing is written
    lengths = [16_000, 400, 720]
    for row, index in zip(batch, (1, 0, 4), strict=True):
        row[: len(WAVEFORMS[index])] = WAVEFORMS[index]
    names = [output.name for output in session.get_outputs()]
    said = dict(zip(names, session.run(None, {"waveform": batch, "lengths": np.array(lengths)}), strict=True))
    expected = serfit.load(*folds, calibrate="isotonic").estimate([WAVEFORMS[index] for index in (1, 0, 4)])
    np.testing.assert_allclose(said["values"], expected.values, atol=4e-4)
    np.testing.assert_allclose(said["spread"], expected.spread, atol=8e-4)
    assert said["members"].shape == (3, 2, 2)
    assert said["embedding"].dtype == np.float32


def test_eight_bits_are_near_and_their_difference_is_written_down(published: Path) -> None:
    path = published / "published" / "model.int8.onnx"
    assert path.stat().st_size < 0.8 * path.with_name("model.onnx").stat().st_size
    told = yaml.safe_load((published / "published" / "model.yaml").read_text())
    exact, rounded = told["files"]
    assert max(exact["greatest_difference_to_torch"].values()) <= 4e-4
    assert 0.0 < max(rounded["greatest_difference_to_torch"].values()) < 0.5
    assert (rounded["file"], rounded["precision"]) == (path.name, "int8")
    model, network = (serfit.load(path.with_name(name)) for name in ("model.int8.onnx", "model.onnx"))
    assert np.abs(model.estimate(WAVEFORMS).values - network.estimate(WAVEFORMS).values).max() < 0.5


@given(
    rows=st.lists(st.tuples(st.integers(0, 4), st.sampled_from([1.0, 1e-3, 1e4])), min_size=1, max_size=5),
    bad=st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["short", "empty", "long", "nan"])), max_size=2),
    more=st.integers(0, 3_000),
    rubbish=st.sampled_from([0.0, 1e6, np.nan, np.inf]),
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("name", ["model.onnx", "model.int8.onnx"])
def test_a_row_is_the_same_alone_and_in_any_batch(
    published: Path, name: str, rows: list[tuple[int, float]], bad: list[tuple[int, str]], more: int, rubbish: float
) -> None:
    session = opened(published / "published" / name)
    good = [(loud * WAVEFORMS[index], len(WAVEFORMS[index])) for index, loud in rows]
    width = max(len(one) for one, _ in good) + more
    batch: list[tuple[Any, int, bool]] = [(one, length, True) for one, length in good]
    for index, kind in bad:
        length = {"short": 399, "empty": 0, "long": width + 1, "nan": 500}[kind]
        batch.insert(index, (np.full(min(length, width), np.nan if kind == "nan" else 0.5, np.float32), length, False))
    array = np.full((len(batch), width), rubbish, dtype=np.float32)
    for row, (one, _, _) in zip(array, batch, strict=True):
        row[: len(one)] = one
    names = ["unit", "values", "embedding"]
    together = session.run(names, {"waveform": array, "lengths": np.array([length for _, length, _ in batch])})
    for row, (one, length, usable) in enumerate(batch):
        for index, said in enumerate(together):
            if usable:
                (alone,) = session.run([names[index]], {"waveform": one[None], "lengths": np.array([length])})
                np.testing.assert_allclose(said[row], alone[0], atol=1e-5, rtol=1e-5)
            else:
                assert np.isnan(said[row]).all(), "no number is made up for a row that can't be used"


@pytest.mark.parametrize("width", [1, 10, 399, 400])
@pytest.mark.parametrize("name", ["model.onnx", "model.int8.onnx"])
def test_an_array_narrower_than_the_shortest_waveform_gives_nan(published: Path, name: str, width: int) -> None:
    """As the YAML beside the file states."""
    session = opened(published / "published" / name)
    for count in (1, 3):
        lengths = np.array([min(width, 399), *[400] * (count - 1)])
        array = np.full((count, width), 0.5, np.float32)
        for said in session.run(None, {"waveform": array, "lengths": lengths}):
            assert np.isnan(said[0]).all()
            assert np.isfinite(said[1:]).all() == (width == 400 or count == 1)


def test_rows_that_cant_be_used_are_named(published: Path) -> None:
    network = open_onnx(published / "published" / "model.int8.onnx", torch.device("cpu"))
    for length in (0, 399, 801, -5):
        with pytest.raises(UserError, match=f"row 2 of 2 is said to have {length} samples, and the model needs 400 to"):
            network.run(np.zeros((2, 800), np.float32), [800, length])


@cache
def opened(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options)


def test_the_difference_is_measured_on_the_test_set_of_the_run(published: Path, tmp_path: Path) -> None:
    (run,) = (published / "runs").glob("*fold1*")
    for file in yaml.safe_load((published / "published" / "model.yaml").read_text())["files"]:
        assert file["measured_on"] == "8 of 8 test utterances of the runs"
    with (run / runs.PREDICTIONS).open() as table:
        expected = {row["id"]: float(row["valence_predicted"]) for row in csv.DictReader(table)}
    speech = heldout_speech([run], 400)
    assert speech is not None
    values = serfit.load(run).estimate(speech.waveforms).values[:, 0]
    np.testing.assert_allclose(sorted(values), sorted(expected.values()), atol=1e-3)

    moved = shutil.copytree(run, tmp_path / "elsewhere")
    config = json.loads((run / runs.CONFIG).read_text())
    config["data"]["root"] = str(tmp_path / "gone")
    (moved / runs.CONFIG).write_text(json.dumps(config))
    assert left("export", moved, "--to", "onnx", "--output", tmp_path / "moved.onnx") == 0
    (file,) = yaml.safe_load((tmp_path / "moved.yaml").read_text())["files"]
    assert file["measured_on"].startswith("7 synthetic waveforms")


def test_eight_bits_need_nothing_that_an_older_onnxruntime_lacks(
    folds: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`onnxruntime.quantization` ends in a traceback below 1.32; the oldest allowed has to write the file, too."""
    monkeypatch.setitem(sys.modules, "onnxruntime.quantization", None)
    assert left("export", folds[0], "--to", "onnx", "--output", tmp_path / "old.onnx", "--int8") == 0
    model = onnx.load(tmp_path / "old.int8.onnx")
    assert {node.domain for node in model.graph.node} == {""}  # standard operators only
    assert [one.version for one in model.opset_import if one.domain == ""] <= [21]


def test_the_exact_file_stays_when_eight_bits_fail(
    folds: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("[ShapeInferenceError] (128) vs (256)")

    monkeypatch.setattr(export, "write_eight_bits", fail)
    assert left("export", folds[0], "--to", "onnx", "--output", tmp_path / "kept.onnx", "--int8") == 2
    assert "kept.onnx is written and complete, but kept.int8.onnx isn't" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept.onnx", "kept.yaml"]
    assert len(yaml.safe_load((tmp_path / "kept.yaml").read_text())["files"]) == 1
    assert serfit.load(tmp_path / "kept.onnx").estimate(WAVEFORMS).values.shape == (5, 2)


def test_the_yaml_says_what_is_what(published: Path) -> None:
    told = yaml.safe_load((published / "published" / "model.yaml").read_text())
    assert (told["sample_rate"], told["dimensions"], told["shortest_waveform"]) == (16_000, ["valence", "arousal"], 400)
    assert told["scales"] == {"valence": [1.0, 5.0], "arousal": [1.0, 5.0]}
    assert "zero mean, unit variance" in told["normalisation"]
    assert set(told["inputs"]) == {"waveform", "lengths"}
    assert set(told["outputs"]) == {"values", "unit", "embedding"}
    assert told["calibration"] == [None]
    text = (published / "published" / "model.yaml").read_text()
    assert "example: |" in text  # as it is, to be copied
    assert "not clipped" in told["outputs"]["values"]


def test_the_example_of_the_yaml_gives_the_values_of_the_run(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(published / "published")
    example = yaml.safe_load(Path("model.yaml").read_text())["example"].replace("speech.wav", "../speech.wav")
    names: dict[str, Any] = {}
    exec(example, names)
    (run,) = (published / "runs").glob("*fold1*")
    emotion = serfit.load(run).predict("../speech.wav")
    np.testing.assert_allclose(names["values"][0], list(emotion.values.values()), atol=4e-4)


def test_axes_have_names(published: Path, ensemble: Path) -> None:
    import onnxruntime

    for path in (published / "published" / "model.onnx", published / "published" / "model.int8.onnx", ensemble):
        session = onnxruntime.InferenceSession(str(path))
        shapes = {one.name: one.shape for one in (*session.get_inputs(), *session.get_outputs())}
        assert (shapes.pop("waveform"), shapes.pop("lengths")) == (["batch", "samples"], ["batch"])
        assert {shape[0] for shape in shapes.values()} == {"batch"}
        assert all(isinstance(size, int) for shape in shapes.values() for size in shape[1:])


def test_labels_through_onnx_are_those_of_the_run(published: Path, tmp_path: Path) -> None:
    (run,) = (published / "runs").glob("*fold1*")
    tables = []
    for model in (run, published / "published" / "model.onnx"):
        output = tmp_path / f"{model.name}.csv"
        assert left("predict", model, published / "speech", "--output", output) == 0
        with output.open() as file:
            tables.append(list(csv.DictReader(file)))
    assert len(tables[0]) == 3
    for one, other in zip(*tables, strict=True):
        assert one["file"] == other["file"]
        assert float(one["valence"]) == pytest.approx(float(other["valence"]), abs=1e-4)


def test_nothing_of_this_machine_travels(ensemble: Path, published: Path, folds: list[Path]) -> None:
    private = [str(Path(export.__file__).parents[4]), str(folds[0].parent), str(Path.home()), "stack_trace", ".py"]
    private += ["site-packages", "runs_dir", "host", "data.root"]
    for folder in (ensemble.parent, published / "published"):
        for path in folder.rglob("*"):
            content = path.read_bytes() if path.is_file() else b""
            for word in private:
                if not (word == str(Path.home()) and len(word) < 6):  # /root is no word, it is a prefix of others
                    assert word.encode() not in content, (path.name, word)


def test_a_graph_that_isnt_the_network_is_not_left_behind(
    published: Path, trained: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = published / "published" / "model.onnx"
    monkeypatch.setattr(export, "_trace", lambda graph, path, described, members: shutil.copy(other, path))
    with pytest.raises(UserError, match=r"the ONNX graph isn't the network: on \[0, 1\] it is off by"):
        list(write_onnx(open_members(trained(data__split__fold=2)), [None], tmp_path / "new" / "bad.onnx"))
    assert not list((tmp_path / "new").iterdir())


BAD = {
    "another ending": (("--to", "onnx", "--output", "{tmp}/model.bin"), "must end with .onnx"),
    "a file in the way": (("--to", "onnx", "--output", "{tmp}/there.onnx"), "exists, and nothing is overwritten"),
    "another format": (("--to", "tflite", "--output", "{tmp}/x"), "a model goes to onnx, bundle, hub-folder"),
    "eight bits of a bundle": (("--to", "bundle", "--int8", "--output", "{tmp}/x"), "means nothing to a bundle"),
    "another map": (("--to", "bundle", "--calibrate", "cubic", "--output", "{tmp}/x"), "there is affine, isotonic"),
    "a folder in the way": (("--to", "bundle", "--output", "{tmp}"), "isn't empty"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_wishes_are_a_sentence(
    folds: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    (tmp_path / "there.onnx").touch()
    arguments, sentence = BAD[case]
    assert left("export", folds[0], *(one.format(tmp=tmp_path) for one in arguments)) == 2
    assert sentence in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["there.onnx"]


def test_files_that_are_no_model_are_a_sentence(published: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no file"):
        serfit.load(tmp_path / "nothing.onnx")
    (tmp_path / "torn.onnx").write_bytes((published / "published" / "model.onnx").read_bytes()[:20_000])
    with pytest.raises(UserError, match="can't be opened as ONNX"):
        serfit.load(tmp_path / "torn.onnx")
    model = onnx.load(published / "published" / "model.onnx")
    described = json.loads(model.metadata_props[0].value)
    for change, sentence in (
        ({"format": 2}, "of ONNX format 2, and this serfit reads up to 1"),
        ({"members": 2}, "hasn't the inputs and outputs"),
        ({"members": None}, "metadata of .* are incomplete"),
        ({"about": {}}, "doesn't describe a serfit model"),
    ):
        onnx.helper.set_model_props(model, {METADATA: json.dumps(described | change)})
        onnx.save(model, tmp_path / "changed.onnx")
        with pytest.raises(UserError, match=sentence):
            serfit.load(tmp_path / "changed.onnx")
    onnx.helper.set_model_props(model, {})
    onnx.save(model, tmp_path / "bare.onnx")
    with pytest.raises(UserError, match="doesn't say what it predicts"):
        serfit.load(tmp_path / "bare.onnx")
    with pytest.raises(UserError, match="the way back is closed"):
        calibrated_members([published / "published" / "model.onnx"], None)
