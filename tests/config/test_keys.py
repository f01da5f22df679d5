"""The keys as the schema declares them, and the words about them."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from serfit.config.keys import allowed_words, dotted, find_key, schema_keys, unknown_key
from serfit.config.schema import ExperimentConfig, Section

KEYS = schema_keys()


def test_keys_are_the_fields_of_the_schema():
    def fields(model: type[BaseModel]) -> int:
        below = [field.annotation for field in model.model_fields.values()]
        below += [part for field in below for part in getattr(field, "__args__", ())]
        return len(model.model_fields) + sum(fields(c) for c in below if isinstance(c, type) and issubclass(c, Section))

    assert len(KEYS) == fields(ExperimentConfig)
    required = [dotted(address) for address, key in KEYS.items() if key.required and key.section is None]
    assert required == ["experiment.name", "data.root", "data.table.path"]
    assert [dotted(address) for address, key in KEYS.items() if key.section and key.nullable] == ["data.table"]


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (int, "a whole number"),
        (Annotated[int, Field(ge=1)], "a whole number of 1 or more"),
        (Annotated[float, Field(gt=0.0)] | None, "a number above 0, or null"),
        (Annotated[float, Field(ge=0.0, lt=1.0)], "a number of 0 or more and below 1"),
        (Annotated[float, Field(ge=0.0, le=1.0)], "a number of 0 or more and at most 1"),
        (bool, "true or false"),
        (Path | None, "a path, or null"),
        (str | list[str], "text or a list of texts"),
        (Literal["a", "b", "c"], "a, b or c"),
        (tuple[Literal["a", "b"], ...], "a list of a or b"),
        (tuple[float, float], "a list of 2 numbers"),
        (dict[Literal["a", "b"], tuple[float, float]], "a mapping from a or b to a list of 2 numbers"),
        (Annotated[str, Field(pattern="^x$")], "text of ^x$"),
    ],
)
def test_what_is_allowed_in_words(annotation, words):
    assert allowed_words(annotation) == words


def test_no_pattern_of_the_schema_is_shown_raw():
    assert not any("^" in key.allowed for key in KEYS.values())


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("train.epoch", "train.epochs"),
        ("trian.epochs", "train.epochs"),
        ("train.encoder_lr", "train.optimizer.encoder_lr"),
        ("batch_size", "data.loader.batch_size"),
        ("freeze_speech_encoder", "model.params.freeze_speech_encoder"),
        ("train.optimiser.lr", "train.optimizer.lr"),
        ("model.frezze_cnn", "model.params.freeze_cnn"),
        ("train.loss.weights.valense", "train.loss.weights.valence"),
        ("data.scales.arrousal", "data.scales.arousal"),
        ("modle", "model"),
    ],
)
def test_the_key_that_was_meant_is_named(wrong, meant):
    assert unknown_key(KEYS, tuple(wrong.split("."))) == f"unknown key {wrong}; did you mean {meant}?"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("zzz", "; the top level takes experiment, data, features, model, train"),
        ("train.schedule.qqq", "; train.schedule takes warmup, decay"),
        ("train.schedule.qqq.xxx", "; train.schedule takes warmup, decay"),
        ("train.epochs.zzz", "; train.epochs must be a whole number of 1 or more"),
    ],
)
def test_where_nothing_is_close_the_choices_are_told(wrong, words):
    assert unknown_key(KEYS, tuple(wrong.split("."))) == f"unknown key {wrong}{words}"


@given(address=st.sampled_from(sorted(KEYS)), data=st.data())
def test_one_letter_left_out_is_always_recognised(address, data):
    name = address[-1]
    if len(name) < 5:
        return
    at = data.draw(st.integers(1, len(name) - 2))
    wrong = (*address[:-1], name[:at] + name[at + 1 :])
    if wrong not in KEYS:
        assert unknown_key(KEYS, wrong) == f"unknown key {dotted(wrong)}; did you mean {dotted(address)}?"


def test_names_inside_mappings_are_keys_too():
    assert find_key(KEYS, ("data", "scales", "valence")).allowed == "a list of 2 numbers"
    assert find_key(KEYS, ("data", "scales", "joy")) is None
    assert find_key(KEYS, ("train", "epochs", "valence")) is None
    assert find_key(KEYS, ("train", "joy")) is None
    assert find_key(KEYS, ()) is None
