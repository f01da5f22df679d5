"""A hub folder: a card whose numbers are the records', loadable from a folder and by its name on the hub."""

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import yaml

import serfit
from serfit.cli.demo import demo_config
from serfit.errors import UserError
from serfit.inference.bundle import write_bundle
from serfit.inference.publish.cross_validated import reached
from serfit.inference.publish.hub import write_hub_folder
from serfit.inference.publish.licences import SYNTHETIC, licences, limits
from serfit.inference.source import calibrated_members, open_members
from serfit.report.compare import compare
from serfit.report.markdown import escaped
from serfit.runs.records import EncoderRecord

WAVEFORMS = [np.random.default_rng(7).standard_normal(size).astype(np.float32) for size in (3_000, 12_345, 800)]


@pytest.fixture(scope="module")
def card(published: Path) -> str:
    return (published / "published" / "ema-iemocap" / "README.md").read_text()


@pytest.fixture(scope="module")
def runs(published: Path) -> list[Path]:
    return sorted((published / "runs").iterdir())


@pytest.mark.slow
def test_the_folder_says_what_the_runs_say_calibrated(published: Path, runs: list[Path]) -> None:
    folder = published / "published" / "ema-iemocap"
    one, other = serfit.load(folder), serfit.load(*runs, calibrate="affine")
    np.testing.assert_array_equal(one.estimate(WAVEFORMS).values, other.estimate(WAVEFORMS).values)
    bundle = serfit.load(published / "published" / "bundle")
    np.testing.assert_array_equal(bundle.estimate(WAVEFORMS).values, serfit.load(*runs).estimate(WAVEFORMS).values)


