"""Audio files as mono 16 kHz waveforms, read by content: what the name ends in doesn't matter.

Decoding is libsndfile's (WAV, FLAC, Ogg, Opus, MP3, AIFF, NIST Sphere and more), resampling soxr's HQ recipe. Files
that are damaged, cut short or say something untrue about their length are refused rather than half read.
"""

import hashlib
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from serfit.corpus.framing import SAMPLE_BY_SAMPLE, framing, promised_frames, with_stated_length
from serfit.corpus.mpeg import DECODER_DELAY, Framing
from serfit.corpus.spelling import hint
from serfit.corpus.stderr import caught
from serfit.errors import UserError
from serfit.labels import SAMPLE_RATE
from serfit.system.files import refuse_lfs_pointer

LOWEST_RATE, HIGHEST_RATE = 4_000, 768_000
"""Sampling rates in Hz that audio files may state; others are mistakes in headers."""

TOLERANCE = 0.01
"""Seconds by which a segment may end behind the file, or a file fall short of its header: rounding, not damage."""

CONTEXT = 0.05
"""Seconds of audio on either side of a segment that take part in resampling; longer than soxr's HQ filter."""

_BLOCK = 1 << 20
"""Samples of all channels decoded at a time, so that a header that promises terabytes doesn't allocate them."""

_GLANCE = 1 << 12
"""Samples of all channels decoded at a time where a few are probably enough."""

_NOTHING: nullcontext[list[str]] = nullcontext([])


def read_audio(path: Path, start: float = 0.0, end: float | None = None) -> NDArray[np.float32]:
    """Read a file, or a segment of it, as mono at 16 kHz.

    Channels are averaged and other rates resampled. Integer formats map to [-1, 1]; floating-point samples beyond are
    kept. A segment equals the same stretch of the whole file read at once (up to rounding where the file is resampled),
    so it starts and ends without the clicks of audio cut before resampling. Only the segment is decoded where the
    format can be entered in the middle.

    Args:
        path: any file that libsndfile reads.
        start: start of the segment in seconds.
        end: end of the segment in seconds; None for the end of the file. May lie up to 10 ms behind it.

    Returns:
        float32 [S], S >= 1; sample k lies at start + k / 16,000 s.

    Raises:
        UserError: for files that are missing, unreadable, damaged, cut short or empty, segments outside the file, and
            samples that aren't finite.
    """
    with _opened(path, decode=True) as (sound, frames):
        rate = sound.samplerate
        first, last = _segment(path, rate, frames, start, end)
        begin, stop = _frames_needed(first, last, rate, frames)
        samples = np.concatenate(list(_finite(path, rate, begin, _blocks(path, sound, begin, stop))))
    if rate == SAMPLE_RATE:
        return samples
    skipped = first - begin * SAMPLE_RATE // rate
    resampled = np.asarray(soxr.resample(samples, rate, SAMPLE_RATE, quality="HQ"), dtype=np.float32)
    return resampled[skipped : skipped + last - first].copy()


def audio_blocks(path: Path, start: float = 0.0, end: float | None = None) -> Iterator[NDArray[np.float32]]:
    """Yield what `read_audio` would return (up to rounding) in pieces, for recordings of hours.

    Raises:
        UserError: as `read_audio`; what only decoding brings to light comes after the pieces before it.
    """
    with _opened(path, decode=True) as (sound, frames):
        rate = sound.samplerate
        first, last = _segment(path, rate, frames, start, end)
        begin, stop = _frames_needed(first, last, rate, frames)
        skipped, left = first - begin * SAMPLE_RATE // rate, last - first
        for piece in resampled(_finite(path, rate, begin, _blocks(path, sound, begin, stop)), rate):
            wanted = piece[skipped : skipped + left]
            skipped, left = max(0, skipped - len(piece)), left - len(wanted)
            if len(wanted):
                yield wanted.copy()


def resampled(blocks: Iterable[NDArray[np.float32]], rate: int) -> Iterator[NDArray[np.float32]]:
    """Mono blocks [S] at any rate as blocks at 16 kHz, which together are what one piece would give."""
    if rate == SAMPLE_RATE:
        yield from blocks
        return
    stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield np.asarray(stream.resample_chunk(block), dtype=np.float32)
    yield np.asarray(stream.resample_chunk(np.empty(0, dtype=np.float32), last=True), dtype=np.float32)


