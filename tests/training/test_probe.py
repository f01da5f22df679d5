"""The probe of an encoder's layers: its arithmetic against a second source, what it must not know, what it leaves."""

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nn.small import build_hf, build_whisper
from serfit.config.schema import ExperimentConfig
from serfit.corpus.audio import read_audio
from serfit.corpus.utterance import Utterance
from serfit.errors import UserError
from serfit.inference.source import open_members
from serfit.nn.model import EmotionModel, model_of
from serfit.nn.saved import weights_digest
from serfit.report.compare import compare
from serfit.runs import directory as runs
from serfit.runs.finished import finished_directories, read_run
from serfit.scores.reference import measure
from serfit.system.counters import generator
from serfit.system.log import silent_log
from serfit.training import probe
from serfit.training.baselines import run_baseline
from serfit.training.closed_form import folds_of
from serfit.training.material import Material
from serfit.training.probe import POOLINGS, SYSTEM, TABLES, WIDE_PENALTIES, ProbedEncoder, candidates, run_probe
from serfit.training.ridge import PENALTIES
from serfit.training.trainer import Part
from support import settings
from training.second_corpus import second, write_corpus


@pytest.fixture(autouse=True)
def no_forecast(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fine-tuning costs takes a few trained steps, and tests/training/test_forecast.py looks at it."""
    monkeypatch.setattr(probe, "forecast", lambda *_: iter(["time: little"]))


def config_of(root: Path, folder: Path, **changes: Any) -> ExperimentConfig:
    return ExperimentConfig.model_validate(settings(root, folder, **changes))


@pytest.fixture(scope="module")
def made(release: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[ExperimentConfig, list[Material]]:
    config = config_of(release, tmp_path_factory.mktemp("probe"))
    return config, [material for _, material in folds_of(config, "probe")]


def probed(config: ExperimentConfig, materials: Sequence[Material]) -> ProbedEncoder:
    return probe.probe_encoder(config, "tiny", materials, torch.device("cpu"), silent_log())


def changed(part: Part, how: Callable[[Utterance], Utterance]) -> Part:
    return replace(part, utterances=tuple(how(utterance) for utterance in part.utterances))


def concordance(wanted: np.ndarray, values: np.ndarray) -> float:
    cov = np.cov(values, wanted, bias=True)
    return float(2 * cov[0, 1] / (cov[0, 0] + cov[1, 1] + (values.mean() - wanted.mean()) ** 2))


def solved(features: dict[str, np.ndarray], material: Material, penalties: Sequence[float]) -> np.ndarray:
    """Test predictions [N, D] by the normal equations in float64, the penalty chosen on the validation part."""
    parts = (material.train, material.validation, material.test)
    train, validation, test = (np.stack([features[one.id] for one in part.utterances]) for part in parts)
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    train, validation, test = ((part - mean) / deviation for part in (train, validation, test))
    columns = []
    for column in range(len(material.train.dimensions)):
        y, wanted = material.train.targets()[:, column], material.validation.targets()[:, column]
        tried = []
        for penalty in penalties:
            weights = np.linalg.solve(train.T @ train + penalty * np.eye(train.shape[1]), train.T @ (y - y.mean()))
            tried.append((concordance(wanted, validation @ weights + y.mean()), test @ weights + y.mean()))
        columns.append(max(tried, key=lambda one: one[0])[1])
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("family", ["wavlm", "wav2vec2"])
def test_every_line_is_that_of_transformers_hidden_states_and_of_the_normal_equations(
    family: str, made: tuple[ExperimentConfig, list[Material]], tmp_path: Path
) -> None:
    config, materials = made
    hf = build_hf(family, "base")
    hf.save_pretrained(tmp_path / "encoder")
    plan = config_of(config.data.root, tmp_path, model__params__speech_encoder=str(tmp_path / "encoder"))
    found = probed(plan, materials[:2])
    states: dict[str, np.ndarray] = {}
    for one in materials[0].corpus.utterances:
        waveform = torch.from_numpy(read_audio(one.path, one.start, one.end))[None]
        with torch.no_grad():
            hidden = torch.cat(hf(waveform, output_hidden_states=True).hidden_states).double().numpy()
        states[one.id] = np.stack([hidden.mean(axis=1), hidden.std(axis=1)])  # [2, K, H]
    assert [fits[0].candidate for fits in found.fits] == candidates(4)
    for fits in found.fits:
        candidate = fits[0].candidate
        taken = {name: one[: 1 + POOLINGS.index(candidate.pooling)] for name, one in states.items()}
        for fitted, material in zip(fits, materials, strict=False):
            if candidate.layer is not None:
                wanted = {name: one[:, candidate.layer].ravel() for name, one in taken.items()}
            elif candidate.summed:
                train = np.stack([taken[one.id] for one in material.train.utterances])
                scaled = {name: (one - train.mean(axis=0)) / train.std(axis=0) for name, one in taken.items()}
                wanted = {name: one.sum(axis=1).ravel() for name, one in scaled.items()}
            else:
                wanted = {name: one.ravel() for name, one in taken.items()}
            penalties = PENALTIES if candidate.layer is not None else WIDE_PENALTIES
            np.testing.assert_allclose(fitted.tested.values, solved(wanted, material, penalties), atol=2e-3)


def test_the_test_part_has_no_say(made: tuple[ExperimentConfig, list[Material]]) -> None:
    """Other test ratings: the same layer, penalties and predictions, and other scores."""
    config, (material, *_) = made
    flipped = changed(material.test, lambda one: replace(one, ratings={k: 6.0 - v for k, v in one.ratings.items()}))
    first, second = probed(config, [material]), probed(config, [replace(material, test=flipped)])
    for before, after in zip((*first.layers, *first.chosen), (*second.layers, *second.chosen), strict=True):
        assert (after.candidate, after.ridge.penalties) == (before.candidate, before.ridge.penalties)
        np.testing.assert_array_equal(after.tested.values, before.tested.values)
        np.testing.assert_array_equal(after.validated.values, before.validated.values)
        assert after.tested.scores() != before.tested.scores()


def test_ratings_dealt_to_the_wrong_utterances_are_not_learnt(made: tuple[ExperimentConfig, list[Material]]) -> None:
    config, materials = made
    every = materials[0].corpus.utterances
    order = generator("permuted").permutation(len(every))
    dealt = {one.id: every[index].ratings for one, index in zip(every, order, strict=True)}

    def permuted(part: Part) -> Part:
        return changed(part, lambda one: replace(one, ratings=dealt[one.id]))

    wrong = [
        replace(one, train=permuted(one.train), validation=permuted(one.validation), test=permuted(one.test))
        for one in materials
    ]
    reached = [
        [np.mean([fitted.tested.scores().average for fitted in fits]) for fits in probed(config, some).fits]
        for some in (materials, wrong)
    ]
    assert np.mean(reached[0]) > 0.3
    assert abs(np.mean(reached[1])) < 0.15


def test_the_order_of_utterances_changes_nothing(made: tuple[ExperimentConfig, list[Material]]) -> None:
    config, (material, *_) = made

    def turned(part: Part) -> Part:
        return replace(part, utterances=part.utterances[::-1], seconds=part.seconds[::-1])

    other = replace(
        material, train=turned(material.train), validation=turned(material.validation), test=turned(material.test)
    )
    for one, two in zip(probed(config, [material]).fits, probed(config, [other]).fits, strict=True):
        assert one[0].ridge.penalties == two[0].ridge.penalties
        np.testing.assert_allclose(one[0].tested.values, two[0].tested.values[::-1], atol=1e-9)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows by one with every utterance that an encoder computes."""
    counts: list[int] = []
    prefix = EmotionModel.prefix

    def counting(self: EmotionModel, prepared: torch.Tensor, stop: int) -> torch.Tensor:
        counts.append(stop)
        return prefix(self, prepared, stop)

    monkeypatch.setattr(EmotionModel, "prefix", counting)
    return counts


@pytest.mark.slow
def test_what_was_computed_is_never_computed_again(
    release: Path, tmp_path: Path, computed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped half-way, called again, called by another configuration: the same tables, and nothing twice."""
    config = config_of(release, tmp_path)
    counting = EmotionModel.prefix

    def stopping(self: EmotionModel, prepared: torch.Tensor, stop: int) -> torch.Tensor:
        if len(computed) == 15:
            raise KeyboardInterrupt
        return counting(self, prepared, stop)

    with monkeypatch.context() as patch:
        patch.setattr(EmotionModel, "prefix", stopping)
        with pytest.raises(KeyboardInterrupt):
            run_probe(config, silent_log())
    assert len(computed) == 15
    assert finished_directories(tmp_path / "runs") == []
    _, folder = run_probe(config, silent_log())
    assert len(computed) == 40
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(whole) == {f"{TABLES}{ending}" for ending in (".md", ".csv", ".png", ".svg")}
    left = finished_directories(tmp_path / "runs")
    assert len(left) == 5
    run_probe(config, silent_log())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole
    assert finished_directories(tmp_path / "runs") == left
    changes: dict[str, Any] = {"data__loader__batch_size": 16, "model__params__freeze_layers": 1, "experiment__seed": 1}
    other = config_of(release, tmp_path, experiment__name="other", model__params__pooling="mean", **changes)
    _, elsewhere = run_probe(other, silent_log())
    assert (elsewhere / f"{TABLES}.csv").read_bytes() == whole[f"{TABLES}.csv"]
    assert len(computed) == 40


def test_what_is_chosen_leaves_runs_that_compare_lists_with_the_same_score(release: Path, tmp_path: Path) -> None:
    config = config_of(release, tmp_path)
    names = ("random:tiny", "random:tiny-base")
    found, folder = run_probe(config, silent_log(), encoders=names)
    comparison = compare(tmp_path / "runs")
    assert not [line for line in comparison.warnings if "times" in line]
    labels = {result.label: result for result in comparison.experiments}
    assert set(labels) == {f"tiny_probe (model.params.speech_encoder={name})" for name in names}
    for name in names:
        (line,) = [
            one for one in found.lines if one.encoder == name and one.features == "chosen of all" and not one.minus
        ]
        evidence = comparison.evidence.over_folds[f"tiny_probe (model.params.speech_encoder={name})"]
        for name_of, one in line.scores.items():
            assert one.value == pytest.approx(evidence[name_of].value, abs=1e-5)
            assert one.interval is not None
            theirs = evidence[name_of].interval
            assert theirs is not None
            assert (one.interval.low, one.interval.high) == pytest.approx((theirs.low, theirs.high), abs=1e-3)
            assert str(one.scope) == str(evidence[name_of].scope)
    run = read_run(next(path for path in comparison.directories))
    assert run.environment.system == SYSTEM
    assert str(run.environment.training_starts_from).endswith(" over time")
    assert set(run.environment.penalties) == {"valence", "arousal"}
    assert set(json.loads((run.directory / runs.CONFIG).read_text())) == {"experiment", "data", "model"}
    rows = list(csv.DictReader((folder / f"{TABLES}.csv").open()))
    assert {row["encoder"] for row in rows} == {"", *names}
    assert len(rows) == 3 * (1 + 2 * (2 * 5 + 3))


def test_two_ways_to_use_an_encoder_are_two_experiments(release: Path, tmp_path: Path) -> None:
    build_whisper().save_pretrained(tmp_path / "encoder")
    for mode in ("utterance", "window"):
        config = config_of(release, tmp_path, model__params__encoder_input=mode)
        run_probe(config, silent_log(), encoders=[str(tmp_path / "encoder")])
    comparison = compare(tmp_path / "runs")
    assert not [line for line in comparison.warnings if "times" in line]
    assert {result.label for result in comparison.experiments} == {
        f"tiny_probe (model.params.encoder_input={mode})" for mode in ("absent", "window")
    }


def test_the_first_line_is_the_hand_made_baseline(release: Path, tmp_path: Path) -> None:
    config = config_of(release, tmp_path)
    found, _ = run_probe(config, silent_log())
    left = [read_run(path) for path in run_baseline(config, silent_log())]
    for name, one in found.lines[0].scores.items():
        scores = [measure(run.scores.test, name) for run in left]
        assert one.value == pytest.approx(np.mean(scores), abs=1e-12)  # type: ignore[arg-type]


def test_a_layer_that_follows_the_ratings_is_chosen(
    made: tuple[ExperimentConfig, list[Material]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one layer that holds the ratings among others that hold noise, it is found in every fold."""
    config, materials = made
    utterances = materials[0].corpus.utterances
    statistics = generator("layers").normal(size=(len(utterances), 2, 4, 8)).astype(np.float32)
    statistics[:, 0, 2, :2] = [[one.ratings["valence"], one.ratings["arousal"]] for one in utterances]
    rows = {one.id: row for row, one in enumerate(utterances)}
    monkeypatch.setattr(probe, "_statistics", lambda *_: (statistics, rows))
    found = probed(config, materials)
    assert [fitted.candidate.layer for fitted in found.layers] == [2] * 5
    assert {fitted.candidate.pooling for fitted in found.layers} == {"mean"}
    assert min(fitted.tested.scores().average or 0.0 for fitted in found.layers) > 0.9
    averages = [[fitted.validated.scores().average for fitted in fits] for fits in zip(*found.fits, strict=True)]
    assert [fitted.validated.scores().average for fitted in found.chosen] == [max(one) for one in averages]


def test_a_mistake_is_a_sentence_before_anything_is_computed(
    release: Path, tmp_path: Path, computed: list[int]
) -> None:
    config = config_of(release, tmp_path)
    with pytest.raises(UserError, match=r"no folder .*nowhere"):
        run_probe(config, silent_log(), encoders=["random:tiny", str(tmp_path / "nowhere")])
    with pytest.raises(UserError, match="nothing to score"):
        run_probe(config_of(release, tmp_path, data__split__scheme="everything"), silent_log())
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"can't create the folder .*experiment.runs_dir"):
        run_probe(config_of(release, tmp_path / "file"), silent_log())
    assert computed == []


def test_a_corpus_of_one_speaker_or_of_equal_ratings_is_a_sentence(tmp_path: Path, computed: list[int]) -> None:
    alone = second(write_corpus(tmp_path / "alone", speakers=1, each=9), tmp_path)
    with pytest.raises(UserError, match=r"has 1 speaker and data.split.folds is 3"):
        run_probe(ExperimentConfig.model_validate(alone), silent_log())
    table = write_corpus(tmp_path / "flat") / "second.csv"
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(row | {"arousal": "1"} for row in rows)
    with pytest.raises(UserError, match=r"arousal is 1 in all of the train part"):
        run_probe(ExperimentConfig.model_validate(second(table.parent, tmp_path)), silent_log())
    assert computed == []
    assert not (tmp_path / "runs").exists()


def test_features_that_are_not_finite_name_the_utterance(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EmotionModel, "prefix", lambda *_: torch.full((2, 3, 64), torch.nan))
    with pytest.raises(UserError, match=r"utterance Ses\w+: the encoder's output for .* isn't finite"):
        run_probe(config_of(release, tmp_path), silent_log())


def test_an_encoder_that_cannot_be_fine_tuned_as_configured_is_probed_all_the_same(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from serfit.training.forecast import forecast

    monkeypatch.setattr(probe, "forecast", forecast)
    found, _ = run_probe(config_of(release, tmp_path, model__params__freeze_layers=7), silent_log())
    assert "freeze_layers is 7" in found.costs["random:tiny"][0]
    found, folder = run_probe(config_of(release, tmp_path, model__params__freeze_speech_encoder=True), silent_log())
    assert "time on cpu in fp32" in "".join(found.costs["random:tiny"])
    assert "time on cpu in fp32" in (folder / f"{TABLES}.md").read_text()


def test_without_a_store_nothing_is_kept(release: Path, tmp_path: Path, computed: list[int]) -> None:
    config = config_of(release, tmp_path, features__store=None)
    (_, material), *_ = folds_of(config, "probe")
    for _ in range(2):
        probed(config, [material])
    assert len(computed) == 80
    assert list(tmp_path.iterdir()) == []


def test_the_encoder_of_a_trained_network_is_probed_and_none_that_knows_the_test_part(
    trained: Callable[..., Path], release: Path, tmp_path: Path
) -> None:
    run = trained(train__epochs=1)
    config = ExperimentConfig.model_validate(
        second(write_corpus(tmp_path / "second"), tmp_path, model__start_from=str(run))
    )
    found, _ = run_probe(config, silent_log())
    assert {line.encoder for line in found.lines} == {"", run.name}
    (left, *others) = [read_run(path) for path in finished_directories(tmp_path / "runs")]
    assert len(others) == 2
    assert (left.settings["model.start_from"], left.settings["model.start_part"]) == (str(run), "encoder")
    (member,) = open_members(str(run))
    assert left.environment.encoder.sha256 == weights_digest(member.model.encoder.hf)
    assert left.environment.encoder.sha256 != weights_digest(model_of(config).encoder.hf)
    plain, _ = run_probe(config, silent_log(), encoders=["random:tiny"])
    assert plain.lines[1].scores != found.lines[1].scores
    with pytest.raises(UserError, match=r"was trained on speakers .*, which the validation part"):
        run_probe(config_of(release, tmp_path, model__start_from=str(run)), silent_log())
