"""Bundles: the same numbers without run, corpus and encoder beside them; damaged ones are refused."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import serfit
from nn.small import build_hf
from serfit.errors import UserError
from serfit.inference.bundle import DESCRIPTION, SHARED, read_bundle, write_bundle
from serfit.inference.source import open_members, runs_of_one_experiment
from serfit.runs import directory as runs

WAVEFORMS = [np.random.default_rng(7).standard_normal(size).astype(np.float32) for size in (3_000, 12_345, 800)]


@pytest.fixture(scope="module")
def folds(trained: Callable[..., Path]) -> list[Path]:
    return [trained(data__split__fold=fold) for fold in (1, 2)]


@pytest.fixture(scope="module")
def bundle(folds: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "both"
    write_bundle(folder, [member for run in folds for member in open_members(run)])
    return folder


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model__params__speech_encoder": "random:tiny-base", "model__params__pooling": "mean"},
        {"model__params__freeze_speech_encoder": True, "model__params__layers": "last"},
    ],
)
def test_a_bundle_says_bit_for_bit_what_the_run_says(
    trained: Callable[..., Path], tmp_path: Path, changes: dict[str, Any]
) -> None:
    run = trained(**changes)
    write_bundle(tmp_path / "b", open_members(run))
    one, other = serfit.load(run), serfit.load(tmp_path / "b")
    np.testing.assert_array_equal(one.estimate(WAVEFORMS).values, other.estimate(WAVEFORMS).values)
    assert one.about == other.about


def test_an_ensemble_in_a_bundle_keeps_what_its_members_share_once(folds: list[Path], bundle: Path) -> None:
    several = serfit.load(*folds).estimate(WAVEFORMS)
    again = serfit.load(bundle).estimate(WAVEFORMS)
    np.testing.assert_array_equal(several.values, again.values)
    np.testing.assert_array_equal(several.spread, again.spread)
    assert {path.name for path in bundle.iterdir()} == {
        DESCRIPTION,
        SHARED,
        "member-1.safetensors",
        "member-2.safetensors",
    }
    assert (bundle / SHARED).stat().st_size > 10_000  # the frozen CNN


def test_a_folder_of_runs_of_one_experiment_is_an_ensemble(
    folds: list[Path], trained: Callable[..., Path], tmp_path: Path
) -> None:
    for name, run in zip("ba", folds, strict=True):
        shutil.copytree(run, tmp_path / name)
    assert [run.name for run in runs_of_one_experiment(tmp_path)] == ["a", "b"]
    shutil.copytree(folds[0], tmp_path / "c")  # the same fold and seed once more, finished later
    os.utime(tmp_path / "c" / runs.FINISHED)
    assert [run.name for run in runs_of_one_experiment(tmp_path)] == ["a", "c"]
    (tmp_path / "other").symlink_to(trained(model__params__freeze_speech_encoder=True, model__params__layers="last"))
    with pytest.raises(UserError, match=r"they differ in model\.params\.freeze_speech_encoder, model\.params\.layers"):
        runs_of_one_experiment(tmp_path)


def test_a_precision_that_isnt_there_is_refused(bundle: Path) -> None:
    with pytest.raises(UserError, match="no precision called fp16; choose auto, fp32, bf16"):
        serfit.load(bundle, precision="fp16")  # type: ignore[arg-type]


def test_nothing_personal_travels(bundle: Path, folds: list[Path]) -> None:
    text = (bundle / DESCRIPTION).read_text()
    for private in (str(folds[0].parent), "runs_dir", '"host"', '"command"', "data.root", "/"):
        assert private not in text.replace("n/a", "").replace(" / ", ""), private


def test_the_folder_of_an_encoder_travels_by_its_name_alone(trained: Callable[..., Path], tmp_path: Path) -> None:
    build_hf("wavlm", "large").save_pretrained(tmp_path / "my-encoder")
    write_bundle(tmp_path / "bundle", open_members(trained(model__params__speech_encoder=str(tmp_path / "my-encoder"))))
    text = (tmp_path / "bundle" / DESCRIPTION).read_text()
    assert str(tmp_path) not in text
    assert "my-encoder" in text
    serfit.load(tmp_path / "bundle")


def _broken(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "broken"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda data: data.update(format=3), "bundle format 3, and this serfit reads up to 2"),
        (lambda data: data.update(members=[]), "names no members"),
        (lambda data: data["members"][0].update(about=None), "doesn't describe a serfit model"),
        (lambda data: data["members"][0]["about"].update(sample_rate=8000), "must be 16000"),
        (lambda data: data["members"][0]["about"].update(dimensions=["joy"]), r"dimensions are \['joy'\]"),
        (lambda data: data["members"][0]["about"]["scales"].update(valence=[5, 1]), "the scale of valence is 5.0 to 1"),
        (lambda data: data["members"][0].update(params={"head_hidden": "many"}), "this serfit doesn't know"),
        (lambda data: data["members"][0]["params"].update(head_hidden=17), "aren't those that were exported"),
        (lambda data: data["members"][0]["encoder"].update(model_type="bert"), "is of type bert"),
        (lambda data: data["members"][0]["encoder"].update(num_hidden_layers=10**9), "can't be built"),
        (lambda data: data["members"][0]["encoder"].update(hidden_size=10**9), "aren't those|can't be built"),
        (lambda data: data["members"][0].update(sha256="0"), "aren't those that were exported"),
        (lambda data: data["members"].reverse(), "aren't those that were exported"),
        (lambda data: data["members"].__setitem__(0, 3), "no object"),
    ],
)
def test_a_description_that_isnt_true_is_refused(bundle: Path, tmp_path: Path, change: Any, sentence: str) -> None:
    broken = _broken(bundle, tmp_path)
    data = json.loads((broken / DESCRIPTION).read_text())
    change(data)
    (broken / DESCRIPTION).write_text(json.dumps(data))
    with pytest.raises(UserError, match=sentence):
        read_bundle(broken)


def test_missing_torn_and_altered_weights_are_refused(bundle: Path, tmp_path: Path) -> None:
    broken = _broken(bundle, tmp_path)
    content = bytearray((broken / SHARED).read_bytes())
    content[-5] ^= 1
    (broken / SHARED).write_bytes(content)
    with pytest.raises(UserError, match="altered"):
        read_bundle(broken)
    (broken / SHARED).write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="safetensors"):
        read_bundle(broken)
    (broken / SHARED).unlink()
    with pytest.raises(UserError, match="can't read"):
        read_bundle(broken)
    (broken / DESCRIPTION).write_text("[" * 100_000)
    with pytest.raises(UserError, match="can't be read as the description"):
        read_bundle(broken)


def test_weights_that_were_exported_with_nan_are_named(trained: Callable[..., Path], tmp_path: Path) -> None:
    (member,) = open_members(trained())
    weights = next(member.model.head.parameters())
    weights.data.view(-1)[0] = float("nan")
    write_bundle(tmp_path / "b", [member])
    with pytest.raises(
        UserError, match=rf"weights of {tmp_path / 'b'} aren't finite: 1 of {weights.numel()} values of"
    ):
        read_bundle(tmp_path / "b")


def test_nothing_is_overwritten(bundle: Path) -> None:
    with pytest.raises(UserError, match="isn't empty"):
        write_bundle(bundle, read_bundle(bundle))


def test_what_is_no_model_is_said_so(trained: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither a run directory, a folder of runs, a bundle nor a name on the hub"):
        serfit.load(tmp_path / "nothing")
    with pytest.raises(UserError, match="holds no finished runs"):
        serfit.load(tmp_path)
    unfinished = Path(shutil.copytree(trained(), tmp_path / "a_fold1"))
    (unfinished / "FINISHED").unlink()
    with pytest.raises(UserError, match=r"isn't finished; go on with it: serfit train --resume"):
        serfit.load(unfinished)
    (unfinished / "FINISHED").touch()
    (unfinished / "best.safetensors").unlink()
    with pytest.raises(UserError, match=r"holds no best\.safetensors"):
        serfit.load(unfinished)
    with pytest.raises(UserError, match="can't be had from the hub"):
        serfit.load("nobody/nothing-of-this-name")
