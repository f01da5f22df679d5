"""Silence, channels that cancel each other, samples that are no fractions of 1."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from serfit.config.schema import ExperimentConfig
from serfit.corpus.audio import loudness, read_audio
from serfit.corpus.level import SILENT, TOO_LOUD, glance, level_doubt
from serfit.errors import UserError
from serfit.labels import SAMPLE_RATE
from serfit.training.material import prepare
from sounds import voice
from support import settings, small_release


@pytest.mark.parametrize(
    ("samples", "doubt"),
    [
        (voice(), None),
        (voice() / 1000, None),
        (np.zeros(SAMPLE_RATE), SILENT[0]),
        (np.full(SAMPLE_RATE, 0.25), SILENT[0]),
        (np.random.default_rng(0).integers(-1, 2, SAMPLE_RATE) / 32_768, SILENT[0]),
        (np.zeros((SAMPLE_RATE, 2)), SILENT[0]),
        (np.stack([voice(), -voice()], axis=1), SILENT[1]),
        (np.stack([voice(), -0.999 * voice()], axis=1), SILENT[1]),
        (np.stack([0.5 * voice(), -0.499 * voice()], axis=1), SILENT[1]),
        (np.stack([voice(), -0.9 * voice()], axis=1), None),
        (np.stack([voice(), *[0 * voice()] * 7], axis=1), None),
        (np.stack([voice(), voice()], axis=1), None),
        (voice() * 12_000, TOO_LOUD),
        (voice() * 3, None),
    ],
)
def test_what_a_level_says(tmp_path: Path, samples: np.ndarray, doubt: str | None) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, samples, SAMPLE_RATE, subtype="FLOAT")
    assert level_doubt(read_audio(path), path) == doubt
    assert glance(path) == doubt


@pytest.mark.parametrize("factor", [1.0, 0.999])
def test_channels_that_cancel_each_other_are_named_after_a_lossy_codec_too(tmp_path: Path, factor: float) -> None:
    path = tmp_path / "a.mp3"
    soundfile.write(path, np.stack([voice(), -factor * voice()], axis=1), SAMPLE_RATE, format="MP3")
    assert level_doubt(read_audio(path), path) == glance(path) == SILENT[1]


def test_the_loudest_channel_is_that_of_the_segment(tmp_path: Path) -> None:
    quiet, loud = np.zeros((8_000, 2)), np.stack([np.zeros(8_000), np.tile([0.5, -0.25], 4_000)], axis=1)
    soundfile.write(tmp_path / "a.wav", np.concatenate([quiet, loud]), SAMPLE_RATE, subtype="FLOAT")
    assert loudness(tmp_path / "a.wav", 0.0, 0.5, enough=1.0) == (0.0, 0.0)
    assert loudness(tmp_path / "a.wav", 0.5, enough=1.0) == (0.375, 0.75)


def test_a_glance_ends_where_sound_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "a.wav", np.concatenate([np.zeros(10_000), voice(seconds=20.0)]), SAMPLE_RATE)
    asked, read = [], soundfile.SoundFile.read
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda *a, **k: asked.append(a[1]) or read(*a, **k))
    assert glance(tmp_path / "a.wav") is None
    assert sum(asked) < 20_000
    assert glance(tmp_path / "a.wav", 0.0, 0.6) == SILENT[0]


def test_a_check_names_silence_and_refuses_nothing_but_silence(tmp_path: Path) -> None:
    release = small_release(tmp_path / "iemocap")
    config = ExperimentConfig.model_validate(settings(release, tmp_path))
    wavs = [utterance.path for utterance in prepare(config).corpus.utterances]
    for number, path in enumerate(wavs[:7]):
        samples, rate = soundfile.read(path)
        sound = np.stack([samples, -samples], axis=1) if number > 4 else samples * (12_000 if number == 4 else 0)
        soundfile.write(path, sound, rate, subtype="FLOAT")
    names = [path.stem for path in wavs]
    for decode in (False, True):
        told = [note for note in prepare(config, decode=decode).corpus.notes if note.startswith("warning: ")]
        assert f"warning: 4 of 40 utterances: {SILENT[0]}: {names[0]}, {names[1]}, {names[2]} and 1 more" in told
        assert f"warning: 2 of 40 utterances: {SILENT[1]}: {names[5]}, {names[6]}" in told
        assert f"warning: 1 of 40 utterances: {TOO_LOUD}: {names[4]}" in told
    for number, path in enumerate(wavs):
        soundfile.write(path, np.zeros(5_000 + number), SAMPLE_RATE)
    with pytest.raises(UserError, match="there is no sound in any of 40 utterances: 40 of 40 utterances: silent"):
        prepare(config)
