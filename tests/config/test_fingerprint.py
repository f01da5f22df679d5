"""Flat views of a configuration, differences between two, and fingerprints."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from config.texts import CSV, SMALL, TABLE
from serfit.config.keys import dotted, schema_keys
from serfit.config.load import (
    WITHOUT_EFFECT,
    config_differences,
    flatten,
    load_config,
    plain_config,
    result_fingerprint,
)
from serfit.config.schema import ExperimentConfig


def other(value: Any) -> Any:
    """Another value that is probably allowed in the same place."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1 if isinstance(value, int) else value / 2 + 0.25
        case None:
            return 3
        case _:
            return value


CHANGED: dict[str, Any] = {
    "experiment.name": "z",
    "experiment.runs_dir": "elsewhere",
    "data.root": "elsewhere",
    "data.name": "another",
    "data.language": "en, de",
    "data.dimensions": ["valence"],
    "data.split.scheme": "official",
    "data.split.group": "session",
    "data.augmentation.noise_snr_db": [10, 20],
    "features.store": None,
    "features.dtype": "float16",
    "data.unreadable": "skip",
    "model.params.speech_encoder": "random:tiny",
    "model.start_from": "runs/mine",
    "model.start_part": "encoder",
    "model.params.encoder_revision": "v1",
    "model.params.encoder_input": "window",
    "model.params.layers": "last",
    "model.params.pooling": "mean",
    "model.params.output": "sigmoid",
    "train.precision": "fp32",
    "train.schedule.decay": "constant",
    "train.loss.weights": {"valence": 2.0},
}


def changed(config: ExperimentConfig) -> dict[str, Any]:
    """Another value for every key that a corpus of its own reader has."""
    keys = [dotted(address) for address, key in schema_keys().items() if key.section is None]
    flat = flatten(config)
    without_table = [key for key in keys if not key.startswith(("data.table", "data.scales", "data.corpus"))]
    return {key: CHANGED.get(key, other(flat[key])) for key in without_table}


def test_every_key_counts_in_the_fingerprint_but_those_without_effect(load):
    base = load(SMALL)
    for key, value in changed(base).items():
        new = load(SMALL, f"{key}={yaml.safe_dump(value, default_flow_style=True)}")
        assert config_differences(base, new) == {key: (flatten(base)[key], value)}, key
        assert (result_fingerprint(new) == result_fingerprint(base)) == (key in WITHOUT_EFFECT), key
    assert set(changed(base)) >= WITHOUT_EFFECT


def test_fingerprints_are_those_of_runs_that_older_versions_stopped():
    """The recipe's, as it was before `ADDED` had a key; a new key without its place there would restart such runs."""
    recipe = Path(__file__).resolve().parents[2] / "configs/finetune.yaml"
    assert result_fingerprint(load_config(recipe, ["data.root=/data/iemocap"])) == (
        "82f50b0c65122c29f3f7712863b8508fa96ddd76c8d0571210d79d2cdeb9fc87"
    )


def test_tables_count_in_the_fingerprint(load):
    names = set()
    for extra in (
        "",
        "data.table.speaker=s",
        "data.table.valence=w",
        "data.scales.valence=[1, 7]",
        "data.table.start=t",
    ):
        names.add(result_fingerprint(load(yaml.safe_dump(CSV), *[extra] if extra else [])))
    assert len(names) == 5
    differences = config_differences(load(SMALL), load(yaml.safe_dump(CSV)))
    assert differences["data.table.path"] == (None, "t.csv")
    assert differences["data.corpus"] == ("iemocap", "csv")
    assert "data.table" not in differences


def test_fingerprints_are_the_same_in_another_process(load, tmp_path):
    name = result_fingerprint(load(SMALL))
    code = (
        "from pathlib import Path; from serfit.config.load import *;"
        "print(result_fingerprint(load_config(Path('x.yaml'))))"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
        ).stdout.strip()
        == name
    )
    assert len(name) == 64


def test_flat_values_are_overrides_that_give_the_configuration_back(load):
    config = load(yaml.safe_dump(CSV), "train.loss.weights={valence: 2}", "data.augmentation.noise_snr_db=[5, 10]")
    flat = flatten(config)
    assert set(flat) == {dotted(address) for address, key in schema_keys().items() if key.section is None}
    overrides = [f"{key}={yaml.safe_dump(value, default_flow_style=True, width=10**6)}" for key, value in flat.items()]
    assert load(SMALL, *(text.replace("\n...", "").strip() for text in overrides)) == config


@given(
    name=st.text(
        st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\x00\ufeff\u2028\u2029\x85"),
        min_size=1,
    )
)
@settings(max_examples=50)
def test_what_a_run_writes_down_loads_as_the_same_configuration(tmp_path_factory, name):
    config = ExperimentConfig.model_validate(
        {**CSV, "data": {**CSV["data"], "table": {**TABLE["table"], "speaker": name, "audio": "${HOME}$$"}}}
    )
    path = tmp_path_factory.getbasetemp() / "config.json"
    path.write_text(json.dumps(plain_config(config), ensure_ascii=False), encoding="utf-8")
    assert load_config(path, (), {}) == config


def test_loading_needs_neither_torch_nor_numpy():
    code = "import sys, serfit.config.load; print(*{'torch', 'numpy', 'transformers'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"
