"""Trained networks scored anywhere: the same bytes at home, mapped scales abroad, and never on what they know."""

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import serfit
from cli.test_hostile import exit_code
from serfit.config.load import load_config
from serfit.config.schema import ExperimentConfig
from serfit.corpus.load import load_corpus
from serfit.inference.bundle import DESCRIPTION, write_bundle
from serfit.inference.calibrated import chosen
from serfit.inference.source import open_members
from serfit.report.compare import compare, to_markdown
from serfit.report.page import write_report
from serfit.runs import directory as runs
from serfit.runs.finished import read_predictions, read_run
from serfit.scores.records import Predictions
from serfit.system import precision
from serfit.system.interrupt import Interrupted
from serfit.system.log import silent_log
from serfit.training import evaluation
from serfit.training.evaluation import run_evaluation
from training.second_corpus import SCALE, second, write_corpus

Evaluate = Callable[..., Path]
TrainedRun = Callable[..., Path]

FROZEN = {"model__params__freeze_speech_encoder": True, "model__params__pooling": "mean"}
POOLED_WITHOUT_STORE = FROZEN | {"features__store": None}


@pytest.fixture
def home(trained: TrainedRun, tmp_path: Path) -> Callable[..., Path]:
    """A function that trains a tiny run and puts its configuration, with other runs_dir, beside it."""

    def made(**changes: Any) -> Path:
        run = trained(**changes)
        said = json.loads((run / runs.CONFIG).read_text())
        said["experiment"]["runs_dir"] = str(tmp_path / "runs")
        (tmp_path / "home.json").write_text(json.dumps(said))
        return run

    return made


@pytest.fixture
def abroad(tmp_path: Path) -> Path:
    """The configuration of another corpus."""
    root = write_corpus(tmp_path / "second")
    path = tmp_path / "second.yaml"
    path.write_text(yaml.safe_dump(second(root, tmp_path)))
    return path


def written(tmp_path: Path) -> list[Path]:
    return sorted(path for path in (tmp_path / "runs").glob("*") if path.is_dir())


def predictions(run: Path) -> Predictions:
    return read_predictions(run / runs.PREDICTIONS)[0]


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, FROZEN, POOLED_WITHOUT_STORE], ids=["trained", "frozen", "no store"])
@pytest.mark.parametrize("through", ["run", "bundle"])
def test_at_home_a_run_predicts_what_it_predicted_to_the_byte(
    home: Callable[..., Path], tmp_path: Path, changes: dict[str, Any], through: str
) -> None:
    run = home(**changes)
    model = run
    if through == "bundle":
        model = tmp_path / "bundle"
        write_bundle(model, open_members(run))
    assert exit_code("evaluate", model, "--config", tmp_path / "home.json") == 0
    (made,) = written(tmp_path)
    assert (made / runs.PREDICTIONS).read_bytes() == (run / runs.PREDICTIONS).read_bytes()
    about = runs.read_environment(made)
    assert about is not None
    assert about.kind == "evaluation"
    assert about.evaluation is not None
    assert about.evaluation.unknown == ()
    assert "flatter" not in (made / runs.TRAIN_LOG).read_text()
    assert about.evaluation.networks[0].run == run.name
    native, scored = read_run(run).scores, read_run(made).scores
    assert (scored.test, scored.scenario_baseline, scored.raters_agreement) == (
        native.test,
        native.scenario_baseline,
        native.raters_agreement,
    )


