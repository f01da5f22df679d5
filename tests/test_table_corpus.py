"""A CSV corpus through the whole path: eight utterances are learnt by heart, frozen and unfrozen alike."""

import csv
import io
from pathlib import Path

import pytest
import soundfile
from rich.console import Console

from serfit import counters
from serfit.config.schema import ExperimentConfig
from serfit.experiment import run_experiment
from serfit.log import Log
from serfit.report.compare import read_run
from support import tone


def write_corpus(folder: Path) -> None:
    """Eight utterances to train on, four to validate and four to test, by three raters each; at 8 kHz in stereo."""
    parts = ["train"] * 8 + ["dev"] * 4 + ["test"] * 4
    with (folder / "ratings.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "who", "set", "v1", "v2", "v3", "activation"])
        for number, part in enumerate(parts):
            random = counters.generator("table corpus", number)
            valence, arousal = random.uniform(size=2)
            sound = tone(arousal, valence, 0.4, random)[::2]
            soundfile.write(folder / f"{number}.wav", [[sample, sample] for sample in sound], 8000)
            votes = [round(4 * valence - 2 + shift, 3) for shift in (-0.0, 0.0, 0.0)]
            writer.writerow([f"{number}.wav", f"{part}-{number % 2}", part, *votes, round(1 + 4 * arousal, 3)])


@pytest.mark.parametrize("frozen", [True, False])
def test_eight_utterances_are_learnt_by_heart(tmp_path: Path, frozen: bool) -> None:
    write_corpus(tmp_path)
    config = ExperimentConfig.model_validate(
        {
            "experiment": {"name": "csv", "runs_dir": tmp_path / "runs"},
            "data": {
                "corpus": "csv",
                "root": tmp_path,
                "table": {
                    "path": "ratings.csv",
                    "audio": "file",
                    "speaker": "who",
                    "part": "set",
                    "valence": ["v1", "v2", "v3"],
                    "arousal": "activation",
                },
                "scales": {"valence": (-2, 2), "arousal": (1, 5)},
                "split": {"scheme": "official"},
                "loader": {"batch_size": 8, "workers": 0},
            },
            "features": {"store": tmp_path / "store"},
            "model": {
                "params": {
                    "speech_encoder": "random:tiny",
                    "freeze_speech_encoder": frozen,
                    "encoder_dropout": 0.0,
                    "head_dropout": 0.0,
                }
            },
            "train": {"epochs": 60, "accumulation_steps": 1, "optimizer": {"lr": 0.01, "encoder_lr": 0.001}},
        }
    )
    run = read_run(run_experiment(config, Log(Console(file=io.StringIO()))))
    learnt = run.records[-1].train
    assert learnt.dimensions["valence"].count == 8
    for dimension in ("valence", "arousal"):
        value = learnt.ccc(dimension)
        assert value is not None
        assert value > 0.95
