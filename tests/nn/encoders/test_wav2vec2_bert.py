"""What wav2vec2-BERT has of its own; tests/nn/encoders/test_wav2vec2.py has what all families share."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nn.small import build_hf, encode, encoder_of, load_encoder, padded
from serfit.config.schema import Augmentation, FeatureSettings, ModelParams
from serfit.errors import UserError
from serfit.nn.model import build_model
from serfit.system.precision import Precision
from serfit.training.features import build_features


@pytest.mark.parametrize("positions", ["relative_key", "relative", "rotary", None])
def test_from_the_waveform_on_it_is_that_of_transformers(positions: Any, waveforms: list[Tensor]) -> None:
    from transformers import SeamlessM4TFeatureExtractor

    hf = build_hf("wav2vec2-bert", "base", position_embeddings_type=positions)
    encoder = encoder_of(hf, keep_all=True)
    made = SeamlessM4TFeatureExtractor()([one.numpy() for one in waveforms], sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        found = encode(encoder, *padded(waveforms), 0, encoder.last_stage)
        expected = hf(**made, output_hidden_states=True)
    assert found.layout.counts == tuple(made["attention_mask"].sum(1).tolist())
    for mine, other in zip(found.tensors, expected.hidden_states, strict=True):
        for row, count in enumerate(found.layout.counts):
            torch.testing.assert_close(mine[row, :count], other[row, :count], rtol=1e-4, atol=1e-4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    build_hf("wav2vec2-bert", "base").save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"


def test_what_its_extractor_states_is_compared(folder: Path) -> None:
    from transformers import SeamlessM4TFeatureExtractor

    encoder, provenance = load_encoder(ModelParams(speech_encoder=str(folder)), seed=1)
    assert (provenance.normalise, provenance.normalise_from) == (False, "layout")
    assert encoder.preparation == "80 mel bands are computed, and each is normalised over the utterance"
    SeamlessM4TFeatureExtractor().save_pretrained(folder)
    assert load_encoder(ModelParams(speech_encoder=str(folder)), seed=1)[1].normalise_from == "preprocessor_config.json"
    for key, value in (("num_mel_bins", 40), ("stride", 1), ("stride", "2")):
        stated = json.loads((folder / "preprocessor_config.json").read_text()) | {key: value}
        other = folder.with_name("other")
        build_hf("wav2vec2-bert", "base").save_pretrained(other)
        (other / "preprocessor_config.json").write_text(json.dumps(stated))
        with pytest.raises(
            UserError, match=rf"preprocessor_config\.json of .* states {key}: {value!r}, and its config"
        ):
            load_encoder(ModelParams(speech_encoder=str(other)), seed=1)


def test_augmentation_acts_before_the_filterbank(folder: Path, tmp_path: Path) -> None:
    """Stored spectra would hide it, and there is no CNN to train in its place."""
    model = build_model(ModelParams(speech_encoder=str(folder)), 2, seed=1)
    assert (model.frozen_stages, model.stage_name(1)) == (1, "log-mel filterbank")
    assert build_model(ModelParams(speech_encoder=str(folder), freeze_cnn=False), 2, seed=1).frozen_stages == 1
    noisy = Augmentation(noise_snr_db=(0.0, 5.0))
    with pytest.raises(
        UserError, match=r"the log-mel filterbank is frozen.*switch these off, or compute it anew for every"
    ):
        build_features(model, FeatureSettings(store=tmp_path / "store"), noisy, Precision(), crop=False)
    assert build_features(model, FeatureSettings(store=None), noisy, Precision(), crop=False).stage == 0
