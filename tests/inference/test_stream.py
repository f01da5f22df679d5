"""A stream says what the curve of the same audio says, however the bytes come."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import numpy as np
import pytest

from inference.heard import Ear, listener
from serfit.errors import UserError
from serfit.inference import stream
from serfit.inference.stream import Encoding, Heard, Samples, listen, microphone, pipe
from serfit.inference.windows import curve


def noise(samples: int) -> np.ndarray:
    return np.random.default_rng(samples).uniform(-0.5, 0.5, samples).astype(np.float32)


def dealt(data: bytes, sizes: list[int]) -> Callable[[], bytes]:
    """Reads pieces of the given sizes in turn."""

    def pieces() -> Iterator[bytes]:
        index = turn = 0
        while index < len(data):
            yield data[index : index + sizes[turn % len(sizes)]]
            index += sizes[turn % len(sizes)]
            turn += 1
        while True:
            yield b""

    source = pieces()
    return lambda: next(source)


def written(sound: np.ndarray, encoding: Encoding) -> bytes:
    if encoding == "f32le":
        return sound.astype("<f4").tobytes()
    return np.round(sound * 32768).astype("<i2").tobytes()


@pytest.mark.parametrize("sizes", [[1, 2, 3, 997], [65_536], [640]])
@pytest.mark.parametrize(
    ("rate", "encoding"), [(16_000, "s16le"), (16_000, "f32le"), (44_100, "s16le"), (8_000, "f32le")]
)
def test_a_stream_is_the_curve(rate: int, encoding: Encoding, sizes: list[int]) -> None:
    sound = np.round(noise(round(1.73 * rate)) * 32768).astype(np.float32) / 32768
    wanted = curve(listener(0.0, 0.1), sound, rate=rate, window=0.5, hop=0.2)
    samples = Samples(dealt(written(sound, encoding), sizes), rate, encoding)
    found = list(listen(listener(0.0, 0.1), samples, window=0.5, hop=0.2))
    np.testing.assert_allclose([heard.emotion.start for heard in found], wanted.starts, atol=1e-9)
    np.testing.assert_allclose([heard.emotion.end for heard in found], wanted.ends, atol=1e-9)
    values = [list(heard.emotion.values.values()) for heard in found]
    np.testing.assert_allclose(values, wanted.estimates.values, atol=1e-6)
    assert all(heard.latency >= heard.seconds >= 0.0 for heard in found)
    assert samples.odd == 0


def test_half_a_sample_at_the_end_is_counted_and_the_rest_heard() -> None:
    sound = noise(5_000)
    samples = Samples(dealt(written(sound, "f32le") + b"abc", [7]), 16_000, "f32le")
    (heard,) = listen(listener(), samples, window=3.0, hop=0.5)
    assert samples.odd == 3
    assert heard.emotion.end == 5_000 / 16_000


def test_nothing_at_all_gives_no_lines() -> None:
    assert list(listen(listener(), Samples(lambda: b"", 16_000, "s16le"), window=3.0, hop=0.5)) == []


def test_a_line_comes_before_the_next_sample_is_there() -> None:
    """A live pipe: what was written is answered while the writer waits."""
    source, sink = os.pipe()
    data = written(noise(4 * 8_000), "s16le")
    found: list[Heard] = []
    with os.fdopen(source, "rb") as reader:
        samples = Samples(pipe(reader), 16_000, "s16le")
        listening = listen(listener(), samples, window=0.5, hop=0.5)
        for second in range(4):
            os.write(sink, data[16_000 * second : 16_000 * (second + 1)])
            found.append(next(listening))
            assert found[-1].emotion.end == 0.5 * (second + 1)
        os.close(sink)
        assert list(listening) == []


def test_latency_counts_from_the_reading_of_the_last_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows that take long make the ones after them late, and that shows."""
    usual = Ear.__call__

    def slow(self: Ear, waveforms: list[np.ndarray]) -> object:
        time.sleep(0.05)
        return usual(self, waveforms)

    monkeypatch.setattr(Ear, "__call__", slow)
    samples = Samples(dealt(written(noise(16_000), "s16le"), [64_000]), 16_000, "s16le")
    found = list(listen(listener(), samples, window=0.2, hop=0.2))
    for number, heard in enumerate(found, start=1):
        assert heard.seconds >= 0.05
        assert heard.latency >= 0.05 * number


def test_no_more_waits_than_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "HELD", 1.0)
    read, enough = [0], threading.Event()

    def endless() -> bytes:
        read[0] += 1
        if read[0] > 200:
            enough.set()
        return bytes(640)

    samples = Samples(endless, 16_000, "s16le")
    assert not enough.wait(0.5)
    assert read[0] <= 52
    next(iter(samples))


def test_sources_that_fail_are_one_sentence() -> None:
    def broken() -> bytes:
        raise OSError("the cable was pulled")

    with pytest.raises(UserError, match="can't be read any further: the cable was pulled"):
        list(listen(listener(), Samples(broken, 16_000, "s16le"), window=3.0, hop=0.5))
    nan = np.array([0.0, np.nan, 0.0], dtype="<f4").tobytes()
    with pytest.raises(UserError, match=r"sample 1 of the stream isn't a finite number.*--format f32le"):
        list(listen(listener(), Samples(dealt(nan, [12]), 16_000, "f32le"), window=3.0, hop=0.5))
    with pytest.raises(UserError, match="100 Hz can't be"):
        Samples(lambda: b"", 100, "s16le")
    with pytest.raises(UserError, match=r"lasts 6\.2 ms"):
        list(listen(listener(), Samples(dealt(bytes(200), [200]), 16_000, "s16le"), window=3.0, hop=0.5))


def test_a_microphone_is_read_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    class PortAudioError(Exception):
        pass

    class RawInputStream:
        def __init__(self, **settings: object) -> None:
            assert settings == {"samplerate": 8_000, "channels": 1, "dtype": "int16", "blocksize": 160}
            self.left = 3

        def start(self) -> None:
            pass

        def close(self) -> None:
            pass

        def read(self, frames: int) -> tuple[bytes, bool]:
            self.left -= 1
            if self.left < 0:
                raise PortAudioError("device unplugged")
            return bytes(2 * frames), False

    monkeypatch.setitem(
        sys.modules, "sounddevice", SimpleNamespace(RawInputStream=RawInputStream, PortAudioError=PortAudioError)
    )
    read = microphone(8_000, "s16le")
    assert [len(read()) for _ in range(3)] == [320, 320, 320]
    with pytest.raises(UserError, match="the microphone has failed: device unplugged"):
        read()

    def refuse(**_: object) -> None:
        raise PortAudioError("Invalid sample rate")

    monkeypatch.setattr(sys.modules["sounddevice"], "RawInputStream", refuse)
    with pytest.raises(UserError, match=r"can't be opened at 8000 Hz \(Invalid sample rate\).*--rate 48000"):
        microphone(8_000, "s16le")
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(UserError, match='needs the extra "microphone"'):
        microphone(8_000, "s16le")
