"""Reading audio: formats, rates, channels and segments; what isn't what it says is in `test_audio_damaged`."""

import csv
import hashlib
import math
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from serfit.corpus.audio import (
    TOLERANCE,
    as_waveform,
    audio_blocks,
    audio_duration,
    content_digest,
    read_audio,
)
from serfit.errors import UserError
from serfit.labels import SAMPLE_RATE
from sounds import EXACT, FORMATS, LOSSY, bytes_of, voice, written

EMODB = Path(__file__).resolve().parents[3] / "shared/corpora/emodb"


def level(samples: np.ndarray) -> float:
    """RMS in dB relative to a full-scale sine, without 50 ms at either end."""
    inner = samples[800:-800].astype(np.float64)
    return 10 * math.log10(2 * float(np.mean(inner**2)) + 1e-30)


# ---------------------------------------------------------------- formats


@pytest.mark.parametrize(("container", "encoding", "error"), EXACT)
def test_lossless_formats_give_back_the_samples(tmp_path, container, encoding, error):
    samples = voice()
    read = read_audio(written(tmp_path / "a.bin", samples, SAMPLE_RATE, container, encoding))
    assert read.dtype == np.float32
    assert read.shape == samples.shape
    assert read.flags.c_contiguous
    assert np.abs(read - samples).max() <= error


@pytest.mark.parametrize(("container", "encoding"), LOSSY)
def test_lossy_formats_give_back_the_sound(tmp_path, container, encoding):
    samples = voice()
    read = read_audio(written(tmp_path / "a.bin", samples, SAMPLE_RATE, container, encoding))
    assert len(samples) <= len(read) <= len(samples) + 2048  # codecs work in blocks
    shared = read[: len(samples)]
    assert np.corrcoef(shared, samples)[0, 1] > 0.9


@given(values=st.lists(st.integers(-(2**15), 2**15 - 1), min_size=1, max_size=50))
@settings(max_examples=30)
def test_16_bit_samples_are_divided_by_32768(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("pcm") / "a.wav"
    with wave.open(str(path), "wb") as file:  # the standard library's writer, not libsndfile's
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(np.array(values, dtype="<i2").tobytes())
    assert np.array_equal(read_audio(path), np.array(values, dtype=np.float64) / 32768)
    assert audio_duration(path) == len(values) / SAMPLE_RATE


def test_floating_point_samples_beyond_one_are_kept(tmp_path):
    samples = np.array([0.0, 1.5, -7.25, 1.0], dtype=np.float32)
    assert np.array_equal(read_audio(written(tmp_path / "a.wav", samples)), samples)


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.raw", "a.vox", "a.au", "noextension", "哭声 — ü.flac"])
def test_content_decides_not_the_name(tmp_path, name):
    samples = voice(seconds=0.1)
    read = read_audio(written(tmp_path / name, samples, SAMPLE_RATE, "FLAC", "PCM_16"))
    assert np.abs(read - samples).max() <= 2**-15


# ---------------------------------------------------------------- channels and rates


@pytest.mark.parametrize("channels", [1, 2, 3, 8])
def test_equal_channels_average_to_themselves(tmp_path, channels):
    samples = voice(seconds=0.2)
    path = written(tmp_path / "a.wav", np.stack([samples] * channels, axis=1))
    assert np.array_equal(read_audio(path), samples)


def test_different_channels_are_averaged(tmp_path):
    channels = np.random.default_rng(2).uniform(-1, 1, (500, 8)).astype(np.float32)
    path = written(tmp_path / "a.wav", channels)
    assert np.allclose(read_audio(path), channels.astype(np.float64).sum(axis=1) / 8, atol=1e-7, rtol=0)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 24_414, 44_100, 48_000, 96_000])
def test_a_tone_keeps_frequency_level_and_time(tmp_path, rate):
    time = np.arange(rate) / rate
    path = written(tmp_path / "a.wav", np.sin(2 * np.pi * 1000 * time + 0.3), rate)
    read = read_audio(path)
    expected = np.sin(2 * np.pi * 1000 * np.arange(SAMPLE_RATE) / SAMPLE_RATE + 0.3)
    assert len(read) == SAMPLE_RATE
    assert level(read - expected) < -90


@pytest.mark.parametrize(
    ("rate", "frequency"), [(24_414, 9_500), (44_100, 8_500), (44_100, 15_000), (48_000, 12_000), (96_000, 31_000)]
)
def test_what_16_khz_cannot_hold_is_gone(tmp_path, rate, frequency):
    path = written(tmp_path / "a.wav", np.sin(2 * np.pi * frequency * np.arange(rate) / rate), rate)
    assert level(read_audio(path)) < -80


