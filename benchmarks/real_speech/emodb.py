"""Does the whole path learn from real speech? EMO-DB, true against permuted targets, over held-out speakers.

    uv run python benchmarks/real_speech/emodb.py PATH_TO_EMODB [--folds 1-5] [--epochs 20]
    uv run python benchmarks/real_speech/emodb.py PATH_TO_EMODB --table proxy.csv [--permuted]

The second form only writes the table that configs/emodb_proxy.yaml reads.

EMO-DB has emotion classes and no ratings: the classes are placed on the circumplex, a proxy that is good enough to see
learning and must never be quoted as accuracy. The encoder is tiny and starts from random weights. Each fold is trained
twice, on the targets and on targets permuted over all utterances; the CCC is pooled over the test parts of the folds.
"""

import argparse
import csv
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console

from serfit.config.load import load_config
from serfit.report.compare import read_run
from serfit.scores.metrics import ccc
from serfit.system import counters
from serfit.system.log import Log
from serfit.training.experiment import run_experiment

CIRCUMPLEX = {
    "anger": (-1, 1),
    "fear": (-1, 1),
    "happiness": (1, 1),
    "disgust": (-1, 0),
    "sadness": (-1, -1),
    "boredom": (-1, -1),
    "neutral": (0, 0),
}
"""Valence and arousal of each class, from -1 to 1."""

CONFIG = Path(__file__).parents[2] / "configs" / "emodb_proxy.yaml"


def write_table(corpus: Path, table: Path, permute: bool) -> None:
    """Write proxy targets for EMO-DB, or the same targets dealt to the wrong utterances."""
    with (corpus / "utterances.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    targets = [CIRCUMPLEX[row["emotion"]] for row in rows]
    if permute:
        targets = [targets[index] for index in counters.generator("permuted targets").permutation(len(targets))]
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "name", "speaker", "gender", "emotion", "valence", "arousal"])
        for row, target in zip(rows, targets, strict=True):
            audio = (corpus / row["path"]).resolve()
            writer.writerow([audio, row["name"], row["speaker"], row["gender"], row["emotion"], *target])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, help="folder with utterances.csv and the audio")
    parser.add_argument("--folds", default="1-5", help="for example 1-5 or 2-2")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--table", type=Path, help="write the proxy targets here, and train nothing")
    parser.add_argument(
        "--permuted", action="store_true", help="with --table: deal the targets to the wrong utterances"
    )
    arguments = parser.parse_args()
    if arguments.table is not None:
        write_table(arguments.corpus, arguments.table, permute=arguments.permuted)
        return
    first, last = (int(part) for part in arguments.folds.split("-"))
    pooled: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {"true": [], "permuted": []}
    with tempfile.TemporaryDirectory() as scratch:
        for kind, collected in pooled.items():
            table = Path(scratch) / f"{kind}.csv"
            write_table(arguments.corpus, table, permute=kind == "permuted")
            for fold in range(first, last + 1):
                overrides = [
                    f"experiment.name=emodb_{kind}",
                    f"experiment.runs_dir={scratch}/runs",
                    f"data.root={arguments.corpus}",
                    f"data.table.path={table}",
                    f"data.split.fold={fold}",
                    f"train.epochs={arguments.epochs}",
                ]
                run = read_run(run_experiment(load_config(CONFIG, overrides), Log(Console())))
                collected.append((run.predictions.targets, run.predictions.values))
    for kind, collected in pooled.items():
        targets, values = (np.concatenate(part) for part in zip(*collected, strict=True))
        valence, arousal = (ccc(targets[:, column], values[:, column]) for column in (0, 1))
        print(
            f"{kind:>8} targets, folds {arguments.folds}, {len(targets)} held-out utterances: "
            f"pooled CCC valence {valence:+.3f}, arousal {arousal:+.3f}"
        )


if __name__ == "__main__":
    main()
