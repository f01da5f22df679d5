"""What is checked before anything expensive begins: every complaint in one message."""

import hashlib
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from serfit.audio import SAMPLE_RATE, audio_duration, read_audio
from serfit.config.schema import ExperimentConfig
from serfit.config.schema import Split as SplitSettings
from serfit.corpus.folds import Split
from serfit.corpus.utterance import Utterance
from serfit.errors import UserError, listed
from serfit.labels import Dimension

SHORTEST_SECONDS = 0.025
"""400 samples at 16 kHz: the least from which the encoders' CNN makes one frame."""

THREADS = 8
"""Files looked at at the same time; the disk or the network is what one waits for."""

DURATION_TOLERANCE = 0.5
"""Seconds by which audio may be longer or shorter than the corpus declares before it is worth a warning."""

POLARITY: tuple[tuple[Dimension, frozenset[str], frozenset[str]], ...] = (
    ("arousal", frozenset({"ang", "anger", "angry"}), frozenset({"sad", "sadness"})),
    ("valence", frozenset({"hap", "happy", "happiness", "joy"}), frozenset({"sad", "sadness"})),
)
"""Dimension, emotions (in lower case) in which it is high, and emotions in which it is low."""

POLARITY_COUNT = 10
"""Least utterances of either emotion from which polarity is judged."""

POLARITY_ERRORS = 3.0
"""Standard errors of the difference of the means by which the wrong one must be above to be a clear inversion."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What the audio of a corpus turned out to be.

    Attributes:
        seconds: duration by utterance id, of those that can be used.
        complaints: what is wrong with the others, by utterance id.
    """

    seconds: Mapping[str, float]
    complaints: Mapping[str, str]


def check_folders(config: ExperimentConfig) -> None:
    """Raise a UserError where run directories or features couldn't be written: a file or no permission in the way."""
    for key, folder in (("experiment.runs_dir", config.experiment.runs_dir), ("features.store", config.features.store)):
        if folder is not None:
            check_folder(key, folder)


def check_folder(key: str, folder: Path) -> None:
    """Raise a UserError, naming key or option, where nothing can be written to a folder, which may not exist yet."""
    near = next(path for path in (folder.absolute(), *folder.absolute().parents) if _is_there(path))
    if not near.is_dir():
        kind = "a file" if near.exists() else "a broken link"
        raise UserError(f"{key} is {folder}, but {near} is {kind}; name a folder")
    if not os.access(near, os.W_OK | os.X_OK):
        raise UserError(f"{key} is {folder}, but {near} can't be written to; name a folder you may write to")


def _is_there(path: Path) -> bool:
    """Whether something has this name. Raises OSError where that can't be said: no permission, a name too long."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def measure_audio(utterances: Sequence[Utterance], *, decode: bool = False) -> Measured:
    """Open every utterance's audio file and measure the utterance.

    Args:
        utterances: all of them.
        decode: read the audio to its end, which also brings to light damage in its middle and samples that aren't
            finite; otherwise headers are compared with sizes.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        outcomes = list(pool.map(partial(_seconds_or_complaint, decode=decode), utterances))
    named = [(utterance.id, outcome) for utterance, outcome in zip(utterances, outcomes, strict=True)]
    return Measured(
        seconds={name: outcome for name, outcome in named if isinstance(outcome, float)},
        complaints={name: outcome for name, outcome in named if isinstance(outcome, str)},
    )


def refuse_unusable(measured: Measured) -> None:
    """Raise one UserError with everything that can't be read or is too short, if there is such a thing."""
    complaints = list(measured.complaints.values())
    if complaints:
        total = len(complaints) + len(measured.seconds)
        raise UserError(
            f"{len(complaints)} of {total} utterances can't be used:\n"
            + "\n".join(f"  {complaint}" for complaint in complaints[:20])
            + (f"\n  and {len(complaints) - 20} more" if len(complaints) > 20 else "")
            + "\nrepair or remove these files, take the utterances out of the corpus, or leave them out and have their "
            "number written into the record with data.unreadable=skip"
        )


def check_content(split: Split) -> list[str]:
    """Look for the same audio under several names: a file copied from one part to another flatters the test.

    Files are compared by their bytes; only those that are equal in size and in a sample of their content are read.

    Returns:
        Warnings about the same audio twice within a part.

    Raises:
        UserError: the same audio is in two parts.
    """
    spoken = [(part, utterance) for part, utterances in split.parts.items() for utterance in utterances]
    content = _content([utterance.path for _, utterance in spoken])
    same: dict[tuple[str, float, float | None], list[tuple[str, str]]] = defaultdict(list)
    for part, utterance in spoken:
        same[content[utterance.path], utterance.start, utterance.end].append((part, utterance.id))
    groups = [group for group in same.values() if len(group) > 1]
    across = [group for group in groups if len({part for part, _ in group}) > 1]
    if across:
        named = [" = ".join(f"{name} ({part})" for part, name in group) for group in across]
        raise UserError(
            f"the same audio is in two parts of fold {split.fold}, so the test would flatter: {listed(named)}; remove "
            "one of each from the corpus"
        )
    if not groups:
        return []
    named = [" = ".join(name for _, name in group) for group in groups]
    return [f"warning: the same audio stands {len(groups)} times under several names: {listed(named)}"]


