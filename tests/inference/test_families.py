"""Encoders of every family from a folder to a published network: trained, stored, bundled, exported, foretold."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import serfit
from nn.small import build_hf
from serfit.config.schema import ExperimentConfig
from serfit.inference.bundle import write_bundle
from serfit.inference.publish.export import write_onnx
from serfit.inference.source import open_members
from serfit.training.forecast import forecast
from serfit.training.material import prepare
from support import settings

pytestmark = pytest.mark.slow

WAVEFORMS = [
    np.random.default_rng(size).standard_normal(size).astype(np.float32) * level
    for size, level in ((560, 0.1), (16_000, 1.0), (5_123, 0.01), (720, 3.0))
]
OTHERS = [("hubert", "base"), ("wav2vec2", "large"), ("data2vec-audio", "base")]
OTHERS += [(family, layout) for family in ("wav2vec2-conformer", "wav2vec2-bert") for layout in ("base", "large")]


@pytest.fixture(scope="module", params=OTHERS, ids=[" ".join(one) for one in OTHERS])
def changes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings that train everything above the CNN, or the top two of three layers."""
    family, layout = request.param
    folder = tmp_path_factory.mktemp("encoder")
    build_hf(family, layout).save_pretrained(folder)
    return {
        "model__params__speech_encoder": str(folder),
        "model__params__freeze_layers": int(layout == "large"),
        "train__epochs": 1,
    }


@pytest.fixture(scope="module")
def run(changes: dict[str, Any], trained: Callable[..., Path]) -> Path:
    return trained(**changes)


def test_training_fills_the_store_with_what_is_frozen(run: Path, changes: dict[str, Any]) -> None:
    from serfit.nn.model import model_of
    from serfit.system.precision import Precision
    from serfit.training.features import features_of

    config = ExperimentConfig.model_validate_json((run / "config.json").read_text())
    features = features_of(config, model_of(config), Precision())
    assert features.stage == (3 if changes["model__params__freeze_layers"] else 1)
    material = prepare(config)
    assert features.missing([*material.split.train, *material.split.validation]) == []


def test_a_bundle_and_a_graph_say_what_the_run_says(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    expected = serfit.load(run).estimate(WAVEFORMS)
    write_bundle(tmp_path / "bundle", open_members(run))
    assert np.array_equal(serfit.load(tmp_path / "bundle").estimate(WAVEFORMS).unit, expected.unit)
    assert list(write_onnx(open_members(run), [None], tmp_path / "model.onnx"))
    found = serfit.load(tmp_path / "model.onnx").estimate(WAVEFORMS)
    np.testing.assert_allclose(found.unit, expected.unit, atol=1e-4)
    np.testing.assert_allclose(found.embeddings, expected.embeddings, atol=1e-4 * np.abs(expected.embeddings).max())


def test_memory_and_time_are_foretold(changes: dict[str, Any], release: Path, tmp_path: Path) -> None:
    config = ExperimentConfig.model_validate(settings(release, tmp_path, **changes))
    lines = list(forecast(config, prepare(config)))
    assert any("s per second of speech, an epoch about" in line for line in lines)
    assert any(line.startswith("predicted GPU memory") for line in lines)
