"""Synthetic voices: pulses, breath and hiss, shaped by a vocal tract that moves from syllable to syllable.

A source-filter model (Fant, "Acoustic theory of speech production", 1960) with just enough of speech in it to give an
encoder something to learn. Arousal is in the level and range of the pitch, the depth of the rhythm and the speech
rate; valence is in whether pitch and brightness rise or fall, within each syllable and over the utterance, in a
vibrato, and in the spectral tilt. Speakers differ in pitch, vocal tract, tilt and rate as well, so averages over an
utterance say more about who speaks than about how: the movement has to be heard.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from serfit.labels import SAMPLE_RATE

SHORTEST, LONGEST = 0.8, 1.5
"""Durations of utterances are drawn evenly between these, in seconds."""

Floats = NDArray[np.float64]

_HOP = 80
_WINDOW = 320
_STARTS = (_WINDOW + _HOP) // 2
"""Where the first window begins in a signal padded by a whole window: centred on the first hop."""
_BINS = np.arange(_WINDOW // 2 + 1) * (SAMPLE_RATE / _WINDOW)
"""Frequencies of the bins in Hz."""
_OCTAVES: Floats = np.log2(np.maximum(_BINS, 200.0) / 200.0)
"""Octaves above 200 Hz, from where the tilt counts."""
_HISS: Floats = 1.0 / (1.0 + np.exp(-(_BINS - 3500.0) / 400.0))
"""Gain of a fricative: noise above some 3.5 kHz."""

_VOWELS = np.array(
    [[300, 2300, 3000], [450, 2000, 2700], [700, 1250, 2500], [500, 900, 2450], [330, 800, 2300]], dtype=np.float64
)
"""First three formants of i, e, a, o, u in Hz, roughly those of adult speakers."""
_BANDWIDTHS = np.array([80.0, 110.0, 160.0])[:, None]
"""Bandwidths of the three formants in Hz, as a column."""


@dataclass(frozen=True, slots=True)
class Speaker:
    """A speaker's voice, independent of emotion.

    Attributes:
        pitch: habitual fundamental frequency in Hz.
        tract: formant frequencies relative to `_VOWELS`; above 1 for a shorter vocal tract.
        tilt: habitual slope of the source's spectrum in dB per octave.
        rate: habitual speech rate in syllables per second.
        breath: standard deviation of the breath noise, where a glottal pulse has the height 1.
    """

    pitch: float
    tract: float
    tilt: float
    rate: float
    breath: float


def draw_speaker(generator: np.random.Generator, gender: Literal["F", "M"]) -> Speaker:
    """A speaker at random; women have higher voices and shorter vocal tracts."""
    female = gender == "F"
    return Speaker(
        pitch=float(generator.uniform(165, 240) if female else generator.uniform(90, 150)),
        tract=float(generator.uniform(1.02, 1.18) if female else generator.uniform(0.86, 1.02)),
        tilt=float(generator.uniform(-6.0, -3.0)),
        rate=float(generator.uniform(3.6, 4.6)),
        breath=float(generator.uniform(0.02, 0.10)),
    )


def speak(generator: np.random.Generator, speaker: Speaker, valence: float, arousal: float) -> NDArray[np.float32]:
    """One utterance of nonsense syllables.

    Args:
        generator: draws syllables, duration and everything else left to chance.
        speaker: who speaks.
        valence: from 0, negative, to 1, positive.
        arousal: from 0, calm, to 1, excited.

    Returns:
        Samples [S] at `SAMPLE_RATE` with a peak of 0.5, `SHORTEST` to `LONGEST` seconds long.
    """
    assert 0.0 <= valence <= 1.0, f"valence {valence} isn't in [0, 1]"
    assert 0.0 <= arousal <= 1.0, f"arousal {arousal} isn't in [0, 1]"
    frames = int(generator.uniform(SHORTEST, LONGEST) * SAMPLE_RATE) // _HOP
    prosody = _prosody(generator, speaker, 2.0 * valence - 1.0, 2.0 * arousal - 1.0, frames)
    breath, hiss, room = generator.standard_normal((3, frames * _HOP))
    pitch = speaker.pitch * 2.0 ** (np.repeat(prosody.semitones, _HOP) / 12.0)
    voice = _filtered(_pulses(pitch) + speaker.breath * breath, _vocal_tract(prosody, speaker))
    voice *= np.repeat(prosody.loudness, _HOP) / np.abs(voice).max()
    mixed = voice + _filtered(hiss, prosody.friction[:, None] * _HISS) + 0.002 * room
    samples: NDArray[np.float32] = (0.5 * mixed / np.abs(mixed).max()).astype(np.float32)
    return samples


@dataclass(frozen=True, slots=True)
class _Prosody:
    """The movement of an utterance, one row per 5 ms (T rows).

    Attributes:
        semitones: pitch [T] above the speaker's habitual pitch.
        loudness: amplitude [T] of the voice.
        tilt: slope [T] of the source's spectrum in dB per octave.
        formants: frequencies [T, 3] in Hz for a vocal tract of average length.
        friction: amplitude [T] of the hiss.
    """

    semitones: Floats
    loudness: Floats
    tilt: Floats
    formants: Floats
    friction: Floats


def _prosody(generator: np.random.Generator, speaker: Speaker, v: float, a: float, frames: int) -> _Prosody:
    """Draw the movements of an utterance; v and a are valence and arousal on [-1, 1]."""
    through = (np.arange(frames) + 0.5) / frames
    seconds = through * frames * _HOP / SAMPLE_RATE
    count = max(2, round(frames * _HOP / SAMPLE_RATE * speaker.rate * 2.0 ** (0.9 * a)))
    lengths = generator.uniform(0.8, 1.25, count)
    ends = np.cumsum(lengths) / lengths.sum()
    syllable = np.minimum(np.searchsorted(ends, through), count - 1)
    within = (through - (ends - lengths / lengths.sum())[syllable]) / (lengths / lengths.sum())[syllable]
    accent = generator.uniform(-1.0, 1.0, count)[syllable]
    vowels = _VOWELS[generator.integers(len(_VOWELS), size=count)] * generator.normal(1.0, 0.04, (count, 3))
    vibrato = 0.75 * (1.0 + v) * np.sin(2.0 * np.pi * (6.5 * seconds + generator.uniform()))
    rise = within - 0.5
    depth = 0.6 + 0.39 * a
    return _Prosody(
        semitones=4.0 * a + (2.0 + 1.6 * a) * accent + v * (14.0 * rise + 4.0 * (through - 0.5)) + vibrato,
        loudness=(1.0 - depth * np.cos(np.pi * within) ** 2) * 10.0 ** ((3.0 + 2.0 * a) * accent / 20.0),
        tilt=speaker.tilt + generator.normal(0.0, 1.0) + v * (2.0 + 18.0 * rise),
        formants=_smoothed(vowels[syllable]),
        friction=0.15 * (generator.uniform(size=count) < 0.5)[syllable] * np.clip(1.0 - within / 0.2, 0.0, 1.0),
    )


def _smoothed(tracks: Floats) -> Floats:
    """Tracks [T, N] averaged over 13 rows, 65 ms: articulators take their time."""
    padded = np.pad(tracks, ((6, 6), (0, 0)), mode="edge")
    averages: Floats = np.lib.stride_tricks.sliding_window_view(padded, 13, axis=0).mean(axis=-1)
    return averages


def _pulses(pitch: Floats) -> Floats:
    """One pulse per period of a pitch [S] in Hz, placed between samples by linear interpolation."""
    phase = np.cumsum(pitch) / SAMPLE_RATE
    before = np.flatnonzero(np.diff(np.floor(phase)) > 0.0)
    late = (np.floor(phase[before + 1]) - phase[before]) / (phase[before + 1] - phase[before])
    pulses = np.zeros(len(pitch))
    pulses[before] += 1.0 - late
    pulses[before + 1] += late
    return pulses


def _vocal_tract(prosody: _Prosody, speaker: Speaker) -> Floats:
    """Gain [T, bins]: resonances at the formants, made up for what they cost above 3 kHz, and the tilt."""
    centres = (prosody.formants * speaker.tract)[:, :, None]
    ratio = (_BINS / centres) ** 2
    losses = (1.0 - ratio) ** 2 + ratio * (_BANDWIDTHS / centres) ** 2
    tilt = 10.0 ** (prosody.tilt[:, None] * _OCTAVES / 20.0)
    gain: Floats = tilt * (1.0 + (_BINS / 3000.0) ** 2) / np.sqrt(losses.prod(axis=1))
    return gain


def _filtered(source: Floats, gain: Floats) -> Floats:
    """A source [T * 80] through a filter that moves, gain [T, bins], by overlapping windows of 20 ms.

    Windows add up to 1, so a gain of 1 everywhere changes nothing.
    """
    rows = np.arange(-2, len(gain) + 2).clip(0, len(gain) - 1)
    window = np.hanning(_WINDOW + 1)[:-1] / 2.0
    padded = np.pad(source, _WINDOW)
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[_STARTS - 2 * _HOP :: _HOP][: len(rows)]
    shaped = np.fft.irfft(np.fft.rfft(frames * window) * gain[rows], _WINDOW)
    out = np.zeros(len(padded) + _WINDOW)
    for quarter in range(_WINDOW // _HOP):
        first = _STARTS + (quarter - 2) * _HOP
        blocks = out[first : first + len(rows) * _HOP].reshape(len(rows), _HOP)
        blocks += shaped[:, quarter * _HOP : (quarter + 1) * _HOP]
    return out[_WINDOW:][: len(source)]
