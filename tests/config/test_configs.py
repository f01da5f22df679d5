"""The files in configs/: each loads, and says what it is meant to say."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from serfit.config.load import config_differences, flatten, load_config

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
FINETUNE = CONFIGS / "finetune.yaml"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_file_loads(path):
    assert load_config(path, environment={}).experiment.name


def test_the_recipes_have_the_names_that_commands_rely_on():
    names = {path.stem: load_config(path, environment={}).experiment.name for path in CONFIGS.glob("*.yaml")}
    assert (
        names.items()
        >= {
            "finetune": "ema_iemocap_finetune",
            "baseline": "ema_iemocap_baseline",
            "recommended": "ema_iemocap_recommended",
            "demo": "demo_unfrozen",
            "demo_frozen": "demo_frozen",
        }.items()
    )


def test_finetune_holds_the_users_recipe():
    config = flatten(load_config(FINETUNE, environment={}))
    recipe = {
        "experiment.name": "ema_iemocap_finetune",
        "data.corpus": "iemocap",
        "data.root": "data/IEMOCAP_full_release",
        "data.dimensions": ["valence", "arousal"],
        "data.split.scheme": "leave_one_session_out",
        "data.loader.batch_size": 4,
        "data.loader.crop_seconds": None,
        "model.params.speech_encoder": "microsoft/wavlm-large",
        "model.params.freeze_speech_encoder": False,
        "model.params.freeze_cnn": True,
        "model.params.freeze_layers": 0,
        "model.params.layers": "last",
        "model.params.pooling": "attention",
        "train.epochs": 20,
        "train.accumulation_steps": 2,
        "train.grad_clip": 1.0,
        "train.early_stopping": None,
        "train.optimizer.lr": 0.0001,
        "train.optimizer.encoder_lr": 0.00001,
        "train.optimizer.weight_decay": 0.0001,
        "train.loss.mse_share": 0.0,
    }
    assert {key: config[key] for key in recipe} == recipe


def test_the_users_sed_replaces_one_line_and_makes_the_full_run(tmp_path):
    text = FINETUNE.read_text(encoding="utf-8")
    assert text.count("epochs: 20") == 1
    full = tmp_path / "finetune_full.yaml"
    full.write_text(text, encoding="utf-8")
    subprocess.run(["sed", "-i", "s/epochs: 20/epochs: 50/", str(full)], check=True)
    differences = config_differences(load_config(FINETUNE, environment={}), load_config(full, environment={}))
    assert differences == {"train.epochs": (20, 50)}


def test_the_variants_in_its_comments_work_as_overrides():
    lines = re.findall(r"^#   .*:  +(\S+=.*)$", FINETUNE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(lines) == 3
    memory, stability, speed = (load_config(FINETUNE, line.split(), {}) for line in lines)
    assert (memory.data.loader.batch_size, memory.train.accumulation_steps) == (2, 4)
    assert (speed.data.loader.batch_size, speed.train.accumulation_steps) == (8, 1)
    assert (stability.train.optimizer.encoder_lr, stability.train.grad_clip) == (5e-6, 0.3)
    assert (
        memory.optimisation_batch == speed.optimisation_batch == load_config(FINETUNE, (), {}).optimisation_batch == 8
    )


def test_the_frozen_files_differ_from_the_unfrozen_in_the_freezing():
    def changed(one: str, two: str) -> set[str]:
        return set(config_differences(*(load_config(CONFIGS / f"{name}.yaml", environment={}) for name in (one, two))))

    assert changed("finetune", "baseline") == {"experiment.name", "model.params.freeze_speech_encoder"}
    assert changed("demo", "demo_frozen") - {"model.params.freeze_cnn"} == {
        "experiment.name",
        "model.params.freeze_speech_encoder",
    }


@pytest.mark.parametrize("name", ["finetune", "baseline", "recommended"])
def test_the_recipes_share_one_store_where_the_guide_looks_for_it(name):
    """`ls -lh /tmp/wavlm_cache/ | wc -l` counts what is stored."""
    assert load_config(CONFIGS / f"{name}.yaml", environment={}).features.store == Path("/tmp/wavlm_cache")


def test_recommended_is_the_recipe_of_the_facts():
    config = load_config(CONFIGS / "recommended.yaml", environment={})
    assert config.optimisation_batch == 32
    assert config.data.loader.crop_seconds == 12
    assert (config.model.params.layers, config.model.params.pooling) == ("weighted", "attentive_statistics")
    assert config.train.loss.mse_share == 0.2
    assert (config.train.schedule.warmup, config.train.schedule.decay) == (0.1, "cosine")
    assert (config.train.epochs, config.train.early_stopping, config.train.precision) == (15, 5, "auto")


@pytest.mark.parametrize("name", ["finetune", "baseline", "recommended"])
def test_the_corpus_folder_comes_from_the_environment(name):
    config = load_config(CONFIGS / f"{name}.yaml", environment={"IEMOCAP_ROOT": "/corpora/iemocap"})
    assert config.data.root == Path("/corpora/iemocap")
    assert "IEMOCAP_ROOT" not in os.environ or load_config(CONFIGS / f"{name}.yaml").data.root
