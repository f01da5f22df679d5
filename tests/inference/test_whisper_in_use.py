"""Whisper through the whole path: trained, resumed from the store, published, exported, and asked again."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import serfit
from extras import need
from nn.small import build_whisper
from serfit.cli import main
from serfit.config.schema import ExperimentConfig
from serfit.report.compare import read_run
from serfit.runs import directory as runs
from serfit.system.log import Log
from serfit.training.experiment import run_experiment
from support import settings, small_release

LENGTHS = (201, 5_000, 16_000, 40_000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release with utterances that are shorter and longer than the windows of a small Whisper (1 s)."""
    from transformers import WhisperFeatureExtractor

    folder = tmp_path_factory.mktemp("whisper")
    small_release(folder / "iemocap", seconds=0.9)
    build_whisper().half().save_pretrained(folder / "encoder")
    WhisperFeatureExtractor().save_pretrained(folder / "encoder")
    return folder


def train(folder: Path, name: str, **changes: Any) -> Path:
    plan = settings(folder / "iemocap", folder / name, **changes)
    plan["model"]["params"]["speech_encoder"] = str(folder / "encoder")
    plan["features"]["store"] = str(folder / "store")
    return run_experiment(ExperimentConfig.model_validate(plan), Log(Console(file=io.StringIO())))


def waveforms() -> list[np.ndarray]:
    random = np.random.default_rng(5)
    return [(0.1 * random.standard_normal(length)).astype(np.float32) for length in LENGTHS]


def left(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return int(caught.value.code or 0)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["utterance", "window"])
@pytest.mark.parametrize("pooling", ["mean", "attentive_statistics"])
def test_a_run_is_its_bundle_and_its_graph(folder: Path, mode: str, pooling: str) -> None:
    need("onnx", "onnx")
    run = train(
        folder, f"{mode} {pooling}", model__params__encoder_input=mode, model__params__pooling=pooling,
        model__params__freeze_layers=1,
    )  # fmt: skip
    log = (run / runs.TRAIN_LOG).read_text()
    assert "longer than 1 s: encoded in windows of that length, whose frames are pooled together" in log
    assert "normalised" not in log
    assert read_run(run).environment.encoder.architecture["input"] == mode
    bundle, graph = run.parent / "bundle", run.parent / "model.onnx"
    assert left("export", run, "--to", "bundle", "--output", bundle) == 0
    assert left("export", run, "--to", "onnx", "--output", graph) == 0
    first = serfit.load(run).estimate(waveforms())
    np.testing.assert_array_equal(serfit.load(bundle).estimate(waveforms()).unit, first.unit)
    np.testing.assert_allclose(serfit.load(graph).estimate(waveforms()).unit, first.unit, atol=1e-4)
    for index, waveform in enumerate(waveforms()):
        np.testing.assert_allclose(serfit.load(bundle).estimate([waveform]).unit[0], first.unit[index], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["utterance", "window"])
def test_what_is_stored_gives_the_bytes_of_what_is_computed(folder: Path, mode: str) -> None:
    frozen = {"model__params__freeze_speech_encoder": True, "model__params__encoder_input": mode}
    first, again = (train(folder, f"{mode} {name}", **frozen) for name in ("first", "again"))
    assert (first / runs.METRICS).read_bytes() == (again / runs.METRICS).read_bytes()
    assert (first / runs.PREDICTIONS).read_bytes() == (again / runs.PREDICTIONS).read_bytes()
    assert left("check", "--config", first / "config.json") == 0
