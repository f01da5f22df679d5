import numpy as np
import pytest

from serfit.corpus.acoustics import acoustic_features, feature_names
from serfit.labels import SAMPLE_RATE
from serfit.system.counters import generator

NAMES = feature_names()


def features(samples: np.ndarray) -> dict[str, float]:
    return dict(zip(NAMES, acoustic_features(samples.astype(np.float32)), strict=True))


def voice(pitch: float, seconds: float = 1.0, level: float = 0.1) -> np.ndarray:
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return level * sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 9))


@pytest.mark.parametrize("pitch", [70.0, 110.0, 190.0, 260.0, 380.0])
def test_pitch_is_that_of_the_voice(pitch: float) -> None:
    found = features(voice(pitch))
    assert found["pitch p50"] == pytest.approx(np.log2(pitch / 60), abs=0.05)
    assert found["voiced share"] > 0.95


def test_the_window_does_not_weaken_low_voices() -> None:
    """Half of a strong voice in noise is still voiced at 65 Hz, whose period is a third of the window."""
    low = voice(65.0) + generator("breath").normal(0, 0.06, SAMPLE_RATE)
    assert features(low)["voiced share"] > 0.8
    assert features(low)["pitch p50"] == pytest.approx(np.log2(65 / 60), abs=0.05)


def test_noise_and_silence_are_not_voiced() -> None:
    noise = generator("noise").normal(0, 0.1, SAMPLE_RATE)
    assert features(noise)["voiced share"] < 0.1
    quiet = features(np.zeros(SAMPLE_RATE))
    assert quiet["voiced share"] == 0.0
    assert np.isnan(quiet["pitch mean"])
    assert np.isfinite([value for name, value in quiet.items() if not name.startswith("pitch")]).all()


def test_twice_the_amplitude_is_six_decibels_everywhere() -> None:
    one, two = features(voice(150)), features(voice(150, level=0.2))
    for name in ("energy mean", "mel05 mean", "mel20 p50"):
        assert two[name] - one[name] == pytest.approx(6.02, abs=0.05)
    assert two["energy deviation"] == pytest.approx(one["energy deviation"], abs=1e-6)
    assert two["pitch p50"] == one["pitch p50"]


def test_a_rising_voice_has_a_rising_slope_and_pauses_divide_stretches() -> None:
    time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    phase = 2 * np.pi * (120 * time + 60 * time**2)
    rising = 0.1 * sum(np.sin(k * phase) / k for k in range(1, 9))
    slope = features(rising)["pitch slope"]
    assert slope == pytest.approx(1.0, abs=0.15)  # an octave in a second
    assert features(rising[::-1])["pitch slope"] == pytest.approx(-slope, abs=0.1)
    pauses = np.concatenate([voice(150, 0.4), np.zeros(8000), voice(150, 0.4), np.zeros(8000)])
    assert features(pauses)["voiced stretches per second"] == pytest.approx(2 / 1.8, abs=0.01)


@pytest.mark.parametrize("samples", [1, 399, 400, 800, 801, 16_000])
def test_any_length_gives_all_features(samples: int) -> None:
    found = acoustic_features(voice(150)[:samples].astype(np.float32))
    assert found.shape == (len(NAMES),)
    assert len(set(NAMES)) == len(NAMES)
    assert found[-1] == pytest.approx(np.log(samples / SAMPLE_RATE))
