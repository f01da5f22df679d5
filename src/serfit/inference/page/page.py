"""The page in one language, in gradio: a recorder above, the answer beneath."""

import threading
import traceback
from collections.abc import Iterator
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

import gradio

from serfit.errors import UserError
from serfit.inference.page.answers import Limits, admitted, answers, opening, reading, sorry, terms
from serfit.inference.page.guard import FORGOTTEN
from serfit.inference.page.words import Words
from serfit.inference.recogniser import Recogniser

SWEEP = 60
"""Seconds between two searches for recordings that nobody asked about."""

FONTS = ("system-ui", "Segoe UI", "Roboto", "Noto Sans", "DejaVu Sans", "sans-serif")
"""Fonts that the reader's machine has; gradio's own would be fetched."""


def page(recogniser: Recogniser, count: int, words: Words, limits: Limits, turn: threading.Lock) -> gradio.Blocks:
    """The page.

    Args:
        recogniser: the model.
        count: how many networks it is.
        words: the language.
        limits: what is accepted.
        turn: held while the model listens, so that several visitors share the machine piece by piece.
    """

    def hear(path: str | None) -> Iterator[tuple[object, object]]:
        if path is None:  # the recorder was emptied
            yield gradio.skip(), gradio.skip()
            return
        for html, refused in _heard(recogniser, Path(path), words, limits, turn):
            yield None if refused else gradio.skip(), html

    with gradio.Blocks(title=words.title, analytics_enabled=False, delete_cache=(SWEEP, FORGOTTEN)) as blocks:
        gradio.HTML(opening(recogniser, count, words, limits), elem_classes="serfit")
        sound = gradio.Audio(
            label=words.speech,
            sources=["upload", "microphone"],
            type="filepath",
            editable=False,
            buttons=[],
            elem_id="sound",
        )
        gradio.HTML(terms(words, limits), elem_classes="serfit")
        answer = gradio.HTML("", elem_id="answer", elem_classes="serfit")
        hearing = sound.change(hear, sound, [sound, answer], show_progress="hidden", concurrency_limit=1)
        sound.clear(lambda: "", None, answer, show_progress="hidden", cancels=hearing)
    blocks.queue(max_size=20)
    return blocks


def theme() -> gradio.themes.Base:
    """Gradio's plainest, in fonts that are there already."""
    return gradio.themes.Base(font=FONTS, font_mono=("ui-monospace", "Consolas", "monospace"))


def style() -> str:
    """The style sheet of what isn't gradio's."""
    return (files("serfit.inference.page") / "page.css").read_text(encoding="utf-8")


def _heard(
    recogniser: Recogniser, path: Path, words: Words, limits: Limits, turn: threading.Lock
) -> Iterator[tuple[str, bool]]:
    """The answer to an upload as HTML, growing, and whether it is a refusal; the file is gone once it has been read."""
    yield reading(words), False  # at once: a long recording takes seconds to decode, and others may be before it
    try:
        try:
            waveform = admitted(recogniser, path, words, limits)
        finally:
            _remove(path)
        pieces = answers(recogniser, waveform, words, limits)
        while (html := _next(pieces, turn)) is not None:
            yield html, False
    except UserError as error:
        yield sorry(str(error)), True
    except Exception:  # a mistake of ours: the visitor gets a sentence, whoever serves the page the traceback
        traceback.print_exc()
        yield sorry(words.failed), True


def _next(pieces: Iterator[str], turn: threading.Lock) -> str | None:
    """The next piece, made while nobody else's is; None after the last."""
    with turn:
        return next(pieces, None)


def _remove(path: Path) -> None:
    """Remove an upload, and the folder that gradio made for it unless something else is in it."""
    with suppress(OSError):
        path.unlink(missing_ok=True)
        path.parent.rmdir()
