"""Speech that runs were tested on, read again: what an exported file is compared on, if the audio is still there."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from serfit.config.load import load_config
from serfit.corpus.audio import read_audio
from serfit.corpus.folds import make_split
from serfit.corpus.load import load_corpus
from serfit.corpus.utterance import Utterance
from serfit.errors import UserError
from serfit.inference.networks import Waveform
from serfit.inference.recogniser import LONGEST
from serfit.inference.source import directories_of
from serfit.labels import SAMPLE_RATE
from serfit.runs.directory import CONFIG

MOST = 48
"""Utterances that are read; enough to see a typical difference, and minutes of a large encoder on a CPU."""


@dataclass(frozen=True, slots=True)
class Heldout:
    """Some of the utterances that runs were tested on.

    Attributes:
        waveforms: evenly spaced over the test sets, mono at 16 kHz.
        total: how many utterances the test sets hold.
    """

    waveforms: tuple[Waveform, ...]
    total: int


def heldout_speech(sources: Sequence[str | Path], shortest: int) -> Heldout | None:
    """Read some of the test utterances of the runs among the sources.

    Args:
        sources: as named for an export: run directories, folders of runs, bundles.
        shortest: samples below which an utterance is left out; those over 120 s are left out too.

    Returns:
        None if there are no runs, they have no test set, or their corpus can't be read here.
    """
    directories = [run for source in sources for run in directories_of(source)]
    try:
        tested = [spoken for run in directories for spoken in _tested(run)]
        chosen = [tested[index * len(tested) // MOST] for index in range(MOST)] if len(tested) > MOST else tested
        waveforms = [read_audio(spoken.path, spoken.start, spoken.end) for spoken in chosen]
    except UserError:  # the audio was moved, or never was on this machine
        return None
    usable = tuple(one for one in waveforms if shortest <= len(one) <= LONGEST * SAMPLE_RATE)
    return Heldout(usable, len(tested)) if usable else None


def _tested(run: Path) -> tuple[Utterance, ...]:
    config = load_config(run / CONFIG)
    return make_split(load_corpus(config.data), config.data.split).test
