"""The demo's voices and corpus: deterministic, well formed, and carrying what they claim to carry."""

import itertools
import re
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serfit.corpus.synthetic import voices
from serfit.corpus.synthetic.corpus import SCENARIOS, majority, synthetic_corpus, vote
from serfit.corpus.synthetic.voices import LONGEST, SHORTEST, Speaker, draw_speaker, speak
from serfit.labels import SAMPLE_RATE
from serfit.scores.metrics import ccc
from serfit.system.counters import generator

UNIT = st.floats(0.0, 1.0)
FRAME = 640  # 40 ms


def frames_of(samples):
    """[T, 640], every 10 ms."""
    return np.lib.stride_tricks.sliding_window_view(samples.astype(np.float64), FRAME)[::160]


def measured_pitch(samples, speaker):
    """Pitch [T] in Hz by subharmonic summation (Hermes 1988), NaN where it is quiet; of the speaker only a range."""
    spectra = np.abs(np.fft.rfft(frames_of(samples) * np.hanning(FRAME), 4096))
    spectra[:, np.fft.rfftfreq(4096, 1 / SAMPLE_RATE) > 2500] = 0  # leaves the hiss out
    candidates = speaker.pitch * 2 ** np.arange(-0.6, 0.8, 1 / 120)
    indices = np.rint(candidates[:, None] * np.arange(1, 11) / SAMPLE_RATE * 4096).astype(int)
    best = (spectra[:, indices] @ 0.84 ** np.arange(10)).argmax(axis=1)
    loudness = np.sqrt((spectra**2).sum(axis=1))
    return np.where(loudness > 0.3 * loudness.max(), candidates[best], np.nan)


def brightness(samples):
    """Share of the power above 1 kHz, without what lies above 3 kHz, where there is hiss."""
    power = np.abs(np.fft.rfft(samples.astype(np.float64))) ** 2
    hertz = np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE)
    return power[(hertz > 1000) & (hertz < 3000)].sum() / power[hertz < 3000].sum()


def rhythm(samples):
    """How fast and how deep the loudness below 3 kHz swings: mean modulation frequency in Hz, deviation over mean."""
    spectrum = np.fft.rfft(samples.astype(np.float64))
    spectrum[np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE) > 3000] = 0
    level = np.sqrt(frames_of(np.fft.irfft(spectrum)) ** 2 @ np.hanning(FRAME))
    power = np.abs(np.fft.rfft(level - level.mean(), 1024)) ** 2
    hertz = np.fft.rfftfreq(1024, 0.01)
    heard = hertz < 12
    return (power * hertz)[heard].sum() / power[heard].sum(), level.std() / level.mean()


def speakers():
    return [draw_speaker(generator("speaker", number, gender), gender) for number in range(3) for gender in ("F", "M")]


def spoken(speaker, valence, arousal, times=8):
    return [speak(generator("voice", number), speaker, valence, arousal) for number in range(times)]


@settings(max_examples=25)
@given(number=st.integers(0, 2**32), gender=st.sampled_from("FM"), valence=UNIT, arousal=UNIT)
def test_any_voice_is_well_formed(number, gender, valence, arousal):
    speaker = draw_speaker(generator(number), gender)
    samples = speak(generator(number), speaker, valence, arousal)
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert SHORTEST - 0.01 <= len(samples) / SAMPLE_RATE <= LONGEST
    assert np.abs(samples).max() == pytest.approx(0.5)
    assert np.array_equal(samples, speak(generator(number), speaker, valence, arousal))


@pytest.mark.parametrize(("valence", "arousal"), [(-0.1, 0.5), (0.5, 1.1), (float("nan"), 0.5)])
def test_emotion_off_the_unit_interval_is_a_bug(valence, arousal):
    with pytest.raises(AssertionError, match=r"isn't in \[0, 1\]"):
        speak(generator(0), draw_speaker(generator(0), "F"), valence, arousal)


def test_a_neutral_voice_has_the_pitch_of_its_speaker():
    for speaker in speakers():
        measured = np.nanmedian(
            np.concatenate([measured_pitch(samples, speaker) for samples in spoken(speaker, 0.5, 0.5)])
        )
        assert abs(12 * np.log2(measured / speaker.pitch)) < 2.0, f"{measured:.0f} Hz for {speaker}"


