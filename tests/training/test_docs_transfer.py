"""What docs/transfer.md and the help of evaluate say is what happens, to the letter."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from documented import execute, type_in
from serfit.runs import directory as runs
from training.second_corpus import second, write_corpus

RUN = "runs/ema_iemocap_finetune_fold1_seed1_20260101-120000"


@pytest.fixture
def desk(trained: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with everything that the page names."""
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    Path("configs").mkdir()
    shutil.copytree(trained(), RUN)
    said = json.loads((Path(RUN) / runs.CONFIG).read_text())
    said["experiment"]["runs_dir"] = "runs"
    Path("configs/finetune.yaml").write_text(yaml.safe_dump(said))
    root = write_corpus(tmp_path / "second")
    Path("second.yaml").write_text(yaml.safe_dump(second(root, tmp_path, experiment__runs_dir="runs")))
    return tmp_path


def test_the_page(desk: Path) -> None:
    printed = execute("transfer.md", desk)
    table = printed["serfit compare runs"]
    for name in ("tiny_evaluated", "whole", "tuned", "encoder", "second"):
        assert name in table


def test_the_example_of_the_help(desk: Path) -> None:
    shown = " ".join(type_in("serfit evaluate --help").split())
    (example,) = re.findall(r"Example: (serfit .*?)(?= Arguments:| Options:)", shown)
    assert "comparison of all finished runs" in type_in(example)
