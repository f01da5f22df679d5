"""What is checked before anything expensive begins: every complaint in one message."""

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from serfit.config.schema import ExperimentConfig, SplitSettings
from serfit.corpus.audio import audio_duration, read_audio
from serfit.corpus.copies import THREADS, Anchors, anchors_of
from serfit.corpus.level import SILENT, glance, level_doubt
from serfit.corpus.utterance import Utterance
from serfit.errors import UserError, below, counted, listed
from serfit.labels import SAMPLE_RATE, Dimension, LabelScale

SHORTEST_SECONDS = 0.025
"""Shorter audio is nothing to train on, whatever the encoder; none of them needs more for one frame."""

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
    """Measurements of the audio of a corpus.

    Attributes:
        seconds: duration by utterance id, of those that can be used.
        complaints: what is wrong with the others, by utterance id.
        doubts: what is strange about the level of some, by utterance id; judged by their first sound where
            nothing was decoded.
        anchors: by which copies are found, by utterance id; empty where nothing was decoded.
    """

    seconds: Mapping[str, float]
    complaints: Mapping[str, str]
    doubts: Mapping[str, str]
    anchors: Mapping[str, Anchors]


@dataclass(frozen=True, slots=True)
class _Heard:
    """Measurements of the audio of one utterance, see `Measured`."""

    seconds: float
    doubt: str | None = None
    anchors: Anchors | None = None


def check_learnt(config: ExperimentConfig) -> None:
    """Raise a UserError where a dimension is predicted that isn't learnt: it would choose epochs and count in means."""
    for name in config.data.dimensions:
        if config.train.loss.weights.get(name, 1.0) == 0.0:
            raise UserError(
                f"train.loss.weights.{name} is 0, so {name} would not be learnt and yet count in CCC-Avg, by which the "
                f"best epoch is chosen; leave {name} out of data.dimensions, or give it a weight above 0"
            )


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
        decode: read the audio to its end, which also brings to light damage in its middle, samples that aren't
            finite, silence and copies; otherwise headers are compared with sizes.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        outcomes = list(pool.map(partial(_heard_or_complaint, decode=decode), utterances))
    named = list(zip([utterance.id for utterance in utterances], outcomes, strict=True))
    heard = {name: outcome for name, outcome in named if isinstance(outcome, _Heard)}
    return Measured(
        seconds={name: one.seconds for name, one in heard.items()},
        complaints={name: outcome for name, outcome in named if isinstance(outcome, str)},
        doubts={name: one.doubt for name, one in heard.items() if one.doubt is not None},
        anchors={name: one.anchors for name, one in heard.items() if one.anchors is not None},
    )


def refuse_unusable(measured: Measured) -> None:
    """Raise one UserError with everything that can't be read or is too short, if there is such a thing."""
    complaints = list(measured.complaints.values())
    if complaints:
        total = len(complaints) + len(measured.seconds)
        raise UserError(
            f"{len(complaints)} of {total} utterances can't be used:\n"
            f"{below(complaints, most=20)}\nrepair or remove these files, take the utterances out of the corpus, or "
            "leave them out and have their number written into the record with data.unreadable=skip"
        )


def check_levels(utterances: Sequence[Utterance], doubts: Mapping[str, str]) -> list[str]:
    """Warnings about recordings that are silent, or whose samples are no fractions of 1.

    Args:
        utterances: those that can be used.
        doubts: what is strange about the level of some, by id.

    Raises:
        UserError: all are silent.
    """
    strange: dict[str, list[str]] = {}
    for name in (utterance.id for utterance in utterances if utterance.id in doubts):
        strange.setdefault(doubts[name], []).append(name)
    named = [
        f"{len(names)} of {len(utterances)} utterances: {doubt}: {listed(names)}" for doubt, names in strange.items()
    ]
    if utterances and sum(len(names) for doubt, names in strange.items() if doubt in SILENT) == len(utterances):
        raise UserError(f"there is no sound in any of {len(utterances)} utterances: {'; '.join(named)}")
    return [f"warning: {line}" for line in named]


def rating_lines(
    utterances: Sequence[Utterance], dimensions: Sequence[Dimension], scales: Mapping[Dimension, LabelScale]
) -> Iterator[str]:
    """Describe the targets, one line per dimension: mean, standard deviation and range, and the number of raters."""
    raters = [utterance.raters for utterance in utterances if utterance.raters is not None]
    said = ""
    if raters:
        least, most, mean = min(raters), max(raters), sum(raters) / len(raters)
        said = f", {least} to {most} raters (mean {mean:.1f})" if least < most else f", {counted(most, 'rater')} each"
    for name in dimensions:
        ratings, scale = np.array([utterance.ratings[name] for utterance in utterances]), scales[name]
        yield (
            f"{name}: mean {ratings.mean():.2f}, standard deviation {ratings.std():.2f}, from {ratings.min():g} to "
            f"{ratings.max():g} on a scale of {scale.minimum:g} to {scale.maximum:g}{said}"
        )


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
    some = counted(len(wrong), "utterance")
    return [f"warning: the audio of {some} isn't as long as the corpus declares: {listed(wrong)}"]


def _heard_or_complaint(utterance: Utterance, *, decode: bool) -> _Heard | str:
    where = (utterance.path, utterance.start, utterance.end)
    try:
        heard = _Heard(audio_duration(*where), glance(*where))
        if decode:
            samples = read_audio(*where)
            heard = _Heard(len(samples) / SAMPLE_RATE, level_doubt(samples, *where), anchors_of(samples))
    except UserError as error:
        return f"{utterance.id}: {error}"
    if heard.seconds < SHORTEST_SECONDS:
        return (
            f"{utterance.id}: {utterance.path} lasts {heard.seconds:.4f} s there; at least {SHORTEST_SECONDS} s are "
            "needed"
        )
    return heard


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
