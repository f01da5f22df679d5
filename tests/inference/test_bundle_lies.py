"""Bundles that lie: each loads and predicts, or gives one sentence, in bounded time and memory."""

import json
import resource
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

import serfit
from lies import FEW, VALUES, check_sentence, indices, lies
from serfit.errors import UserError
from serfit.inference.bundle import DESCRIPTION, read_bundle, write_bundle
from serfit.inference.origin import Origin
from serfit.inference.publish.hub import _card as card_of
from serfit.inference.source import open_members
from serfit.nn.encoders.wav2vec2_config import Settings
from serfit.system.records import from_plain, plain

WAVEFORMS = [np.random.default_rng(7).standard_normal(800).astype(np.float32)]


@pytest.fixture(scope="module")
def bundle(trained: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lies") / "bundle"
    write_bundle(folder, open_members(trained()))
    return folder


PARTS = ("format", "members", "about", "params", "encoder", "calibration", "sha256")
"""Where a key stands: at the top, or in a part of the first member."""


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_any_value_of_any_key_predicts_or_gives_one_sentence(part: str, bundle: Path, tmp_path: Path) -> None:
    lying = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    described = json.loads((bundle / DESCRIPTION).read_text())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for index in indices(described):
        if part == (index[2] if len(index) > 2 else index[0]):
            if "origin" in index[:-1] or (part == "encoder" and index[3:4] and index[3] not in Settings.model_fields):
                continue  # of origins below; other settings of encoders aren't read
            fitted = part == "calibration"
            for lie in lies(described, index, FEW if part in ("about", "calibration") else VALUES):
                (lying / DESCRIPTION).write_text(json.dumps(lie))
                for choice in ("affine", "isotonic")[:: 1 if len(index) < 4 else 2] if fitted else (None,):
                    try:
                        values = serfit.load(lying, calibrate=choice).estimate(WAVEFORMS).values
                        assert np.isfinite(values).all(), index
                    except UserError as error:
                        check_sentence(str(error))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 1_000_000, f"{grown} kB for a bundle of 500 kB"


def test_any_origin_gives_a_model_card_or_one_sentence(bundle: Path) -> None:
    (member,) = read_bundle(bundle)
    origin = plain(member.about.origin)
    for index in indices(origin):
        for lie in lies(origin, index, FEW):
            try:
                told = from_plain(Origin, lie, "serfit.json", "export the run again")
                card_of("mine", [bundle], [replace(member, about=replace(member.about, origin=told))], None)
            except UserError as error:
                check_sentence(str(error))


def test_no_name_is_a_tag_in_a_model_card_and_the_hub_reads_it_as_it_is(bundle: Path) -> None:
    (member,) = read_bundle(bundle)
    nasty, origin = "<img src=x onerror=alert(1)>", member.about.origin
    changed = {key: getattr(origin, key).model_copy(update={"name": nasty}) for key in ("corpus", "encoder")}
    origin = origin.model_copy(update=changed)
    text = card_of("mine", [bundle], [replace(member, about=replace(member.about, name=nasty, origin=origin))], None)
    assert "<" not in text
    front = yaml.safe_load(text.split("---\n")[1])
    assert nasty in front["tags"]
    assert front["model-index"][0]["name"] == nasty


@pytest.mark.parametrize("lie", [None, 3, [], {"run": 1}])
def test_a_description_that_is_no_object(lie: object, bundle: Path, tmp_path: Path) -> None:
    lying = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    (lying / DESCRIPTION).write_text(json.dumps(lie))
    with pytest.raises(UserError, match="can't be read as the description of a bundle"):
        serfit.load(lying)
