"""What a recogniser says of speech: the run's own predictions, whatever the company, order and padding."""

import csv
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

import serfit
from inference.heard import listener
from serfit.corpus.audio import read_audio
from serfit.corpus.iemocap import read_iemocap
from serfit.errors import UserError
from serfit.inference import recogniser
from serfit.inference.recogniser import Recogniser
from serfit.inference.windows import curve, windows
from serfit.labels import SAMPLE_RATE
from serfit.runs import directory as runs

RECIPES = [
    {},
    {"model__params__speech_encoder": "random:tiny-base", "model__params__pooling": "mean"},
    {"model__params__freeze_speech_encoder": True, "model__params__layers": "last"},
    {"data__dimensions": ["arousal"], "model__params__output": "sigmoid"},
]


def rows_of(run: Path) -> list[dict[str, str]]:
    with (run / runs.PREDICTIONS).open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("changes", RECIPES)
def test_what_is_said_of_the_test_part_is_what_the_run_said(
    trained: Callable[..., Path], release: Path, changes: dict[str, object]
) -> None:
    run = trained(**changes)
    model = serfit.load(run)
    heard = {spoken.id: spoken for spoken in read_iemocap(release).utterances}
    rows = rows_of(run)
    waveforms = [read_audio(heard[row["id"]].path) for row in rows]
    estimates = model.estimate(waveforms)
    for column, name in enumerate(model.dimensions):
        said = [float(row[f"{name}_predicted"]) for row in rows]
        np.testing.assert_allclose(estimates.values[:, column], said, atol=1e-5)
    alone = model.predict(heard[rows[3]["id"]].path)
    np.testing.assert_allclose(list(alone.values.values()), estimates.values[3], atol=1e-5)
    np.testing.assert_allclose(alone.embedding, estimates.embeddings[3], atol=1e-5)


def test_company_order_and_padding_change_nothing(trained: Callable[..., Path]) -> None:
    model = serfit.load(trained())
    random = np.random.default_rng(5)
    waveforms = [random.standard_normal(size).astype(np.float32) for size in (800, 16_000, 5_000, 40_000, 700, 9_999)]
    together = model.estimate(waveforms)
    (network,) = model.networks
    for seconds in (0.05, 1.0, 1000.0):
        network.pass_seconds = seconds  # type: ignore[attr-defined]
        order = random.permutation(len(waveforms))
        again = model.estimate([waveforms[index] for index in order])
        np.testing.assert_allclose(again.values, together.values[order], atol=1e-5)
        np.testing.assert_allclose(again.embeddings, together.embeddings[order], atol=1e-5)


def test_an_ensemble_is_the_mean_of_its_networks_with_their_deviation(trained: Callable[..., Path]) -> None:
    folds = [trained(data__split__fold=fold) for fold in (1, 2, 3)]
    waveforms = [np.random.default_rng(1).standard_normal(8_000).astype(np.float32)]
    each = np.stack([serfit.load(run).estimate(waveforms).values for run in folds])
    several = serfit.load(*folds).estimate(waveforms)
    np.testing.assert_allclose(several.values, each.mean(axis=0), atol=1e-5)
    assert several.spread is not None
    np.testing.assert_allclose(several.spread, each.std(axis=0, ddof=1), atol=1e-5)
    assert serfit.load(folds[0]).estimate(waveforms).spread is None


def test_arrays_files_and_stretches_agree(trained: Callable[..., Path], tmp_path: Path) -> None:
    model = serfit.load(trained())
    samples = np.random.default_rng(2).uniform(-0.5, 0.5, (2 * SAMPLE_RATE, 2))
    path = tmp_path / "stereo.wav"
    soundfile.write(path, samples, SAMPLE_RATE, subtype="FLOAT")
    from_file, from_array = model.predict(path), model.predict(samples.astype(np.float32), rate=SAMPLE_RATE)
    assert from_file.values == pytest.approx(from_array.values, abs=1e-5)
    assert (from_file.start, from_file.end) == (0.0, 2.0)
    part = model.predict(path, start=0.5, end=1.25)
    assert part.values == pytest.approx(model.predict(samples, SAMPLE_RATE, start=0.5, end=1.25).values, abs=1e-5)
    assert (part.start, part.end) == (0.5, 1.25)
    assert part.valence == part.values["valence"] == pytest.approx(1 + 4 * part.unit["valence"])


def test_an_array_needs_its_rate(trained: Callable[..., Path]) -> None:
    model = serfit.load(trained())
    samples = np.random.default_rng(3).uniform(-0.5, 0.5, 8_000)
    for use in (model.predict, lambda sound: curve(model, sound), lambda sound: next(windows(model, sound))):
        with pytest.raises(UserError, match=r"an array doesn't contain its sampling rate.*for example rate=16000"):
            use(samples)
    assert (model.predict(samples, rate=8_000).end, model.predict(samples, 16_000).end) == (1.0, 0.5)
    with pytest.raises(UserError, match=r"a sampling rate of '16000' is no number; .* rate=16000"):
        model.predict(samples, rate="16000")  # type: ignore[call-overload]
    with pytest.raises(UserError, match=r"an array of int64 doesn't show .*give int16 or int32"):
        model.predict((samples * 32_768).astype(np.int64), rate=16_000)
    with pytest.raises(UserError, match=r"the array at index 1 of the list lasts 1\.2 ms"):
        model.predict([samples, samples[:20]], rate=16_000)


