"""The settings of a Whisper checkpoint: transformers' defaults, and one sentence for what can't be."""

import json
from pathlib import Path
from typing import Any

import pytest

from nn.small import build_whisper, load_encoder
from serfit.config.schema import ModelParams
from serfit.errors import UserError
from serfit.nn.encoders.whisper_config import Settings


def test_settings_that_are_not_stated_are_those_of_transformers() -> None:
    from transformers import WhisperConfig

    theirs = WhisperConfig()
    for name, value in Settings(model_type="whisper"):
        assert getattr(theirs, name) == value, name


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("d_model", 34, "d_model is 34, which encoder_attention_heads .4. doesn't divide"),
        ("d_model", "wide", "d_model is 'wide', and must be a valid integer"),
        ("encoder_attention_heads", 0, "encoder_attention_heads is 0, and must be greater than or equal to 1"),
        ("encoder_layers", 2, r"holds weights that its configuration leaves out \(layers.2."),
        ("encoder_layers", 4, r"lacks weights that its configuration promises \(layers.3."),
        ("num_mel_bins", 128, "holds conv1.weight of shape .* and its configuration asks for"),
        ("max_source_positions", 60, "holds embed_positions.weight of shape"),
        ("activation_function", "magic", "activation_function is 'magic', and must be the name of an activation"),
        ("quantization_config", {"bits": 4}, "is quantised"),
    ],
)
def test_settings_that_the_weights_contradict_are_refused(key: str, value: Any, words: str, tmp_path: Path) -> None:
    build_whisper().save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**settings, key: value}))
    with pytest.raises(UserError, match=words):
        load_encoder(ModelParams(speech_encoder=str(tmp_path)), seed=1)


@pytest.mark.parametrize(("key", "value"), [("hop_length", 320), ("n_fft", 512), ("feature_size", 128)])
def test_spectra_of_another_kind_are_refused(key: str, value: int, tmp_path: Path) -> None:
    from transformers import WhisperFeatureExtractor

    build_whisper().save_pretrained(tmp_path)
    WhisperFeatureExtractor().save_pretrained(tmp_path)
    load_encoder(ModelParams(speech_encoder=str(tmp_path)), seed=1)
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    with pytest.raises(
        UserError, match=f"preprocessor_config.json of .* states {key}: {value}, and this encoder takes"
    ):
        load_encoder(ModelParams(speech_encoder=str(tmp_path)), seed=1)


def test_positions_are_pairs() -> None:
    with pytest.raises(ValueError, match="must be even"):
        Settings(model_type="whisper", d_model=33, encoder_attention_heads=3)