def as_waveform(samples: NDArray[Any], rate: int) -> NDArray[np.float32]:
    """Samples that are in memory already, as `read_audio` would give them.

    Args:
        samples: [S], or [S, C] with C channels, which are averaged; integers map to [-1, 1] by their width.
        rate: of the samples, in Hz.

    Returns:
        float32 [S'] at 16 kHz.

    Raises:
        UserError: another shape or kind, no samples, samples that aren't finite, a rate that speech can't have.
    """
    given = np.asarray(samples)
    if given.ndim not in (1, 2) or given.size == 0 or given.dtype.kind not in "fiu":
        raise UserError(
            f"an array of shape {given.shape} and type {given.dtype} is no audio; give samples [S] or [S, channels] as "
            "floats within 1 or as integers"
        )
    if given.dtype.kind != "f" and given.dtype.itemsize > 4:  # as of astype(int), whose full scale nobody can know
        raise UserError(
            f"an array of {given.dtype} doesn't show what the loudest sample would be; give int16 or int32 as they "
            "were recorded, or floats within 1"
        )
    if isinstance(rate, bool) or not isinstance(rate, int | float | np.integer | np.floating):
        raise UserError(f"a sampling rate of {rate!r} is no number; give it in Hz, for example rate=16000")
    if given.ndim == 2 and given.shape[1] > max(given.shape[0], 64):
        raise UserError(f"an array of shape {given.shape} has its channels first; give [samples, channels]")
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise UserError(f"a sampling rate of {rate} Hz can't be; speech needs {LOWEST_RATE} to {HIGHEST_RATE} Hz")
    sound = given.astype(np.float64)
    if given.dtype.kind != "f":
        width = 8 * given.dtype.itemsize
        sound = (sound - (1 << (width - 1) if given.dtype.kind == "u" else 0)) / (1 << (width - 1))
    mono = (sound if sound.ndim == 1 else sound.mean(axis=1)).astype(np.float32)
    if not np.isfinite(mono).all():
        raise UserError("the array has samples that aren't finite numbers; leave them out")
    if rate == SAMPLE_RATE:
        return mono
    return np.asarray(soxr.resample(mono, rate, SAMPLE_RATE, quality="HQ"), dtype=np.float32)


def audio_duration(path: Path, start: float = 0.0, end: float | None = None) -> float:
    """Seconds of audio in a file, or in a segment of it, from the file's header alone.

    Raises:
        UserError: as `read_audio`, but for what only decoding brings to light.
    """
    with _opened(path) as (sound, frames):
        _segment(path, sound.samplerate, frames, start, end)
        whole = float(frames / sound.samplerate)
    return (whole if end is None else min(end, whole)) - start


def loudness(
    path: Path, start: float = 0.0, end: float | None = None, *, enough: float, share: float = 0.0
) -> tuple[float, float]:
    """Distance between the least and the greatest sample of a file, or of a segment of it, read only as far as needed.

    Args:
        path: as for `read_audio`.
        start: likewise.
        end: likewise.
        enough: a distance of the mono samples with which reading ends,
        share: if it is also this share of the greatest distance of a channel.

    Returns:
        The distance of the mono samples, and that of the channel where it is greatest, in what was read.

    Raises:
        UserError: as `read_audio`, as far as it was read.
    """
    low, high = np.full(1, np.inf), np.full(1, -np.inf)
    with _opened(path) as (sound, frames):
        begin, stop = _frames_needed(*_segment(path, sound.samplerate, frames, start, end), sound.samplerate, frames)
        for block in _channels(path, sound, begin, stop, most=_GLANCE):
            every = np.column_stack([block.mean(axis=1, dtype=np.float64), block])
            if len(every):
                low, high = np.fmin(low, np.fmin.reduce(every)), np.fmax(high, np.fmax.reduce(every))  # not NaN
                reached = high - low
                if reached[0] > enough and reached[0] >= share * reached[1:].max():
                    break
    distances = high - low
    return float(distances[0]), float(distances[1:].max())


