"""The CSV reader: values by column name, and one message with every bad row."""

import csv
import math
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serfit.config.schema import TableColumns
from serfit.corpus.table import read_table
from serfit.corpus.utterance import Corpus, Utterance
from serfit.errors import UserError
from serfit.labels import Dimension, LabelScale

SCALES: dict[Dimension, LabelScale] = {"valence": LabelScale(-2, 2), "arousal": LabelScale(1, 5)}
REAL = Path(__file__).parents[3] / "shared" / "corpora" / "emodb"


def read(root: Path, text: str, files: str = "a.wav b.wav c.wav", *, raw: bytes | None = None, **columns) -> Corpus:
    """Read a table of valence (column V) and arousal (A) unless columns say otherwise."""
    for name in files.split():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / "table.csv").write_bytes(text.encode() if raw is None else raw)
    table = TableColumns(**{"path": "table.csv", "audio": "file", "valence": "V", "arousal": "A"} | columns)
    return read_table(root, table, ("valence", "arousal"), SCALES)


def message(root: Path, text: str, *args, **columns) -> str:
    with pytest.raises(UserError) as caught:
        read(root, text, *args, **columns)
    return str(caught.value)


def test_every_field_of_an_utterance(tmp_path: Path) -> None:
    text = (
        "emo,file,key,V,A,who,day,talk,from,to,set,sex,words,unused\n"
        'ang, a.wav ,007,-1.5, 4 ,03,s1,d1,1.5,3.25,Development,F,"Hallo, ""du""\nda",x\n'
        "neu,b.wav, 8 ,0,3,04,s2,d2,,,TEST1,male,,\n"
    )
    columns = {
        "emotion": "emo", "id": "key", "speaker": "who", "session": "day", "dialogue": "talk", "start": "from",
        "end": "to", "part": "set", "gender": "sex", "transcript": "words",
    }  # fmt: skip
    corpus = read(tmp_path, text, **columns)
    assert corpus.name == "table.csv"
    assert corpus.scales == SCALES
    assert corpus.notes == ()
    assert corpus.utterances == (
        Utterance(
            "007", tmp_path / "a.wav", {"valence": -1.5, "arousal": 4.0}, start=1.5, end=3.25, duration=1.75,
            speaker="03", session="s1", dialogue="d1", part="validation", gender="female", emotion="ang",
            transcript='Hallo, "du"\nda',
        ),
        Utterance(
            "8", tmp_path / "b.wav", {"valence": 0.0, "arousal": 3.0}, speaker="04", session="s2", dialogue="d2",
            part="test", gender="male", emotion="neu",
        ),
    )  # fmt: skip


cells = st.one_of(st.just(None), st.integers(-8, 8).map(lambda quarters: quarters / 4))


@settings(max_examples=40)
@given(rows=st.lists(st.lists(cells, min_size=3, max_size=3).filter(lambda row: row != [None] * 3), min_size=1))
def test_raters_are_averaged_and_counted_and_columns_stand_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[float | None]]
) -> None:
    root = tmp_path_factory.mktemp("table")
    (root / "a.wav").touch()
    with (root / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["r3", "name", "A", "r1", "file", "r2"])
        for number, (first, second, third) in enumerate(rows):
            writer.writerow([third, f"{number:04}", 3, first, "a.wav", second])
    table = TableColumns(path="table.csv", audio="file", id="name", valence=["r1", "r2", "r3"], arousal="A")
    corpus = read_table(root, table, ("valence", "arousal"), SCALES)
    for number, (row, utterance) in enumerate(zip(rows, corpus.utterances, strict=True)):
        present = [value for value in row if value is not None]
        assert utterance.id == f"{number:04}"
        assert utterance.raters == len(present)
        assert utterance.single_ratings == {"valence": tuple(present)}
        assert math.isclose(utterance.ratings["valence"], sum(present) / len(present), abs_tol=1e-12)
        assert utterance.ratings["arousal"] == 3.0


def test_the_count_of_raters_is_the_smallest_over_the_dimensions(tmp_path: Path) -> None:
    corpus = read(
        tmp_path,
        "file,v1,v2,v3,a1,a2\na.wav,1,1,1,4,\nb.wav,1,,,4,5\n",
        valence=["v1", "v2", "v3"],
        arousal=["a1", "a2"],
    )
    assert [utterance.raters for utterance in corpus.utterances] == [1, 1]


def test_a_byte_order_mark_padding_and_blank_lines_do_no_harm(tmp_path: Path) -> None:
    corpus = read(tmp_path, "", raw="\ufeff file , V,A\r\n\r\n a.wav, 1 ,2\r\n,,\r\n".encode())
    assert [(utterance.id, utterance.ratings) for utterance in corpus.utterances] == [
        ("a.wav", {"valence": 1.0, "arousal": 2.0})
    ]


