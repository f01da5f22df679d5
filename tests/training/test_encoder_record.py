"""What an encoder is given and computes belongs to a run: it is recorded, and a change of the folder is noticed."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from nn.small import build_hf
from serfit.config.schema import ExperimentConfig
from serfit.errors import UserError
from serfit.inference.source import open_recogniser
from serfit.nn.encoders.build import encoder_differences
from serfit.runs import directory as runs
from serfit.runs.records import CorpusRecord, EncoderRecord, Environment
from serfit.system.log import Log
from serfit.training.experiment import run_experiment
from serfit.training.resume import check_unchanged
from support import settings, small_release

PRE = "preprocessor_config.json"


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    build_hf("wavlm", "large").save_pretrained(tmp_path / "encoder")
    (tmp_path / "encoder" / PRE).write_text(json.dumps({"do_normalize": False, "sampling_rate": 16000}))
    return tmp_path / "encoder"


@pytest.fixture
def train(tmp_path: Path, encoder: Path) -> Callable[[], tuple[Path, str]]:
    release = small_release(tmp_path / "release", dialogues=1, turns=3)

    def trained() -> tuple[Path, str]:
        said = io.StringIO()
        changes = {"speech_encoder": str(encoder), "freeze_speech_encoder": True, "pooling": "mean"}
        values = settings(release, tmp_path, train__epochs=1, **{f"model__params__{k}": v for k, v in changes.items()})
        log = Log(Console(file=said, width=200))
        return run_experiment(ExperimentConfig.model_validate(values), log), said.getvalue()

    return trained


def values(run: Path) -> np.ndarray:
    quiet = (0.01 * np.random.default_rng(1).standard_normal(8000)).astype(np.float32)
    return open_recogniser([run]).estimate([quiet]).unit


def edit(encoder: Path, **changes: Any) -> None:
    config = json.loads((encoder / "config.json").read_text())
    (encoder / "config.json").write_text(json.dumps(config | changes))


def test_a_run_keeps_to_what_it_recorded_when_the_folder_changes(
    train: Callable[[], tuple[Path, str]], encoder: Path
) -> None:
    run, said = train()
    assert "normalised, by the encoder's layout" not in said
    recorded = json.loads((run / runs.ENVIRONMENT).read_text())["encoder"]
    assert (recorded["normalise"], recorded["normalise_from"], recorded["sampling_rate"]) == (False, PRE, 16_000)
    assert recorded["architecture"]["hidden_act"] == "gelu"
    before = values(run)
    (encoder / PRE).unlink()
    np.testing.assert_array_equal(values(run), before)
    (encoder / PRE).write_text(json.dumps({"do_normalize": True}))
    np.testing.assert_array_equal(values(run), before)
    edit(encoder, hidden_act="relu")
    with pytest.raises(UserError, match=r"isn't as it was when .* was trained \(hidden_act was gelu and is relu\)"):
        values(run)
    recorded_long_ago = json.loads((run / runs.ENVIRONMENT).read_text())
    recorded_long_ago["encoder"] = {key: recorded[key] for key in ("name", "revision", "sha256")}
    (run / runs.ENVIRONMENT).write_text(json.dumps(recorded_long_ago))
    assert values(run).shape == before.shape


def test_a_guess_is_said_in_one_line(train: Callable[[], tuple[Path, str]], encoder: Path) -> None:
    (encoder / PRE).unlink()
    (line,) = [line for line in train()[1].splitlines() if "by the encoder's layout" in line]
    assert f"note: waveforms are normalised, by the encoder's layout; it has no {PRE}" in line


ENCODER = {
    "sha256": "0",
    "normalise": True,
    "sampling_rate": 16_000,
    "architecture": {"hidden_act": "gelu", "conv_stride": [5, 2]},
}


def made_of(encoder: dict[str, Any]) -> Environment:
    return Environment(corpus=CorpusRecord(name="tones"), encoder=EncoderRecord(**encoder))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"normalise": False}, "normalise was True and is False"),
        ({"architecture": {"hidden_act": "relu", "conv_stride": [5, 2]}}, "hidden_act was gelu and is relu"),
        ({"architecture": {"hidden_act": "gelu", "conv_stride": [5, 1]}}, r"conv_stride was \[5, 2\] and is \[5, 1\]"),
    ],
)
def test_a_run_is_not_gone_on_with_on_an_encoder_that_computes_something_else(
    change: dict[str, Any], words: str
) -> None:
    check_unchanged(made_of(ENCODER), made_of(ENCODER))
    with pytest.raises(UserError, match=rf"{words}.*start a new run"):
        check_unchanged(made_of(ENCODER), made_of(ENCODER | change))
    old = {"name": "x", "revision": None, "sha256": "0"}
    check_unchanged(made_of(old), made_of(ENCODER | change))


def test_a_setting_that_only_one_version_records_is_no_difference() -> None:
    later = ENCODER | {"architecture": {"hidden_act": "gelu", "new": 1}}
    assert encoder_differences(ENCODER, later) == encoder_differences(later, ENCODER) == []