@given(frames=st.integers(1, 3000), rate=st.sampled_from([8_000, 11_025, 22_050, 24_414, 44_100, 48_000, 96_000]))
@settings(max_examples=40)
def test_lengths_are_those_of_the_resampler(tmp_path_factory, frames, rate):
    path = written(tmp_path_factory.mktemp("length") / "a.wav", np.full(frames, 0.5), rate)
    expected = soxr.resample(np.full(frames, 0.5, dtype=np.float32), rate, SAMPLE_RATE, quality="HQ")
    if len(expected) == 0:
        with pytest.raises(UserError, match="too short to hold a sample"):
            read_audio(path)
    else:
        assert np.array_equal(read_audio(path), expected)
    assert abs(len(expected) / SAMPLE_RATE - frames / rate) <= 0.5 / SAMPLE_RATE + 1e-9


# ---------------------------------------------------------------- segments


@pytest.mark.parametrize(("container", "encoding"), FORMATS)
def test_segments_equal_slices_in_every_format(tmp_path, container, encoding):
    path = written(tmp_path / "a.bin", voice(), SAMPLE_RATE, container, encoding)
    whole = read_audio(path)
    for start, end in [(0.0, 0.25), (0.123, 0.456), (0.5, 1.0), (0.9, None), (0.77731, 0.77742)]:
        expected = whole[round(start * SAMPLE_RATE) : None if end is None else round(end * SAMPLE_RATE)]
        assert np.array_equal(read_audio(path, start, end), expected), (start, end)


@pytest.fixture(scope="module")
def long_files(tmp_path_factory) -> dict[int, Path]:
    """Three seconds at rates whose ratio to 16 kHz is simple, awkward, or next to prime."""
    folder = tmp_path_factory.mktemp("long")
    rates = [8_000, SAMPLE_RATE, 22_050, 24_414, 44_100, 44_101, 48_000]
    return {rate: written(folder / f"{rate}.wav", voice(rate, 3.0), rate) for rate in rates}


@given(data=st.data(), rate=st.sampled_from([8_000, SAMPLE_RATE, 22_050, 24_414, 44_100, 44_101, 48_000]))
@settings(max_examples=40)
def test_segments_equal_slices_of_the_resampled_whole(long_files, data, rate):
    start = data.draw(st.floats(0.0, 2.99))
    end = data.draw(st.none() | st.floats(start + 0.001, 3.0))
    whole = read_audio(long_files[rate])
    expected = whole[round(start * SAMPLE_RATE) : None if end is None else round(end * SAMPLE_RATE)]
    read = read_audio(long_files[rate], start, end)
    assert read.shape == expected.shape
    assert np.abs(read - expected).max() <= (0.0 if rate == SAMPLE_RATE else 1e-5)


def test_only_the_segment_is_decoded(tmp_path, monkeypatch):
    path = written(tmp_path / "a.flac", voice(seconds=20), SAMPLE_RATE, "FLAC", "PCM_16")
    asked = []
    read = soundfile.SoundFile.read
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda *a, **k: asked.append(a[1]) or read(*a, **k))
    assert len(read_audio(path, 15.0, 16.0)) == SAMPLE_RATE
    assert asked == [SAMPLE_RATE]


@pytest.mark.parametrize(
    ("start", "end", "words"),
    [
        (0.0, 1.2, "lies outside .* which ends at 1.000 s"),
        (1.0, None, "lies outside"),
        (1.5, 1.6, "lies outside"),
        (-0.1, 0.5, "must start at 0 or later"),
        (0.5, 0.5, "end after its start"),
        (0.5, 0.2, "end after its start"),
        (math.nan, None, "must start at 0 or later"),
        (0.0, math.inf, "end after its start"),
        (0.500001, 0.500002, "too short to hold a sample"),
    ],
)
def test_impossible_segments_are_refused(tmp_path, start, end, words):
    path = written(tmp_path / "a.wav", voice())
    with pytest.raises(UserError, match=words) as raised:
        read_audio(path, start, end)
    assert str(path) in str(raised.value)
    if "too short" not in words:
        with pytest.raises(UserError, match=words):
            audio_duration(path, start, end)