@pytest.mark.parametrize("cell", ["", "unknown", "Unknown", "NaN", "none", "NONE", "N/A", "null", "-", "<NA>"])
def test_unknown_speakers_sessions_and_dialogues_are_none(tmp_path: Path, cell: str) -> None:
    corpus = read(tmp_path, f"file,V,A,who\na.wav,1,2, {cell}\n", speaker="who", session="who", dialogue="who")
    assert (corpus.utterances[0].speaker, corpus.utterances[0].session, corpus.utterances[0].dialogue) == (None,) * 3


def test_without_an_id_column_the_path_and_segment_are_the_id(tmp_path: Path) -> None:
    text = "file,V,A,from,to\na.wav,1,2,0,1.25\na.wav,1,2,1.25,\na.wav,1,2,,\n"
    corpus = read(tmp_path, text, start="from", end="to")
    assert [utterance.id for utterance in corpus.utterances] == ["a.wav:0.0-1.25", "a.wav:1.25-", "a.wav"]
    assert [(utterance.start, utterance.end) for utterance in corpus.utterances] == [(0, 1.25), (1.25, None), (0, None)]


def test_audio_paths_may_be_absolute_nested_and_not_ascii(tmp_path: Path) -> None:
    root = tmp_path / "corpus"
    text = f"file,V,A\n{tmp_path}/far.wav,1,2\nx/../été/ä.flac,1,2\n"
    (tmp_path / "far.wav").touch()
    corpus = read(root, text, "x/a.wav été/ä.flac")
    assert [str(utterance.path) for utterance in corpus.utterances] == [
        f"{tmp_path}/far.wav",
        f"{root}/x/../été/ä.flac",
    ]


def test_the_table_may_lie_outside_of_the_root(tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "a.wav").touch()
    (tmp_path / "labels.csv").write_text("file,V,A\na.wav,1,2\n")
    table = TableColumns(path=tmp_path / "labels.csv", audio="file", valence="V", arousal="A")
    corpus = read_table(tmp_path / "audio", table, ("arousal",), SCALES)
    assert corpus.utterances[0].ratings == {"arousal": 2.0}
    assert list(corpus.scales) == ["arousal"]


@pytest.mark.parametrize(
    ("part", "spellings"),
    [("train", "train Train"), ("validation", "validation val dev development DEV"), ("test", "test TEST1")],
)
def test_spellings_of_the_official_parts(tmp_path: Path, part: str, spellings: str) -> None:
    rows = "".join(f"a.wav,1,2,{spelling},{number}\n" for number, spelling in enumerate(spellings.split()))
    corpus = read(tmp_path, f"file,V,A,set,key\n{rows}", part="set", id="key")
    assert {utterance.part for utterance in corpus.utterances} == {part}


def test_a_file_that_a_listing_spells_otherwise_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems list names in decomposed Unicode, and some folders can't be listed at all."""
    monkeypatch.setattr(os, "listdir", lambda folder: [])
    assert read(tmp_path, "file,V,A\na.wav,1,2\n").utterances[0].path == tmp_path / "a.wav"


def test_further_test_parts_are_left_out_and_noted_even_when_their_labels_are_withheld(tmp_path: Path) -> None:
    text = "file,V,A,set\na.wav,1,2,Train\nb.wav,,,Test3\nc.wav,,,Test3\nnowhere.wav,1,2,Test2\nc.wav,1,2,Test1\n"
    corpus = read(tmp_path, text, part="set")
    assert [utterance.part for utterance in corpus.utterances] == ["train", "test"]
    assert corpus.notes == ("3 rows left out (1 of part Test2, 2 of part Test3): only test or test1 is tested on",)


def test_all_bad_rows_stand_in_one_message(tmp_path: Path) -> None:
    text = (
        "file,key,V,A,from,to,set\n"
        "a.wav,1,1,2,,,train\n"
        "a.wav,2,,2,,,train\n"
        "a.wav,3,good,2,,,train\n"
        "\n"
        "a.wav,4,1,5.5,,,train\n"
        "a.wav,1,1,2,,,train\n"
        "z.wav,5,1,2,,,train\n"
        "/z.wav,6,1,2,,,train\n"
        ",7,1,2,,,train\n"
        "a.wav,8,1,2,3,3,train\n"
        "a.wav,9,1,2,-1,3,train\n"
        "a.wav,10,1,2,,,trian\n"
        "a.wav,,1,2,,,train\n"
        'a.wav,12,"1,5",2,,,train\n'
        "a.wav,13,inf,2,,,train\n"
    )
    assert message(tmp_path, text, id="key", start="from", end="to", part="set") == (
        f"{tmp_path}/table.csv: 13 of 14 rows can't be used:\n"
        "  row 3: valence is empty (column V); an utterance needs a rating\n"
        '  row 4: valence is "good" (column V); a rating must be a number like 3.5, or empty\n'
        "  row 6: arousal is 5.5 (column A), off the declared scale; data.scales.arousal says 1 to 5\n"
        "  row 7: id 1 is in row 2 already; ids must be unique\n"
        f"  row 8: audio file {tmp_path}/z.wav doesn't exist\n"
        "  row 9: audio file /z.wav doesn't exist (an absolute path, so data.root isn't put before it)\n"
        '  row 10: the audio file (column "file") is empty\n'
        "  row 11: start 3 s isn't before end 3 s\n"
        '  row 12: column "from" is "-1"; it must be seconds, 0 or more, like 12.5, or empty\n'
        '  row 13: part is "trian"; it must be one of train, validation, val, dev, development, test, test1; '
        'did you mean "train"?\n'
        "  and 3 more\n"
        "correct or remove these rows, or correct data.table and data.scales (the header line is row 1)"
    )


