"""What a visitor sees of an upload, and when. No browser."""

import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from extras import need
from inference.page.conftest import LIMITS
from inference.page.stand_in import recogniser
from serfit.inference.page.words import LANGUAGES

need("serve")

from serfit.inference.page import page  # noqa: E402


def test_a_sign_of_progress_comes_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "upload" / "a.wav"
    path.parent.mkdir()
    soundfile.write(path, np.random.default_rng(1).uniform(-0.5, 0.5, 64_000), 16_000)
    turn = threading.Lock()
    with turn:  # somebody else's recording is being analysed
        shown = page._heard(recogniser(2), path, LANGUAGES["en"], LIMITS, turn)
        first, refused = next(shown)
    assert ("<progress>" in first, "Reading the recording" in first, refused) == (True, True, False)
    assert path.exists(), "nothing was decoded yet"
    *progress, (last, _) = shown
    assert all("<progress" in html for html, _ in progress)
    assert "Valence" in last
    assert not path.exists()
    assert len({words.reading for words in LANGUAGES.values()}) == len(LANGUAGES)
