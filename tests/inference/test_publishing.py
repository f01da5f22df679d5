"""The examples of `serfit export --help` and `serfit calibration --help`, to the letter."""

import re
from pathlib import Path

import pytest

import serfit
from documented import type_in

RUN = "runs/ema_iemocap_finetune_fold1_seed1_20260101-120000"


def example(verb: str) -> str:
    found = re.search(r"Example: (serfit .*)", " ".join(type_in(f"serfit {verb} --help").split()))
    assert found, verb
    return re.split(r" (?:Arguments|Options):", found[1])[0]


def test_the_examples_of_the_help_work(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(published)
    assert type_in(example("export")) == "written: mine, one network\n"
    assert serfit.load("mine").predict("speech.wav").values == serfit.load(RUN).predict("speech.wav").values
    shown = type_in(example("calibration"))
    assert "fold 1, 8 test predictions" in shown
    for name in ("valence", "arousal"):
        assert len(re.findall(rf"{name} +(?:validation|test) +(?:none|affine|isotonic)", shown)) == 6