def test_the_remaining_complaints(tmp_path: Path) -> None:
    text = 'file,key,V,A,to\na.wav,,1,2,\na.wav,12,"1,5",2,\na.wav,13,inf,2,\na.wav,14,1,2,0\na.wav,15,1,2,soon\n'
    found = message(tmp_path, text, id="key", end="to")
    assert 'row 2: the id (column "key") is empty' in found
    assert 'row 3: valence is "1,5" (column V); a rating must be a number like 3.5' in found
    assert 'row 4: valence is "inf"' in found
    assert "row 5: start 0 s isn't before end 0 s" in found
    assert 'row 6: column "to" is "soon"' in found


def test_rows_are_numbered_as_a_spreadsheet_does_when_cells_have_line_breaks(tmp_path: Path) -> None:
    text = 'file,V,A,words\na.wav,1,2,"one\ntwo\nthree"\nb.wav,9,2,\n'
    assert "row 3: valence is 9" in message(tmp_path, text)


def test_each_rater_must_be_on_the_scale_even_when_the_mean_is(tmp_path: Path) -> None:
    text = "file,v1,v2,A\na.wav,-3,1,2\n"
    assert "valence is -3 (column v1), off the declared scale; data.scales.valence says -2 to 2" in message(
        tmp_path, text, valence=["v1", "v2"]
    )


@pytest.mark.parametrize("value", [-2.0000001, 2.0000001])
def test_the_ends_of_the_scale_belong_to_it(tmp_path: Path, value: float) -> None:
    assert read(tmp_path, "file,V,A\na.wav,-2,1\nb.wav,2,5\n").utterances
    assert "1 of 1 rows" in message(tmp_path, f"file,V,A\na.wav,{value},1\n")


def test_missing_columns_are_named_all_at_once_with_the_nearest(tmp_path: Path) -> None:
    found = message(tmp_path, "file,valenc,A,speakers,A\na.wav,1,2,x,2\n", valence="valence", speaker="speaker")
    assert found == (
        f"{tmp_path}/table.csv doesn't have the columns that are asked for:\n"
        '  data.table.speaker names column "speaker", which is missing; did you mean "speakers"?\n'
        '  data.table.valence names column "valence", which is missing; did you mean "valenc"?\n'
        '  data.table.arousal names column "A", which 2 columns have\n'
        "its columns are file, valenc, A, speakers, A"
    )


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", "its columns are none"),
        (b"file;V;A\na.wav;1;2\n", "is it separated by something else than commas?"),
        (b"file,V,A\n", "has no rows of utterances; give it a header line"),
        (b"file,V,A\na.wav,1\n", "table.csv row 2 has 2 cells and the header line has 3"),
        (b"file,V,A\n\na.wav,1,2,hello\n", "table.csv row 3 has 4 cells and the header line has 3"),
        (b'file,V,A\n"a.wav,1,2\n', "isn't valid CSV"),
        (b"file,V,A\n\xe4.wav,1,2\n", "isn't UTF-8 text: byte 0xe4 makes no sense; save it as UTF-8"),
        ("file,V,A\na.wav,1,2\n".encode("utf-16"), "isn't UTF-8 text"),
    ],
)
def test_files_that_are_no_such_table(tmp_path: Path, raw: bytes, expected: str) -> None:
    assert expected in message(tmp_path, "", raw=raw)


def test_a_table_with_nothing_but_further_test_parts(tmp_path: Path) -> None:
    found = message(tmp_path, "file,V,A,set\na.wav,1,2,Test2\n", part="set")
    assert "has no rows of utterances beside 1 of part Test2" in found


def test_a_missing_table_and_a_missing_root(tmp_path: Path) -> None:
    table = TableColumns(path="labels.csv", audio="file", valence="V", arousal="A")
    with pytest.raises(
        UserError, match=r"data.table.path: can't read \S+/labels.csv: No such file or directory; it must be a CSV"
    ):
        read_table(tmp_path, table, ("valence",), SCALES)
    with pytest.raises(
        UserError, match=r"data.root is \S+/no, which does not exist; it must be the folder that the paths"
    ):
        read_table(tmp_path / "no", table, ("valence",), SCALES)


