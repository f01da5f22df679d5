"""A key that changes nothing is a bug: every key of the configuration is varied, and its effect looked for."""

import io
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from serfit.config.keys import schema_keys
from serfit.config.load import WITHOUT_EFFECT
from serfit.config.schema import ExperimentConfig
from serfit.runs import directory as runs
from serfit.system.log import Log
from serfit.training.experiment import run_experiment
from support import settings, small_release

RESULT: dict[str, tuple[Any, dict[str, Any]]] = {
    "experiment.seed": (2, {}),
    "data.dimensions": (["arousal"], {}),
    "data.split.fold": (2, {}),
    "data.loader.batch_size": (2, {}),
    "data.loader.bucketing": (False, {}),
    "data.loader.crop_seconds": (0.2, {}),
    "data.augmentation.gain_db": (6, {"model.params.freeze_cnn": False}),
    "data.augmentation.noise_snr_db": ([0, 10], {"model.params.freeze_cnn": False}),
    "data.augmentation.mixup_alpha": (0.5, {"model.params.freeze_cnn": False}),
    "data.augmentation.time_mask_share": (0.3, {}),
    "data.augmentation.time_mask_frames": (2, {"data.augmentation.time_mask_share": 0.3}),
    "features.dtype": ("float16", {}),
    "model.params.speech_encoder": ("random:tiny-base", {}),
    "model.params.freeze_speech_encoder": (True, {}),
    "model.params.freeze_cnn": (False, {}),
    "model.params.freeze_layers": (1, {}),
    "model.params.layers": ("last", {}),
    "model.params.pooling": ("mean", {}),
    "model.params.head_hidden": (8, {}),
    "model.params.head_dropout": (0.5, {}),
    "model.params.output": ("sigmoid", {}),
    "model.params.encoder_dropout": (0.4, {}),
    "model.params.attention_dropout": (0.4, {}),
    "train.epochs": (3, {}),
    "train.accumulation_steps": (1, {}),
    "train.grad_clip": (0.01, {}),
    "train.precision": ("bf16", {}),
    "train.stop_after": (1, {}),
    "train.early_stopping": (1, {"train.epochs": 6, "train.optimizer.lr": 0.05}),
    "train.optimizer.lr": (0.01, {}),
    "train.optimizer.encoder_lr": (0.01, {}),
    "train.optimizer.weight_decay": (0.5, {}),
    "train.schedule.warmup": (0.6, {}),
    "train.schedule.decay": ("constant", {}),
    "train.loss.mse_share": (0.5, {}),
    "train.loss.weights": ({"valence": 3}, {}),
}
"""Keys that change the result: another value, and what must be set for it to matter."""

ELSEWHERE = {
    "experiment.name": "names directories: tests/test_guide.py",
    "data.corpus": "tests/corpus/test_load.py",
    "data.name": "tests/corpus/test_load.py and tests/inference/publish/test_hub.py",
    "data.root": "every test that has a corpus",
    "data.scales": "tests/corpus/test_load.py and test_table.py",
    "data.unreadable": "tests/corpus/test_preflight.py",
    "data.split.scheme": "tests/corpus/test_folds.py",
    "data.split.folds": "tests/corpus/test_folds.py",
    "data.split.group": "tests/corpus/test_folds.py",
    "model.start_from": "tests/training/test_start.py",
    "model.start_part": "tests/training/test_start.py",
    "model.params.encoder_revision": "tests/nn/test_weights.py",
    "model.params.encoder_input": "tests/nn/encoders/test_whisper.py",
}
"""Keys whose effect another test looks for."""


def test_no_key_is_forgotten() -> None:
    leaves = {".".join(address) for address, key in schema_keys().items() if key.section is None}
    tabled = {key for key in leaves if key.startswith("data.table.")}
    known = {*RESULT, *ELSEWHERE, *WITHOUT_EFFECT, *tabled}
    assert leaves - known == set()
    assert known - leaves == set()
    assert not set(RESULT) & WITHOUT_EFFECT


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, Any]], tuple[bytes, bytes]]:
    """Run a tiny experiment with some keys set; returns its epochs and its predictions."""
    folder = tmp_path_factory.mktemp("keys")
    release = small_release(folder / "iemocap")
    seen: dict[str, tuple[bytes, bytes]] = {}
    number = itertools.count()

    def run(changes: dict[str, Any]) -> tuple[bytes, bytes]:
        name = repr(sorted(changes.items()))
        if name not in seen:
            changed = {key.replace(".", "__"): value for key, value in changes.items()}
            config = ExperimentConfig.model_validate(settings(release, folder, **changed))
            directory: Path = folder / f"run{next(number)}"
            run_experiment(config, Log(Console(file=io.StringIO())), directory=directory)
            seen[name] = ((directory / runs.METRICS).read_bytes(), (directory / runs.PREDICTIONS).read_bytes())
        return seen[name]

    return run


@pytest.mark.slow
@pytest.mark.parametrize("key", RESULT)
def test_every_key_changes_the_result(key: str, result: Callable[[dict[str, Any]], tuple[bytes, bytes]]) -> None:
    value, conditions = RESULT[key]
    assert result({**conditions, key: value}) != result(conditions)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.loader.workers", 2),
        ("features.store", None),
        ("train.checkpoint_minutes", 0),
        ("train.gradient_checkpointing", True),
    ],
)
def test_keys_that_move_memory_and_files_leave_the_bytes(
    key: str, value: Any, result: Callable[[dict[str, Any]], tuple[bytes, bytes]]
) -> None:
    assert key in WITHOUT_EFFECT
    assert result({key: value}) == result({})
