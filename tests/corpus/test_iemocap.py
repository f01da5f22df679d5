"""The IEMOCAP reader against a tree written in the release's own form, traps included."""

import dataclasses
import re
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serfit.corpus.iemocap import find_release, read_iemocap
from serfit.corpus.release import OFFICIAL_COUNTS, official_dialogues
from serfit.corpus.synthetic.release import ReleaseUtterance, write_release
from serfit.corpus.utterance import Utterance
from serfit.errors import UserError

NO_AUDIO = np.zeros(0, dtype=np.float32)
DIALOGUE = "Ses01F_impro01"
EVALUATION = f"Session1/dialog/EmoEvaluation/{DIALOGUE}.txt"
TRANSCRIPTION = f"Session1/dialog/transcriptions/{DIALOGUE}.txt"


def spoken(
    name: str, start: float = 1.0, seconds: float = 2.0, v: float = 3.0, a: float = 2.5, d: float = 4.0
) -> ReleaseUtterance:
    return ReleaseUtterance(name, start, start + seconds, "neu", v, a, d, f"I am {name}.", NO_AUDIO, ((3, 3, 4),) * 3)


def write(root: Path, *utterances: ReleaseUtterance) -> Path:
    """Labels, transcriptions, and empty files in place of the audio, which the reader never opens."""
    write_release(root, utterances)
    for utterance in utterances:
        (root / utterance.session / "sentences/wav" / utterance.dialogue / f"{utterance.name}.wav").touch()
    return root


def write_small(root: Path) -> Path:
    """One utterance of each of the two speakers in each of three sessions."""
    names = [f"Ses0{session}F_impro01_{letter}000" for session in (1, 2, 3) for letter in "FM"]
    return write(root, *(spoken(name, start) for start, name in enumerate(names)))


def append(path: Path, data: bytes) -> None:
    path.write_bytes(path.read_bytes() + data)


def one(utterances: tuple[Utterance, ...], name: str) -> Utterance:
    (found,) = [utterance for utterance in utterances if utterance.id == name]
    return found


def test_every_field_of_an_utterance(tmp_path: Path) -> None:
    write(
        tmp_path,
        spoken("Ses01F_impro01_M000", 6.2901, 1.9456, 1.5, 2.25, 3.75),
        dataclasses.replace(spoken("Ses01F_impro01_F000", 9.0), emotion="xxx"),
        spoken("Ses02M_script01_1_F000", 1.0),
    )
    corpus = read_iemocap(tmp_path)
    assert corpus.name == "iemocap"
    assert {name: (scale.minimum, scale.maximum) for name, scale in corpus.scales.items()} == dict.fromkeys(
        ("valence", "arousal", "dominance"), (1, 5)
    )
    assert corpus.utterances[0] == Utterance(
        id="Ses01F_impro01_M000",
        path=tmp_path / "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_M000.wav",
        ratings={"valence": 1.5, "arousal": 2.25, "dominance": 3.75},
        start=0.0,
        end=None,
        duration=1.9456,
        speaker="Ses01_M",
        session="Ses01",
        dialogue="Ses01F_impro01",
        turn=0,
        scenario="impro01",
        style="improvised",
        gender="male",
        emotion="neu",
        transcript="I am Ses01F_impro01_M000.",
        raters=3,
        single_ratings={"valence": (3, 3, 3), "arousal": (3, 3, 3), "dominance": (4, 4, 4)},
    )
    second, third = corpus.utterances[1:]
    assert (second.turn, second.speaker, second.gender, second.emotion) == (1, "Ses01_F", "female", "xxx")
    assert (third.speaker, third.style, third.scenario, third.turn) == ("Ses02_F", "scripted", "script01", 0)