@pytest.mark.skipif(not REAL.is_dir(), reason="EMO-DB isn't beside the repository")
def test_the_real_emo_db(tmp_path: Path) -> None:
    """Durations stand in for ratings: EMO-DB has none."""
    table = TableColumns(
        path="utterances.csv", audio="path", id="name", arousal="duration_seconds", speaker="speaker", gender="gender",
        emotion="emotion",
    )  # fmt: skip
    corpus = read_table(REAL, table, ("arousal",), {"arousal": LabelScale(0, 20)})
    assert len(corpus.utterances) == 535
    assert {utterance.speaker for utterance in corpus.utterances} == {"03", *(f"{n:02}" for n in range(8, 17))}
    assert {utterance.gender for utterance in corpus.utterances} == {"female", "male"}
    assert all(utterance.path.is_file() for utterance in corpus.utterances)


# ---------------------------------------------------------------- names and paths that nearly agree


def test_what_is_taken_for_unknown_is_told_and_nobody_shares_a_speaker(tmp_path: Path) -> None:
    corpus = read(tmp_path, "file,V,A,who\na.wav,1,2,N/A\nb.wav,1,2,null\nc.wav,1,2,\n", speaker="who")
    assert [utterance.speaker for utterance in corpus.utterances] == [None] * 3
    assert corpus.notes == ('the speaker of 2 utterances is "N/A", "null", which is taken for an unknown speaker each',)
    (note,) = read(tmp_path, "file,V,A,who\na.wav,1,2,-\nb.wav,1,2,s\n", speaker="who").notes
    assert note.startswith('the speaker of 1 utterance is "-"')


@pytest.mark.parametrize("other", ["S1", "s1\u200b", "ｓ1", "s01", "S001"])
@pytest.mark.parametrize("kind", ["speaker", "session", "dialogue"])
def test_names_that_people_cannot_tell_apart_are_refused(tmp_path: Path, other: str, kind: str) -> None:
    text = f"file,V,A,who\na.wav,1,2,s1\nb.wav,1,2,{other}\nc.wav,1,2,s2\n"
    told = message(tmp_path, text, **{kind: "who"})
    assert "has names that differ in case, blanks, leading zeros or invisible characters alone: " + kind in told
    assert '"s1"' in told
    assert told.endswith("; spell each in one way")


@pytest.mark.parametrize(
    ("given_name", "there", "why"),
    [
        (r"wav\a.wav", "wav/a.wav", "folders are separated by /"),
        ("wav/A.WAV", "wav/a.wav", "upper and lower case count"),
        ("Wav/a.wav", "wav/a.wav", "upper and lower case count"),
        ("wav/e\u0301.wav", "wav/\u00e9.wav", "another Unicode form"),
        ("wav/a\u200b.wav", "wav/a.wav", "invisible or other characters"),
        ("wav/a", "wav/a.wav", "the name given lacks .wav"),
        ("wav/A", "wav/a.flac", "the name given lacks .flac"),
        ("wav/ses1.a", "wav/ses1.a.mp3", "the name given lacks .mp3"),
        ("a.wav", "wav/a.wav", ""),
        ("a", "wav/a.wav", "the name given lacks .wav"),
        ("wav/a.wav", "a.wav", ""),
    ],
)
def test_a_path_that_nearly_exists_gets_one_hint(tmp_path: Path, given_name: str, there: str, why: str) -> None:
    root = tmp_path / "corpus"
    told = message(root, f"file,V,A\n{given_name},1,2\n{given_name},1,2\n", files=there)
    assert told.count("did you mean") == 1
    assert f"(the header line is row 1); did you mean {root / there}?" in told
    assert why in told


def test_a_path_that_is_nowhere_near_gets_none(tmp_path: Path) -> None:
    assert "did you mean" not in message(tmp_path, "file,V,A\nz.wav,1,2\n")


def test_a_table_that_is_a_git_lfs_pointer_is_named(tmp_path: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 12345\n"
    assert "table.csv is a Git LFS pointer" in message(tmp_path, pointer)


def test_ratings_that_are_not_read_are_named(tmp_path: Path) -> None:
    text = "file,V,A,Dominance\na.wav,1,2,3\n"
    assert read(tmp_path, text).notes == ("column Dominance seems to rate dominance, which data.dimensions leaves out",)
    assert read(tmp_path, text, dominance=["d1", "d2", "d3", "d4"]).notes == (
        "column d1, d2, d3 and 1 more seems to rate dominance, which data.dimensions leaves out",
    )
    assert read(tmp_path, "file,V,A,Dialect\na.wav,1,2,3\n").notes == ()