def content_digest(path: Path, start: float = 0.0, end: float | None = None) -> str:
    """A name for what `read_audio` would read: SHA-256 (hex) of `file_digest` and the segment's bounds."""
    bounds = f"{file_digest(path)} {float(start)!r} {None if end is None else float(end)!r}"
    return hashlib.sha256(bounds.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes. Raises UserError when it can't be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


@contextmanager
def _opened(path: Path, *, decode: bool = False) -> Iterator[tuple[soundfile.SoundFile, int]]:
    """The open file, its header checked, and its frames.

    It is handed over by descriptor, so that libsndfile can't guess from the name.
    """
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path} is not a file; name an audio file")
        with path.open("rb", buffering=0) as file:  # whose place libsndfile shares
            if os.fstat(file.fileno()).st_size == 0:
                raise UserError(f"{path} is empty (0 bytes); fetch or export it again")
            head = file.read(22)
            mpeg = head[:3] == b"ID3" or head[:1] == b"\xff" or (head[:4] == b"RIFF" and head[20:] == b"\x55\0")
            file.seek(0)
            try:
                with caught() if mpeg else _NOTHING:
                    sound = soundfile.SoundFile(file.fileno(), closefd=False)
            except soundfile.SoundFileError as error:
                refuse_lfs_pointer(path)
                raise UserError(
                    f"{path} is not audio that can be read ({_reason(error)}); convert it to WAV or FLAC, for example "
                    "with ffmpeg"
                ) from error
            with sound, _whole(path, file, sound, decode=decode) as (whole, frames):
                _check_header(path, file.fileno(), whole)
                yield whole, frames
    except OSError as error:
        raise _unreadable(path, error) from error


def _check_header(path: Path, descriptor: int, sound: soundfile.SoundFile) -> None:
    """Refuse headers that can't be true, and files that end before their header says so."""
    rate, frames = sound.samplerate, sound.frames
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise UserError(
            f"{path} states a sampling rate of {rate} Hz; speech needs {LOWEST_RATE} to {HIGHEST_RATE} Hz; "
            "correct its header or export it again"
        )
    if sound.format == "XI":
        raise UserError(f"{path} is a FastTracker instrument, which doesn't state its sampling rate; convert it to WAV")
    if frames <= 0:
        raise UserError(f"{path} holds no audio (its header counts 0 samples); remove it or export it again")
    if frames > 1 << 40:
        raise UserError(f"{path} doesn't say how long it is; convert it to WAV or FLAC, for example with ffmpeg")
    promised = promised_frames(descriptor, sound)
    spare = TOLERANCE * rate if sound.subtype in SAMPLE_BY_SAMPLE else 0.0  # others lose a block for a missing byte
    if promised is not None and promised - frames > spare:
        raise _cut_short(path, promised / rate, frames / rate)


@contextmanager
def _whole(
    path: Path, file: BinaryIO, sound: soundfile.SoundFile, *, decode: bool
) -> Iterator[tuple[soundfile.SoundFile, int]]:
    """An open file of known length, in frames; what libsndfile would read in part without a word is refused.

    It guesses the length of MPEG audio without a header; where too low, it gets the same stream with a header.
    """
    status = os.fstat(file.fileno())
    found = _framing(path, status.st_size, status.st_mtime_ns, sound.format, sound.subtype, decode)
    if found.fault is not None:
        raise UserError(
            f"{path} {found.fault}; fetch or export it again, or convert it to WAV, for example with ffmpeg"
        )
    if found.samples is None or found.samples <= sound.frames:
        yield sound, sound.frames if found.samples is None else found.samples
        return
    with caught():
        exact = soundfile.SoundFile(with_stated_length(file, sound.format, found.samples))
    with exact:
        if exact.frames < found.samples - DECODER_DELAY:
            raise UserError(f"{path} doesn't say how long it is; convert it to WAV or FLAC, for example with ffmpeg")
        yield exact, exact.frames


@lru_cache(maxsize=4096)
def _framing(path: Path, size: int, changed: int, container: str, encoding: str, decode: bool) -> Framing:
    """Inspect the bytes of a file; cached, since many segments may come from one recording."""
    with path.open("rb") as file:
        return framing(file, container, encoding, decode=decode)


def _segment(path: Path, rate: int, frames: int, start: float, end: float | None) -> tuple[int, int]:
    """First sample and the one after the last, at 16 kHz."""
    seconds, total = frames / rate, _resampled_length(frames, rate)
    stop = seconds if end is None else end
    segment = f"the segment from {start:g} s to {'the end' if end is None else f'{end:g} s'}"
    if not (math.isfinite(start) and math.isfinite(stop) and start >= 0.0 and (end is None or start < stop)):
        raise UserError(f"{segment} of {path} can't be; it must start at 0 or later and end after its start")
    if stop > seconds + TOLERANCE or start >= seconds:
        raise UserError(f"{segment} lies outside {path}, which ends at {seconds:.3f} s; correct the segment's times")
    first = round(start * SAMPLE_RATE)
    last = total if end is None else min(round(stop * SAMPLE_RATE), total)
    if first >= last:
        raise UserError(f"{segment} of {path} ({seconds:.6f} s) is too short to hold a sample at {SAMPLE_RATE} Hz")
    return first, last


