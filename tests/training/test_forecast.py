from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from serfit.config.schema import ExperimentConfig
from serfit.errors import UserError, counted
from serfit.nn.model import build_model, model_of
from serfit.system import counters
from serfit.system.files import gigabytes
from serfit.system.precision import Precision
from serfit.training import forecast as forecast_module
from serfit.training.features import features_of
from serfit.training.forecast import (
    Pace,
    _duration,
    _feature_bytes,
    disk_lines,
    forecast,
    frozen_pace,
    memory_table,
)
from serfit.training.material import prepare
from serfit.training.memory import state_bytes
from support import settings, small_release


@pytest.mark.parametrize("layers", ["last", "weighted"])
@pytest.mark.parametrize(
    "how",
    [
        {"freeze_cnn": False},
        {},
        {"freeze_layers": 1},
        {"freeze_speech_encoder": True},
        {"freeze_speech_encoder": True, "pooling": "mean"},
    ],
)
def test_noise_looks_like_a_feature(release: Path, tmp_path: Path, how: dict[str, object], layers: str) -> None:
    plan = settings(release, tmp_path)
    plan["model"]["params"] |= {**how, "layers": layers}
    config = ExperimentConfig.model_validate(plan)
    model = build_model(config.model.params, 2, 1)
    real = model.prefix(torch.randn(8000), model.frozen_stages) if model.frozen_stages else torch.randn(8000)
    assert tuple(real.shape) == model.feature_shape(8000, model.frozen_stages)
    lines = list(forecast(config, prepare(config)))
    assert any("an epoch about" in line for line in lines)
    (memory,) = [line for line in lines if "predicted GPU memory" in line]
    assert memory.endswith("below 0.1 GiB, trained or frozen, with 16 utterances in one pass")


def test_the_table_grows_with_the_batch_and_leaves_the_model_alone(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = forecast_module.peak_bytes
    monkeypatch.setattr(forecast_module, "peak_bytes", lambda *given, **how: 1024 * exact(*given, **how))
    config = ExperimentConfig.model_validate(settings(release, tmp_path, train__precision="fp32"))
    model = build_model(config.model.params, 2, 1)
    before = [parameter.requires_grad for parameter in model.parameters()]
    lines = list(memory_table(model, config, prepare(config)))
    assert [parameter.requires_grad for parameter in model.parameters()] == before
    rows = np.array([[float(cell) for cell in line.split()] for line in lines if line.split()[0].isdecimal()])
    assert rows[:, 0].tolist() == [2, 4, 8, 16] * 2
    assert (np.diff(rows[:4, 1:], axis=0) >= 0).all()
    assert rows[0, 1] >= round(state_bytes(model, half=False) / 1024**2, 1)


@pytest.mark.parametrize("how", [{}, {"freeze_layers": 1}, {"freeze_speech_encoder": True, "pooling": "mean"}])
def test_the_disk_that_features_will_take_is_foretold(release: Path, tmp_path: Path, how: dict[str, object]) -> None:
    plan = settings(release, tmp_path)
    plan["model"]["params"] |= how
    config = ExperimentConfig.model_validate(plan)
    material, model = prepare(config), model_of(config)
    features = features_of(config, model, Precision())
    foretold = sum(_feature_bytes(model, features, seconds) for seconds in material.seconds().values())
    *_, before = disk_lines(config, material, model, features)
    assert f"frozen features of 40 of 40 utterances are still to be stored, {gigabytes(foretold)}," in before
    everyone = [*material.split.train, *material.split.validation, *material.split.test]
    kept = sum(features(utterance).nbytes for utterance in features.fill(everyone))
    assert kept == pytest.approx(foretold, rel=0.1)
    *_, after = disk_lines(config, material, model, features)
    assert "frozen features of 0 of 40 utterances are still to be stored, 0 bytes" in after


def test_a_disk_that_is_too_small_is_said_before_anything_runs(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ExperimentConfig.model_validate(settings(release, tmp_path))
    monkeypatch.setattr("serfit.system.files.free_bytes", lambda folder: 1000)
    with pytest.raises(UserError, match=r"weights and checkpoints need about .* has 1000 bytes free; make room"):
        list(forecast(config, prepare(config)))
    monkeypatch.setattr("serfit.training.forecast.bytes_on_disk", lambda model: 0)
    with pytest.raises(UserError, match=r"the frozen features that are missing need about .*; set features.store"):
        list(forecast(config, prepare(config)))


# ---------------------------------------------------------------- the frozen part


@pytest.mark.parametrize("how", [{"freeze_speech_encoder": True, "pooling": "mean"}, {"freeze_layers": 1}, {}])
@pytest.mark.parametrize("stored", [True, False])
def test_the_frozen_part_counts_once_where_it_is_stored_and_in_every_epoch_where_not(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: dict[str, object], stored: bool
) -> None:
    plan = settings(release, tmp_path)
    plan["model"]["params"] |= how
    plan["features"]["store"] = str(tmp_path / "store") if stored else None
    config = ExperimentConfig.model_validate(plan)
    material = prepare(config)
    monkeypatch.setattr("serfit.training.forecast.frozen_pace", lambda *_: 1000.0)  # seconds per second of speech
    monkeypatch.setattr("serfit.training.forecast.measured_pace", lambda *_: Pace(0.0, 0.0))
    lines = list(forecast(config, material))
    heard, scored = (sum(sum(part.seconds) for part in parts) for parts in (
        (material.train, material.validation), (material.test,)
    ))  # fmt: skip
    (times,) = [line for line in lines if line.startswith("time on ")]
    if stored:
        assert f"an epoch about 0 s, {counted(config.last_epoch, 'epoch')} about 0 s" in times
        (line,) = [line for line in lines if line.startswith("before the first epoch, once: the ")]
        assert line.endswith(
            f" of 40 of 40 utterances is computed and stored, about {_duration(1000 * (heard + scored))}"
        )
        features = features_of(config, model_of(config), Precision())
        assert len(list(features.fill(material.split.train))) == len(material.split.train)
        rest = 1000 * (sum(material.validation.seconds) + sum(material.test.seconds))
        assert f" of 16 of 40 utterances is computed and stored, about {_duration(rest)}" in "".join(
            forecast(config, material)
        )
        list(features.fill([*material.split.validation, *material.split.test]))
        assert any(line.endswith(" of all 40 utterances is stored already") for line in forecast(config, material))
    else:
        whole = 1000 * (config.last_epoch * heard + scored)
        assert (
            f"an epoch about {_duration(1000 * heard)}, {counted(config.last_epoch, 'epoch')} about {_duration(whole)}"
            in times
        )
        (line,) = [line for line in lines if line.startswith("of that, in every epoch: the ")]
        assert f"is computed anew, about {_duration(1000 * heard)}, since features.store is null" in line
        assert "stored" not in line


def test_the_pace_of_the_frozen_part_is_positive_and_that_of_the_waveform_is_not_asked(
    release: Path, tmp_path: Path
) -> None:
    config = ExperimentConfig.model_validate(settings(release, tmp_path))
    assert frozen_pace(features_of(config, model_of(config), Precision()), [0.3, 0.4]) > 0.0


def test_no_padding_is_no_negative_padding(tmp_path: Path) -> None:
    release = small_release(tmp_path / "iemocap")
    for path in release.rglob("*.wav"):
        soundfile.write(path, counters.generator("padding", path.name).uniform(-1, 1, 4_813), 16_000)
    config = ExperimentConfig.model_validate(settings(release, tmp_path))
    (times,) = [line for line in forecast(config, prepare(config)) if line.startswith("time on ")]
    assert "; 0.0% of it is padding" in times
