"""ONNX files that lie: each loads and predicts, or gives one sentence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import serfit
from extras import need
from lies import FEW, check_sentence, indices, lies
from serfit.errors import UserError
from serfit.inference.onnx import METADATA
from serfit.inference.publish import export
from serfit.inference.publish.export import write_onnx
from serfit.inference.source import open_members

pytestmark = pytest.mark.slow  # exporting a network takes seconds

onnx = need("onnx", "onnx")

WAVEFORMS = [np.random.default_rng(7).standard_normal(800).astype(np.float32)]


@pytest.fixture(scope="module")
def written(trained: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two networks, with their weights in a file of their own."""
    path = tmp_path_factory.mktemp("onnx") / "both.onnx"
    members = open_members(trained()) * 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "MOST_INLINE_BYTES", 0)
        list(write_onnx(members, [None] * 2, path))
    return path


@pytest.fixture
def lying(written: Path, tmp_path: Path) -> Path:
    shutil.copytree(written.parent, tmp_path / "folder")
    return tmp_path / "folder" / written.name


def predicts_or_refuses(path: Path) -> str | None:
    try:
        assert np.isfinite(serfit.load(path).estimate(WAVEFORMS).values).all()
    except UserError as error:
        check_sentence(str(error))
        return str(error)
    return None


def test_any_value_of_any_metadata_predicts_or_gives_one_sentence(lying: Path) -> None:
    model = onnx.load(lying, load_external_data=False)
    (told,) = (entry for entry in model.metadata_props if entry.key == METADATA)
    described = json.loads(told.value)
    described["about"]["origin"] = {}
    for index in indices(described):
        for lie in lies(described, index, FEW):
            told.value = json.dumps(lie)
            onnx.save(model, lying)
            predicts_or_refuses(lying)
    for text in ("", "null", "3", "[" * 100_000, "\x00"):
        told.value = text
        onnx.save(model, lying)
        assert predicts_or_refuses(lying) is not None


@pytest.mark.parametrize("output", [0, 2, 4])
@pytest.mark.parametrize("width", [1, 10**9, None])
def test_a_graph_whose_outputs_are_declared_otherwise_does_no_harm(output: int, width: Any, lying: Path) -> None:
    model = onnx.load(lying, load_external_data=False)
    last = model.graph.output[output].type.tensor_type.shape.dim[-1]
    last.Clear()
    if width is not None:
        last.dim_value = width
    onnx.save(model, lying)
    predicts_or_refuses(lying)  # onnxruntime mostly knows the shape better


@pytest.mark.parametrize("kind", ["empty", "pointer", "text", "cut", "weights cut", "weights gone", "weights empty"])
def test_files_that_are_damaged_or_something_else(kind: str, lying: Path) -> None:
    weights = lying.with_name(f"{lying.name}.data")
    graph, numbers = lying.read_bytes(), weights.read_bytes()
    match kind:
        case "empty":
            lying.write_bytes(b"")
        case "pointer":
            lying.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
        case "text":
            lying.write_text("no graph at all")
        case "cut":
            lying.write_bytes(graph[: len(graph) // 2])
        case "weights cut":
            weights.write_bytes(numbers[: len(numbers) // 2])
        case "weights gone":
            weights.unlink()
        case "weights empty":
            weights.write_bytes(b"")
    assert predicts_or_refuses(lying) is not None


@pytest.mark.parametrize("where", ["../outside", "/absolute", "link"])
def test_weights_outside_of_the_folder_are_not_read(where: str, lying: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    shutil.move(lying.with_name(f"{lying.name}.data"), outside)
    named = {"../outside": "../outside", "/absolute": str(outside), "link": "link"}[where]
    if where == "link":
        (lying.parent / "link").symlink_to(outside)
    model = onnx.load(lying, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = named
    onnx.save(model, lying)
    assert predicts_or_refuses(lying) is not None