def _resampled_length(frames: int, rate: int) -> int:
    """Samples at 16 kHz that soxr makes of so many frames: the nearest whole number, halves upwards."""
    return (2 * frames * SAMPLE_RATE + rate) // (2 * rate)


def _frames_needed(first: int, last: int, rate: int, frames: int) -> tuple[int, int]:
    """The frames from which samples first to last (at 16 kHz) are made.

    With resampling, they include the context of the filter and begin where a frame and a sample fall on the same
    instant, which happens every rate / gcd(rate, 16,000) frames; so segments lie on the time grid of the whole file.
    """
    if rate == SAMPLE_RATE:
        return first, last
    context = math.ceil(CONTEXT * rate)
    period = rate // math.gcd(rate, SAMPLE_RATE)
    begin = max(0, first * rate // SAMPLE_RATE - context) // period * period
    stop = min(frames, -(-last * rate // SAMPLE_RATE) + context)
    return begin, stop


def _blocks(
    path: Path, sound: soundfile.SoundFile, begin: int, stop: int
) -> Iterator[NDArray[np.float32 | np.float64]]:
    """Frames begin to stop in blocks, channels averaged (in float64, so that equal channels average to themselves)."""
    for block in _channels(path, sound, begin, stop):
        yield block[:, 0] if block.shape[1] == 1 else block.mean(axis=1, dtype=np.float64)


def _channels(
    path: Path, sound: soundfile.SoundFile, begin: int, stop: int, most: int | None = None
) -> Iterator[NDArray[np.float32]]:
    """Frames begin to stop in blocks [S, C] of at most so many samples of all channels, `_BLOCK` if None."""
    position, mpeg = 0, sound.subtype.startswith("MPEG")
    try:
        if sound.seekable() and not mpeg:  # MPEG decoders depend on where they entered
            position = sound.seek(begin)
        while position < stop:
            size = max(1, (most or _BLOCK) // sound.channels)
            with caught() if mpeg else _NOTHING as complaints:
                block = sound.read(min(size, stop - position), dtype="float32", always_2d=True)
            if complaints:
                where = position / sound.samplerate
                raise UserError(f"{path} is damaged ({complaints[0]}, from {where:.3f} s on); fetch or export it again")
            if len(block) == 0:
                break
            yield block[max(0, begin - position) :]
            position += len(block)
    except soundfile.SoundFileError as error:
        raise UserError(
            f"{path} can't be decoded ({_reason(error)}); it is damaged or cut short; fetch or export it again"
        ) from error
    if stop - position > TOLERANCE * sound.samplerate or position <= begin:
        raise _cut_short(path, stop / sound.samplerate, position / sound.samplerate)


def _finite(
    path: Path, rate: int, begin: int, blocks: Iterable[NDArray[np.float32 | np.float64]]
) -> Iterator[NDArray[np.float32]]:
    """The blocks, the first of which begins with frame `begin`; samples that aren't finite are refused."""
    for block in blocks:
        if not np.isfinite(block).all():
            where = (begin + int(np.argmin(np.isfinite(block)))) / rate
            raise UserError(
                f"{path} has samples that aren't finite numbers, the first at {where:.3f} s; export it again"
            )
        begin += len(block)
        yield block.astype(np.float32, copy=False)


def _cut_short(path: Path, promised: float, present: float) -> UserError:
    found = (
        f"{promised:.3f} s of audio and {present:.3f} s are there"
        if promised < math.inf
        else "audio, but none is there"
    )
    return UserError(f"{path} is cut short: its header promises {found}; fetch or export it again")


def _unreadable(path: Path, error: OSError) -> UserError:
    if isinstance(error, FileNotFoundError):
        return UserError(
            f"there is no audio file {path}; check the corpus's folder and the path given for it{hint(path)}"
        )
    return UserError(f"can't read the audio file {path}: {error.strerror or error}; check the file and its permissions")


def _reason(error: soundfile.SoundFileError) -> str:
    """Return libsndfile's message without prefix and full stop."""
    text = error.error_string if isinstance(error, soundfile.LibsndfileError) else str(error)
    return text.strip().removeprefix("Error : ").rstrip(".") or "no reason given"
