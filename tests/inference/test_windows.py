"""Windows: each is what it would be alone, nothing at the end is lost, and blocks leave no trace."""

import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

import serfit
from inference.heard import listener
from serfit.corpus.audio import audio_blocks, read_audio
from serfit.errors import UserError
from serfit.inference.windows import curve, cut, window_samples, windows
from serfit.labels import SAMPLE_RATE


def noise(samples: int, seed: int = 1) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


@given(
    total=st.integers(1, 200),
    length=st.integers(1, 50),
    step=st.integers(1, 50),
    borders=st.lists(st.integers(0, 200), max_size=6),
)
def test_windows_cover_every_sample_whatever_the_blocks(total: int, length: int, step: int, borders: list[int]) -> None:
    step = min(step, length)
    sound = np.arange(total, dtype=np.float32)
    blocks = np.split(sound, sorted(min(border, total) for border in borders))
    found = list(cut(blocks, length, step))
    for index, window in found:
        np.testing.assert_array_equal(window, sound[index : index + length])
        assert len(window) == min(length, total)
    indices = [index for index, _ in found]
    assert indices[0] == 0
    assert indices[-1] + len(found[-1][1]) == total
    assert all(index == number * step for number, index in enumerate(indices[:-1]))
    assert set().union(*(range(index, index + len(window)) for index, window in found)) == set(range(total))
    assert len(set(indices)) == len(indices)


def test_a_window_comes_as_soon_as_its_last_sample() -> None:
    read = []

    def blocks() -> Iterator[np.ndarray]:
        for number in range(100):
            read.append(number)
            yield noise(10, number)

    for index, window in cut(blocks(), 50, 20):
        assert len(read) == min(100, -(-(index + len(window)) // 10))


@pytest.mark.parametrize(
    ("rate", "channels", "subtype"), [(16_000, 1, "PCM_16"), (8_000, 2, "FLOAT"), (44_100, 1, "PCM_24")]
)
def test_a_curve_is_what_the_same_stretches_are_alone(
    trained: Callable[..., Path], tmp_path: Path, rate: int, channels: int, subtype: str
) -> None:
    model = serfit.load(trained())
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([noise(int(2.37 * rate), n) for n in range(channels)], 1), rate, subtype=subtype)
    found = curve(model, path, window=0.5, hop=0.2)
    assert found.starts[0] == 0.0
    assert found.ends[-1] == pytest.approx(2.37, abs=1e-4)
    for row, (start, end) in enumerate(zip(found.starts, found.ends, strict=True)):
        alone = model.predict(path, start=start, end=end)
        np.testing.assert_allclose(found.estimates.values[row], list(alone.values.values()), atol=2e-5)
    samples = read_audio(path)
    np.testing.assert_allclose(
        curve(model, samples, rate=16_000, window=0.5, hop=0.2).estimates.values, found.estimates.values, atol=1e-5
    )


def test_stretches_keep_the_clock_of_the_recording(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, noise(5 * SAMPLE_RATE), SAMPLE_RATE)
    (piece,) = windows(listener(), path, window=1.0, hop=0.5, start=1.25, end=3.5)
    np.testing.assert_allclose(piece.starts, [1.25, 1.75, 2.25, 2.5])
    np.testing.assert_allclose(piece.ends, [2.25, 2.75, 3.25, 3.5])
    alone = listener().predict(path, start=1.75, end=2.75)
    np.testing.assert_allclose(piece.estimates.values[1], list(alone.values.values()), atol=1e-12)
    several = curve(listener(0.0, 0.1), path)
    assert several.estimates.spread is not None
    assert several.estimates.spread.shape == (len(several), 2)


def test_audio_shorter_than_a_window_is_one_window() -> None:
    found = curve(listener(), noise(800), rate=16_000)
    assert (found.starts.tolist(), found.ends.tolist()) == ([0.0], [0.05])


@pytest.mark.parametrize(
    ("window", "hop", "sentence"),
    [
        (0.01, 0.01, "a window of 0.01 s isn't possible; it must last 0.025 to 120 s"),
        (121.0, 1.0, "121"),
        (float("nan"), 1.0, "nan"),
        (1.0, 2.0, "nothing falls between"),
        (1.0, 0.0, "at least 0.001"),
    ],
)
def test_windows_that_cant_be_are_one_sentence(window: float, hop: float, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        window_samples(listener(), window, hop)


@pytest.mark.parametrize(
    ("rate", "form"), [(8_000, "FLAC"), (16_000, "WAV"), (22_050, "MP3"), (44_100, "OGG"), (96_000, "WAV")]
)
def test_blocks_are_the_file_sample_for_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: int, form: str
) -> None:
    path = tmp_path / "a.bin"
    soundfile.write(path, np.stack([noise(3 * rate + 17), noise(3 * rate + 17, 2)], 1), rate, format=form)
    for bounds in ((0.0, None), (0.5, 2.25), (1.3, None)):
        whole = read_audio(path, *bounds)
        for size in (1 << 20, 5_000):
            monkeypatch.setattr("serfit.corpus.audio._BLOCK", size)
            blocks = list(audio_blocks(path, *bounds))
            np.testing.assert_allclose(np.concatenate(blocks), whole, rtol=0, atol=1e-7)
            assert size > 5_000 or len(blocks) > 2


def test_damage_on_the_way_comes_after_what_was_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    sound = noise(200 * SAMPLE_RATE)
    sound[150 * SAMPLE_RATE] = np.nan
    soundfile.write(path, sound, SAMPLE_RATE, subtype="FLOAT")
    pieces = windows(listener(), path, window=2.0, hop=1.0)
    assert next(pieces).ends[-1] == 121.0
    with pytest.raises(UserError, match=r"aren't finite numbers, the first at 150\.000 s"):
        next(pieces)


def test_an_hour_takes_no_more_memory_than_minutes(tmp_path: Path) -> None:
    """Python's own and numpy's allocations; `benchmarks/speed/labelling.py` measures the whole process."""

    def peak(seconds: int) -> int:
        path = tmp_path / f"{seconds}.wav"
        with soundfile.SoundFile(path, "w", 8_000, 1, "PCM_16") as file:
            for _ in range(0, seconds, 60):
                file.write(noise(60 * 8_000))
        tracemalloc.start()
        for _ in windows(listener(), path, window=3.0, hop=3.0):
            pass
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    few, many = peak(600), peak(3600)
    assert many < 1.1 * few, (few, many)
