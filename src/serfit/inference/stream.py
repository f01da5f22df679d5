"""Emotion while somebody speaks: raw samples come in, and a window is heard every hop.

The windows are those of `serfit.inference.windows.curve` on the same audio, the last one, which ends with the audio,
included. One thread reads and notes when each piece came; so the latency of a window also counts the time that
it waited because the windows before it took too long. At most `HELD` seconds wait: a source that can be slowed down
(a pipe from a file) is, and one that can't (a microphone) is heard later and later, which is said once.
"""

import importlib
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any, Literal

import numpy as np

from serfit.corpus.audio import HIGHEST_RATE, LOWEST_RATE, resampled
from serfit.errors import UserError
from serfit.inference.networks import Waveform
from serfit.inference.recogniser import Emotion, Recogniser, emotions
from serfit.inference.windows import cut, window_samples
from serfit.labels import SAMPLE_RATE

Encoding = Literal["s16le", "f32le"]
"""How samples are written: signed 16-bit integers or 32-bit floats within 1, both little-endian, one channel."""

HELD = 60.0
"""Most seconds of audio that wait to be heard."""

_TYPES = {"s16le": "<i2", "f32le": "<f4"}
_BLOCK_SECONDS = 0.02
_READ = 1 << 16


@dataclass(frozen=True, slots=True)
class Heard:
    """The prediction for one window of a stream.

    Attributes:
        emotion: with times counted from the first sample.
        latency: seconds from the moment the window's last sample had been read.
        seconds: that the network took for it.
    """

    emotion: Emotion
    latency: float
    seconds: float


class Samples:
    """Raw samples read from a pipe, as blocks of floats; half a sample at the end is counted, not heard.

    Attributes:
        came: when the last block had been read, by `time.monotonic`.
        odd: bytes at the end that are no whole sample.
    """

    def __init__(self, read: Callable[[], bytes], rate: int, encoding: Encoding) -> None:
        """Samples from `read`, which waits for some bytes and returns b"" at the end.

        Raises:
            UserError: a rate that speech can't have.
        """
        if not LOWEST_RATE <= rate <= HIGHEST_RATE:
            raise UserError(f"a sampling rate of {rate} Hz can't be; speech needs {LOWEST_RATE} to {HIGHEST_RATE} Hz")
        self.came, self.odd = time.monotonic(), 0
        self._type, self._rate = np.dtype(_TYPES[encoding]), rate
        room = round(HELD / _BLOCK_SECONDS)
        self._waiting: queue.Queue[tuple[float, bytes] | BaseException] = queue.Queue(maxsize=room)
        most = self._type.itemsize * max(1, round(_BLOCK_SECONDS * rate))
        threading.Thread(target=self._fetch, args=(read, most), daemon=True).start()

    def __iter__(self) -> Iterator[Waveform]:
        """Blocks at 16 kHz. Raises UserError for samples that aren't finite, or when the source fails."""
        return resampled(self._blocks(), self._rate)

    def _fetch(self, read: Callable[[], bytes], most: int) -> None:
        """Read until the end, noting the time; in pieces of at most a block, so that little waits for much."""
        try:
            while data := read():
                came = time.monotonic()
                for begin in range(0, len(data), most):
                    self._waiting.put((came, data[begin : begin + most]))
            self._waiting.put((time.monotonic(), b""))
        except (OSError, ValueError, UserError) as error:
            self._waiting.put(error)

    def _blocks(self) -> Iterator[Waveform]:
        left, count = b"", 0
        while True:
            found = self._waiting.get()
            if isinstance(found, BaseException):
                if isinstance(found, UserError):
                    raise found
                raise UserError(f"the audio can't be read any further: {found}") from found
            came, data = found
            if not data:
                self.odd = len(left)
                return
            self.came = came
            left += data
            whole = len(left) // self._type.itemsize * self._type.itemsize
            samples = np.frombuffer(left[:whole], dtype=self._type)
            left = left[whole:]
            if not np.isfinite(samples).all():
                index = count + int(np.argmin(np.isfinite(samples)))
                raise UserError(
                    f"sample {index} of the stream isn't a finite number; is it really 32-bit floats (--format f32le)?"
                )
            count += len(samples)
            scale = np.float32(1 / 32768 if self._type.kind == "i" else 1)
            yield samples.astype(np.float32) * scale


def listen(recogniser: Recogniser, samples: Samples, *, window: float, hop: float) -> Iterator[Heard]:
    """Predict every window of a stream, each as soon as possible.

    Args:
        recogniser: the model.
        samples: where the audio comes from.
        window: seconds of speech heard at a time.
        hop: seconds from one window to the next.

    Raises:
        UserError: windows that aren't possible, a source that fails, or audio too short for the model.
    """
    length, step = window_samples(recogniser, window, hop)
    for index, waveform in cut(samples, length, step):
        began = time.monotonic()
        end = index + len(waveform)
        estimates = recogniser.estimate([waveform], ["the stream"])
        (emotion,) = emotions(estimates, [(index / SAMPLE_RATE, end / SAMPLE_RATE)])
        ended = time.monotonic()
        yield Heard(emotion, ended - samples.came, ended - began)


def pipe(file: IO[bytes]) -> Callable[[], bytes]:
    """Reads what there is from an open pipe or file, at least a byte, b"" at the end.

    From the system itself: a thread that waits inside a buffered reader can't be left behind at the end.
    """
    descriptor = file.fileno()
    return lambda: os.read(descriptor, _READ)


def microphone(rate: int, encoding: Encoding) -> Callable[[], bytes]:
    """Reads from the computer's microphone.

    Raises:
        UserError: the extra isn't installed, or there is no microphone that can be opened so.
    """
    try:
        sounddevice: Any = importlib.import_module("sounddevice")
    except ImportError as error:
        raise UserError(
            'a microphone needs the extra "microphone" (uv sync --extra microphone, or pip install sounddevice); '
            "without it, pipe raw samples into `serfit stream`"
        ) from error
    except OSError as error:
        raise UserError(f"{error}; install PortAudio, on Debian and Ubuntu the package libportaudio2") from error
    dtype = {"s16le": "int16", "f32le": "float32"}[encoding]
    block = max(1, round(_BLOCK_SECONDS * rate))
    try:
        source = sounddevice.RawInputStream(samplerate=rate, channels=1, dtype=dtype, blocksize=block)
        source.start()
    except (sounddevice.PortAudioError, ValueError) as error:
        raise UserError(
            f"the microphone can't be opened at {rate} Hz ({error}); see that one is connected, or try --rate 48000"
        ) from error

    def read() -> bytes:
        try:
            return bytes(source.read(block)[0])
        except sounddevice.PortAudioError as error:
            with suppress(sounddevice.PortAudioError):
                source.close()
            raise UserError(f"the microphone has failed: {error}") from error

    return read
