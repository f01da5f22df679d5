"""Hints at the file that was meant, wherever a file is asked for."""

from pathlib import Path

import pytest

from serfit.corpus.audio import read_audio
from serfit.corpus.spelling import hint
from serfit.errors import UserError
from serfit.inference.labelling.inputs import list_items


def test_missing_audio_and_missing_arguments_are_hinted_at(tmp_path: Path) -> None:
    (tmp_path / "wav").mkdir()
    (tmp_path / "wav" / "b.wav").touch()
    meant = tmp_path / "wav" / "b.wav"
    for ask in (lambda: read_audio(tmp_path / "wav" / "b.WAV"), lambda: list_items([str(tmp_path / "wav" / "b.WAV")])):
        with pytest.raises(UserError) as raised:
            ask()
        assert f"did you mean {meant}? (upper and lower case count)" in str(raised.value)


def test_two_that_come_near_are_no_hint(tmp_path: Path) -> None:
    for name in ("B.wav", "b.Wav"):
        (tmp_path / name).touch()
    assert hint(tmp_path / "b.wav") in ("", f"; did you mean {tmp_path / 'b.wav'}?")
    assert hint(tmp_path / "nothing" / "like this") == ""
