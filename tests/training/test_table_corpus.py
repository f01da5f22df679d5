"""A CSV corpus through the whole path: eight utterances are learnt by heart, and READMEs' file trains as it is."""

import csv
import io
import re
from pathlib import Path

import pytest
import soundfile
import yaml
from rich.console import Console

from serfit.config.load import load_config
from serfit.config.schema import ExperimentConfig
from serfit.report.compare import read_run
from serfit.system import counters
from serfit.system.log import Log
from serfit.training.experiment import run_experiment
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


@pytest.mark.slow
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


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_the_file_in_the_readme_is_whole_and_trains(tmp_path: Path, readme: str) -> None:
    text = (Path(__file__).parents[2] / readme).read_text()
    (block,) = [one for one in re.findall(r"```yaml\n(.*?)```", text, flags=re.S) if "corpus: csv" in one]
    (tmp_path / "mycorpus.yaml").write_text(block)
    table = yaml.safe_load(block)["data"]["table"]
    columns = [table["audio"], table["speaker"], *table["valence"], *table["arousal"]]
    with (tmp_path / table["path"]).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for number in range(20):
            random = counters.generator("readme corpus", number)
            valence, arousal = random.uniform(size=2)
            soundfile.write(tmp_path / f"{number}.wav", tone(arousal, valence, 0.3, random), 16_000)
            ratings = [4 * valence - 2] * len(table["valence"]) + [1 + 4 * arousal] * len(table["arousal"])
            writer.writerow([f"{number}.wav", f"s{number % 5}", *(round(rating, 3) for rating in ratings)])
    config = load_config(
        tmp_path / "mycorpus.yaml",
        [
            f"data.root={tmp_path}",
            f"experiment.runs_dir={tmp_path}/runs",
            f"features.store={tmp_path}/store",
            "model.params.speech_encoder=random:tiny",
            "train.epochs=1",
        ],
    )
    run = read_run(run_experiment(config, Log(Console(file=io.StringIO()))))
    assert run.directory.name.startswith("mycorpus_fold1")
    assert run.records
