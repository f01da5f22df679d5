"""A made-up voice, and how it is written in every format."""

from pathlib import Path

import numpy as np
import soundfile

from serfit.labels import SAMPLE_RATE

EXACT = [  # container, encoding, largest error of a sample (half a step of the quantiser, or rounding to float32)
    ("WAV", "PCM_U8", 2**-7),
    ("WAV", "PCM_16", 2**-15),
    ("WAV", "PCM_24", 2**-23),
    ("WAV", "PCM_32", 2**-24),
    ("WAV", "FLOAT", 0.0),
    ("WAV", "DOUBLE", 0.0),
    ("WAVEX", "PCM_16", 2**-15),
    ("RF64", "PCM_16", 2**-15),
    ("W64", "PCM_16", 2**-15),
    ("AIFF", "PCM_16", 2**-15),
    ("AU", "PCM_16", 2**-15),
    ("CAF", "PCM_24", 2**-23),
    ("CAF", "ALAC_16", 2**-15),
    ("NIST", "PCM_16", 2**-15),
    ("FLAC", "PCM_16", 2**-15),
    ("FLAC", "PCM_24", 2**-23),
]
LOSSY = [("WAV", "ULAW"), ("NIST", "ULAW"), ("WAV", "MS_ADPCM"), ("OGG", "VORBIS"), ("OGG", "OPUS")]
LOSSY += [("MP3", "MPEG_LAYER_III"), ("WAV", "GSM610")]
FORMATS = [(container, encoding) for container, encoding, _ in EXACT] + LOSSY


def voice(rate: int = SAMPLE_RATE, seconds: float = 1.0) -> np.ndarray:
    """A gliding harmonic tone in noise, float32, well inside [-1, 1]; the same sound at every rate."""
    time = np.arange(round(rate * seconds)) / rate
    phase = 2 * np.pi * (120 * time + 15 * time**2)
    tone = sum(np.sin(k * phase) / k for k in range(1, 6))
    return (0.2 * tone + 0.01 * np.random.default_rng(1).standard_normal(len(time))).astype(np.float32)


def written(path: Path, samples: np.ndarray, rate: int = SAMPLE_RATE, container: str = "WAV", encoding="FLOAT") -> Path:
    soundfile.write(path, samples, rate, format=container, subtype=encoding)
    return path


def bytes_of(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
