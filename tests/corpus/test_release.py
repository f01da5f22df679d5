"""The writer of the release layout, byte for byte."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from serfit.corpus.synthetic.release import ReleaseUtterance, write_release

SILENCE = np.zeros(0, dtype=np.float32)


def test_the_text_files_have_the_form_of_the_release(tmp_path: Path) -> None:
    first = ReleaseUtterance(
        "Ses01F_impro01_F000", 6.2901, 8.2357, "neu", 2.5, 2.5, 2.5, "Excuse me.", SILENCE, ((3, 2, 2), (2, 3, 3))
    )
    second = ReleaseUtterance(
        "Ses01F_impro01_M000",
        7.5712,
        10.475,
        "xxx",
        2.0,
        3.5,
        3.0,
        "Caf\xe9?",
        SILENCE,
        ((2, None, None), (None, 4, 3)),
    )
    write_release(tmp_path, [second, first])
    dialog = tmp_path / "Session1" / "dialog"
    assert (dialog / "EmoEvaluation" / "Ses01F_impro01.txt").read_bytes().decode("latin-1") == (
        "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n"
        "\n"
        "[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]\n"
        "C-E2:\tNeutral;\t()\n"
        "C-E3:\tNeutral;\t()\n"
        "C-E4:\tNeutral; Other;\t()\n"
        "C-F1:\tNeutral;\t()\n"
        "A-E3:\tval 3; act 2; dom  2;\t()\n"
        "A-E4:\tval 2; act 3; dom  3;\t()\n"
        "A-F1:\tval 2; act 2; dom  2;\t()\n"
        "\n"
        "[7.5712 - 10.4750]\tSes01F_impro01_M000\txxx\t[2.0000, 3.5000, 3.0000]\n"
        "C-E2:\tNeutral state;\t()\n"
        "C-E3:\tFrustration;\t()\n"
        "C-E4:\tSadness; Other;\t()\n"
        "C-M1:\tNeutral state;\t()\n"
        "A-E3:\tval 2; act ;\t()\n"
        "A-E4:\tval ; act 4; dom  3;\t()\n"
        "A-M1:\tval 2; act 4; dom  3;\t()\n"
        "\n"
    )
    assert (dialog / "transcriptions" / "Ses01F_impro01.txt").read_bytes() == (
        b"Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.\nSes01F_impro01_M000 [007.5712-010.4750]: Caf\xe9?\n"
    )


def test_audio_is_16_khz_mono_pcm_16(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, 1600).astype(np.float32)
    name = "Ses05M_script01_1b_F003"
    write_release(tmp_path, [ReleaseUtterance(name, 0.0, 0.1, "ang", 1.0, 5.0, 4.0, "No!", samples)])
    path = tmp_path / "Session5" / "sentences" / "wav" / "Ses05M_script01_1b" / f"{name}.wav"
    information = soundfile.info(path)
    assert (information.samplerate, information.channels, information.subtype, information.frames) == (
        16_000,
        1,
        "PCM_16",
        1600,
    )
    assert np.abs(soundfile.read(path)[0] - samples).max() < 2 / 2**15


@pytest.mark.parametrize("name", ["Ses01F_impro01", "Ses01F_impro01_FXX0", "ses01F_impro01_F000"])
def test_a_wrong_name_is_our_bug(name: str) -> None:
    with pytest.raises(AssertionError):
        ReleaseUtterance(name, 0.0, 1.0, "neu", 3.0, 3.0, 3.0, "", SILENCE)