@pytest.mark.parametrize("changes", [FROZEN, {"model__params__freeze_layers": 1}], ids=["frozen", "partly"])
def test_a_run_in_bf16_predicts_at_home_what_it_predicted_and_says_where_it_cannot(
    home: Callable[..., Path],
    tmp_path: Path,
    changes: dict[str, Any],
    bf16_cpu: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = home(train__precision="auto", **changes)
    bundle = tmp_path / "bundle"
    write_bundle(bundle, open_members(run))
    bf16_cpu.setattr(precision, "NARROWEST", 1000)  # the record decides, and not what auto would take by now
    assert exit_code("evaluate", bundle, "--config", tmp_path / "home.json") == 0
    assert "evaluation in fp32 (frozen part in bf16, as in training) on CPU" in capsys.readouterr().out
    (made,) = written(tmp_path)
    assert (made / runs.PREDICTIONS).read_bytes() == (run / runs.PREDICTIONS).read_bytes()
    about = runs.read_environment(made)
    assert about is not None
    assert about.frozen_precision == "bf16"
    bf16_cpu.setattr(precision, "bf16_instructions", lambda: ())
    assert exit_code("evaluate", bundle, "--config", tmp_path / "home.json") == 0
    assert "was computed in bf16 in training, and is computed in float32 here" in capsys.readouterr().out
    other = written(tmp_path)[-1]
    assert (other / runs.PREDICTIONS).read_bytes() != (run / runs.PREDICTIONS).read_bytes()
    assert np.allclose(predictions(other).values, predictions(run).values, atol=0.01)


def test_the_validation_part_is_predicted_as_in_training(home: Callable[..., Path], tmp_path: Path) -> None:
    run = home()
    assert exit_code("evaluate", run, "--config", tmp_path / "home.json", "--part", "validation") == 0
    (made,) = written(tmp_path)
    said = (made / runs.TRAIN_LOG).read_text()
    assert (
        "warning: the best epoch was chosen by the scores of speakers Ses02_F, Ses02_M, which are scored here" in said
    )
    assert (made / runs.PREDICTIONS).read_bytes() == (run / runs.VALIDATION).read_bytes()


@pytest.mark.parametrize("part", ["train", "all"])
def test_what_was_trained_on_is_refused_by_name(
    home: Callable[..., Path], tmp_path: Path, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = home()
    assert exit_code("evaluate", run, "--config", tmp_path / "home.json", "--part", part) == 2
    said = capsys.readouterr().err
    assert re.search(
        rf"{run.name} was trained on speakers Ses03_F, .* and the audio of Ses03\w+, .* the {part} part", said
    )
    assert written(tmp_path) == []


def test_another_fold_of_the_same_corpus_is_refused_and_of_old_records_unknown(
    home: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = home()
    assert exit_code("evaluate", run, "--config", tmp_path / "home.json", "--fold", "3") == 2
    assert "was trained on speakers Ses03_F" in capsys.readouterr().err
    bundle = tmp_path / "bundle"
    write_bundle(bundle, open_members(run))
    assert exit_code("evaluate", bundle, "--config", tmp_path / "home.json", "--fold", "3") == 2
    assert "was trained on speakers Ses03_F" in capsys.readouterr().err
    described = json.loads((bundle / DESCRIPTION).read_text())
    del described["members"][0]["about"]["origin"]["trained_on"]
    (bundle / DESCRIPTION).write_text(json.dumps(described))
    assert exit_code("evaluate", bundle, "--config", tmp_path / "home.json", "--fold", "3") == 0
    assert re.search(r"warning: what \S+ learnt from isn't recorded", capsys.readouterr().out)
    about = runs.read_environment(written(tmp_path)[0])
    assert about is not None
    assert about.evaluation is not None
    assert about.evaluation.unknown == (run.name,)


def test_abroad_scales_are_mapped_and_said(
    trained: TrainedRun, abroad: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained()
    assert exit_code("evaluate", run, "-c", abroad, "--part", "all") == 0
    assert "valence: the model's 1 to 5 stands for -3 to 3 of second" in capsys.readouterr().out
    (made,) = written(tmp_path)
    found = predictions(made)
    assert len(found.ids) == 24
    recogniser = serfit.load(run)
    heard = recogniser.predict([tmp_path / "second" / f"{name}" for name in found.ids])
    expected = [[SCALE.from_unit(one.unit[name]) for name in found.dimensions] for one in heard]
    np.testing.assert_allclose(found.values, expected, atol=1e-5)
    with (tmp_path / "second" / "second.csv").open() as file:
        rated = {row["path"]: [float(row["valence"]), float(row["arousal"])] for row in csv.DictReader(file)}
    np.testing.assert_allclose(found.targets, [rated[name] for name in found.ids], atol=1e-6)


@pytest.mark.slow
@pytest.mark.extra("onnx")
def test_an_ensemble_and_onnx_are_scored_by_their_mean(
    trained: TrainedRun, abroad: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second_run = trained(), trained(data__split__fold=2)
    onnx = tmp_path / "both.onnx"
    assert exit_code("export", first, second_run, "--to", "onnx", "-o", onnx) == 0
    for name, models in (("one", [first]), ("two", [second_run]), ("mean", [first, second_run]), ("onnx", [onnx])):
        assert exit_code("evaluate", *models, "-c", abroad, "--name", name) == 0
    one, two, mean, exported = (
        predictions(next((tmp_path / "runs").glob(f"{name}_*"))).values for name in ("one", "two", "mean", "onnx")
    )
    np.testing.assert_allclose(mean, (one + two) / 2, atol=2e-6)
    np.testing.assert_allclose(exported, mean, atol=1e-3)
    assert exit_code("evaluate", onnx, "-c", tmp_path / "nothing.yaml") == 2
    table = next((tmp_path / "runs").glob("onnx_*"))
    about = runs.read_environment(table)
    assert about is not None
    assert about.evaluation is not None
    assert about.evaluation.unknown == ()  # both members carry what they were trained on


def test_a_calibration_is_applied_where_it_is_asked_for(trained: TrainedRun, abroad: Path, tmp_path: Path) -> None:
    run = trained()
    for kind in ("none", "affine"):
        assert exit_code("evaluate", run, "-c", abroad, "--calibrate", kind, "--name", kind) == 0
    plain, mapped = (predictions(next((tmp_path / "runs").glob(f"{kind}_*"))) for kind in ("none", "affine"))
    (member,) = open_members(run)
    maps = chosen(member.calibration, "affine", member.about.dimensions, "")
    assert maps is not None
    expected = SCALE.from_unit(maps(SCALE.to_unit(plain.values), plain.dimensions))
    np.testing.assert_allclose(mapped.values, expected, atol=1e-5)
    assert not np.allclose(mapped.values, plain.values, atol=1e-3)


@pytest.mark.slow
def test_runs_on_their_own_folds_are_one_experiment_and_zero_shot_runs_stand_beside_native_ones(
    home: Callable[..., Path], trained: TrainedRun, abroad: Path, tmp_path: Path
) -> None:
    for fold in (1, 2):
        assert exit_code("evaluate", home(data__split__fold=fold), "--config", tmp_path / "home.json") == 0
    native = [trained(data__split__fold=fold) for fold in (1, 2)]
    comparison = compare([*native, *written(tmp_path)])
    assert [(one.label, one.folds) for one in comparison.experiments] == [("tiny", (1, 2)), ("tiny_evaluated", (1, 2))]
    mine, theirs = comparison.experiments
    assert mine.tested_on == theirs.tested_on
    assert {pair.difference.value for pair in comparison.evidence.pairs} == {0.0}
    for fold in (1, 2, 3):
        assert exit_code("evaluate", native[0], "-c", abroad, "--fold", str(fold)) == 0
        assert exit_code("train", "-c", abroad, "--fold", str(fold), "train.epochs=1") == 0
    both = [path for path in written(tmp_path) if "second" in (path / runs.ENVIRONMENT).read_text()]
    comparison = compare(both)
    assert [(one.label, one.missing) for one in comparison.experiments] == [("second", ()), ("tiny_evaluated", ())]
    assert {pair.folds for pair in comparison.evidence.pairs} == {(1, 2, 3)}
    assert not comparison.warnings
    markdown = to_markdown(comparison)
    assert "predicted by tiny, fold 1 (" in markdown
    write_report(comparison, tmp_path / "page.html")


@pytest.mark.slow
def test_other_models_of_one_name_are_other_experiments(trained: TrainedRun, abroad: Path, tmp_path: Path) -> None:
    for run in (trained(), trained(data__split__fold=2), trained(experiment__seed=2), trained(train__epochs=1)):
        assert exit_code("evaluate", run, "-c", abroad) == 0
    labels = [(one.label, len(one.runs)) for one in compare(written(tmp_path)).experiments]
    assert sorted(count for _, count in labels) == [1, 1, 2]  # two seeds of one experiment
    assert any("model=tiny, fold 2 (" in label for label, _ in labels)


@pytest.mark.parametrize("after", [1, 2])
def test_an_interrupted_evaluation_goes_on_and_ends_in_the_same_bytes(
    trained: TrainedRun, abroad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    models = [str(trained()), str(trained(data__split__fold=2))]
    config = ExperimentConfig.model_validate(yaml.safe_load(abroad.read_text()))
    whole = run_evaluation(config, models, silent_log(), part="all", name="whole")
    real, asked = evaluation.StopRequest.check, []

    def check(self: Any) -> None:
        asked.append(1)
        if len(asked) > after:
            raise Interrupted("stopped")
        real(self)

    monkeypatch.setattr(evaluation.StopRequest, "check", check)
    with pytest.raises(Interrupted):
        run_evaluation(config, models, silent_log(), part="all", name="cut")
    (cut,) = (tmp_path / "runs").glob("cut_*")
    assert not (cut / runs.FINISHED).exists()
    monkeypatch.setattr(evaluation.StopRequest, "check", real)
    other = run_evaluation(config, models[:1], silent_log(), part="all", name="cut")
    assert other != cut  # another model goes on with nothing
    again = []
    monkeypatch.setattr(evaluation.StopRequest, "check", lambda self: again.append(1))
    assert run_evaluation(config, models, silent_log(), part="all", name="cut") == cut
    assert len(again) == 4 - after
    assert (cut / runs.PREDICTIONS).read_bytes() == (whole / runs.PREDICTIONS).read_bytes()
    assert not (cut / runs.CHECKPOINTS).exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train.epochs=1", "-c", "{abroad}"], "no model is named"),
        (["{run}"], "name the configuration of a corpus with --config"),
        (["{run}", "-c", "{abroad}", "--part", "best"], "--part is best; it must be"),
        (["{run}", "-c", "{abroad}", "--name", "a b"], "experiment.name is"),
        (["{run}", "-c", "{abroad}", "--fold", "9"], "fold is 9"),
        (["{run}", "-c", "{abroad}", "data.split.scheme=everything"], "the test part is empty"),
        (
            ["{arousal}", "-c", "{abroad}", "data.dimensions=[valence]"],
            "predicts arousal, and data.dimensions is valence",
        ),
        (["{run}", "{arousal}", "-c", "{abroad}"], "so their mean means"),
    ],
)
def test_what_cannot_be_scored_is_said_in_a_sentence(
    trained: TrainedRun,
    abroad: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    words = {"run": trained(), "abroad": abroad}
    if "{arousal}" in arguments:
        words["arousal"] = trained(data__dimensions=["arousal"])
    assert exit_code("evaluate", *(word.format(**words) for word in arguments)) == 2
    assert said in capsys.readouterr().err
    assert written(tmp_path) == []


def test_the_corpus_keeps_its_name_in_the_recorded_configuration(
    home: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = home(data__name="my own")
    assert exit_code("evaluate", run, "--config", tmp_path / "home.json") == 0
    assert exit_code("baseline", "--config", tmp_path / "home.json", "--fold", "1") == 0
    for made in written(tmp_path):
        about = runs.read_environment(made)
        assert about is not None
        assert about.corpus.name == load_corpus(load_config(made / runs.CONFIG).data).name == "my own"


def test_calibration_passes_over_evaluations(
    trained: TrainedRun, abroad: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code("evaluate", trained(), "-c", abroad) == 0
    assert exit_code("calibration", trained(), *written(tmp_path)) == 0
    assert "evaluated" not in capsys.readouterr().out.partition("comparison of all")[2].partition("\n")[2]
    assert exit_code("calibration", tmp_path / "runs") == 2
    assert "it holds 1 evaluation, and nothing was fitted there" in capsys.readouterr().err


def test_an_evaluation_is_no_model_and_no_training_to_go_on_with(
    trained: TrainedRun, abroad: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code("evaluate", trained(), "-c", abroad) == 0
    (made,) = written(tmp_path)
    assert exit_code("evaluate", made, "-c", abroad) == 2
    assert "it is no run of a network" in capsys.readouterr().err
    unfinished = Path(shutil.copytree(made, tmp_path / "unfinished"))
    (unfinished / runs.FINISHED).unlink()
    assert exit_code("train", "--resume", unfinished) == 2
    assert "it is an evaluation, a baseline" in capsys.readouterr().err
    assert exit_code("watch", "--once", tmp_path / "runs") == 0
