"""Going on from a trained network: to the byte before the first step, never on what it knows, and without it later."""

import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.numpy import load_file

import serfit
from inference.public.published import Published, audeering, odyssey, vox_profile
from serfit.config.schema import ExperimentConfig
from serfit.errors import UserError
from serfit.inference.begun import begun
from serfit.inference.bundle import origins_of, read_bundle, write_bundle
from serfit.inference.public.importing import import_model
from serfit.inference.publish.hub import write_hub_folder
from serfit.inference.source import calibrated_members, open_members, start_of
from serfit.labels import DIMENSIONS, LabelScale
from serfit.nn.model import model_of
from serfit.nn.saved import weights_digest
from serfit.report.compare import compare
from serfit.runs import directory as runs
from serfit.runs.directory import predictions_csv
from serfit.system.interrupt import Interrupted
from serfit.system.log import Log, silent_log
from serfit.system.precision import Precision
from serfit.training import experiment
from serfit.training.evaluation import run_evaluation
from serfit.training.executor import build_executor, exactly
from serfit.training.experiment import run_experiment
from serfit.training.features import features_of
from serfit.training.forecast import forecast
from serfit.training.material import prepare
from serfit.training.ranks import ALONE
from serfit.training.start import find_start, kept_bytes
from serfit.training.trainer import evaluate
from support import RESULTS, settings
from training.second_corpus import second, write_corpus
from training.test_ranks import in_full

TrainedRun = Callable[..., Path]
CPU = torch.device("cpu")


def quiet() -> Log:
    return Log(Console(file=io.StringIO()))


@pytest.fixture
def abroad(tmp_path: Path) -> Callable[..., ExperimentConfig]:
    """A function that makes a tiny experiment on another corpus, which starts from what it is given."""
    root = write_corpus(tmp_path / "second")

    def made(start: object, **changes: Any) -> ExperimentConfig:
        given = {} if start is None else {"model__start_from": str(start)}
        return ExperimentConfig.model_validate(second(root, tmp_path, **given, **changes))

    return made


def before_the_first_step(config: ExperimentConfig) -> str:
    """The table of predictions of an experiment's test part by the network that training begins with."""
    material, model = prepare(config), begun(config, start_of(config))
    features = features_of(config, model, Precision())
    executor = exactly(build_executor(config, model, features, CPU, ALONE))
    part = material.test
    return predictions_csv(evaluate(executor, features, part), part.utterances, part.seconds)


@pytest.mark.slow
@pytest.mark.parametrize("through", ["run", "bundle"])
@pytest.mark.parametrize("frozen", [False, True])
def test_before_the_first_step_it_predicts_what_the_source_predicts_to_the_byte(
    trained: TrainedRun,
    release: Path,
    abroad: Callable[..., ExperimentConfig],
    tmp_path: Path,
    through: str,
    frozen: bool,
) -> None:
    changes = {"model__params__freeze_speech_encoder": frozen}
    source = trained(**changes)
    start = source
    if through == "bundle":
        start = tmp_path / "bundle"
        write_bundle(start, open_members(source))
    seeds = {"experiment__seed": 5, "model__start_from": str(start), **changes}
    home = ExperimentConfig.model_validate(settings(release, tmp_path, **seeds))
    assert before_the_first_step(home) == (source / runs.PREDICTIONS).read_text()
    config = abroad(start, **changes)
    zero_shot = run_evaluation(config, [str(source)], silent_log())
    assert before_the_first_step(config) == (zero_shot / runs.PREDICTIONS).read_text()


def test_the_encoder_alone_goes_under_a_new_head(trained: TrainedRun, abroad: Callable[..., ExperimentConfig]) -> None:
    source = trained(data__dimensions=["arousal"])
    config = abroad(source, model__start_part="encoder", model__params__pooling="mean", model__params__layers="last")
    (member,), model, new = open_members(source), begun(config, start_of(config)), model_of(config)
    assert weights_digest(model.encoder) == weights_digest(member.model.encoder) != weights_digest(new.encoder)
    assert weights_digest(model.head) == weights_digest(new.head)
    assert model.provenance.sha256 == weights_digest(member.model.encoder.hf)
    assert [name for name, one in model.named_parameters() if one.requires_grad] == [
        name for name, one in new.named_parameters() if one.requires_grad
    ]


