"""The same audio in two parts: equal files, overlapping stretches, copies in another format or cut elsewhere."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from serfit.config.schema import ExperimentConfig
from serfit.corpus.audio import read_audio
from serfit.corpus.copies import (
    REACH,
    ROUNDING,
    WINDOW,
    Anchors,
    _hashes,
    _sliding_least,
    anchors_of,
    check_copies,
    matches,
)
from serfit.corpus.folds import Split
from serfit.corpus.utterance import Utterance
from serfit.errors import UserError
from serfit.labels import SAMPLE_RATE
from serfit.training.material import prepare
from support import settings as experiment
from support import small_release

PARTS = ("train", "validation", "test")


def split_of(**parts: Sequence[Utterance]) -> Split:
    return Split(1, 1, *(tuple(parts.get(part, ())) for part in PARTS), protocol="")


def noise(seconds: float, seed: int) -> np.ndarray:
    """Samples of 16 bits."""
    steps = np.random.default_rng(seed).integers(-8_000, 8_000, round(seconds * SAMPLE_RATE))
    return (steps / 32_768).astype(np.float32)


def wav(path: Path, samples: np.ndarray, **options: str) -> Path:
    soundfile.write(path, samples, SAMPLE_RATE, **options)
    return path


def decoded(split: Split) -> tuple[dict[str, float], dict[str, Anchors]]:
    sounds = {one.id: read_audio(one.path, one.start, one.end) for part in split.parts.values() for one in part}
    lengths = {name: len(sound) / SAMPLE_RATE for name, sound in sounds.items()}
    return lengths, {name: anchors_of(sound) for name, sound in sounds.items()}


# ---------------------------------------------------------------- stretches of one recording


@given(
    stretches=st.lists(
        st.tuples(st.integers(0, 40), st.integers(1, 12), st.sampled_from(PARTS), st.sampled_from([None, "a", "b"])),
        min_size=1,
        max_size=10,
    )
)
@settings(max_examples=150)
def test_overlapping_stretches_are_those_that_brute_force_finds(
    tmp_path_factory: pytest.TempPathFactory, stretches: list[tuple[int, int, str, str | None]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "one.wav"
    path.write_bytes(b"not decoded")
    utterances = [
        (part, Utterance(f"u{n}", path, {}, start=start / 4, end=(start + length) / 4, speaker=who))
        for n, (start, length, part, who) in enumerate(stretches)
    ]
    leak = beside = False
    for n, (part, one) in enumerate(utterances):
        for other_part, other in utterances[:n]:
            quarters = [set(range(round(4 * spoken.start), round(4 * (spoken.end or 0)))) for spoken in (one, other)]
            shared = len(quarters[0] & quarters[1])
            if shared and part != other_part:
                two = {one.speaker, other.speaker} == {"a", "b"} and 2 * shared <= max(map(len, quarters))
                leak, beside = leak or not two, beside or two
    split = split_of(**{part: [one for where, one in utterances if where == part] for part in PARTS})
    seconds = {one.id: one.end - one.start for _, one in utterances if one.end is not None}
    if leak:
        with pytest.raises(
            UserError, match=r"the same audio is in two parts of fold 1, so the test would flatter: u\d"
        ):
            check_copies(split, seconds, {})
    else:
        told = check_copies(split, seconds, {})
        assert any("by two speakers each, have some of their audio in common" in line for line in told) == beside


def test_times_that_are_rounded_do_not_overlap(tmp_path: Path) -> None:
    path = wav(tmp_path / "a.wav", noise(2.0, 1))
    one = Utterance("one", path, {}, start=0.0, end=1.0 + ROUNDING / 2)
    two = Utterance("two", path, {}, start=1.0)
    assert check_copies(split_of(train=[one], test=[two]), {"one": 1.005, "two": 1.0}, {}) == []
    again = Utterance("again", path, {}, start=0.001)
    with pytest.raises(UserError, match=r"one \(train\) = again \(test\), 1\.00 s"):
        check_copies(split_of(train=[one], test=[again]), {"one": 1.005, "again": 1.999}, {})


def test_sliding_stretches_in_a_table_are_refused(tmp_path: Path) -> None:
    wav(tmp_path / "long.wav", noise(40.0, 2))
    rows = [f"long.wav,{i},{i + 5},p{i},{1 + i % 4},{1 + i % 3}" for i in range(36)]
    (tmp_path / "ratings.csv").write_text("file,start,end,who,v,a\n" + "\n".join(rows))
    table = {"path": "ratings.csv", "audio": "file", "start": "start", "end": "end", "speaker": "who"}
    data = {
        "corpus": "csv",
        "table": {**table, "valence": "v", "arousal": "a"},
        "scales": {"valence": (1, 5), "arousal": (1, 5)},
        "split": {"scheme": "grouped_kfold", "group": "speaker", "folds": 5},
    }
    plan = experiment(tmp_path, tmp_path)
    config = ExperimentConfig.model_validate({**plan, "data": {**plan["data"], **data}})
    with pytest.raises(UserError, match=r"the same audio is in two parts of fold 1.*and \d+ more; keep what overlaps"):
        prepare(config)


# ---------------------------------------------------------------- equal files


def test_the_same_audio_in_two_parts_is_refused_and_within_one_is_told(tmp_path: Path) -> None:
    release = small_release(tmp_path / "iemocap")
    wavs = sorted(release.rglob("*.wav"))
    config = ExperimentConfig.model_validate(experiment(release, tmp_path))
    original = wavs[-1].read_bytes()
    shutil.copy(wavs[0], wavs[-1])
    with pytest.raises(UserError, match=rf"same audio is in two parts.*{wavs[-1].stem} \(train\) = {wavs[0].stem} "):
        prepare(config)
    wavs[-1].write_bytes(original)
    shutil.copy(wavs[-2], wavs[-1])
    (warning,) = [note for note in prepare(config).corpus.notes if "same audio" in note]
    assert warning.startswith("warning: the same audio has several names (1 pair): Ses05F")


def test_a_check_that_decodes_all_audio_compares_it(tmp_path: Path) -> None:
    """A training trusts headers and compares files as they are: it takes a copy in another format."""
    release = small_release(tmp_path / "iemocap")
    wavs = sorted(release.rglob("*.wav"))
    config = ExperimentConfig.model_validate(experiment(release, tmp_path))
    wav(wavs[0], noise(1.0, 6))
    wav(wavs[-1], noise(1.0, 6), subtype="FLOAT")
    prepare(config)
    with pytest.raises(UserError, match=rf"same audio is in two parts.*{wavs[-1].stem} \(train\) = {wavs[0].stem} "):
        prepare(config, decode=True)


def test_equal_sizes_are_not_equal_content(tmp_path: Path) -> None:
    parts: dict[str, list[Utterance]] = {}
    for place, part in enumerate(PARTS):
        path = tmp_path / f"{part}.wav"
        path.write_bytes(b"a" * 5000 + bytes([place]) + b"b" * 5000)
        parts[part] = [Utterance(part, path, {})]
    assert check_copies(split_of(**parts), dict.fromkeys(PARTS, 1.0), {}) == []


# ---------------------------------------------------------------- decoded sound


@given(data=st.data())
@settings(max_examples=25)
def test_what_is_shared_is_found_wherever_it_lies(data: st.DataObject) -> None:
    seed = data.draw(st.integers(0, 1000))
    length = data.draw(st.integers(REACH + WINDOW, 40_000))
    source = noise(3.0, seed)
    begin = data.draw(st.integers(0, len(source) - length))
    shared = source[begin : begin + length]
    place = data.draw(st.integers(0, 20_000))
    other = np.concatenate([noise(2.0, seed + 5000)[:place], shared, noise(1.0, seed + 9000)])
    one, two, three = (anchors_of(sound) for sound in (source, other, noise(3.0, seed + 7000)))
    assert set(one.hashes.tolist()) & set(two.hashes.tolist()), "an anchor in common"
    assert not set(one.hashes.tolist()) & set(three.hashes.tolist())
    whole = anchors_of(shared)
    assert (0, 1, begin) in set(matches([one, whole])), "a piece of the whole"


@given(seed=st.integers(0, 10_000), more=st.integers(0, 60), again=st.integers(0, 50))
@settings(max_examples=15)
def test_hashes_are_polynomials_of_the_samples_alone(seed: int, more: int, again: int) -> None:
    samples = np.random.default_rng(seed).integers(-32_768, 32_768, WINDOW + more).tolist()

    def slowly(window: list[int]) -> int:
        value = sum(sample * pow(0x9E3779B97F4A7C15, j, 2**64) for j, sample in enumerate(window)) % 2**64
        value ^= value >> 31
        value = value * 0xD6E8FEB86659FD93 % 2**64
        return value ^ value >> 29

    moved = [7] * again + samples
    for given_samples in (samples, moved):
        found = _hashes(np.array(given_samples, dtype=np.int64))
        for place in (0, len(given_samples) - WINDOW):
            window = given_samples[place : place + WINDOW]
            if sum(sample**2 for sample in window) >= WINDOW * 100:
                assert int(found[place]) == slowly(window)


@given(values=st.lists(st.integers(0, 50), min_size=1, max_size=60), width=st.integers(1, 20))
def test_the_least_of_every_few_values(values: list[int], width: int) -> None:
    width = min(width, len(values))
    found = _sliding_least(np.array(values, dtype=np.uint64), width)
    assert found.tolist() == [min(values[place : place + width]) for place in range(len(values) - width + 1)]


def test_anchors_are_the_same_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = noise(4.0, 3)
    whole = anchors_of(sound)
    monkeypatch.setattr("serfit.corpus.copies._PIECE", 10_000)
    pieces = anchors_of(sound)
    np.testing.assert_array_equal(pieces.offsets, whole.offsets)
    np.testing.assert_array_equal(pieces.hashes, whole.hashes)


def copy_of(kind: str, folder: Path, sound: np.ndarray) -> Utterance:
    match kind:
        case "flac":
            return Utterance("copy", wav(folder / "copy.flac", sound), {})
        case "float":
            return Utterance("copy", wav(folder / "copy.wav", sound, subtype="FLOAT"), {})
        case "stereo":
            return Utterance("copy", wav(folder / "copy.wav", np.stack([sound, sound], axis=1)), {})
        case "shifted":
            return Utterance("copy", wav(folder / "copy.wav", sound[16:]), {})
        case "padded":
            return Utterance("copy", wav(folder / "copy.wav", np.concatenate([noise(0.3, 99), sound])), {})
        case "cut out":
            return Utterance("copy", wav(folder / "copy.wav", sound), {}, start=0.5, end=1.7)
    raise AssertionError(kind)


@pytest.mark.parametrize("kind", ["flac", "float", "stereo", "shifted", "padded", "cut out"])
def test_copies_of_decoded_sound_are_refused_across_parts_and_told_within(tmp_path: Path, kind: str) -> None:
    sound = noise(2.0, 4)
    original = Utterance("original", wav(tmp_path / "original.wav", sound), {})
    other = Utterance("other", wav(tmp_path / "other.wav", noise(2.0, 5)), {})
    copy = copy_of(kind, tmp_path, sound)
    split = split_of(train=[original], validation=[other], test=[copy])
    with pytest.raises(UserError, match=r"original \(train\) = copy \(test\), [12]\.\d\d s"):
        check_copies(split, *decoded(split))
    if kind in ("flac", "float", "stereo"):
        split = split_of(train=[original, copy], test=[other])
        assert "the same audio has several names (1 pair): original = copy" in "".join(
            check_copies(split, *decoded(split))
        )


def test_a_tone_at_the_beginning_of_every_recording_is_no_copy(tmp_path: Path) -> None:
    tone = (0.3 * np.sin(np.arange(12_000) * 0.3)).astype(np.float32)
    utterances = [
        Utterance(f"u{n}", wav(tmp_path / f"{n}.wav", np.concatenate([tone, np.zeros(4_000), noise(2.0, n)])), {})
        for n in range(6)
    ]
    split = split_of(train=utterances[:2], validation=utterances[2:4], test=utterances[4:])
    assert check_copies(split, *decoded(split)) == []


def test_silence_and_hum_of_many_recordings_are_no_copies(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    sounds = [np.zeros(20_000), np.zeros(20_000), random.integers(-2, 3, 20_000) / 32_768, np.full(20_000, 0.25)]
    utterances = [Utterance(f"u{n}", wav(tmp_path / f"{n}.wav", sound), {}) for n, sound in enumerate(sounds)]
    split = split_of(train=utterances[1:2], validation=utterances[2:3], test=utterances[:1])
    with pytest.raises(UserError, match="in two parts"):  # equal files, byte by byte
        check_copies(split, *decoded(split))
    split = split_of(train=utterances[1:2], validation=utterances[2:3], test=utterances[3:])
    assert check_copies(split, *decoded(split)) == []


def test_an_utterance_that_lies_whole_in_a_file_of_another_part_is_no_second_speaker(tmp_path: Path) -> None:
    speech = noise(6.0, 11)
    short = wav(tmp_path / "short.wav", speech[16_000:48_000])
    long = wav(tmp_path / "long.wav", speech)
    one, other = Utterance("short", short, {}, speaker="a"), Utterance("long", long, {}, speaker="b")
    found = {spoken.id: anchors_of(read_audio(spoken.path)) for spoken in (one, other)}
    with pytest.raises(UserError, match=r"the same audio is in two parts"):
        check_copies(split_of(train=[one], test=[other]), {"short": 2.0, "long": 6.0}, found)
