"""Decoded audio, kept so that an epoch decodes nothing: 16-bit integers where that loses nothing, else float32.

    <store>/waveforms-<decoders>-int16/<aa>/<audio key>.safetensors
    <store>/waveforms-<decoders>-float32/<aa>/<audio key>.safetensors

The audio key hashes the file's content and the segment (`audio.content_digest`), <decoders> the versions of what
decodes and resamples. Files that hold plain 16-bit samples at 16 kHz are read as they are: a copy would be no faster.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from numpy.typing import NDArray

from serfit.labels import SAMPLE_RATE
from serfit.training.store import FeatureStore

FORMAT = 1
"""Version of `audio.read_audio`; raised when it would read the same file differently."""

_FULL_SCALE = 32_768.0
"""The integer that stands for 1.0."""

_PLAIN = (
    b"fmt \x10\x00\x00\x00"  # 16 bytes of format
    b"\x01\x00\x01\x00"  # PCM, one channel
    + SAMPLE_RATE.to_bytes(4, "little")
    + (2 * SAMPLE_RATE).to_bytes(4, "little")
    + b"\x02\x00\x10\x00data"  # two bytes a frame, 16 bits
)


@dataclass(frozen=True, slots=True)
class Waveforms:
    """The decoded audio of one store.

    Attributes:
        integers: waveforms whose samples are multiples of 1/32768 in [-1, 1), kept as int16.
        floats: all others.
    """

    integers: FeatureStore
    floats: FeatureStore

    def read(self, key: str, decode: Callable[[], NDArray[np.float32]]) -> NDArray[np.float32]:
        """The waveform [S] under a key, exactly as `decode` reads it; decoded and kept where it is missing."""
        if (kept := self.integers.get(key)) is not None:
            return (kept / _FULL_SCALE).numpy()
        if (kept := self.floats.get(key)) is not None:
            return kept.numpy()
        samples = decode()
        scaled = samples * np.float32(_FULL_SCALE)
        if np.array_equal(scaled, np.rint(scaled)) and scaled.min() >= -_FULL_SCALE and scaled.max() < _FULL_SCALE:
            self.integers.put(key, torch.from_numpy(scaled.astype(np.int16)))
        else:
            self.floats.put(key, torch.from_numpy(samples))
        return samples


def open_waveforms(folder: Path, max_bytes: int | None) -> Waveforms:
    """The decoded audio in a store's folder; `max_bytes` as for `FeatureStore`."""
    name = hashlib.sha256(decoders().encode()).hexdigest()[:12]
    stores = []
    for dtype in (torch.int16, torch.float32):
        word = str(dtype).removeprefix("torch.")
        store = FeatureStore(folder / f"waveforms-{name}-{word}", dtype, max_bytes)
        store.describe({"stage_name": "waveform", "encoder": "any encoder", "dtype": word, "decoders": decoders()})
        stores.append(store)
    return Waveforms(*stores)


def decoders() -> str:
    """Versions of what decodes and resamples audio."""
    return f"{FORMAT} {soundfile.__libsndfile_version__} {soxr.__version__} {soxr.__libsoxr_version__}"


def is_plain(path: Path) -> bool:
    """Whether a file is WAV with 16-bit samples at 16 kHz, one channel, and nothing else before its samples."""
    try:
        with path.open("rb") as file:
            header = file.read(44)
    except OSError:
        return False
    return header[:4] == b"RIFF" and header[8:12] == b"WAVE" and header[12:40] == _PLAIN