def test_arousal_raises_pitch_range_rate_and_rhythm_in_every_speaker():
    for speaker in speakers():
        (low, low_range, low_rate, low_depth), (high, high_range, high_rate, high_depth) = (
            _arousal_cues(speaker, arousal) for arousal in (0.05, 0.95)
        )
        assert high > low * 1.2
        assert high_range > low_range
        assert high_rate > 1.4 * low_rate
        assert high_depth > 2.0 * low_depth


def _arousal_cues(speaker, arousal):
    utterances = spoken(speaker, 0.5, arousal)
    pitch = np.log2([np.nanmedian(measured_pitch(samples, speaker)) for samples in utterances])
    spread = [np.nanstd(np.log2(measured_pitch(samples, speaker))) for samples in utterances]
    rate, depth = np.mean([rhythm(samples) for samples in utterances], axis=0)
    return 2 ** pitch.mean(), np.mean(spread), rate, depth


def test_valence_turns_the_pitch_and_brightens_the_spectrum_in_every_speaker():
    for speaker in speakers():
        negative, positive = spoken(speaker, 0.05, 0.5), spoken(speaker, 0.95, 0.5)
        assert _pitch_steps(positive, speaker) > 0.0 > _pitch_steps(negative, speaker)
        assert np.mean([brightness(s) for s in positive]) > np.mean([brightness(s) for s in negative])


def _pitch_steps(utterances, speaker):
    """Median change of pitch from one 10 ms to the next: within syllables, since these are many."""
    return np.median(np.concatenate([_finite(np.diff(np.log2(measured_pitch(s, speaker)))) for s in utterances]))


def _finite(values):
    return values[np.isfinite(values) & (values != 0)]


def test_speakers_differ_more_in_their_average_pitch_than_emotions_do():
    habits = np.log2([speaker.pitch for speaker in speakers()])
    assert 12 * np.ptp(habits) > 8.0, "arousal moves the pitch by eight semitones from end to end"
    assert len({speaker.rate for speaker in speakers()}) == len(speakers())


def test_women_have_higher_voices_and_shorter_vocal_tracts():
    women, men = speakers()[::2], speakers()[1::2]
    assert min(w.pitch for w in women) > max(m.pitch for m in men)
    assert min(w.tract for w in women) >= max(m.tract for m in men)


def test_a_filter_that_lets_everything_pass_changes_nothing():
    source = generator("source").standard_normal(50 * 80)
    assert np.allclose(voices._filtered(source, np.ones((50, len(voices._BINS)))), source, atol=1e-12)


@settings(max_examples=25)
@given(hertz=st.floats(60, 500))
def test_pulses_keep_their_period_and_their_height(hertz):
    pulses = voices._pulses(np.full(SAMPLE_RATE, hertz))
    assert pulses.sum() == pytest.approx(hertz, abs=1.0)
    indices = np.flatnonzero(pulses)
    centroid = (pulses[indices] * indices).sum() / pulses.sum()
    assert centroid == pytest.approx(SAMPLE_RATE / 2, abs=SAMPLE_RATE / hertz)


def test_formants_follow_the_length_of_the_vocal_tract():
    prosody = voices._prosody(generator(1), speakers()[0], 0.0, 0.0, 200)
    for tract in (0.9, 1.1):
        gain = voices._vocal_tract(prosody, Speaker(pitch=100, tract=tract, tilt=0, rate=4, breath=0))
        peaks = voices._BINS[gain[:, :25].argmax(axis=1)]
        assert np.allclose(peaks, prosody.formants[:, 0] * tract, atol=75), "the first formant is the highest peak"


@pytest.fixture(scope="module")
def corpus():
    return list(synthetic_corpus(1))


def test_corpus_has_five_sessions_of_two_speakers_who_play_every_scenario(corpus):
    assert len(corpus) == 5 * len(SCENARIOS) * 16
    assert len({spoken.name for spoken in corpus}) == len(corpus)
    assert all(re.fullmatch(r"Ses0[1-5][FM]_(impro\d\d|script\d\d_\d)_[FM]\d{3}", spoken.name) for spoken in corpus)
    assert {(spoken.name[:5], spoken.name[-4]) for spoken in corpus} == set(
        itertools.product([f"Ses0{session}" for session in range(1, 6)], "FM")
    )
    for session in range(1, 6):
        mine = [spoken.name for spoken in corpus if spoken.name.startswith(f"Ses0{session}")]
        assert {name[7:].rpartition("_")[0] for name in mine} == set(SCENARIOS)


