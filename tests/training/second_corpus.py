"""A second corpus for tests that take a network from one corpus to another: other people, another scale."""

import csv
from pathlib import Path
from typing import Any

import soundfile

from serfit.labels import DIMENSIONS, LabelScale
from serfit.system import counters
from support import settings, tone

SCALE = LabelScale(-3, 3)


def write_corpus(folder: Path, speakers: int = 6, each: int = 4) -> Path:
    """A table of tones, rated from -3 to 3; returns its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "second.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "speaker", "valence", "arousal", "dominance"])
        for speaker in range(speakers):
            for turn in range(each):
                random = counters.generator("second corpus", speaker, turn)
                valence, arousal = random.uniform(size=2)
                name = f"{speaker}_{turn}.wav"
                soundfile.write(folder / name, tone(arousal, valence, random.uniform(0.2, 0.4), random), 16_000)
                ratings = (round(SCALE.from_unit(value), 4) for value in (valence, arousal, (valence + arousal) / 2))
                writer.writerow([name, f"person {speaker}", *ratings])
    return folder


def second(root: Path, folder: Path, **changes: Any) -> dict[str, Any]:
    """A tiny experiment on the corpus at `root` in three folds by speaker; changes as for `settings`."""
    own = {
        "experiment__name": "second",
        "data__corpus": "csv",
        "data__table": {"path": "second.csv", "speaker": "speaker", **{name: name for name in DIMENSIONS}},
        "data__scales": {name: [-3, 3] for name in DIMENSIONS},
        "data__split": {"scheme": "grouped_kfold", "folds": 3},
    }
    return settings(root, folder, **{**own, **changes})