def test_a_list_is_predicted_as_each_of_it(
    trained: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = serfit.load(trained())
    paths = [tmp_path / f"{number}.wav" for number in range(5)]
    for number, path in enumerate(paths):
        soundfile.write(path, np.random.default_rng(number).uniform(-0.5, 0.5, 4_000 + 900 * number), SAMPLE_RATE)
    monkeypatch.setattr(recogniser, "AT_ONCE", 2)
    for given in (paths, tuple(map(str, paths)), iter(paths)):
        together = model.predict(given)  # type: ignore[call-overload]
        assert [one.end for one in together] == [model.predict(path).end for path in paths]
        for one, path in zip(together, paths, strict=True):
            assert one.values == pytest.approx(model.predict(path).values, abs=1e-5)
    arrays = [read_audio(path) for path in paths]
    assert model.predict(arrays, rate=SAMPLE_RATE)[4].values == pytest.approx(together[4].values, abs=1e-5)
    assert model.predict([]) == []
    for bad in (5, [0.1, 0.2], {"a.wav": 1.0}.items()):
        with pytest.raises(UserError, match="is neither an audio file nor an array of samples"):
            model.predict(bad)  # type: ignore[call-overload]
    with pytest.raises(UserError, match=r"gone\.wav"):
        model.predict([paths[0], tmp_path / "gone.wav"])


def test_a_dimension_that_isnt_predicted_is_no_attribute(trained: Callable[..., Path]) -> None:
    emotion = serfit.load(trained()).predict(np.zeros(800), rate=SAMPLE_RATE)
    assert hasattr(emotion, "valence")
    assert not hasattr(emotion, "dominance")
    assert getattr(emotion, "dominance", None) is None
    assert {"valence", "arousal", "values", "predict"} & set(dir(emotion)) == {"valence", "arousal", "values"}
    assert "dominance" not in dir(emotion)
    with pytest.raises(AttributeError, match="dominance isn't predicted by this model, only valence, arousal"):
        _ = emotion.dominance


def test_values_beyond_the_scale_are_given_as_they_are() -> None:
    """Nothing is clipped, anywhere: a row of `predict` is the row of predictions.csv, and docs say so."""
    emotion = listener(2.0).predict(np.full(16_000, 0.5, np.float32), rate=16_000)
    assert emotion.unit["valence"] == pytest.approx(2.5)
    assert emotion.valence == pytest.approx(11.0)
    pages = [Path(__file__).parents[2] / name for name in ("docs/using.md", "docs/publishing.md", "README.md")]
    for page in pages:
        assert re.search(r"beyond\s+(?:the|its)\s+scale", page.read_text()), page.name


def test_what_cant_be_heard_is_one_sentence(trained: Callable[..., Path]) -> None:
    model = serfit.load(trained())
    with pytest.raises(UserError, match=r"a\.wav lasts 24\.9 ms.* at least 25 ms"):
        model.estimate([np.zeros(399, dtype=np.float32)], ["a.wav"])
    with pytest.raises(UserError, match=r"lasts 121 s.*--window"):
        model.predict(np.zeros(121 * SAMPLE_RATE), rate=SAMPLE_RATE)
    huge = np.zeros(8_000, dtype=np.float32)
    huge[100] = 3e38  # its square is infinite, and divided by that the rest would be silence
    for waveform in (huge, np.full(1_000, np.inf, dtype=np.float32), np.full(1_000, np.nan, dtype=np.float32)):
        with pytest.raises(UserError, match=r"the samples of b\.wav reach (3e\+38|inf|nan), and sound lies within 1"):
            model.estimate([waveform], ["b.wav"])
    silence = model.predict(np.zeros(800), rate=SAMPLE_RATE)
    assert np.isfinite(list(silence.values.values())).all()


def test_models_of_different_things_make_no_ensemble(trained: Callable[..., Path]) -> None:
    three = trained(data__dimensions=["arousal"], model__params__output="sigmoid")
    with pytest.raises(UserError, match=r"valence \(1 to 5\), arousal \(1 to 5\).*their mean means nothing"):
        serfit.load(trained(), three)


def test_memory_that_runs_out_halves_the_passes(trained: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model = serfit.load(trained())
    network = model.networks[0]
    waveforms = [np.random.default_rng(n).standard_normal(8_000).astype(np.float32) for n in range(6)]
    whole = model.estimate(waveforms)
    real = type(network)._pass  # type: ignore[attr-defined]
    sizes = []

    def scarce(self: object, heard: list[np.ndarray]) -> object:
        sizes.append(len(heard))
        if len(heard) > 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return real(self, heard)

    monkeypatch.setattr(type(network), "_pass", scarce)
    np.testing.assert_allclose(model.estimate(waveforms).values, whole.values, atol=1e-5)
    assert max(sizes) == 6

    def nothing_left(self: object, heard: list[np.ndarray]) -> object:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(type(network), "_pass", nothing_left)
    with pytest.raises(UserError, match=r"runs out with 0\.5 s of speech in one piece"):
        model.estimate(waveforms)


def test_a_recogniser_of_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="no model is named"):
        serfit.load()
    assert Recogniser.__slots__ == ("networks", "notes")
