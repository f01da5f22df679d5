"""What a configuration from a file and overrides comes to."""

from pathlib import Path

import pytest
import yaml

from config.texts import CSV, SMALL
from serfit.config.load import config_differences, flatten, load_config
from serfit.config.schema import ExperimentConfig


def test_the_smallest_file_takes_every_default(load):
    assert load(SMALL) == ExperimentConfig.model_validate({"experiment": {"name": "a"}, "data": {"root": "r"}})


def test_numbers_booleans_and_text_are_what_was_meant(load):
    config = load(
        "experiment: {name: no, seed: 0007}\n"
        "data:\n  root: 1:30/2024-01-31\n"
        "train:\n  optimizer: {lr: 1e-4, encoder_lr: 5e-6}\n  gradient_checkpointing: yes\n  epochs: 5.0\n"
        "model:\n  params: {freeze_cnn: off}\n"
    )
    assert (config.experiment.name, config.experiment.seed) == ("no", 7)
    assert config.data.root == Path("1:30/2024-01-31")
    assert (config.train.optimizer.lr, config.train.optimizer.encoder_lr) == (1e-4, 5e-6)
    assert config.train.gradient_checkpointing is True
    assert config.model.params.freeze_cnn is False
    assert config.train.epochs == 5


def test_a_section_whose_keys_are_commented_out_stands_for_its_defaults(load):
    assert load(SMALL + "train:\n  # epochs: 3\n  optimizer:\n    # lr: 1\nmodel:\n") == load(SMALL)


def test_the_home_folder_is_written_out_in_every_path(load, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    config = load(SMALL, "data.root=~/corpus", "experiment.runs_dir=~/runs", "features.store=~/store")
    paths = (config.data.root, config.experiment.runs_dir, config.features.store)
    assert paths == (Path("/home/somebody/corpus"), Path("/home/somebody/runs"), Path("/home/somebody/store"))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-8"])
def test_byte_order_marks_and_windows_lines_are_no_matter(load, tmp_path, encoding):
    load(SMALL)
    (tmp_path / "y.yaml").write_bytes(SMALL.replace("\n", "\r\n").encode(encoding))
    assert load_config(tmp_path / "y.yaml") == load(SMALL)


@pytest.mark.parametrize(
    ("overrides", "key", "value"),
    [
        (["train.epochs=3"], "train.epochs", 3),
        (["train.epochs=3", "train.epochs=4"], "train.epochs", 4),
        ([" train.epochs = 3 "], "train.epochs", 3),
        (["train.optimizer.encoder_lr=5e-6"], "train.optimizer.encoder_lr", 5e-6),
        (["train.early_stopping=5", "train.early_stopping=null"], "train.early_stopping", None),
        (["features.store="], "features.store", None),
        (["data.dimensions=[valence, arousal, dominance]"], "data.dimensions", ["valence", "arousal", "dominance"]),
        (["data.dimensions=[arousal]"], "data.dimensions", ["arousal"]),
        (["train.loss.weights={valence: 2}"], "train.loss.weights", {"valence": 2.0}),
        (
            ["train.loss.weights.valence=2", "train.loss.weights.arousal=3"],
            "train.loss.weights",
            {"valence": 2.0, "arousal": 3.0},
        ),
        (["train.loss.weights.valence=2", "train.loss.weights={arousal: 3}"], "train.loss.weights", {"arousal": 3.0}),
        (["train.optimizer={lr: 1}", "train.optimizer={encoder_lr: 2}"], "train.optimizer.lr", 1.0),
        (["train.epochs=3", "train={accumulation_steps: 9}"], "train.epochs", 3),
        (["train.epochs=3", "train=null"], "train.epochs", 20),
        (["data.root=a=b"], "data.root", "a=b"),
        (["data.root=${HERE}/x"], "data.root", "here/x"),
        (["experiment.name=no"], "experiment.name", "no"),
    ],
)
def test_overrides_lie_over_the_file(load, overrides, key, value):
    config = load(SMALL + "train: {loss: {}}", *overrides, HERE="here")
    assert flatten(config)[key] == value
    assert set(config_differences(config, load(SMALL))) <= {o.split("=")[0].strip() for o in overrides} | {
        key,
        "train.optimizer.encoder_lr",
        "train.accumulation_steps",
    }


def test_a_table_can_be_given_by_overrides_alone(load):
    config = load(
        SMALL,
        "data.corpus=csv",
        "data.table.path=t.csv",
        "data.table.valence=v",
        "data.table.arousal=[a, b]",
        "data.scales.valence=[1, 5]",
        "data.scales.arousal=[-1, 1]",
    )
    assert config == load(yaml.safe_dump({**CSV, "experiment": {"name": "a"}}))
    assert (
        load(yaml.safe_dump(CSV), "data.table=null", "data.scales=null", "data.corpus=iemocap").data == load(SMALL).data
    )


def test_an_override_heals_what_the_file_has_wrong(load):
    text = (
        "experiment: {name: a}\ndata:\n  root: ${UNSET}\n  loader: {batch_size: many}\ntrain: {epochs: 3, epochs: 4}\n"
    )
    config = load(text, "data.root=r", "data.loader.batch_size=2", "train.epochs=5")
    assert (config.data.root, config.data.loader.batch_size, config.train.epochs) == (Path("r"), 2, 5)