@pytest.mark.slow
def test_what_the_source_knows_is_refused_in_the_new_parts_through_any_number_of_steps(
    trained: TrainedRun, release: Path, abroad: Callable[..., ExperimentConfig], tmp_path: Path
) -> None:
    source = trained()  # on sessions 3 to 5
    for fold, part in ((2, "validation"), (3, "validation"), (5, "test")):
        config = ExperimentConfig.model_validate(
            settings(release, tmp_path, model__start_from=str(source), data__split__fold=fold)
        )
        said = rf"{source.name} \(\w+\)\) was trained on speakers Ses0\w+, .*the {part} part"
        with pytest.raises(UserError, match=said):
            run_experiment(config, quiet())
    assert not (tmp_path / "runs").exists()
    finetuned = run_experiment(abroad(source), quiet())
    seen = runs.read_trained(finetuned)
    assert seen is not None
    assert len(seen.speakers) == 3 * 2 + 2  # sessions 3 to 5, and a third of six people
    bundle = tmp_path / "bundle"
    write_bundle(bundle, open_members(finetuned))
    config = ExperimentConfig.model_validate(settings(release, tmp_path, data__split__fold=3))
    with pytest.raises(UserError, match=r"was trained on speakers Ses03_F, Ses03_M and the audio of"):
        run_evaluation(config, [str(bundle)], silent_log())


def test_what_an_old_source_was_trained_on_is_said_to_be_unknown_ever_after(
    trained: TrainedRun, abroad: Callable[..., ExperimentConfig], tmp_path: Path
) -> None:
    source = Path(shutil.copytree(trained(), tmp_path / "old"))
    (source / runs.TRAINED).unlink()
    finetuned = run_experiment(abroad(source), quiet())
    assert "warning: what old learnt from isn't recorded" in (finetuned / runs.TRAIN_LOG).read_text()
    evaluated = run_evaluation(abroad(None), [str(finetuned)], silent_log())
    about = runs.read_environment(evaluated)
    assert about is not None
    assert about.evaluation is not None
    assert about.evaluation.unknown == ("old",)