def check_polarity(utterances: Sequence[Utterance]) -> list[str]:
    """Compare mean ratings of emotions whose order is beyond doubt, where the corpus has such classes.

    Returns:
        Warnings about means in the wrong order.

    Raises:
        UserError: an order is clearly wrong, so that the ratings must be upside down or in another column.
    """
    warnings = []
    for dimension, high, low in POLARITY:
        above, below = _ratings(utterances, dimension, high), _ratings(utterances, dimension, low)
        if min(len(above), len(below)) < POLARITY_COUNT:
            continue
        difference = float(above.mean() - below.mean())
        error = math.sqrt(above.var(ddof=1) / len(above) + below.var(ddof=1) / len(below))
        said = (
            f"the mean {dimension} of {'/'.join(sorted(high))} ({above.mean():.2f}, {len(above)} utterances) is below "
            f"that of {'/'.join(sorted(low))} ({below.mean():.2f}, {len(below)})"
        )
        if difference < -POLARITY_ERRORS * error:
            raise UserError(
                f"{said}, so {dimension} seems to be upside down or in another column; check the columns and whether "
                f"the scale of {dimension} counts downwards (then write minimum + maximum - rating into the table)"
            )
        if difference < 0.0:
            warnings.append(f"warning: {said}; is that what these ratings mean?")
    return warnings


def check_known(utterances: Sequence[Utterance], split: SplitSettings) -> list[str]:
    """A warning where nobody knows who belongs together, so that grouped folds are made of single utterances."""
    if split.scheme != "grouped_kfold" or any(getattr(spoken, split.group) is not None for spoken in utterances):
        return []
    return [
        f"warning: no utterance has a known {split.group}, so data.split.group={split.group} keeps nothing together, "
        f"and the same {split.group} may be trained and tested on, which flatters the test; name the column in "
        f"data.table.{split.group}, or choose another data.split.group"
    ]


def check_durations(utterances: Iterable[Utterance], seconds: Mapping[str, float]) -> list[str]:
    """Warnings about audio that isn't as long as the corpus says."""
    wrong = [
        f"{utterance.id} {seconds[utterance.id]:.2f} s instead of {utterance.duration:.2f} s"
        for utterance in utterances
        if utterance.duration is not None and abs(seconds[utterance.id] - utterance.duration) > DURATION_TOLERANCE
    ]
    if not wrong:
        return []
    return [f"warning: the audio of {len(wrong)} utterances isn't as long as the corpus declares: {listed(wrong)}"]


def advice(config: ExperimentConfig) -> Iterable[str]:
    """Warnings about settings that are allowed but seldom meant."""
    unseen = [name for name, weight in config.train.loss.weights.items() if weight == 0.0]
    if unseen:
        yield f"warning: train.loss.weights leaves out {listed(unseen)}; its predictions won't mean anything"


def _seconds_or_complaint(utterance: Utterance, *, decode: bool) -> float | str:
    try:
        seconds = audio_duration(utterance.path, utterance.start, utterance.end)
        if decode:
            seconds = len(read_audio(utterance.path, utterance.start, utterance.end)) / SAMPLE_RATE
    except UserError as error:
        return f"{utterance.id}: {error}"
    if seconds < SHORTEST_SECONDS:
        return f"{utterance.id}: {utterance.path} lasts {seconds:.4f} s there; at least {SHORTEST_SECONDS} s are needed"
    return seconds


def _ratings(
    utterances: Sequence[Utterance], dimension: Dimension, emotions: frozenset[str]
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array(
        [
            utterance.ratings[dimension]
            for utterance in utterances
            if dimension in utterance.ratings and (utterance.emotion or "").lower() in emotions
        ]
    )


def _content(paths: Iterable[Path]) -> dict[Path, str]:
    """A name for each file's content; equal for files that are equal byte by byte."""
    unique = list(dict.fromkeys(paths))
    with ThreadPoolExecutor(THREADS) as pool:
        samples = list(pool.map(_sample, unique))
        alike: dict[tuple[int, bytes], list[Path]] = defaultdict(list)
        for path, sample in zip(unique, samples, strict=True):
            alike[sample].append(path)
        suspects = [path for group in alike.values() if len(group) > 1 for path in group]
        digests = dict(zip(suspects, pool.map(_digest, suspects), strict=True))
    return {path: digests.get(path, f"only {path}") for path in unique}


def _sample(path: Path) -> tuple[int, bytes]:
    """Size and some bytes from the middle of a file."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(size // 2)
            return size, file.read(1024)
    except OSError as error:
        raise UserError(
            f"can't read the audio file {path}: {error.strerror or error}; check its permissions"
        ) from error


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
