"""Splits: every utterance once, nobody in two parts, and a sentence that says what was done."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serfit.config import schema
from serfit.corpus.folds import Split, check_leakage, check_varying, make_split
from serfit.corpus.utterance import Corpus, Utterance
from serfit.errors import UserError, counted


def utterance(name: str, valence: float = 1.0, **fields) -> Utterance:
    return Utterance(name, Path(f"{name}.wav"), {"valence": valence}, **fields)


def corpus(*utterances: Utterance) -> Corpus:
    return Corpus("toy", utterances, {})


def sessions(**sizes: int) -> Corpus:
    """Sessions of the given sizes, two speakers and two dialogues each."""
    return corpus(
        *(
            utterance(
                f"{name}{number}", number, session=name, speaker=f"{name}_{number % 2}", dialogue=f"{name}d{number % 3}"
            )
            for name, size in sizes.items()
            for number in range(size)
        )
    )


def leave_one_out(fold: int) -> schema.SplitSettings:
    return schema.SplitSettings(scheme="leave_one_session_out", fold=fold)


def grouped(fold: int, folds: int = 3, group: str = "speaker") -> schema.SplitSettings:
    return schema.SplitSettings(scheme="grouped_kfold", fold=fold, folds=folds, group=group)


OFFICIAL = schema.SplitSettings(scheme="official")


def ids(utterances: tuple[Utterance, ...]) -> list[str]:
    return [utterance.id for utterance in utterances]


def test_iemocap_protocol_sentence() -> None:
    sizes = {"Ses03": 2136, "Ses01": 1819, "Ses02": 1811, "Ses05": 2170, "Ses04": 2103}
    split = make_split(sessions(**sizes), leave_one_out(1))
    assert (split.fold, split.folds) == (1, 5)
    assert split.protocol == (
        "fold 1 of 5: tests on Ses01 (1819 utterances), validates on Ses02 (1811), trains on Ses03, Ses04, Ses05 (6409)"
    )
    assert make_split(sessions(**sizes), leave_one_out(5)).protocol == (
        "fold 5 of 5: tests on Ses05 (2170 utterances), validates on Ses01 (1819), trains on Ses02, Ses03, Ses04 (6050)"
    )


@settings(max_examples=40)
@given(sizes=st.lists(st.integers(1, 6), min_size=3, max_size=12), data=st.data())
def test_leave_one_session_out_is_the_rotation_of_the_reference(sizes: list[int], data: st.DataObject) -> None:
    names = [f"day {number}" for number in range(1, len(sizes) + 1)]
    whole = sessions(**dict(data.draw(st.permutations(list(zip(names, sizes, strict=True))))))
    k = data.draw(st.integers(1, len(sizes)))
    split = make_split(whole, leave_one_out(k))
    tested, validated = names[k - 1], names[k % len(names)]
    assert split.test == tuple(u for u in whole.utterances if u.session == tested)
    assert split.validation == tuple(u for u in whole.utterances if u.session == validated)
    assert split.train == tuple(u for u in whole.utterances if u.session not in (tested, validated))


speaker_names = st.one_of(st.none(), st.sampled_from([f"s{number}" for number in range(8)]))


@settings(max_examples=80)
@given(speakers=st.lists(speaker_names, min_size=1, max_size=40), folds=st.integers(3, 6), seed=st.randoms())
def test_grouped_folds_partition_the_groups(speakers: list[str | None], folds: int, seed) -> None:
    whole = corpus(*(utterance(f"u{number:02}", speaker=name) for number, name in enumerate(speakers)))
    groups = Counter(name if name is not None else f"u{number:02}" for number, name in enumerate(speakers))
    if len(groups) < folds:
        with pytest.raises(
            UserError, match=f"toy has {counted(len(groups), 'speaker')} and data.split.folds is {folds}"
        ):
            make_split(whole, grouped(1, folds))
        return
    splits = [make_split(whole, grouped(fold, folds)) for fold in range(1, folds + 1)]
    tested = [set(ids(split.test)) for split in splits]
    assert sorted(name for part in tested for name in part) == sorted(ids(whole.utterances))
    for fold, split in enumerate(splits):
        assert set(ids(split.validation)) == tested[(fold + 1) % folds]
        assert sorted(ids(split.train + split.validation + split.test)) == sorted(ids(whole.utterances))
        for name in set(speakers) - {None}:
            assert sum(any(u.speaker == name for u in part) for part in split.parts.values()) == 1
        unknown = speakers.count(None)
        said = f"; the speaker of {unknown} of {len(speakers)} utterances is unknown"
        assert split.protocol.endswith(said) == (unknown > 0)
    sizes = [len(part) for part in tested]
    assert max(sizes) - min(sizes) <= max(groups.values())
    shuffled = list(whole.utterances)
    seed.shuffle(shuffled)
    again = make_split(corpus(*shuffled), grouped(1, folds))
    assert set(ids(again.test)) == tested[0]


def test_groups_are_dealt_largest_first_and_named() -> None:
    sizes = {"s10": 9, "s2": 8, "s3": 5, "s4": 4, "s5": 3}
    whole = corpus(*(utterance(f"{name}-{n}", speaker=name) for name, size in sizes.items() for n in range(size)))
    # 9 | 8 | 5, then 4 to the fold of 5, then 3 to the fold of 8
    assert make_split(whole, grouped(1)).protocol == (
        "fold 1 of 3: tests on speaker s10 (9 utterances), validates on speakers s2, s5 (11), "
        "trains on speakers s3, s4 (9)"
    )


def test_unknown_speakers_are_dealt_one_by_one() -> None:
    whole = corpus(utterance("a", speaker="x"), utterance("b", speaker="x"), *(utterance(name) for name in "cdef"))
    assert make_split(whole, grouped(1)).protocol == (
        "fold 1 of 3: tests on speaker x (2 utterances), validates on 2 without known speaker (2), trains on 2 without "
        "known speaker (2); the speaker of 4 of 6 utterances is unknown"
    )


def test_official_parts() -> None:
    parts = {"a": "test", "b": "train", "c": "validation", "d": "train"}
    split = make_split(corpus(*(utterance(name, part=part, speaker=name) for name, part in parts.items())), OFFICIAL)
    assert (ids(split.train), ids(split.validation), ids(split.test)) == (["b", "d"], ["c"], ["a"])
    assert split.protocol == (
        "fold 1 of 1: tests on the official test part (1 utterances), validates on the official validation part (1), "
        "trains on the official train part (2)"
    )


@pytest.mark.parametrize(
    ("whole", "wanted", "message"),
    [
        (sessions(a=1, b=1, c=1), leave_one_out(4), r"fold is 4; it must be 1 to 3 \(the sessions a, b, c\); set"),
        (sessions(a=1, b=1), leave_one_out(1), r"toy has 2 sessions \(a, b\), and .* needs 3 or more"),
        (corpus(utterance("a"), utterance("b", session="x")), leave_one_out(1), r"1 of 2 utterances .* no session: a"),
        (sessions(a=4, b=4, c=4), grouped(4), r"fold is 4; it must be 1 to 3 \(set by data.split.folds\)"),
        (sessions(a=4, b=4), grouped(1, 5), "toy has 4 speakers and data.split.folds is 5, but every"),
        (
            corpus(utterance("a", part="test")),
            schema.SplitSettings(scheme="official", fold=2),
            r"fold is 2; it must be 1 \(",
        ),
        (corpus(utterance("a", part="test"), utterance("b")), OFFICIAL, r"1 of 2 utterances .* no declared part: b"),
        (corpus(utterance("a", part="test")), OFFICIAL, "the train and validation part of fold 1 is empty; every part"),
    ],
)  # fmt: skip
def test_splits_that_can_not_be_made(whole: Corpus, wanted: schema.SplitSettings, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_split(whole, wanted)


def parted(train: Utterance, validation: Utterance, test: Utterance) -> Split:
    return Split(1, 1, (train,), (validation,), (test,), "")


@pytest.mark.parametrize("kind", ["speaker", "session", "dialogue"])
@pytest.mark.parametrize("clash", [("train", "test"), ("validation", "test"), ("train", "validation")])
def test_whoever_is_in_two_parts_is_named(kind: str, clash: tuple[str, str]) -> None:
    members = {
        part: utterance(part, **{kind: "same" if part in clash else part}) for part in ("train", "validation", "test")
    }
    with pytest.raises(UserError) as caught:
        check_leakage(parted(**members))
    assert str(caught.value) == (
        f"the parts of fold 1 overlap, so the test would flatter: {kind} same ({' and '.join(clash)}). "
        f"Set data.split.scheme: grouped_kfold and data.split.group: {kind}"
    )


def test_unknown_names_do_not_clash() -> None:
    check_leakage(parted(utterance("a"), utterance("b"), utterance("c")))


def test_the_same_audio_under_two_ids_is_leakage() -> None:
    path = Path("same.wav")
    rows = [
        Utterance(name, path, {}, start=start, end=9.0)
        for name, start in zip("abc", (1000.12345, 2.0, 1000.12346), strict=True)
    ]
    check_leakage(parted(*rows))
    rows[2] = Utterance("c", path, {}, start=2.0, end=5.0)
    with pytest.raises(UserError, match=r"audio same.wav from 2.0 s \(validation and test\). Remove the utterances"):
        check_leakage(parted(*rows))


def test_speakers_who_talk_to_each_other_need_groups_by_session() -> None:
    """A dialogue has two speakers, a speaker several dialogues: only sessions hold both together."""
    whole = corpus(
        *(
            utterance(f"{s}{d}{w}", session=s, dialogue=f"{s}{d}", speaker=f"{s}{w}")
            for s in "abcde"
            for d in "12"
            for w in "FM"
        )
    )
    for group in ("speaker", "dialogue"):
        with pytest.raises(
            UserError, match=r"session .*\. Set data.split.scheme: grouped_kfold and data.split.group: session"
        ):
            make_split(whole, grouped(1, group=group))
    make_split(whole, grouped(1, group="session"))


def test_where_nothing_holds_all_together_the_message_says_so() -> None:
    whole = corpus(
        *(
            utterance(f"{speaker}{day}", session=day, speaker=speaker)
            for speaker in "abc"
            for day in ("mon", "tue", "wed")
        )
    )
    with pytest.raises(
        UserError, match=r"speaker a .*, b .*, c .* Neither dialogues, speakers nor sessions hold the others"
    ):
        make_split(whole, leave_one_out(1))


def test_a_constant_part_has_no_ccc() -> None:
    pair = (utterance("a", 1.0), utterance("b", 2.0))
    constant = (utterance("c", 3.5), utterance("d", 3.5))
    check_varying(Split(1, 1, pair, pair, pair, ""), ("valence",))
    for part in ("train", "validation", "test"):
        parts = dict.fromkeys(("train", "validation", "test"), pair) | {part: constant}
        with pytest.raises(
            UserError, match=f"valence is 3.5 in all of the {part} part \\(2 utterances\\), and a constant"
        ):
            check_varying(Split(1, 1, **parts, protocol=""), ("valence",))


def test_everything_trains_and_nothing_is_left() -> None:
    whole = sessions(a=2, b=3, c=1)
    split = make_split(whole, schema.SplitSettings(scheme="everything"))
    assert (split.train, split.validation, split.test) == (whole.utterances, (), ())
    assert split.protocol == (
        "trains on all 6 utterances; none are left to validate or test on, so nothing here is a score"
    )
    check_varying(Split(1, 1, (utterance("a", 1.0), utterance("b", 2.0)), (), (), ""), ("valence",))
    with pytest.raises(UserError, match="fold is 2; it must be 1"):
        make_split(whole, schema.SplitSettings(scheme="everything", fold=2))
