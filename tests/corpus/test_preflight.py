"""What is found before training: unusable audio, copies across parts, ratings upside down, too small a disk."""

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import soundfile
from rich.console import Console

from serfit.config.schema import ExperimentConfig
from serfit.corpus.preflight import check_durations, check_known, check_polarity, rating_lines
from serfit.corpus.utterance import Utterance
from serfit.errors import UserError
from serfit.labels import LabelScale
from serfit.runs import directory as runs
from serfit.system import files
from serfit.system.log import Log
from serfit.training.experiment import run_experiment
from serfit.training.material import prepare
from support import settings, small_release

Configure = Callable[..., ExperimentConfig]


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return small_release(tmp_path / "iemocap")


@pytest.fixture
def configure(release: Path, tmp_path: Path) -> Configure:
    return lambda **changes: ExperimentConfig.model_validate(settings(release, tmp_path, **changes))


def wavs(release: Path) -> list[Path]:
    return sorted(release.rglob("*.wav"))


def test_groups_of_which_nothing_is_known_are_told(configure: Configure) -> None:
    known = prepare(configure()).train.utterances
    unknown = [replace(utterance, speaker=None) for utterance in known]
    speakers = configure(data__split={"scheme": "grouped_kfold", "group": "speaker"}).data.split
    assert check_known(known, speakers) == []
    assert check_known([*unknown, known[0]], speakers) == []
    (told,) = check_known(unknown, speakers)
    assert told.startswith("warning: no utterance has a known speaker, so data.split.group=speaker keeps nothing")
    assert check_known(unknown, configure(data__split={"scheme": "leave_one_session_out"}).data.split) == []


def test_unusable_audio_is_left_out_with_a_count_in_the_record(release: Path, configure: Configure) -> None:
    first, second = wavs(release)[0], wavs(release)[20]
    first.write_bytes(b"RIFF nonsense")
    samples, rate = soundfile.read(second)
    samples[100] = float("nan")
    soundfile.write(second, samples, rate, subtype="FLOAT")
    with pytest.raises(UserError, match=r"1 of 40 utterances can't be used[\s\S]*data\.unreadable=skip"):
        prepare(configure())
    with pytest.raises(UserError, match=r"2 of 40 utterances can't be used"):
        prepare(configure(), decode=True)
    config = configure(data__unreadable="skip", train__epochs=1)
    material = prepare(config)
    assert material.left_out == (first.stem, second.stem)
    assert len(material.corpus.utterances) == 38
    sizes = [len(part.utterances) for part in (material.train, material.validation, material.test)]
    assert sum(sizes) == 38
    assert "tests on Ses01 (7 utterances)" in material.split.protocol
    assert "2 of 40 utterances are left out (data.unreadable=skip)" in material.split.protocol
    run = run_experiment(config, Log(Console(file=io.StringIO())))
    environment = json.loads((run / runs.ENVIRONMENT).read_text())
    assert environment["corpus"]["left_out"] == [first.stem, second.stem]
    assert "2 of 40 utterances are left out" in environment["protocol"]
    assert first.stem in (run / runs.TRAIN_LOG).read_text()
    assert first.stem not in (run / runs.PREDICTIONS).read_text()


def emotional(arousal_of_angry: float, arousal_of_sad: float, count: int = 12) -> list[Utterance]:
    return [
        Utterance(f"{emotion}{n}", Path("x"), {"arousal": mean + 0.1 * (n % 3)}, emotion=emotion)
        for emotion, mean in (("ang", arousal_of_angry), ("Sad", arousal_of_sad))
        for n in range(count)
    ]


def test_ratings_upside_down_are_refused() -> None:
    assert check_polarity(emotional(4.0, 2.0)) == []
    with pytest.raises(UserError, match=r"mean arousal of ang/anger/angry \(2\.10, 12 .*is below.*\(4\.10, 12\), so"):
        check_polarity(emotional(2.0, 4.0))
    (warning,) = check_polarity(emotional(3.0, 3.01))
    assert "is that what these ratings mean?" in warning
    assert check_polarity(emotional(2.0, 4.0, count=9)) == []
    nothing = [replace(utterance, emotion=None) for utterance in emotional(2.0, 4.0)]
    assert check_polarity(nothing) == []