@pytest.mark.slow
def test_the_source_is_recorded_and_never_needed_again(
    trained: TrainedRun,
    abroad: Callable[..., ExperimentConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = Path(shutil.copytree(trained(), tmp_path / "source"))
    config = abroad(source)
    whole = run_experiment(config, quiet())
    about = runs.read_environment(whole)
    assert about is not None
    assert about.start is not None
    (member,) = open_members(source)
    assert (about.start.run, about.start.sha256) == ("source", weights_digest(member.model))
    assert about.encoder.sha256 == weights_digest(member.model.encoder.hf)
    real, taken = experiment.ProgressWriter.take, []

    def take(self: Any, record: Any, notes: Any = ()) -> None:
        real(self, record, notes)
        taken.append(record)
        if len(taken) == 2:
            raise Interrupted("stopped")

    cut = tmp_path / "runs" / "cut"
    monkeypatch.setattr(experiment.ProgressWriter, "take", take)
    with pytest.raises(Interrupted):
        run_experiment(config, quiet(), directory=cut)
    shutil.rmtree(source)
    monkeypatch.setattr(experiment.ProgressWriter, "take", real)
    run_experiment(config, quiet(), directory=cut, resume=True)
    for name in RESULTS:
        assert not (whole / name).exists() or (cut / name).read_bytes() == (whole / name).read_bytes(), name
    waveform = torch.randn(8000).numpy()
    assert serfit.load(cut).predict(waveform, rate=16_000).values == serfit.load(whole).predict(waveform, 16_000).values
    write_bundle(tmp_path / "bundle", open_members(cut))
    (origin,) = origins_of(tmp_path / "bundle")
    assert origin.start is not None
    assert origin.start.source == "source"
    write_hub_folder(tmp_path / "hub", [cut], *calibrated_members([cut], None))
    assert "Training went on from source (" in (tmp_path / "hub" / "README.md").read_text()
    assert str(tmp_path) not in json.dumps(origin.settings) + origin.start.model_dump_json()
    with pytest.raises(UserError, match="source"):
        run_experiment(config, quiet())


@pytest.mark.slow
def test_two_processes_go_on_from_it_as_one_does(trained: TrainedRun, release: Path, tmp_path: Path) -> None:
    plan = settings(release, tmp_path, model__start_from=str(trained()))
    alone, together = (in_full(count, tmp_path, plan, tmp_path / f"by{count}") for count in (1, 2))
    mine, theirs = (load_file(run / runs.BEST_WEIGHTS) for run in (alone, together))
    for name, weight in mine.items():
        if not name.endswith("k_proj.bias"):  # whose gradient is rounding, which Adam scales up
            np.testing.assert_allclose(theirs[name], weight, rtol=0, atol=1e-5, err_msg=name)
    assert weights_digest(read_bundle(together / runs.START)[0].model) == weights_digest(
        open_members(trained())[0].model
    )


def test_another_source_in_its_place_is_noticed(
    trained: TrainedRun, abroad: Callable[..., ExperimentConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Path(shutil.copytree(trained(), tmp_path / "source"))

    def stopped(*_: object) -> None:
        raise Interrupted("stopped")

    cut = tmp_path / "runs" / "cut"
    with monkeypatch.context() as patched:
        patched.setattr(experiment.ProgressWriter, "take", stopped)
        with pytest.raises(Interrupted):
            run_experiment(abroad(source), quiet(), directory=cut)
    shutil.rmtree(cut / runs.START)
    shutil.rmtree(source)
    shutil.copytree(trained(data__split__fold=2), source)
    with pytest.raises(UserError, match=r"the network of model\.start_from has changed since this run was begun"):
        run_experiment(abroad(source), quiet(), directory=cut, resume=True)


@pytest.mark.slow
def test_frozen_features_are_those_of_the_source(trained: TrainedRun, abroad: Callable[..., ExperimentConfig]) -> None:
    frozen = {"model__params__freeze_speech_encoder": True, "model__params__pooling": "mean"}
    source = trained(model__params__pooling="mean")
    run_experiment(abroad(None, **frozen), quiet())  # leaves features of the encoder itself in the store
    stored = run_experiment(abroad(source, **frozen), quiet())
    computed = run_experiment(abroad(source, **frozen, features__store=None), quiet())
    assert (stored / runs.BEST_WEIGHTS).read_bytes() == (computed / runs.BEST_WEIGHTS).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("form", [audeering, odyssey, vox_profile])
def test_a_public_model_is_trained_further_and_its_licence_travels(
    form: Callable[[Path], Published], abroad: Callable[..., ExperimentConfig], tmp_path: Path
) -> None:
    member = import_model(str(form(tmp_path / "public-model").folder))
    write_bundle(tmp_path / "imported", [member])
    shaped = ("speech_encoder", "layers", "pooling", "head_hidden", "output")
    config = abroad(
        tmp_path / "imported",
        data__dimensions=list(DIMENSIONS),
        **{f"model__params__{key}": getattr(member.params, key) for key in shaped},
    )
    zero_shot = run_evaluation(config, [str(tmp_path / "imported")], silent_log())
    assert before_the_first_step(config) == (zero_shot / runs.PREDICTIONS).read_text()
    run = run_experiment(config, quiet())
    shutil.rmtree(tmp_path / "imported")
    assert (run / runs.PREDICTIONS).read_bytes() != (zero_shot / runs.PREDICTIONS).read_bytes()
    again = run_evaluation(abroad(None, data__dimensions=list(DIMENSIONS)), [str(run)], silent_log())
    assert (again / runs.PREDICTIONS).read_bytes() == (run / runs.PREDICTIONS).read_bytes()
    write_hub_folder(tmp_path / "hub", [run], *calibrated_members([run], None))
    waveform = torch.randn(8000).numpy()
    assert (
        serfit.load(run).predict(waveform, 16_000).values
        == serfit.load(tmp_path / "hub").predict(waveform, 16_000).values
    )
    assert member.about.origin.imported is not None
    assert (
        f"MSP-Podcast, under the licence {member.about.origin.imported.licence}"
        in (tmp_path / "hub/README.md").read_text()
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data__dimensions": ["valence"]}, "data.dimensions is valence here and valence, arousal there"),
        ({"model__params__pooling": "mean"}, "model.params.pooling is mean here and attentive_statistics there"),
        ({"model__params__head_hidden": 8}, "model.params.head_hidden is 8 here and 16 there"),
        ({"model__params__layers": "last"}, "model.params.layers is last here and weighted there"),
        ({"model__params__output": "sigmoid"}, "model.params.output is sigmoid here and linear there"),
        (
            {"model__params__speech_encoder": "random:tiny-base"},
            "model.params.speech_encoder is random:tiny-base here and random:tiny there",
        ),
    ],
)
def test_what_does_not_fit_is_said_in_one_sentence(
    trained: TrainedRun, abroad: Callable[..., ExperimentConfig], tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    source = trained()
    with pytest.raises(UserError) as caught:
        run_experiment(abroad(source, **changes), quiet())
    assert f"({source}) doesn't fit this experiment: {said}; set what differs" in str(caught.value)
    assert ("model.start_part=encoder" in str(caught.value)) == ("speech_encoder" not in said)
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())


def test_what_is_no_trained_network_is_said_in_one_sentence(
    trained: TrainedRun, abroad: Callable[..., ExperimentConfig], tmp_path: Path
) -> None:
    several = tmp_path / "several"
    for fold in (1, 2):
        shutil.copytree(trained(data__split__fold=fold), several / f"fold{fold}")
    for start, said in (
        (tmp_path / "nothing", "is neither a run directory"),
        (tmp_path / "model.onnx", "an ONNX file can't be trained any further"),
        (several, "which holds 2 networks, and training goes on from one"),
    ):
        with pytest.raises(UserError, match=said):
            find_start(abroad(start))
    with pytest.raises(UserError, match=r"model\.start_from names no network"):
        find_start(abroad(None, model__start_part="encoder"))


@pytest.mark.slow
def test_zero_shot_fine_tuned_and_trained_alone_stand_in_one_table(
    trained: TrainedRun, abroad: Callable[..., ExperimentConfig], tmp_path: Path
) -> None:
    source, other = trained(), trained(data__split__fold=2)
    alone, tuned = abroad(None), abroad(source, experiment__name="tuned")
    moved = Path(shutil.copytree(source, tmp_path / "elsewhere" / source.name))
    written = [run_evaluation(alone, [str(source)], silent_log()), run_experiment(alone, quiet())]
    written += [run_experiment(tuned, quiet())]
    written += [run_experiment(abroad(moved, experiment__name="tuned", experiment__seed=2), quiet())]
    written += [run_experiment(abroad(other, experiment__name="tuned"), quiet())]
    comparison = compare(written)
    shown = [(re.sub(r"_2\d+-\d+(-\d+)? \(\w+\)", "", one.label), len(one.runs)) for one in comparison.experiments]
    assert sorted(shown) == [
        ("second", 1),
        ("tiny_evaluated", 1),
        ("tuned (model.start_from=tiny_fold1_seed1)", 2),
        ("tuned (model.start_from=tiny_fold2_seed1)", 1),
    ]
    assert len({one.tested_on for one in comparison.experiments}) == 1
    assert len(comparison.evidence.pairs) == 6 * 3


def test_a_check_foretells_what_a_start_costs(trained: TrainedRun, abroad: Callable[..., ExperimentConfig]) -> None:
    config = abroad(trained())
    foretold, without = (list(forecast(one, prepare(one))) for one in (config, abroad(None)))
    assert any("an epoch about" in line for line in foretold)
    (disk, alone) = (next(line for line in lines if "checkpoints" in line) for lines in (foretold, without))
    assert disk.partition(", and")[0] != alone.partition(", and")[0]
    start = find_start(config)
    assert start is not None
    lines = list(start.lines(prepare(config)))
    assert "valence: the model's 1 to 5 stands for -3 to 3 of second.csv" in lines
    model = begun(config, start.member)
    assert kept_bytes(config, model) == sum(tensor.nbytes for tensor in start.member.model.state_dict().values())
    assert kept_bytes(abroad(None), model) == 0
    assert start.member.about.scales["valence"] == LabelScale(1, 5)