rating = st.integers(4, 20).map(lambda quarters: quarters / 4)
turns = st.lists(
    st.tuples(
        st.integers(1, 5), st.sampled_from("FM"), st.sampled_from(["impro03", "impro05a", "script01_1b", "script03_2"]),
        st.sampled_from("FM"), st.integers(0, 999), st.integers(0, 5000), st.integers(5, 300), rating, rating, rating,
    ),
    min_size=1, max_size=25, unique_by=lambda turn: turn[:5],
)  # fmt: skip


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(turns=turns)
def test_what_is_written_is_read_whatever_its_order(
    tmp_path_factory: pytest.TempPathFactory, turns: list[tuple]
) -> None:
    utterances = [
        spoken(f"Ses0{session}{worn}_{dialogue}_{letter}{number:03}", start / 10, length / 10, v, a, d)
        for session, worn, dialogue, letter, number, start, length, v, a, d in turns
    ]
    root = write(tmp_path_factory.mktemp("release"), *utterances)
    read = read_iemocap(root).utterances
    assert {
        (u.id, u.duration, *u.ratings.values(), u.transcript, u.speaker, u.dialogue, u.scenario, str(u.path))
        for u in read
    } == {
        (
            u.name,
            round(u.end - u.start, 4),
            u.valence,
            u.arousal,
            u.dominance,
            u.transcript,
            f"{u.name[:5]}_{u.name[-4]}",
            u.dialogue,
            re.findall(r"impro\d\d|script\d\d", u.name)[0],
            f"{root}/{u.session}/sentences/wav/{u.dialogue}/{u.name}.wav",
        )
        for u in utterances
    }
    starts = {u.name: u.start for u in utterances}
    for dialogue in {u.dialogue for u in read}:
        turns_read = [(u.turn, starts[u.id]) for u in read if u.dialogue == dialogue]
        assert [turn for turn, _ in turns_read] == list(range(len(turns_read)))
        assert [start for _, start in turns_read] == sorted(start for _, start in turns_read)


def test_leftovers_of_other_systems_and_sub_folders_are_not_read(tmp_path: Path) -> None:
    clean = read_iemocap(write_small(tmp_path))
    evaluation = tmp_path / EVALUATION
    junk = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X\n[1.0 - 2.0]\tSes01F_impro01_F900\tneu\t[3.0, 3.0, 3.0]\n"
    for path in (EVALUATION, TRANSCRIPTION, f"Session1/sentences/wav/{DIALOGUE}/{DIALOGUE}_F000.wav"):
        (tmp_path / path).with_name(f"._{Path(path).name}").write_bytes(junk)
    for folder in ("Attribute", "Categorical", "Self-evaluation"):
        (evaluation.parent / folder).mkdir()
        (evaluation.parent / folder / f"{DIALOGUE}_e2_atr.txt").write_bytes(junk)
    (evaluation.parent / ".DS_Store").write_bytes(junk)
    (tmp_path / "._Session1").write_bytes(junk)
    (tmp_path / "Session1/sentences/wav" / "._Ses01F_impro01").write_bytes(junk)
    (tmp_path / "Documentation").mkdir()
    assert read_iemocap(tmp_path) == clean


def test_raters_with_a_missing_value_and_self_reports_do_not_count(tmp_path: Path) -> None:
    write_small(tmp_path)
    (tmp_path / EVALUATION).write_bytes(
        b"% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\r\n\r\n"
        b"[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]\r\n"
        b"C-E2:\tNeutral; Anger;\t(see Ses01F_impro01_M000)\r\n"
        b"A-E3:\tval 3; act 2; dom  2;\t()\r\n"
        b"A-E4:\tval 2; act 3; \t(mildly aggravated but staying polite, attitude)\r\n"
        b"A-E5:\tval ; act 3; dom  1;\t(says val 3)\r\n"
        b"A-E6:\tact 3; dom  1;\t(\xe9\x93 \x85)\r\n"
        b"A-F1:\tval 3; act 2; dom  1;\t()\r\n"
        b"A-M1:\tval 3; act 2; dom  1;\t()\r\n\r\n"
        b"[9.5 - 10]\tSes01F_impro01_M000\txxx\t[1.6667, 5.5000, 0.5000]\r\n"
    )
    utterances = read_iemocap(tmp_path).utterances
    first = one(utterances, "Ses01F_impro01_F000")
    assert first.raters == 2
    assert first.single_ratings == {"valence": (3, 2), "arousal": (2, 3, 3, 3), "dominance": (2, 1, 1)}
    second = one(utterances, "Ses01F_impro01_M000")
    assert (second.raters, second.duration) == (0, 0.5)
    assert not any(second.single_ratings.values())
    assert second.ratings == {"valence": 1.6667, "arousal": 5.5, "dominance": 0.5}