def test_audio_of_another_length_than_declared_is_told() -> None:
    utterances = [Utterance("a", Path("x"), {}, duration=2.0), Utterance("b", Path("x"), {}, duration=2.0)]
    (warning,) = check_durations(utterances, {"a": 2.4, "b": 3.0})
    assert "of 1 utterance " in warning
    assert "b 3.00 s instead of 2.00 s" in warning


@pytest.mark.parametrize("changes", [{}, {"features__store": None}], ids=["store", "checkpoints"])
def test_a_disk_that_is_clearly_too_small_is_told_before_training(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], tmp_path: Path
) -> None:
    free = 10_000_000 if not changes else 1000
    monkeypatch.setattr(files, "free_bytes", lambda folder: free)
    if not changes:
        monkeypatch.setattr("serfit.training.experiment.bytes_on_disk", lambda model: 0)
        monkeypatch.setattr("serfit.training.store.FeatureStore._measured", lambda store: 0)
        free = 1000
    what = "the frozen features that are missing" if not changes else "weights and checkpoints"
    with pytest.raises(UserError, match=rf"{what} need about [\d.]+ (MB|bytes), and .* has 1000 bytes free"):
        run_experiment(configure(**changes), Log(Console(file=io.StringIO())))
    assert not list((tmp_path / "runs").glob("*"))


def test_the_digest_knows_ratings_parts_and_lengths_but_no_paths(configure: Configure, release: Path) -> None:
    one = prepare(configure())
    moved = release.parent / "elsewhere"
    shutil.copytree(release, moved)
    again = prepare(configure(data__root=str(moved)))
    assert one.digest() == again.digest()
    assert prepare(configure(data__split={"fold": 2})).digest() != one.digest()
    samples, rate = soundfile.read(wavs(release)[3])
    soundfile.write(wavs(release)[3], samples[:-100], rate)
    assert prepare(configure()).digest() != one.digest()


def test_what_is_predicted_is_told_with_its_ratings_and_raters() -> None:
    scales = {"valence": LabelScale(1, 5), "arousal": LabelScale(-2, 2)}
    utterances = [
        Utterance("a", Path("x"), {"valence": 1.0, "arousal": 0.5}, raters=2),
        Utterance("b", Path("x"), {"valence": 4.0, "arousal": -1.5}, raters=5),
    ]
    raters = ", 2 to 5 raters (mean 3.5)"
    assert list(rating_lines(utterances, ("valence", "arousal"), scales)) == [
        "valence: mean 2.50, standard deviation 1.50, from 1 to 4 on a scale of 1 to 5" + raters,
        "arousal: mean -0.50, standard deviation 1.00, from -1.5 to 0.5 on a scale of -2 to 2" + raters,
    ]
    (line,) = rating_lines([replace(one, raters=None) for one in utterances], ("valence",), scales)
    assert line.endswith("on a scale of 1 to 5")
    (line,) = rating_lines([replace(one, raters=1) for one in utterances], ("valence",), scales)
    assert line.endswith("on a scale of 1 to 5, 1 rater each")


def test_what_is_left_out_is_told_in_a_list_that_ends(release: Path, configure: Configure) -> None:
    for path in wavs(release)[:40:4] + wavs(release)[1:40:4] + wavs(release)[2:40:4]:
        path.write_bytes(b"RIFF nonsense")
    material = prepare(configure(data__unreadable="skip"))
    assert len(material.left_out) == 30
    where = next(n for n, note in enumerate(material.corpus.notes) if "30 of 40 utterances are left out" in note)
    assert material.corpus.notes[where + 21] == "  and 10 more"
    assert sum("RIFF" in note or "not audio" in note for note in material.corpus.notes) == 20


def test_a_dimension_of_weight_0_is_refused_before_it_counts_anywhere(tmp_path: Path) -> None:
    config = ExperimentConfig.model_validate(settings(tmp_path, tmp_path, train__loss={"weights": {"arousal": 0.0}}))
    with pytest.raises(
        UserError, match=r"train\.loss\.weights\.arousal is 0, .* leave arousal out of data\.dimensions"
    ):
        prepare(config)
