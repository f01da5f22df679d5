"""Small corpora and configurations for tests that run the whole path."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from serfit.corpus.synthetic.release import ReleaseUtterance, write_release
from serfit.runs import directory as runs
from serfit.system import counters

PATIENCE = 1800.0
"""Seconds after which a test gives up waiting for something; no machine is so busy that it takes so long."""

FOR_EVER = 4 * PATIENCE
"""Seconds that a process would go on which a test ends before."""

RESULTS = (
    runs.METRICS,
    runs.PREDICTIONS,
    runs.VALIDATION,
    runs.CALIBRATION,
    runs.SCORES,
    runs.BEST_RESULT,
    runs.BEST_WEIGHTS,
    runs.BEST_VALENCE_WEIGHTS,
)
"""Files of a run that are the same bytes for the same seed, however the run got there."""


def eventually(true: Callable[[], object]) -> None:
    """Wait until something is true."""
    ends = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > ends:
            raise TimeoutError("it never came true")
        time.sleep(0.02)


def is_gone(process: int) -> bool:
    """Whether a process has ended, or waits only to be asked how it did."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def tone(arousal: float, valence: float, seconds: float, random: np.random.Generator) -> np.ndarray:
    """A sound whose pitch follows arousal and whose brightness follows valence; both from 0 to 1."""
    time = np.arange(int(seconds * 16_000)) / 16_000
    pitch = 120 + 400 * arousal
    sound = np.sin(2 * np.pi * pitch * time) + valence * np.sin(2 * np.pi * 6 * pitch * time)
    return (0.2 * sound + 0.01 * random.standard_normal(len(time))).astype(np.float32)


def scale(rating: float) -> int:
    """What a rater says who means this."""
    return min(5, max(1, round(rating)))


def small_release(root: Path, dialogues: int = 2, turns: int = 4, seconds: float = 0.3) -> Path:
    """An IEMOCAP release of five sessions x dialogues x turns, of tones; returns its root."""
    utterances = []
    for session in range(1, 6):
        for dialogue in range(1, dialogues + 1):
            kind = "impro" if dialogue % 2 else "script"
            for turn in range(turns):
                random = counters.generator("small release", session, dialogue, turn)
                valence, arousal = random.uniform(size=2)
                length = seconds * random.uniform(0.7, 1.3)
                name = f"Ses{session:02d}F_{kind}{dialogue:02d}_{'FM'[turn % 2]}{turn:03d}"
                ratings = [round(1 + 4 * value, 4) for value in (valence, arousal, 0.5)]
                utterances.append(
                    ReleaseUtterance(
                        name=name,
                        start=float(turn),
                        end=turn + length,
                        emotion="neu",
                        valence=ratings[0],
                        arousal=ratings[1],
                        dominance=ratings[2],
                        transcript="Hello.",
                        samples=tone(arousal, valence, length, random),
                        raters=tuple((scale(ratings[0] + by), scale(ratings[1] + by), 3) for by in (0, 0, 1)),
                    )
                )
    write_release(root, utterances)
    return root


def settings(root: Path, folder: Path, **changes: Any) -> dict[str, Any]:
    """A tiny experiment on the release at `root`, writing below `folder`; changes by dotted key with __ for a dot."""
    config: dict[str, Any] = {
        "experiment": {"name": "tiny", "runs_dir": str(folder / "runs")},
        "data": {"root": str(root), "loader": {"batch_size": 4, "workers": 0}},
        "features": {"store": str(folder / "store")},
        "model": {"params": {"speech_encoder": "random:tiny", "head_hidden": 16}},
        "train": {"epochs": 2, "accumulation_steps": 2, "optimizer": {"lr": 0.001, "encoder_lr": 0.0001}},
    }
    for key, value in changes.items():
        *sections, name = key.split("__")
        section = config
        for part in sections:
            section = section.setdefault(part, {})
        section[name] = value
    return config


def config_file(path: Path, root: Path, folder: Path, **changes: Any) -> Path:
    """The same as a YAML file."""
    path.write_text(yaml.safe_dump(settings(root, folder, **changes)))
    return path
