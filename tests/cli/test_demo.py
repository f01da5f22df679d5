"""The demo's configurations, wherever the demo is put."""

from pathlib import Path

import pytest

from serfit.cli.demo import demo_config


@pytest.mark.parametrize("name", ["a b", "a #b", "x: y", "${HOME}", '"q', "[x", "it's", "ü 音", "null", "~b"])
def test_a_folder_may_be_called_anything(name: str, tmp_path: Path) -> None:
    config = demo_config("demo", tmp_path / name)
    paths = (config.data.root, config.features.store, config.experiment.runs_dir)
    assert paths == tuple(tmp_path / name / below for below in ("corpus", "features", "runs"))
