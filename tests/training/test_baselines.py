"""The hand-made baseline: its arithmetic, and the runs it writes."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from rich.console import Console

from serfit.config.load import load_config
from serfit.config.schema import ExperimentConfig, FeatureSettings
from serfit.corpus.utterance import Utterance
from serfit.report.compare import compare, read_run, to_markdown
from serfit.runs import directory as runs
from serfit.system.counters import generator
from serfit.system.log import Log
from serfit.training.baselines import SUFFIX, SYSTEM, hand_made_features, open_hand_made, run_baseline
from serfit.training.trainer import Part
from support import settings, small_release, tone


def quiet() -> Log:
    return Log(Console(file=io.StringIO()))


def test_every_fold_becomes_a_finished_run_that_compare_lists(tmp_path: Path) -> None:
    root = small_release(tmp_path / "release", dialogues=2, turns=8)
    config = ExperimentConfig.model_validate(settings(root, tmp_path))
    written = run_baseline(config, quiet())
    assert [read_run(directory).fold for directory in written] == [1, 2, 3, 4, 5]
    again = run_baseline(config, quiet(), fold=3)
    first, second = (directory / runs.PREDICTIONS for directory in (written[2], again[0]))
    assert first.read_bytes() == second.read_bytes()
    assert first.read_text().splitlines()[1].split(",")[8] != ""  # seconds
    plain = json.loads((written[0] / runs.CONFIG).read_text())
    assert set(plain) == {"experiment", "data"}
    assert "loader" not in plain["data"]
    load_config(written[0] / runs.CONFIG)
    environment = json.loads((written[0] / runs.ENVIRONMENT).read_text())
    assert environment["system"] == SYSTEM
    labels = runs.read_labels(written[0])
    assert labels is not None
    assert len(labels.cuts) == 5 * 2 * 8
    assert environment["corpus"]["labels"] == labels.digests()
    assert all(read_run(directory).labels == labels.digests() for directory in written)
    comparison = compare(tmp_path / "runs")
    (result,) = comparison.experiments
    assert result.label == f"tiny_{SUFFIX}"
    assert result.missing == ()
    assert result.test["average"].mean is not None
    assert result.test["average"].mean > 0.5  # pitch follows arousal and brightness valence in these tones
    text = to_markdown(comparison)
    assert SYSTEM in text
    assert "0 of 0" not in text


def test_hand_made_features_come_back_from_the_store_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sounds = {"tone": tone(0.5, 0.5, 0.4, generator("tone")), "silence": np.zeros(5_000, dtype=np.float32)}
    for name, samples in sounds.items():
        soundfile.write(tmp_path / f"{name}.wav", samples, 16_000)
    part = Part(tuple(Utterance(name, tmp_path / f"{name}.wav", {}) for name in sounds), (0.4, 0.3), (), {})
    store = open_hand_made(FeatureSettings(store=tmp_path / "store"))
    assert open_hand_made(FeatureSettings(store=None)) is None
    fresh, kept = (hand_made_features(part, {}, quiet(), one) for one in (None, store))
    assert np.isnan(fresh[1]).any()
    np.testing.assert_array_equal(kept, fresh)
    monkeypatch.setattr("serfit.training.baselines.acoustic_features", lambda *_: pytest.fail("computed again"))
    np.testing.assert_array_equal(hand_made_features(part, {}, quiet(), store), fresh)
