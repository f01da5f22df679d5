"""Loading a configuration from text, and what is said about it."""

from pathlib import Path

import pytest

from serfit.config.load import load_config
from serfit.config.schema import ExperimentConfig
from serfit.errors import UserError


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Write text to x.yaml in an empty working directory and load it."""
    monkeypatch.chdir(tmp_path)

    def load(text: str, *overrides: str, **environment: str) -> ExperimentConfig:
        Path("x.yaml").write_text(text, encoding="utf-8")
        return load_config(Path("x.yaml"), overrides, environment)

    return load


@pytest.fixture
def told(load):
    """The lines of the complaint about a file and its overrides."""

    def told(text: str, *overrides: str, **environment: str) -> list[str]:
        with pytest.raises(UserError) as raised:
            load(text, *overrides, **environment)
        assert raised.value.exit_code == 2
        return str(raised.value).splitlines()

    return told
