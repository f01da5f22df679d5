"""Fixtures shared by all tests. Everything is small, random and offline; nothing touches the user's caches."""

import io
import os
from collections.abc import Callable, Generator
from itertools import count
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from rich.console import Console

from extras import need, summary

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

hypothesis.settings.register_profile("patient", deadline=None)  # an example may take long on a busy machine
hypothesis.settings.load_profile("patient")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "extra(name): needs an extra of the package, and skips without it")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("extra"):
        need(*mark.args)


@pytest.hookimpl(wrapper=True, tryfirst=True)  # outermost, to come last
def pytest_terminal_summary(terminalreporter: Any) -> Generator[None]:
    yield
    for line in summary(terminalreporter.stats.get("skipped", [])):
        terminalreporter.write_line(line, yellow=True)


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from support import small_release

    return small_release(tmp_path_factory.mktemp("iemocap"))


@pytest.fixture(scope="session")
def trained(release: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function that trains a tiny run with some changed settings, once per set of them."""
    from serfit.config.schema import ExperimentConfig
    from serfit.system.log import Log
    from serfit.training.experiment import run_experiment
    from support import settings

    folder = tmp_path_factory.mktemp("trained")
    made: dict[str, Path] = {}

    def train(**changes: Any) -> Path:
        key = repr(sorted(changes.items()))
        if key not in made:
            config = ExperimentConfig.model_validate(settings(release, folder, **changes))
            made[key] = run_experiment(config, Log(Console(file=io.StringIO())))
        return made[key]

    return train


@pytest.fixture
def bf16_cpu(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A CPU that computes in bf16, where even a tiny encoder is wide enough for it."""
    from serfit.system import precision

    monkeypatch.setattr(precision, "bf16_instructions", lambda: ("amx_bf16",))
    monkeypatch.setattr(precision, "outruns_fp32", lambda: True)
    monkeypatch.setattr(precision, "NARROWEST", 1)
    return monkeypatch


@pytest.fixture
def write_run(tmp_path: Path) -> Callable[..., Any]:
    """A function that writes a finished run into tmp_path/runs, each a second later than the one before."""
    from report.written import write_run as write_run_into

    seconds = count(1)

    def write(*arguments: Any, **options: Any) -> Any:
        return write_run_into(tmp_path / "runs", next(seconds), *arguments, **options)

    return write
