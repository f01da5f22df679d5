"""The demo's configurations, wherever the demo is put."""

from pathlib import Path

import pytest

from serfit.cli import main
from serfit.cli.demo import demo_config


@pytest.mark.parametrize("name", ["a b", "a #b", "x: y", "${HOME}", '"q', "[x", "it's", "ü 音", "null", "~b"])
def test_a_folder_may_be_called_anything(name: str, tmp_path: Path) -> None:
    config = demo_config("demo", tmp_path / name)
    paths = (config.data.root, config.features.store, config.experiment.runs_dir)
    assert paths == tuple(tmp_path / name / below for below in ("corpus", "features", "runs"))


def test_a_pretrained_encoder_is_named_and_spared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "an encoder").mkdir()
    for encoder, written, name in (
        ("an encoder", str(tmp_path / "an encoder"), "demo_unfrozen_an-encoder"),
        ("openai/whisper-tiny.en", "openai/whisper-tiny.en", "demo_unfrozen_whisper-tiny.en"),
    ):
        config = demo_config("demo", tmp_path, encoder)
        assert (config.model.params.speech_encoder, config.experiment.name) == (written, name)
        assert config.model.params.freeze_cnn
        assert config.train.optimizer.encoder_lr < demo_config("demo", tmp_path).train.optimizer.encoder_lr / 10
    assert demo_config("demo_frozen", tmp_path, "an encoder").model.params.freeze_speech_encoder


def test_an_encoder_that_is_not_there_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["demo", "--folder", str(tmp_path / "demo"), "--encoder", "./nowhere"])
    assert caught.value.code == 2
    assert "model.params.speech_encoder is ./nowhere, but there is no folder" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()
