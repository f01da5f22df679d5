"""What a model card says of limits and licences, for the corpus and the encoder that the runs recorded."""

from collections.abc import Sequence

from serfit.config.schema import UNTRAINED

SYNTHETIC = "synthetic-demo"
"""Name of the corpus of `serfit demo`."""

CORPUS_TERMS = {
    "iemocap": (
        "IEMOCAP is given out by the University of Southern California (SAIL) under its own release form. None of its "
        "audio or transcripts is in this folder. Whether weights trained on it may be passed on, and to whom, is "
        "between you and that form: read it before making this public."
    ),
    SYNTHETIC: "synthetic, drawn from a seed by serfit's demo; no licence but serfit's own bears on it.",
}

WAVLM_TERMS = (
    "Its page on the hub refers to Microsoft's licence, Creative Commons Attribution-ShareAlike 3.0 when this text was "
    "written; look there, since these weights are derived from it."
)


def limits(corpus: str, languages: Sequence[str]) -> list[str]:
    """Sentences about what the values don't mean.

    Args:
        corpus: its name.
        languages: ISO 639 codes of what is spoken in it; empty if unknown.
    """
    if corpus == SYNTHETIC:
        return [
            "The corpus is synthetic: this model has never been trained on a human voice, and its values say nothing "
            "about people.",
        ]
    spoken = f"spoken in {', '.join(languages)}" if languages else "whose language isn't recorded (data.language)"
    return [
        f"It estimates how speech sounds to the raters of {corpus}, {spoken}. It doesn't know what anybody feels.",
        "Speech unlike that corpus was not tested here: other languages, microphones, rooms and ages, singing, and "
        "acted or spontaneous speech if the corpus holds only the other.",
        "It gives a number for silence, noise and music as well. Leave out what isn't speech before asking.",
        "Very short utterances say little. Windows of a few seconds are a change of task from whole utterances.",
        "A value is on the scale of this corpus and its raters. The same number on another corpus's scale means "
        "something else. Values may lie a little beyond the scale: nothing is clipped.",
        "Don't decide about people with it: not about hiring, grading, policing, health or credit.",
    ]


def licences(encoder: str, corpus: str) -> list[str]:
    """What is known of the terms under which the encoder and the corpus are given out."""
    if encoder.startswith(UNTRAINED):
        origin = "Encoder: untrained weights drawn from a seed; nobody else's licence bears on them."
    else:
        known = WAVLM_TERMS if "wavlm" in encoder.lower() else "Its licence is on its own page; look there."
        origin = f"Encoder: {encoder}. {known}"
    unknown = "read what you agreed to when you got it before making this public. None of its audio is in this folder."
    terms = CORPUS_TERMS.get(corpus, f"{corpus} has terms of its own: {unknown}")
    return [origin, f"Corpus: {terms}", "serfit itself: Apache-2.0."]
