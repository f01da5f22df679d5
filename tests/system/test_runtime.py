"""The machine as serfit sees it, with stand-ins for GPUs."""

import os
import re
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from serfit.cli import main
from serfit.errors import UserError
from serfit.sweep.engines import inline, on_ray
from serfit.sweep.plan import Job
from serfit.sweep.slots import choose_slots
from serfit.system.runtime import choose_device, machine_lines
from support import config_file

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return monkeypatch


@pytest.mark.parametrize("visible", ["0", "3", " 1,2", "GPU-8932f937", "MIG-8932f937"])
def test_gpus_that_are_asked_for_and_not_there_are_no_reason_to_take_the_cpu(
    visible: str, no_gpu: pytest.MonkeyPatch
) -> None:
    no_gpu.setenv("CUDA_VISIBLE_DEVICES", visible)
    for choose in (
        lambda: choose_device(None),
        lambda: choose_device(0),
        lambda: choose_slots(None, None),
        lambda: choose_slots([0, 1], None),
        lambda: choose_slots(None, 5),
    ):
        with pytest.raises(UserError, match=f"CUDA_VISIBLE_DEVICES={visible} asks for GPUs.*give --cpu"):
            choose()
    assert machine_lines()[0].startswith("warning: CUDA_VISIBLE_DEVICES")


@pytest.mark.parametrize("command", ["check", "train", "cache fill", "train --gpus 0,1"])
def test_a_missing_gpu_is_refused_before_the_audio_is_read(
    command: str, release: Path, tmp_path: Path, no_gpu: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def reached(*_: object, **__: object) -> None:
        raise AssertionError("the corpus is read")

    for module in ("experiment", "material"):  # the second after all that import from it
        no_gpu.setattr(f"serfit.training.{module}.prepare", reached)
    no_gpu.setenv("CUDA_VISIBLE_DEVICES", "3")
    config = config_file(tmp_path / "tiny.yaml", release, tmp_path)
    with pytest.raises(SystemExit) as refused:
        main([*command.split(), "--config", str(config)])
    assert refused.value.code == 2
    said = capsys.readouterr().err
    assert "give --cpu to compute on the CPU" in said
    assert "leave --gpu" not in said


def test_the_demo_refuses_a_missing_gpu_before_it_writes(tmp_path: Path, no_gpu: pytest.MonkeyPatch) -> None:
    no_gpu.setenv("CUDA_VISIBLE_DEVICES", "3")
    with pytest.raises(SystemExit) as refused:
        main(["demo", "--folder", str(tmp_path / "demo")])
    assert refused.value.code == 2
    assert not (tmp_path / "demo").exists()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["inline", pytest.param("ray", marks=pytest.mark.extra("ray"))])
def test_slots_compute_on_the_cpu_whatever_gpus_there_are(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where GPU 0 is visible to all of them, every slot took it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    code = "import os, sys; open(sys.argv[-1] + '.seen', 'w').write(os.environ['CUDA_VISIBLE_DEVICES'])"
    program = (sys.executable, "-c", code)
    jobs = [Job("one", tmp_path / "c.yaml", (str(tmp_path / "one"),), tmp_path / "runs" / "one", program=program)]
    start = {"inline": inline, "ray": on_ray}[engine]
    (outcome,) = start(jobs, choose_slots(None, 1), lambda: False)
    assert outcome.fate == "finished", outcome.words
    assert (tmp_path / "one.seen").read_text() == ""


@pytest.mark.parametrize("visible", [None, "", "-1", "NoDevFiles"])
def test_no_gpu_asked_for_means_the_cpu(visible: str | None, no_gpu: pytest.MonkeyPatch) -> None:
    if visible is None:
        no_gpu.delenv("CUDA_VISIBLE_DEVICES")
    else:
        no_gpu.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert choose_device(None)[0].type == "cpu"
    assert choose_slots(None, 5).total == 5


@pytest.mark.slow
def test_training_on_the_cpu_must_be_asked_for_where_a_gpu_was(
    release: Path, tmp_path: Path, no_gpu: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(config_file(tmp_path / "tiny.yaml", release, tmp_path, train__epochs=1))
    for command in (["train", config], ["check", config], ["cv", config, "--folds", "1", "--slots", "1"]):
        no_gpu.setenv("CUDA_VISIBLE_DEVICES", "3")
        with pytest.raises(SystemExit) as refused:
            main(command)
        assert refused.value.code == 2
        assert "give --cpu to compute on the CPU" in capsys.readouterr().err
        assert not list(tmp_path.rglob("metrics.jsonl"))
    for command in (["check", config, "--cpu"], ["cv", config, "--cpu", "--folds", "1", "--slots", "1"]):
        no_gpu.setenv("CUDA_VISIBLE_DEVICES", "3")
        with pytest.raises(SystemExit) as done:
            main(command)
        assert not done.value.code
        assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    assert len(list(tmp_path.rglob("FINISHED"))) == 1


def test_every_extra_is_asked_for_by_some_sentence_of_serfit() -> None:
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    source = "".join(path.read_text() for path in (REPOSITORY / "src").rglob("*.py"))
    assert sorted(extras) == sorted(set(re.findall(r"--extra (\w+)", source)))
