"""What is checked before anything expensive begins: every complaint in one message."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from serfit.audio import audio_duration
from serfit.config.schema import ExperimentConfig
from serfit.corpus.utterance import Utterance
from serfit.errors import UserError, listed

SHORTEST_SECONDS = 0.025
"""400 samples at 16 kHz: the least from which the encoders' CNN makes one frame."""


def check_audio(utterances: Sequence[Utterance]) -> dict[str, float]:
    """Open every utterance's audio file and measure the utterance.

    Returns:
        Seconds by utterance id.

    Raises:
        UserError: one message with everything that can't be read or is too short.
    """
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(_seconds_or_complaint, utterances))
    complaints = [outcome for outcome in outcomes if isinstance(outcome, str)]
    if complaints:
        raise UserError(
            f"{len(complaints)} of {len(utterances)} utterances can't be used:\n"
            + "\n".join(f"  {complaint}" for complaint in complaints[:20])
            + (f"\n  and {len(complaints) - 20} more" if len(complaints) > 20 else "")
            + "\nrepair or remove these files, or take the utterances out of the corpus"
        )
    return {
        utterance.id: outcome
        for utterance, outcome in zip(utterances, outcomes, strict=True)
        if isinstance(outcome, float)
    }


def _seconds_or_complaint(utterance: Utterance) -> float | str:
    try:
        seconds = audio_duration(utterance.path, utterance.start, utterance.end)
    except UserError as error:
        return f"{utterance.id}: {error}"
    if seconds < SHORTEST_SECONDS:
        return f"{utterance.id}: {utterance.path} lasts {seconds:.4f} s there; at least {SHORTEST_SECONDS} s are needed"
    return seconds


def advice(config: ExperimentConfig) -> Iterable[str]:
    """Warnings about settings that are allowed but seldom meant."""
    optimizer = config.train.optimizer
    if not config.model.params.freeze_speech_encoder and optimizer.encoder_lr > optimizer.lr:
        yield (
            f"warning: train.optimizer.encoder_lr={optimizer.encoder_lr:g} is above lr={optimizer.lr:g}; a pretrained "
            "encoder usually wants a tenth of the head's rate, and a rate made for heads can destroy it"
        )
    unseen = [name for name, weight in config.train.loss.weights.items() if weight == 0.0]
    if unseen:
        yield f"warning: train.loss.weights leaves out {listed(unseen)}; its predictions won't mean anything"
