"""The labels of a corpus: equal where nothing that counts differs, and nowhere else."""

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serfit.corpus.identity import Labels, agree, differences, labels_of
from serfit.corpus.utterance import Corpus, Utterance
from serfit.errors import UserError
from serfit.labels import LabelScale
from serfit.runs.records import CorpusRecord

RATINGS = st.floats(1, 5, allow_nan=False)
CORPORA = st.dictionaries(
    st.text(min_size=1, max_size=6),
    st.tuples(RATINGS, RATINGS, st.floats(0, 9), st.none() | st.floats(10, 19)),
    min_size=1,
)


def corpus(rows: dict[str, tuple[float, float, float, float | None]], top: float = 5.0) -> Corpus:
    spoken = tuple(
        Utterance(name, Path("x.wav"), {"valence": valence, "arousal": arousal}, start, end)
        for name, (valence, arousal, start, end) in rows.items()
    )
    return Corpus("table.csv", spoken, {"valence": LabelScale(1, top), "arousal": LabelScale(1, 5)})


def labels(rows: dict[str, tuple[float, float, float, float | None]], top: float = 5.0) -> Labels:
    return labels_of(corpus(rows, top), ("valence", "arousal"))


@given(CORPORA, st.randoms())
def test_order_and_place_of_the_files_do_not_count(
    rows: dict[str, tuple[float, float, float, float | None]], random: Random
) -> None:
    shuffled = list(rows.items())
    random.shuffle(shuffled)
    moved = corpus(dict(shuffled))
    moved = replace(
        moved, utterances=tuple(replace(one, path=Path("/elsewhere") / one.path) for one in moved.utterances)
    )
    found, other = labels(rows), labels_of(moved, ("valence", "arousal"))
    assert found.digests() == other.digests()
    assert differences(found, other) == ""


@given(CORPORA, st.data())
def test_every_change_of_a_rating_cut_scale_or_id_is_seen_and_said(
    rows: dict[str, tuple[float, float, float, float | None]], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(rows)))
    valence, arousal, start, end = rows[name]
    others = {
        f"1 of {len(rows)} valence ratings differ": labels({**rows, name: (6.0 - valence + 1e-9, arousal, start, end)}),
        f"1 of {len(rows)} utterances begin or end elsewhere": labels(
            {**rows, name: (valence, arousal, start + 0.1, end)}
        ),
        "1 utterance in only one of them": labels({**rows, "another one": (1.0, 1.0, 0.0, None)}),
        "the scale of valence is 1 to 5 in one and 1 to 7": labels(rows, top=7.0),
    }
    found = labels(rows)
    for said, other in others.items():
        if other == found:  # 3.0 mirrored is 3.0
            continue
        assert not agree(found.digests(), other.digests())
        assert said in differences(found, other)


@given(CORPORA)
def test_what_is_written_is_read_back(rows: dict[str, tuple[float, float, float, float | None]]) -> None:
    assert Labels.from_text(labels(rows).to_text()) == labels(rows)


def test_dimensions_that_only_one_run_predicts_do_not_tell_corpora_apart() -> None:
    rows: dict[str, tuple[float, float, float, float | None]] = {"a": (1.0, 2.0, 0.0, None)}
    one = labels_of(corpus(rows), ("valence",))
    assert agree(one.digests(), labels(rows).digests())
    assert not agree(one.digests(), labels({"a": (2.0, 2.0, 0.0, None)}).digests())


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"ids": ["a"], "starts": [], "ends": [], "ratings": {}, "scales": {}}']
)
def test_damaged_records_are_refused(text: str) -> None:
    with pytest.raises((UserError, ValueError)):
        Labels.from_text(text)


def test_a_run_of_an_older_version_recorded_no_labels() -> None:
    assert CorpusRecord(name="table.csv").labels == {}


@pytest.mark.parametrize("what", ["speaker", "session", "dialogue"])
def test_another_speaker_session_or_dialogue_is_another_corpus(what: str) -> None:
    """They decide what is in which part: folds of two such tables don't make up one cross-validation."""
    before = corpus(dict.fromkeys("abc", (2.0, 3.0, 0.0, None)))
    first, *rest = before.utterances
    after = replace(before, utterances=(replace(first, **{what: "another"}), *rest))
    one, other = (labels_of(each, ("valence",)) for each in (before, after))
    assert not agree(one.digests(), other.digests())
    assert differences(one, other) == "1 of 3 utterances have another speaker, session or dialogue"
    assert Labels.from_text(other.to_text()) == other
    assert len(other.without({"a"}).groups) == 2