def test_it_is_loaded_by_its_name_from_the_hubs_cache(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "models--somebody--ema-iemocap"
    commit = "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(published / "published" / "ema-iemocap", repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    by_name = serfit.load("somebody/ema-iemocap").estimate(WAVEFORMS)
    in_place = serfit.load(published / "published" / "ema-iemocap").estimate(WAVEFORMS)
    np.testing.assert_array_equal(by_name.values, in_place.values)
    with pytest.raises(UserError, match="can't be had from the hub"):
        serfit.load("somebody/else")


def test_the_front_matter_is_what_the_hub_reads(card: str, runs: list[Path]) -> None:
    data = huggingface_hub.ModelCard(card).data
    assert (data.library_name, data.pipeline_tag, data.license) == ("serfit", "audio-classification", "other")
    assert {"valence", "arousal", "iemocap"} <= set(data.tags)
    (result,) = compare(runs).experiments
    assert [one.metric_value for one in data.eval_results] == [
        pytest.approx(result.test[name].mean, abs=1e-4) for name in ("valence", "arousal", "average")
    ]
    assert data.base_model is None  # an untrained encoder is nobody's model


def test_the_numbers_of_the_card_are_those_of_the_records(card: str, runs: list[Path]) -> None:
    comparison = compare(runs)
    (result,) = comparison.experiments
    for name in ("valence", "arousal"):
        for summary in (result.test[name], result.baseline[name], result.rater[name]):
            assert f"{summary.mean:.4f}" in card
        assert f"{comparison.details[result.label].miscalibration[name].bias:+.3f}" in card
    (pair,) = comparison.details[result.label].together
    assert f"valence, arousal | {pair.predicted:.3f} | {pair.rated:.3f}" in card
    for words in (
        "16 test utterances",
        "folds 1-2, seed 1",
        "Not among them: folds 3-5",
        "not the full IEMOCAP release",
        "tests on Ses01 (8 utterances)",
        "calibrated (affine)",
        "epochs 2",
    ):
        assert words in card, words
    (program,) = re.findall(r"```python\n(.*?)```", card, flags=re.S)
    assert len(program.splitlines()) == 3
    assert "## Licences" in card
    assert "release form" in card


def test_a_card_of_an_encoder_from_the_hub_names_it_and_its_licence(
    trained: Callable[..., Path], tmp_path: Path
) -> None:
    run = trained()
    (member,) = open_members(run)
    encoder = EncoderRecord(name="microsoft/wavlm-large", revision="c1423ed94bb01d80a3f5ce5bc39f6026a0f4828c")
    origin = member.about.origin.model_copy(update={"encoder": encoder})
    member = replace(member, about=replace(member.about, origin=origin))
    write_hub_folder(tmp_path / "folder", [run], [member], None)
    text = (tmp_path / "folder" / "README.md").read_text()
    front = yaml.safe_load(text.split("---")[1])
    assert front["base_model"] == "microsoft/wavlm-large"
    assert "Creative Commons Attribution-ShareAlike 3.0" in text
    assert "without calibration" in text


NAME = "Radio <b>voices</b> [x](y) | 1"


def test_a_named_corpus_is_nobody_elses(trained: Callable[..., Path], tmp_path: Path) -> None:
    run = trained(data__name=NAME, data__language="de, fr")
    write_hub_folder(tmp_path / "card", [run], open_members(run), None)
    write_bundle(tmp_path / "bundle", open_members(run))
    bundle = tmp_path / "bundle"
    write_hub_folder(tmp_path / "again", [bundle], open_members(bundle), None)
    for folder in ("card", "again"):
        text = (tmp_path / folder / "README.md").read_text()
        front = yaml.safe_load(text.split("---")[1])
        assert front["language"] == ["de", "fr"]
        assert NAME in front["tags"]
        body = text.split("---", 2)[2]
        assert "release form" not in body, "IEMOCAP's licence isn't that of a corpus in its layout"
        assert "one language" not in body
        assert "people who don't act" not in body
        for words in (
            f"the scale of {escaped(NAME)}",
            "(language: de, fr)",
            "spoken in de, fr",
            "has terms of its own",
            "pip install ./serfit",
        ):
            assert words in body, words
        for line in body.splitlines():
            assert NAME not in line or line.startswith("- "), "names are text, not markup"


def test_a_card_of_the_demos_corpus_says_that_it_is_synthetic() -> None:
    for name in ("demo", "demo_frozen"):
        config = demo_config(name, Path("demo"))
        assert config.data.name == SYNTHETIC
        assert config.data.language is None
    (corpus,) = (one for one in licences("random:tiny", SYNTHETIC) if one.startswith("Corpus"))
    assert "synthetic" in corpus
    assert "IEMOCAP" not in corpus
    assert "never been trained on a human voice" in limits(SYNTHETIC, ())[0]


def test_iemocap_is_english_and_an_unknown_language_is_unknown(card: str) -> None:
    assert yaml.safe_load(card.split("---")[1])["language"] == ["en"]
    assert "raters of iemocap, spoken in en." in card
    assert "whose language isn't recorded" in limits("radio", ())[0]


def test_what_has_no_record_gets_no_card(published: Path, trained: Callable[..., Path], tmp_path: Path) -> None:
    bundle = published / "published" / "bundle"
    members, kind = calibrated_members([bundle], None)
    origin = members[0].about.origin
    for changed in ({"scores": None}, {"settings": {}}, {"settings": origin.settings | {"data.split.fold": 0}}):
        damaged = [replace(members[0], about=replace(members[0].about, origin=origin.model_copy(update=changed)))]
        with pytest.raises(UserError, match="doesn't say how it was trained and tested"):
            write_hub_folder(tmp_path / "card", [bundle], damaged, kind)
    with pytest.raises(UserError, match="two of these networks are of fold 1 and seed 1"):
        write_hub_folder(tmp_path / "card", [bundle, bundle], [*members, *members], kind)
    other = open_members(trained(model__params__speech_encoder="random:tiny-base", data__split__fold=3))
    with pytest.raises(UserError, match=r"differ in model\.params\.speech_encoder; name"):
        write_hub_folder(tmp_path / "card", [bundle], [*members, *other], kind)
    two = [trained(), trained(model__params__speech_encoder="random:tiny-base")]
    members, kind = calibrated_members(two, None)
    with pytest.raises(UserError, match="needs finished runs of one experiment"):
        write_hub_folder(tmp_path / "card", two, members, kind)
    assert not (tmp_path / "card").exists()


def test_the_card_of_a_bundle_tells_what_is_recorded_in_it(
    published: Path, runs: list[Path], card: str, tmp_path: Path
) -> None:
    bundle = published / "published" / "bundle"
    members, kind = calibrated_members([bundle], None)
    write_hub_folder(tmp_path / "ema-iemocap", [bundle], members, kind)
    text = (tmp_path / "ema-iemocap" / "README.md").read_text()
    ours, theirs = (huggingface_hub.ModelCard(one).data.to_dict() for one in (text, card))
    assert ours == theirs, "the hub reads the same of both"
    (result,) = compare(runs).experiments
    for name in ("valence", "arousal", "average"):
        for summary in (result.test[name], result.baseline[name], result.rater[name], result.as_rater[name]):
            assert f" {summary.mean:.4f}" in text
    for run in result.runs:
        assert (
            f"| fold {run.fold}, seed 1 | {len(run.predictions.ids)} | {run.scores.test.ccc('valence'):.4f}"
            in re.sub(" +", " ", text)
        )
    for words in (
        "folds 1-2, seed 1",
        "Not among them: folds 3-5",
        "no intervals here",
        "without calibration",
        "best epoch",
    ):
        assert words in text, words
    protocol = text.partition("## Data and protocol")[2]
    assert protocol.partition("Source")[0] == card.partition("## Data and protocol")[2].partition("Source")[0]
    assert "95% CI" not in text
    loaded = serfit.load(tmp_path / "ema-iemocap").estimate(WAVEFORMS)
    np.testing.assert_array_equal(loaded.values, serfit.load(bundle).estimate(WAVEFORMS).values)


def test_a_network_trained_on_everything_has_no_score_and_says_what_to_expect(
    runs: list[Path], trained: Callable[..., Path], tmp_path: Path
) -> None:
    run = trained(data__split__scheme="everything")
    (member,) = open_members(run)
    comparison = compare(runs)
    (result,) = comparison.experiments

    origin = member.about.origin.model_copy(update={"cross_validation": reached(comparison, among=3)})
    carrying = replace(member, about=replace(member.about, origin=origin))
    write_hub_folder(tmp_path / "card", [run], [carrying], None)
    text = (tmp_path / "card" / "README.md").read_text()
    assert "model-index" not in huggingface_hub.ModelCard(text).data.to_dict()
    results = text.partition("## Results")[2].partition("## Data")[0]
    assert results.strip().startswith("None of its own: it was trained on all 40 utterances of iemocap")
    for name in ("valence", "arousal", "average"):
        for summary in (result.test[name], result.baseline[name], result.rater[name], result.as_rater[name]):
            assert f" {summary.mean:.4f}" in results
    for words in ("16 utterances", "Not among them: folds 3-5", "chosen among 3"):
        assert words in results, words
    assert "not the full IEMOCAP release" in text
    serfit.load(tmp_path / "card")

    write_hub_folder(tmp_path / "alone", [run], [member], None)
    assert "how good it is isn't known" in (tmp_path / "alone" / "README.md").read_text()
    with pytest.raises(UserError, match="trained on everything is among the 2 networks"):
        write_hub_folder(tmp_path / "both", [run, *runs[:1]], [member, *open_members(runs[0])], None)
    assert not (tmp_path / "both").exists()


def test_a_folder_of_runs_is_the_ensemble_of_its_folds_without_the_network_trained_on_everything(
    runs: list[Path], trained: Callable[..., Path], tmp_path: Path
) -> None:
    for number, run in enumerate([*runs, trained(data__split__scheme="everything")]):
        (tmp_path / str(number)).symlink_to(run)
    assert [member.about.origin.run for member in open_members(tmp_path)] == [run.name for run in runs]