def test_transcriptions_are_latin_1_and_hold_turns_that_nobody_rated(tmp_path: Path) -> None:
    write_small(tmp_path)
    (tmp_path / TRANSCRIPTION).write_bytes(
        b"Ses01F_impro01_F000 [006.2901-008.2357]: Caf\xe9\x85 she said [sic]: no.\r\n"
        b"Ses01F_impro01_FXX0 [008.3000-008.9000]: [LAUGHTER]\r\n"
        b"Ses01F_impro01_MXX0 [008.3000-008.9000]: Hm.\r\n"
        b"F: yeah.\r\n\r\n"
    )
    corpus = read_iemocap(tmp_path)
    assert len(corpus.utterances) == 6
    assert one(corpus.utterances, "Ses01F_impro01_F000").transcript == "Caf\xe9\x85 she said [sic]: no."
    assert one(corpus.utterances, "Ses01F_impro01_M000").transcript is None
    assert one(corpus.utterances, "Ses02F_impro01_M000").transcript == "I am Ses02F_impro01_M000."


def test_ratings_off_the_scale_are_kept_and_counted(tmp_path: Path) -> None:
    names = [f"Ses01F_impro01_F{number:03}" for number in range(6)]
    values = [(5.5, 3.0), (5.5, 0.5), (5.0, 1.0), (1.0, 0.5), (3.0, 5.0), (2.0, 0.75)]
    write(
        tmp_path,
        *(spoken(name, place, v=v, d=d) for place, (name, (v, d)) in enumerate(zip(names, values, strict=True))),
    )
    corpus = read_iemocap(tmp_path)
    assert [utterance.ratings["valence"] for utterance in corpus.utterances] == [v for v, _ in values]
    assert (
        "5 ratings off the scale of 1 to 5, kept unchanged: valence 5.5 x 2, dominance 0.5 x 2, dominance 0.75 x 1"
    ) in corpus.notes


def test_ratings_far_off_the_scale_are_no_ratings(tmp_path: Path) -> None:
    write(tmp_path, spoken("Ses01F_impro01_F000"), spoken("Ses01F_impro01_F001", 5.0, v=55.0))
    with pytest.raises(UserError, match=r"1 rating far off the scale of 1 to 5: Ses01F_impro01_F001 valence 55;"):
        read_iemocap(tmp_path)


@pytest.mark.parametrize(
    ("sessions", "told"),
    [
        (
            "1245",
            [
                "warning: without Ses03, folds that leave a session out aren't numbered like the sessions: "
                "fold 3 tests on Ses04, fold 4 tests on Ses05"
            ],
        ),
        ("1234", []),
    ],
)
def test_folds_that_a_missing_session_renumbers_are_told(tmp_path: Path, sessions: str, told: list[str]) -> None:
    write(tmp_path, *(spoken(f"Ses0{session}F_impro01_F000") for session in sessions))
    assert [note for note in read_iemocap(tmp_path).notes if note.startswith("warning")] == told


