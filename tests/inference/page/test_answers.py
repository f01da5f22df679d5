"""What the page shows of a recording: what the model says of its windows, or one sentence. No gradio, no browser."""

import base64
import csv
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile

from inference.page.stand_in import recogniser, speechlike
from report.written import scores_of
from serfit.errors import UserError
from serfit.inference.networks import Outputs
from serfit.inference.origin import CrossValidation, Origin, Reached
from serfit.inference.page import answers as module
from serfit.inference.page.answers import Limits, admitted, answers, listening, networks_in, opening, sorry, terms
from serfit.inference.page.words import LANGUAGES, Words
from serfit.inference.recogniser import Recogniser
from serfit.inference.windows import curve
from serfit.runs.records import TestScores

LIMITS = Limits(minutes=0.5, megabytes=2.0)
VOID = {"br", "meta", "link", "input", "hr", "img"}


class Balanced(HTMLParser):
    """Fails on tags that aren't closed in order, and gathers texts and addresses."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.cells: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src", "action", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "td":
            self.cells.append(data)


def written(folder: Path, samples: np.ndarray, rate: int = 16_000, name: str = "a.wav", **options: str) -> Path:
    soundfile.write(folder / name, samples, rate, **options)
    return folder / name


def answer(model: Recogniser, path: Path, words: Words = LANGUAGES["en"], limits: Limits = LIMITS) -> str:
    *progress, last = answers(model, admitted(model, path, words, limits), words, limits)
    assert progress
    assert all("<progress" in html for html in progress)
    return last


def downloaded(html: str) -> list[dict[str, str]]:
    (address,) = [found for found in Balanced(html).addresses if found.startswith("data:text/csv")]
    return list(csv.DictReader(io.StringIO(base64.b64decode(address.partition(",")[2]).decode())))


@pytest.mark.parametrize("networks", [1, 3])
def test_the_page_shows_the_curve_of_the_recording(tmp_path: Path, networks: int) -> None:
    model = recogniser(networks)
    path = written(tmp_path, speechlike(7.3), subtype="FLOAT")
    expected = curve(model, path, window=LIMITS.window, hop=LIMITS.hop)
    html = answer(model, path)
    rows = downloaded(html)
    assert len(rows) == len(expected)
    np.testing.assert_allclose([float(row["start"]) for row in rows], expected.starts, atol=5e-4)
    np.testing.assert_allclose([float(row["end"]) for row in rows], expected.ends, atol=5e-4)
    assert float(rows[-1]["end"]) == pytest.approx(7.3, abs=1e-3)
    for column, name in enumerate(model.dimensions):
        np.testing.assert_allclose([float(row[name]) for row in rows], expected.estimates.values[:, column], atol=1e-6)
        np.testing.assert_allclose(
            [float(row[f"{name}_unit"]) for row in rows], expected.estimates.unit[:, column], atol=1e-6
        )
        if expected.estimates.spread is not None:
            spread = [float(row[f"{name}_spread"]) for row in rows]
            np.testing.assert_allclose(spread, expected.estimates.spread[:, column], atol=1e-6)
    cells = Balanced(html).cells
    per_row = 2 + len(model.dimensions)
    shown = [cells[index : index + per_row] for index in range(0, len(cells), per_row)]
    assert [row[2].split(" ±")[0] for row in shown] == [f"{float(row['valence']):.2f}" for row in rows]
    assert html.count("<svg") == 2
    assert ("±" in html) == (networks > 1) == ("valence_spread" in rows[0])
    for column in range(2):
        assert f"{expected.estimates.values[:, column].mean():.2f}" in html


@pytest.mark.parametrize("code", LANGUAGES)
def test_everything_is_in_the_language_asked_for_and_nothing_is_elsewhere(tmp_path: Path, code: str) -> None:
    words, model = LANGUAGES[code], recogniser(2, ("valence", "arousal", "dominance"))
    html = answer(model, written(tmp_path, speechlike(5.0)), words)
    around = opening(model, 2, words, LIMITS) + terms(words, LIMITS) + listening(1, 2, words) + sorry(words.gone)
    said = (words.captions.through_time, words.captions.path, words.table, words.download, words.meaning)
    for text in (*words.captions.names.values(), *said):
        assert text in html
    for text in (words.title, words.intro, words.privacy, words.gone):
        assert text in around
    for name in ("valence", "unpleasant", "rating", "Listening", "networks"):
        assert code == "en" or name not in re.sub(r'"data:[^"]*"|class="[^"]*"|<style>.*?</style>', "", html + around)
    outside = [found for found in Balanced(html + around).addresses if not found.startswith("data:text/csv;")]
    assert outside == [f"../{other}/" for other in LANGUAGES if other != code]
    assert set(re.findall(r"https?://[^\s\"'<]+", html + around)) <= {"http://www.w3.org/2000/svg"}


REFUSED = {
    "nothing": (b"", "unreadable"),
    "noise": (bytes(range(256)) * 40, "unreadable"),
    "a header alone": (b"RIFF\x24\x00\x00\x00WAVEfmt ", "unreadable"),
    "a page": (b"<html><script>alert(1)</script></html>", "unreadable"),
}


@pytest.mark.parametrize("code", LANGUAGES)
@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_audio_gets_a_sentence(tmp_path: Path, code: str, case: str) -> None:
    content, text = REFUSED[case]
    path = tmp_path / "secret name.wav"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        admitted(recogniser(), path, LANGUAGES[code], LIMITS)
    assert str(caught.value) == getattr(LANGUAGES[code], text)
    assert "secret" not in sorry(str(caught.value))


def refusal(path: Path, limits: Limits = LIMITS, words: Words = LANGUAGES["en"]) -> str:
    with pytest.raises(UserError) as caught:
        admitted(recogniser(), path, words, limits)
    said = str(caught.value)
    assert str(path) not in said
    assert "\n" not in said
    return said


def test_limits_are_those_that_are_stated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "0.5 min and 2 MB" in terms(LANGUAGES["en"], LIMITS)
    assert admitted(recogniser(), written(tmp_path, speechlike(30.0)), LANGUAGES["en"], LIMITS).shape == (480_000,)
    heavy = written(tmp_path, np.zeros(1_000_001), name="heavy.wav")
    assert refusal(heavy) == "This file is larger than 2 MB; cut it, or save it as FLAC, Ogg or MP3."
    assert refusal(heavy, replace(LIMITS, megabytes=9.0)).startswith(
        "This recording lasts 1.0 min, and at most 0.5 min"
    )

    def never(*_: object) -> None:
        raise AssertionError("a recording that is too long was decoded")

    monkeypatch.setattr(module, "read_audio", never)
    hours = written(tmp_path, np.zeros(3 * 3600 * 4_000, dtype=np.int16), 4_000, "hours.flac")
    assert hours.stat().st_size < LIMITS.bytes
    assert "lasts 180.0 min" in refusal(hours)
    assert "180.0 分钟" in refusal(hours, words=LANGUAGES["zh"])


def test_torn_short_and_missing_recordings_get_their_own_sentences(tmp_path: Path) -> None:
    whole = written(tmp_path, speechlike(3.0))
    torn = tmp_path / "torn.wav"
    torn.write_bytes(whole.read_bytes()[:50_000])
    assert refusal(torn) in (LANGUAGES["en"].damaged, LANGUAGES["en"].unreadable)
    flac = written(tmp_path, speechlike(3.0), name="a.flac")
    torn.write_bytes(flac.read_bytes()[: flac.stat().st_size // 2])
    assert refusal(torn) == LANGUAGES["en"].damaged
    assert "lasts 20 ms; at least 25 ms are needed" in refusal(written(tmp_path, np.zeros(320), name="short.wav"))
    assert refusal(tmp_path / "gone.wav") == LANGUAGES["en"].gone
    not_finite = written(tmp_path, np.full(8_000, np.nan), name="nan.wav", subtype="FLOAT")
    assert refusal(not_finite) == LANGUAGES["en"].damaged


@pytest.mark.parametrize(
    ("seconds", "rate", "channels", "gain"),
    [
        (0.05, 16_000, 1, 1.0),
        (1.0, 8_000, 1, 1.0),
        (4.0, 96_000, 1, 1.0),
        (3.5, 44_100, 8, 1.0),
        (3.5, 16_000, 2, 50.0),
        (4.0, 16_000, 1, 0.0),
    ],
)
def test_odd_recordings_are_heard(tmp_path: Path, seconds: float, rate: int, channels: int, gain: float) -> None:
    samples = np.clip(np.repeat(speechlike(seconds, rate)[:, None], channels, axis=1) * gain, -1, 1)
    rows = downloaded(answer(recogniser(), written(tmp_path, samples, rate), limits=replace(LIMITS, megabytes=9.0)))
    assert float(rows[-1]["end"]) == pytest.approx(seconds, abs=1e-3)
    assert all(np.isfinite(float(value)) for row in rows for value in row.values())


def test_one_window_is_said_to_be_the_whole(tmp_path: Path) -> None:
    html = answer(recogniser(), written(tmp_path, speechlike(2.0)))
    assert "The whole recording of 2.00 s" in html
    assert html.count("<svg") == 1


def test_without_valence_there_is_no_path(tmp_path: Path) -> None:
    html = answer(recogniser(1, ("arousal",)), written(tmp_path, speechlike(5.0)))
    assert html.count("<svg") == 1
    assert "Valence" not in html


def test_a_model_that_fails_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, speechlike(5.0))
    model = recogniser()
    monkeypatch.setattr(type(model.networks[0]), "_heard", lambda *_: float("nan"))
    with pytest.raises(UserError) as caught:
        answer(model, path)
    assert str(caught.value) == LANGUAGES["en"].failed


def test_names_that_anybody_may_have_written_are_only_shown() -> None:
    model = recogniser()
    network = model.networks[0]
    hostile = "<script>alert(1)</script>"
    network.about = replace(network.about, name=hostile, origin=Origin(run=hostile))
    html = opening(model, 1, LANGUAGES["en"], LIMITS)
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "CCC" not in html


def test_a_network_trained_on_everything_says_what_to_expect() -> None:
    model = recogniser()
    network = model.networks[0]
    means = {"valence": 0.4, "arousal": 0.7, "average": 0.6}
    untested = scores_of(valence=None, arousal=None)
    nothing = dict.fromkeys(
        ("deviation", "interval", "pooled_interval", "scenario_baseline", "one_rater", "in_a_raters_place")
    )
    reached = CrossValidation(
        best_epochs=(2, 3),
        folds=(1, 2),
        missing_folds=(),
        seeds=(1,),
        test_utterances=80,
        chosen_among=1,
        test_ccc={name: Reached(mean=mean, pooled=0.1, **nothing) for name, mean in means.items()},
    )
    scores = TestScores(test=untested, best_epoch=1, validation=untested)
    network.about = replace(network.about, origin=Origin(scores=scores, cross_validation=reached))
    for code, words in LANGUAGES.items():
        said = words.expected.format(scores="V 0.400, A 0.700")
        assert said in opening(model, 1, words, LIMITS), code
        assert words.tested.partition("{")[0] not in opening(model, 1, words, LIMITS)
    both = Recogniser((network, *recogniser().networks))
    assert "CCC" not in opening(both, 2, LANGUAGES["en"], LIMITS), "one was tested and the other wasn't"
    network.about = replace(network.about, origin=Origin())
    assert "CCC" not in opening(model, 1, LANGUAGES["en"], LIMITS)


def test_networks_are_counted_wherever_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    model = recogniser(2)
    assert networks_in(model) == 2
    one = type(model.networks[0]).__call__

    def three_in_one(network: object, waveforms: list[np.ndarray]) -> Outputs:
        said = one(network, waveforms)
        return Outputs(said.unit, said.embeddings, np.stack([said.unit] * 3))

    monkeypatch.setattr(type(model.networks[0]), "__call__", three_in_one)
    assert networks_in(model) == 6
    assert "ensemble of 6 models" in opening(model, 6, LANGUAGES["en"], LIMITS)
    assert "one model" in opening(model, 1, LANGUAGES["en"], LIMITS)


def test_the_score_of_an_ensemble_is_the_mean_of_its_networks() -> None:
    assert "V 0.550, A 0.550" in opening(recogniser(3), 3, LANGUAGES["en"], LIMITS)


@pytest.mark.parametrize("bad", [{"minutes": 0.0}, {"minutes": float("nan")}, {"megabytes": -1.0}])
def test_limits_that_cant_be_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(UserError, match=r"must be above 0"):
        Limits(**bad)
