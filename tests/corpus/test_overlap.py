"""What a network was trained on is found again in another corpus, and nothing else is."""

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serfit.corpus.overlap import TrainedOn, both, check_unseen, doubts, trained_on
from serfit.corpus.utterance import Utterance
from serfit.errors import UserError
from serfit.system.records import from_plain, plain


def spoken(
    name: str, path: Path, speaker: str | None = None, start: float = 0.0, end: float | None = None
) -> Utterance:
    return Utterance(name, path, {}, start=start, end=end, speaker=speaker)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{letter}.wav" for letter in "abc"]
    for path in paths:
        path.write_bytes(path.name.encode() * 100)
    return paths


def test_a_speaker_is_one_of_a_corpus_of_that_name(files: list[Path]) -> None:
    trained = trained_on("radio", [spoken("1", files[0], "Anna"), spoken("2", files[1])])
    strangers = {"test": [spoken("3", files[2], "Berta"), spoken("4", files[2])]}
    check_unseen(trained, "mine", "radio", strangers)
    anna = {"validation": [], "test": [spoken("3", files[2], "Anna")]}
    with pytest.raises(UserError, match=r"mine was trained on speakers Anna, which the test part of radio holds too"):
        check_unseen(trained, "mine", "radio", anna)
    check_unseen(trained, "mine", "television", anna)


def test_audio_is_found_under_any_name_and_in_any_corpus(files: list[Path], tmp_path: Path) -> None:
    trained = trained_on("radio", [spoken("1", files[0], "Anna")])
    copied = Path(shutil.copy(files[0], tmp_path / "elsewhere.wav"))
    with pytest.raises(UserError, match=r"the audio of 9, which the validation part of television"):
        check_unseen(trained, "mine", "television", {"validation": [spoken("9", copied, "Berta")]})
    check_unseen(trained, "mine", "television", {"validation": [spoken("9", files[1], "Berta")]})


seconds = st.integers(0, 40).map(lambda tenths: tenths / 10)


@given(seconds, seconds, seconds, seconds)
def test_stretches_of_one_file_meet_where_they_share_time(a: float, b: float, c: float, d: float) -> None:
    path = Path(__file__)
    (begin, end), (start, stop) = sorted((a, b)), sorted((c, d))
    trained = trained_on("radio", [spoken("1", path, None, begin, end)])
    shared = sum(begin <= tenth / 10 < end and start <= tenth / 10 < stop for tenth in range(50))
    held = {"test": [spoken("2", path, None, start, stop)]}
    if shared:
        with pytest.raises(UserError, match="the audio of 2"):
            check_unseen(trained, "mine", "radio", held)
    else:
        check_unseen(trained, "mine", "radio", held)


def test_a_stretch_without_end_goes_to_the_end_of_the_file(files: list[Path]) -> None:
    trained = trained_on("radio", [spoken("1", files[0], None, 3.0, None)])
    check_unseen(trained, "mine", "radio", {"test": [spoken("2", files[0], None, 0.0, 3.0)]})
    with pytest.raises(UserError, match="the audio of 2"):
        check_unseen(trained, "mine", "radio", {"test": [spoken("2", files[0], None, 0.0, 3.5)]})


def test_speakers_by_whom_an_epoch_was_chosen_are_a_doubt_and_no_obstacle(files: list[Path]) -> None:
    trained = trained_on("radio", [spoken("1", files[0], "Anna")], [spoken("2", files[1], "Berta")])
    held = [spoken("3", files[1], "Berta"), spoken("4", files[2], "Carla")]
    check_unseen(trained, "mine", "radio", {"test": held})
    (said,) = doubts(trained, "radio", held)
    assert "chosen by the scores of speakers Berta, which are scored here" in said
    assert doubts(trained, "radio", held[1:]) == doubts(trained, "television", held) == []
    assert doubts(both(trained, TrainedOn(unknown=("old",))), "radio", held) == [
        "warning: what old learnt from isn't recorded, so whether it knows speakers or recordings of radio isn't known",
        said,
    ]


def test_records_hold_no_names_add_up_and_come_back(files: list[Path]) -> None:
    one = trained_on("radio", [spoken("1", files[0], "Anna", 0.0, 1.0), spoken("2", files[0], "Anna", 2.0, None)])
    other = trained_on("radio", [spoken("1", files[0], "Anna", 0.0, 1.0), spoken("3", files[1], "Berta")])
    together = both(one, other.model_copy(update={"unknown": ("old",)}))
    everything = [*(spoken(f"{n}", files[0], "Anna", 2.0 * n, 1.0 if n == 0 else None) for n in (0, 1))]
    assert together.recordings == trained_on("radio", [*everything, spoken("3", files[1], "Berta")]).recordings
    assert together.unknown == ("old",)
    assert both(one, TrainedOn()) == one == both(TrainedOn(), one)
    assert "Anna" not in str(plain(together))
    assert str(files[0]) not in str(plain(together))
    assert from_plain(TrainedOn, plain(together), "here", "") == together.model_copy(update={"format": 1})