def test_ends_rounded_upwards_are_forgiven(tmp_path):
    path = written(tmp_path / "a.wav", voice(seconds=0.9967))
    assert np.array_equal(read_audio(path, 0.5, 1.0), read_audio(path, 0.5))
    assert audio_duration(path, 0.5, 1.0) == pytest.approx(0.4967, abs=1e-4)
    with pytest.raises(UserError, match="lies outside"):
        read_audio(path, 0.5, 0.9967 + 2 * TOLERANCE)


def test_six_samples_are_six_samples(tmp_path):
    samples = voice()[:6]
    assert np.array_equal(read_audio(written(tmp_path / "a.wav", samples)), samples)
    assert audio_duration(tmp_path / "a.wav") == 6 / SAMPLE_RATE


# ---------------------------------------------------------------- names for contents


def test_digests_follow_content_and_segment_alone(tmp_path):
    one = written(tmp_path / "a.wav", voice())
    two = bytes_of(tmp_path / "b.flac", one.read_bytes())
    assert content_digest(one) == content_digest(two)
    assert content_digest(one, 0, 1) == content_digest(one, 0.0, np.float64(1.0))
    names = {content_digest(one, start, end) for start in (0.0, 0.1) for end in (None, 0.5, 0.6)}
    assert len(names) == 6
    changed = bytearray(one.read_bytes())
    changed[-1] ^= 1
    assert content_digest(bytes_of(two, bytes(changed))) not in names
    content = hashlib.sha256(one.read_bytes()).hexdigest()
    assert content_digest(one, 0.1, 0.5) == hashlib.sha256(f"{content} 0.1 0.5".encode()).hexdigest()


# ---------------------------------------------------------------- real speech


@pytest.mark.skipif(not EMODB.exists(), reason="EMO-DB isn't beside the repository (../shared/corpora/emodb)")
def test_emodb_is_read_as_its_table_says():
    with (EMODB / "utterances.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 535
    for row in rows:
        assert audio_duration(EMODB / row["path"]) == pytest.approx(float(row["duration_seconds"]), abs=6e-4)
    for row in rows[::53]:
        path = EMODB / row["path"]
        whole, _ = soundfile.read(path, dtype="int16")
        assert np.array_equal(read_audio(path), whole / 32768)
        assert np.array_equal(read_audio(path, 0.3, 0.9), whole[4800:14400] / 32768)


@pytest.mark.parametrize("dtype", ["int16", "int32", "float32", "float64"])
def test_samples_in_memory_are_read_as_from_a_file(tmp_path: Path, dtype: str) -> None:
    sound = 0.5 * np.sin(np.arange(2 * 8_000) / 7.0)
    stereo = np.stack([sound, np.roll(sound, 3)], axis=1)
    given = stereo.astype(dtype) if dtype.startswith("f") else (stereo * 2.0 ** (8 * np.dtype(dtype).itemsize - 1))
    given = given.astype(dtype)
    path = tmp_path / "a.wav"
    soundfile.write(path, given, 8_000, subtype={"i": f"PCM_{8 * given.itemsize}", "f": "DOUBLE"}[given.dtype.kind])
    np.testing.assert_allclose(as_waveform(given, 8_000), read_audio(path), atol=2e-6)


@pytest.mark.parametrize(
    ("samples", "rate", "sentence"),
    [
        (np.zeros((2, 3, 4)), 16_000, "is no audio"),
        (np.zeros(0), 16_000, "is no audio"),
        (np.array(["a"]), 16_000, "is no audio"),
        (np.zeros((2, 16_000)), 16_000, "channels first"),
        (np.zeros(100), 100, "100 Hz can't be"),
        (np.array([0.0, np.nan]), 16_000, "aren't finite"),
    ],
)
def test_arrays_that_are_no_audio_are_refused(samples: np.ndarray, rate: int, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        as_waveform(samples, rate)


def test_many_channels_take_no_more_memory_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serfit.corpus.audio._BLOCK", 4_096)
    sound = np.random.default_rng(6).uniform(-0.5, 0.5, (10_000, 64))
    soundfile.write(tmp_path / "many.wav", sound, 48_000)
    sizes, read = [], soundfile.SoundFile.read

    def recorded(self: soundfile.SoundFile, frames: int, **options: object) -> np.ndarray:
        found: np.ndarray = read(self, frames, **options)
        sizes.append(found.size)
        return found

    monkeypatch.setattr(soundfile.SoundFile, "read", recorded)
    together = np.concatenate(list(audio_blocks(tmp_path / "many.wav")))
    assert max(sizes) == 4_096
    np.testing.assert_allclose(together, read_audio(tmp_path / "many.wav"), atol=1e-6)