@pytest.fixture(scope="module")
def full_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10,039 utterances in the 151 dialogues of the release."""
    root = tmp_path_factory.mktemp("full")
    for session, count in OFFICIAL_COUNTS.items():
        dialogues = sorted(name for name in official_dialogues() if name.startswith(session))
        places = [(dialogues[number % len(dialogues)], number // len(dialogues)) for number in range(count)]
        write(root, *(spoken(f"{dialogue}_{'FM'[turn % 2]}{turn:03}", turn) for dialogue, turn in places))
    return root


def test_the_full_release_gives_no_note_and_is_read_in_seconds(full_release: Path) -> None:
    began = time.process_time()
    corpus = read_iemocap(full_release)
    assert time.process_time() - began < 60.0  # of this process alone
    assert corpus.notes == ()
    assert len(corpus.utterances) == 10_039
    assert Counter(utterance.session for utterance in corpus.utterances) == OFFICIAL_COUNTS
    assert len({utterance.dialogue for utterance in corpus.utterances}) == 151
    assert len({utterance.speaker for utterance in corpus.utterances}) == 10
    assert {utterance.scenario for utterance in corpus.utterances} == {f"impro0{n}" for n in range(1, 9)} | {
        f"script0{n}" for n in (1, 2, 3)
    }


def test_the_official_dialogues_are_the_known_number_per_session() -> None:
    counts = Counter(name[:5] for name in official_dialogues())
    assert counts == {"Ses01": 28, "Ses02": 30, "Ses03": 32, "Ses04": 30, "Ses05": 31}


def test_a_release_with_other_counts_says_what_is_missing(full_release: Path, tmp_path: Path) -> None:
    for session in ("Session1", "Session2", "Session3", "Session4"):
        (tmp_path / session).symlink_to(full_release / session)
    (corpus_note,) = read_iemocap(tmp_path).notes
    assert corpus_note.startswith(
        "not the full IEMOCAP release: 7,869 utterances in 120 dialogues instead of 10,039 in 151; Ses05 0 of 2170; "
        "without Ses05F_impro01, Ses05F_impro02, Ses05F_impro03 and 28 more"
    )


def test_a_small_corpus_says_so_and_names_unknown_dialogues(tmp_path: Path) -> None:
    write(tmp_path, spoken("Ses01F_impro01_F000"), spoken("Ses01F_impro09_F000"))
    (note,) = read_iemocap(tmp_path).notes
    assert "2 utterances in 2 dialogues instead of 10,039 in 151; Ses01 2 of 1819, Ses02 0 of 1811" in note
    assert "without Ses01F_impro02" in note
    assert note.endswith("with the unknown Ses01F_impro09")


def test_audio_without_rating_is_noted(tmp_path: Path) -> None:
    write_small(tmp_path)
    (tmp_path / "Session2/sentences/wav/Ses02F_impro01/Ses02F_impro01_M007.wav").touch()
    notes = read_iemocap(tmp_path).notes
    assert "1 wav file without a rating, left out: Ses02F_impro01/Ses02F_impro01_M007.wav" in notes


@pytest.mark.parametrize("above", [0, 1, 2])
def test_the_root_may_be_the_release_or_lie_up_to_two_levels_above(tmp_path: Path, above: int) -> None:
    folder = tmp_path / "a" / "IEMOCAP_full_release"
    write_small(folder)
    (tmp_path / "notes").mkdir()
    assert find_release([folder, folder.parent, tmp_path][above]) == folder


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda root: root / "nowhere", r"nowhere, which does not exist; .* Session1 to Session5; .*IEMOCAP_ROOT"),
        (lambda root: root, r"data.root is \S+, which is empty; it must be the folder"),
        (lambda root: (root / "x.tar.gz").touch() or root, r"which holds x.tar.gz but no Session1; it must be"),
        (lambda root: (root / "x.tar.gz").touch() or root / "x.tar.gz", r"x.tar.gz, which is a file; it must be"),
        (lambda root: write_small(root) / "Session1", r"Session1, which is one session; use the folder above it, /"),
        (lambda root: [write_small(root / name) for name in "ab"] and root, r"several releases \(\S+/a, \S+/b\); set"),
        (lambda root: (root / "Session1").mkdir() or root, r"Session1 has no folder dialog/EmoEvaluation .* unpack"),
    ],
)  # fmt: skip
def test_a_root_that_is_no_release(tmp_path: Path, prepare, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_iemocap(prepare(tmp_path))


def test_a_release_without_labels(tmp_path: Path) -> None:
    write_small(tmp_path)
    for path in tmp_path.rglob("EmoEvaluation/*.txt"):
        path.write_text("% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n")
    with pytest.raises(UserError, match="lists no utterance; unpack"):
        read_iemocap(tmp_path)


def test_utterances_without_audio_are_named_and_counted(tmp_path: Path) -> None:
    write_small(tmp_path)
    for path in [*tmp_path.glob("Session[12]/sentences/wav/*/*.wav")]:
        path.unlink()
    with pytest.raises(UserError) as caught:
        read_iemocap(tmp_path)
    assert "4 utterances of the IEMOCAP release with ratings but no audio" in str(caught.value)
    assert "Ses01F_impro01_F000, Ses01F_impro01_M000, Ses02F_impro01_F000 and 1 more" in str(caught.value)
    assert str(tmp_path / "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav") in str(caught.value)


def test_a_session_without_audio(tmp_path: Path) -> None:
    write_small(tmp_path)
    (tmp_path / "Session2/sentences").rename(tmp_path / "elsewhere")
    with pytest.raises(
        UserError, match="Session2 has no folder sentences/wav with the audio; unpack the whole session"
    ):
        read_iemocap(tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        b"[1.0 - 2.0]\tSes01F_impro01_F001\tneu\t[2.5, 2.5]",
        b"[1.0 - 2.0]\tSes01F_impro01_F001\tneu\t[2.5, 2.5, nan]",
        b"[1.0 - 2.0]\tSes01F_impro01_F001\t[2.5, 2.5, 2.5]",
        b"[1.0 - ]\tSes01F_impro01_F001\tneu\t[2.5, 2.5, 2.5]",
        b"[1.0 - 2.0]\tSes01F_impro01_FXX0\tneu\t[2.5, 2.5, 2.5]",
        b"1.0 - 2.0]\tSes01F_impro01_F001\tneu\t[2.5, 2.5, 2.5]",
        b"Ses01F_impro01_F001",
        b"[",
    ],
)
def test_a_malformed_label_names_file_and_line(tmp_path: Path, line: bytes) -> None:
    write_small(tmp_path)
    path = tmp_path / EVALUATION
    number = path.read_bytes().count(b"\n") + 1
    append(path, line + b"\nA-E3:\tval 3; act 3; dom  3;\t()\n")
    with pytest.raises(UserError) as caught:
        read_iemocap(tmp_path)
    assert f'{path} line {number} is "{line.decode()}", which is no label of the form [6.2901 - 8.2357]' in str(
        caught.value
    )


def test_a_label_that_ends_before_it_starts(tmp_path: Path) -> None:
    write(tmp_path, spoken("Ses01F_impro01_F000", 5.0, -1.0))
    with pytest.raises(
        UserError, match=r"Ses01F_impro01.txt line 3: Ses01F_impro01_F000 ends at 4 s but starts at 5 s"
    ):
        read_iemocap(tmp_path)


def test_an_id_that_occurs_twice_names_both_places(tmp_path: Path) -> None:
    write_small(tmp_path)
    copy = tmp_path / "Session3/dialog/EmoEvaluation/copy.txt"
    copy.write_bytes((tmp_path / EVALUATION).read_bytes())
    with pytest.raises(UserError) as caught:
        read_iemocap(tmp_path)
    assert str(caught.value) == (
        f"Ses01F_impro01_F000 is labelled twice, in {tmp_path / EVALUATION} line 3 and in {copy} line 3; "
        "ids must be unique, so remove one of them"
    )
