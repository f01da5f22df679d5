"""Short sounds of single utterances for a page, where their audio is at hand."""

import base64
import io
from collections.abc import Sequence

import soundfile

from serfit.config.load import load_config
from serfit.corpus.audio import read_audio
from serfit.corpus.load import load_corpus
from serfit.errors import UserError
from serfit.labels import SAMPLE_RATE
from serfit.runs.directory import CONFIG
from serfit.runs.finished import FinishedRun

SECONDS = 6.0
"""Longest clip; longer utterances are cut."""

MOST_BYTES = 200_000
"""Most bytes of sound for one experiment; clips beyond are left out."""


def clips(runs: Sequence[FinishedRun], ids: Sequence[str]) -> tuple[dict[str, str], str]:
    """Clips by utterance id as MP3 data URLs, and a sentence about what is missing ("" where nothing is).

    The corpus is read as the runs' configuration says, from where it lay when they were run.

    Args:
        runs: of one experiment.
        ids: wanted utterances, the most important first.
    """
    try:
        corpus = load_corpus(load_config(runs[0].directory / CONFIG).data)
    except UserError as error:
        return {}, f"no players: the corpus can't be read ({error})"
    known = {utterance.id: utterance for utterance in corpus.utterances}
    found: dict[str, str] = {}
    spent, left_out = 0, 0
    for name in ids:
        utterance = known.get(name)
        try:
            if utterance is None:
                raise UserError(f"{name} is not in the corpus")
            samples = read_audio(utterance.path, utterance.start, utterance.end)[: int(SECONDS * SAMPLE_RATE)]
        except UserError:
            left_out += 1
            continue
        url = f"data:audio/mpeg;base64,{base64.b64encode(_mp3(samples)).decode()}"
        if spent + len(url) > MOST_BYTES:
            left_out += 1
            continue
        found[name] = url
        spent += len(url)
    return (
        found,
        f"{left_out} of {len(ids)} utterances have no player: unreadable, or more sound than a page should hold"
        if (left_out)
        else "",
    )


def _mp3(samples: object) -> bytes:
    """MPEG-1 layer III at a low rate, which every browser plays."""
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE, format="MP3", subtype="MPEG_LAYER_III", compression_level=0.7)
    return file.getvalue()
