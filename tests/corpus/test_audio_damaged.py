"""Reading audio: files that aren't what they say, and headers that may be forgiven."""

import math
import os
import struct

import numpy as np
import pytest

from serfit.corpus.audio import audio_duration, content_digest, read_audio
from serfit.errors import UserError
from serfit.labels import SAMPLE_RATE
from sounds import FORMATS, bytes_of, voice, written


def riff(rate: int = SAMPLE_RATE, size: int = 2000, data: bytes = bytes(2000), channels: int = 1) -> bytes:
    """A 16-bit WAV whose header says what it is told to."""
    form = struct.pack("<HHIIHH", 1, channels, rate, 2 * rate * channels, 2 * channels, 16)
    return (
        b"RIFF"
        + struct.pack("<I", 36 + size & 0xFFFFFFFF)
        + b"WAVEfmt \x10\0\0\0"
        + form
        + b"data"
        + struct.pack("<I", size)
        + data
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"RIFFab", "is not audio that can be read"),
        (b"<html>not found</html>" * 20, "is not audio that can be read"),
        (riff(size=0, data=b""), "holds no audio"),
        (riff(rate=1), "states a sampling rate of 1 Hz"),
        (riff(rate=0), "is not audio that can be read"),
        (riff(channels=0), "is not audio that can be read"),
        (riff(size=96_000), r"is cut short: its header promises 3.000 s of audio and 0.0\d\d s are there"),
    ],
)
@pytest.mark.parametrize("read", [read_audio, audio_duration])
def test_unreadable_files_are_refused_by_name(tmp_path, content, words, read):
    path = bytes_of(tmp_path / "a.wav", content)
    with pytest.raises(UserError, match=words) as raised:
        read(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("read", [read_audio, audio_duration, content_digest])
def test_missing_files_and_folders_are_refused(tmp_path, read):
    with pytest.raises(UserError, match=r"there is no audio file .*nothing.wav; check"):
        read(tmp_path / "nothing.wav")
    with pytest.raises(UserError, match=r"is not a file|Is a directory"):
        read(tmp_path)
    with pytest.raises(UserError, match="File name too long"):
        read(tmp_path / ("x" * 300))


def test_a_pipe_is_refused_without_waiting_for_a_writer(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(UserError, match="is not a file"):
        read_audio(tmp_path / "pipe.wav")


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0xFFFFFFFF - 36, 0x80000000, 0x7FFFFFFF - 36])
def test_sizes_that_stand_for_unknown_are_understood(tmp_path, size):
    path = bytes_of(tmp_path / "piped.wav", riff(size=size))
    assert len(read_audio(path)) == 1000


@pytest.mark.parametrize(("container", "encoding"), FORMATS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_files_cut_short_are_refused(tmp_path, container, encoding, share):
    content = written(tmp_path / "whole", voice(), SAMPLE_RATE, container, encoding).read_bytes()
    path = bytes_of(tmp_path / "cut", content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"cut short|can't be decoded|not audio that can be read"):
        read_audio(path)


@pytest.mark.parametrize("total", [0, (1 << 36) - 1, 30_000])
def test_a_flac_header_that_promises_too_much_is_refused(tmp_path, total):
    content = bytearray(written(tmp_path / "a", voice(), SAMPLE_RATE, "FLAC", "PCM_16").read_bytes())
    fields = int.from_bytes(content[18:26], "big")  # STREAMINFO: rate, channels, bits, 36 bits of total samples
    assert fields & ((1 << 36) - 1) == SAMPLE_RATE
    content[18:26] = (fields >> 36 << 36 | total).to_bytes(8, "big")
    with pytest.raises(UserError, match=r"cut short|can't be decoded|doesn't say how long"):
        read_audio(bytes_of(tmp_path / "b", bytes(content)))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("rate", [SAMPLE_RATE, 44_100])
def test_samples_that_are_not_finite_are_refused(tmp_path, value, rate):
    samples = voice(rate)
    samples[rate // 2] = value
    path = written(tmp_path / "a.wav", samples, rate)
    with pytest.raises(UserError, match=r"aren't finite numbers, the first at 0.500 s"):
        read_audio(path)
    assert np.isfinite(read_audio(path, 0.6, 0.9)).all()