def test_turns_follow_each_other_and_last_as_long_as_their_sound(corpus):
    dialogues = defaultdict(list)
    for spoken in corpus:
        assert spoken.end - spoken.start == pytest.approx(len(spoken.samples) / SAMPLE_RATE)
        dialogues[spoken.name.rpartition("_")[0]].append(spoken)
    for turns in dialogues.values():
        assert turns[0].start > 0
        assert all(after.start > before.end for before, after in itertools.pairwise(turns))
        assert all(after.name[-4] != before.name[-4] for before, after in itertools.pairwise(turns))


def test_ratings_are_the_means_of_three_raters_on_the_scale(corpus):
    for spoken in corpus:
        assert len(spoken.raters) == 3
        assert all(1 <= value <= 5 for rating in spoken.raters for value in rating)
        means = [sum(column) / 3 for column in zip(*spoken.raters, strict=True)]
        assert [spoken.valence, spoken.arousal, spoken.dominance] == pytest.approx(means, abs=1e-4)


def test_sounds_belong_to_their_ratings(corpus):
    by_speaker = defaultdict(list)
    for spoken in corpus:
        by_speaker[spoken.name[:5], spoken.name[-4]].append(spoken)
    heard = [
        np.corrcoef([(s.valence, s.arousal, brightness(s.samples), rhythm(s.samples)[1]) for s in mine], rowvar=False)
        for mine in by_speaker.values()
    ]
    valence_of_brightness, arousal_of_brightness, valence_of_depth, arousal_of_depth = np.mean(
        [(r[2, 0], r[2, 1], r[3, 0], r[3, 1]) for r in heard], axis=0
    )
    assert valence_of_brightness > 0.2 > abs(arousal_of_brightness)
    assert arousal_of_depth > 0.5 > abs(valence_of_depth)


def test_raters_disagree_but_not_too_much(corpus):
    for column in (0, 1):
        first, second = (np.array([spoken.raters[rater][column] for spoken in corpus]) for rater in (0, 1))
        assert 0.6 < ccc(first, second) < 0.9


def test_classes_agree_with_the_ratings(corpus):
    means = {
        emotion: np.mean([(s.valence, s.arousal) for s in corpus if s.emotion == emotion], axis=0)
        for emotion in ("ang", "sad", "hap", "neu", "xxx")
    }
    assert means["ang"][1] > means["neu"][1] > means["sad"][1]
    assert means["hap"][0] > means["neu"][0] > max(means["ang"][0], means["sad"][0])
    for spoken in corpus:
        votes = [vote(*rating[:2]) for rating in spoken.raters]
        assert (spoken.emotion == "xxx") == (len(set(votes)) == 3)


@given(votes=st.lists(st.sampled_from(["ang", "sad", "hap", "neu"]), min_size=1, max_size=7))
def test_majority_is_more_than_half(votes):
    chosen = majority(votes)
    winners = [emotion for emotion in set(votes) if votes.count(emotion) > len(votes) / 2]
    assert chosen == (winners[0] if winners else "xxx")


def test_the_scenario_says_something_but_not_much(corpus):
    of = defaultdict(list)
    for spoken in corpus:
        of[spoken.name[7:].rpartition("_")[0]].append(spoken)
    held_out = [spoken for spoken in corpus if spoken.name.startswith("Ses01")]
    for name, least, most in (("valence", 0.1, 0.4), ("arousal", -0.1, 0.25)):
        guessed = [
            np.mean([getattr(s, name) for s in of[spoken.name[7:].rpartition("_")[0]] if s.name[:5] != "Ses01"])
            for spoken in held_out
        ]
        assert least < ccc([getattr(spoken, name) for spoken in held_out], guessed) < most


def test_utterances_belong_to_seed_and_name(corpus):
    smaller = list(synthetic_corpus(1, sessions=2, utterances_per_dialogue=3))
    assert len(smaller) == 2 * len(SCENARIOS) * 3
    larger = {spoken.name: spoken for spoken in corpus}
    for spoken in smaller:
        same = larger[spoken.name]
        assert np.array_equal(spoken.samples, same.samples)
        assert (spoken.raters, spoken.start, spoken.transcript) == (same.raters, same.start, same.transcript)
    other = next(synthetic_corpus(2))
    assert other.name == corpus[0].name
    assert not np.array_equal(other.samples[:8000], corpus[0].samples[:8000])


@pytest.mark.parametrize(("sessions", "utterances"), [(0, 4), (6, 4), (1, 1)])
def test_a_corpus_without_two_speakers_in_five_sessions_is_a_bug(sessions, utterances):
    with pytest.raises(AssertionError):
        next(synthetic_corpus(1, sessions=sessions, utterances_per_dialogue=utterances))
