"""What the page answers to a recording: the model's windows, then figures, pictures, a table and a file of them.

Nothing here knows a browser or gradio. What can't be heard is said in one sentence of the page's language.
"""

import base64
import csv
import io
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from serfit.corpus.audio import audio_duration, read_audio
from serfit.errors import UserError
from serfit.inference.networks import Waveform
from serfit.inference.origin import Origin
from serfit.inference.page.words import LANGUAGES, Words
from serfit.inference.pictures import circumplex_picture, time_picture
from serfit.inference.recogniser import Recogniser
from serfit.inference.windows import HOP, WINDOW, Curve, joined, windows
from serfit.labels import SAMPLE_RATE, Dimension, LabelScale, letter

MEGABYTE = 1_000_000


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits and windows of the page.

    Attributes:
        minutes: longest recording.
        megabytes: largest file.
        window: seconds of speech heard at a time.
        hop: seconds from the beginning of one window to that of the next.
    """

    minutes: float = 5.0
    megabytes: float = 100.0
    window: float = WINDOW
    hop: float = HOP

    def __post_init__(self) -> None:
        for name, value in (("--minutes", self.minutes), ("--megabytes", self.megabytes)):
            if not 0.0 < value <= 10_000.0:
                raise UserError(f"{name} is {value:g} and must be above 0 and at most 10000")

    @property
    def bytes(self) -> int:
        """Largest file in bytes."""
        return int(self.megabytes * MEGABYTE)


@dataclass(frozen=True, slots=True)
class Figure:
    """One dimension of a whole recording.

    Attributes:
        kind: class of its colour: v, a, d.
        name: of the dimension.
        poles: what low and high values mean.
        value: mean over the windows, on the corpus's scale.
        scale: that scale.
        spread: mean over the windows of the networks' deviation, or "".
    """

    kind: str
    name: str
    poles: str
    value: str
    scale: str
    spread: str


def admitted(recogniser: Recogniser, path: Path, words: Words, limits: Limits) -> Waveform:
    """The samples of a recording that the page accepts.

    Args:
        recogniser: the model.
        path: the recording; its name is never used but to open it.
        words: the language of the sentences.
        limits: what is accepted.

    Raises:
        UserError: one sentence in that language: the file is gone, too large, no audio, damaged, too long or too short.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise UserError(words.gone) from error
    if size > limits.bytes:
        raise UserError(words.too_big.format(megabytes=limits.megabytes))
    try:
        seconds = audio_duration(path)
    except UserError as error:
        raise UserError(words.unreadable) from error
    if seconds > 60 * limits.minutes:
        raise UserError(words.too_long.format(minutes=seconds / 60, most=limits.minutes))
    try:
        waveform = read_audio(path)
    except UserError as error:
        raise UserError(words.damaged) from error
    if len(waveform) < recogniser.shortest * SAMPLE_RATE:
        lasts = 1000 * len(waveform) / SAMPLE_RATE
        raise UserError(words.too_short.format(milliseconds=lasts, least=1000 * recogniser.shortest))
    return waveform


def answers(recogniser: Recogniser, waveform: Waveform, words: Words, limits: Limits) -> Iterator[str]:
    """The answer to a recording as HTML: how far the model has come, again and again, and at last what it heard.

    Raises:
        UserError: the model can't hear it; one sentence in the language of the words.
    """
    seconds = len(waveform) / SAMPLE_RATE
    yield listening(0.0, seconds, words)
    pieces = []
    try:
        for piece in windows(recogniser, waveform, rate=SAMPLE_RATE, window=limits.window, hop=limits.hop):
            pieces.append(piece)
            yield listening(float(piece.ends[-1]), seconds, words)
    except UserError as error:
        raise UserError(words.failed) from error
    yield shown(joined(pieces), recogniser.scales, words, limits)


def shown(curve: Curve, scales: Mapping[Dimension, LabelScale], words: Words, limits: Limits) -> str:
    """The answer as HTML: figures, pictures, a table and the same as a file to download, all of it in the text."""
    estimates = curve.estimates
    captions = words.captions
    both = {"valence", "arousal"} <= set(estimates.dimensions)
    seconds = float(curve.ends[-1] - curve.starts[0])
    mean = words.mean if len(curve) > 1 else words.whole
    header, *rows = table(curve)
    data = base64.b64encode(as_csv([header, *rows]).encode()).decode()
    return rendered(
        "answer.html.jinja",
        words=words,
        figures=figures(curve, scales, words),
        mean=mean.format(count=len(curve), window=limits.window if len(curve) > 1 else seconds, hop=limits.hop),
        spread=estimates.spread is not None,
        through_time=Markup(time_picture(curve, scales, captions)) if len(curve) > 1 else None,
        path=Markup(circumplex_picture(curve, scales, captions)) if both else None,
        columns=[captions.start, captions.end, *(captions.names[name] for name in estimates.dimensions)],
        rows=[_row(curve, index) for index in range(len(curve))],
        download=f"data:text/csv;charset=utf-8;base64,{data}",
    )


def reading(words: Words) -> str:
    """Return HTML that shows that work has begun: a recording is decoded, or waits for its turn."""
    bar = '<div class="listening"><progress></progress><p>{}</p></div>'
    return str(Markup(bar).format(words.reading))


def listening(done: float, total: float, words: Words) -> str:
    """Return the model's progress as HTML."""
    said = words.listening.format(done=done, total=total)
    bar = '<div class="listening"><progress value="{:.1f}" max="{:.1f}"></progress><p>{}</p></div>'
    return str(Markup(bar).format(done, total, said))


def sorry(sentence: str) -> str:
    """Why there is no answer, as HTML."""
    return str(Markup('<p class="sorry" role="alert">{}</p>').format(sentence))


def networks_in(recogniser: Recogniser) -> int:
    """Count the networks by predicting the shortest silence; a file may hold several."""
    silence = np.zeros(math.ceil(recogniser.shortest * SAMPLE_RATE), dtype=np.float32)
    return sum(len(network([silence]).each) for network in recogniser.networks)


def opening(recogniser: Recogniser, count: int, words: Words, limits: Limits) -> str:
    """Return the top of the page as HTML: title, and the model with its number of networks."""
    about = [recogniser.about.name, words.one_network if count == 1 else words.networks.format(count=count)]
    about += sorted({_scale(scale, words) for scale in recogniser.scales.values()})
    if tested := _mean_ccc(recogniser, _tested):
        about.append(words.tested.format(scores=tested))
    elif expected := _mean_ccc(recogniser, _expected):
        about.append(words.expected.format(scores=expected))
    return rendered(
        "opening.html.jinja",
        words=words,
        languages=LANGUAGES,
        about=" · ".join(about),
        too_big=words.too_big.format(megabytes=limits.megabytes),
    )


def terms(words: Words, limits: Limits) -> str:
    """Return the terms under the recorder as HTML: accepted files, and privacy."""
    accepted = words.limits.format(minutes=limits.minutes, megabytes=limits.megabytes)
    return str(Markup('<p class="soft terms">{}<br>{}</p>').format(accepted, words.privacy))


def figures(curve: Curve, scales: Mapping[Dimension, LabelScale], words: Words) -> list[Figure]:
    """One per dimension: means over the windows."""
    estimates = curve.estimates
    return [
        Figure(
            kind=name[0],
            name=words.captions.names[name],
            poles=words.captions.poles[name],
            value=f"{estimates.values[:, column].mean():.2f}",
            scale=_scale(scales[name], words),
            spread="" if estimates.spread is None else f"± {estimates.spread[:, column].mean():.2f}",
        )
        for column, name in enumerate(estimates.dimensions)
    ]


def table(curve: Curve) -> list[list[str]]:
    """Header and one row per window: start, end, and per dimension value, value on [0, 1] and, where known, spread."""
    estimates = curve.estimates
    header = ["start", "end"]
    for name in estimates.dimensions:
        header += [name, f"{name}_unit", *([f"{name}_spread"] if estimates.spread is not None else [])]
    rows = []
    for index in range(len(curve)):
        row = [f"{curve.starts[index]:.3f}", f"{curve.ends[index]:.3f}"]
        for column in range(len(estimates.dimensions)):
            row += [f"{estimates.values[index, column]:.6f}", f"{estimates.unit[index, column]:.6f}"]
            if estimates.spread is not None:
                row.append(f"{estimates.spread[index, column]:.6f}")
        rows.append(row)
    return [header, *rows]


def as_csv(rows: list[list[str]]) -> str:
    """Rows as CSV with lines that end in a line feed."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _row(curve: Curve, index: int) -> list[str]:
    """Cells of the table on the page."""
    estimates = curve.estimates
    cells = [f"{curve.starts[index]:.2f}", f"{curve.ends[index]:.2f}"]
    for column in range(len(estimates.dimensions)):
        spread = "" if estimates.spread is None else f" ± {estimates.spread[index, column]:.2f}"
        cells.append(f"{estimates.values[index, column]:.2f}{spread}")
    return cells


def _scale(scale: LabelScale, words: Words) -> str:
    return words.scale.format(minimum=scale.minimum, maximum=scale.maximum)


def _mean_ccc(recogniser: Recogniser, score: Callable[[Origin, Dimension], float | None]) -> str:
    """The mean CCC of the networks per dimension, from their records; "" where one of them lacks it."""
    said = []
    for name in recogniser.dimensions:
        scores = [score(network.about.origin, name) for network in recogniser.networks]
        known = [one for one in scores if one is not None]
        if len(known) < len(scores):
            return ""
        said.append(f"{letter(name)} {sum(known) / len(known):.3f}")
    return ", ".join(said)


def _tested(origin: Origin, name: Dimension) -> float | None:
    """The CCC of a network on its own test part."""
    return None if origin.scores is None else origin.scores.test.ccc(name)


def _expected(origin: Origin, name: Dimension) -> float | None:
    """Return the cross-validated scores of a network trained on everything."""
    found = None if origin.cross_validation is None else origin.cross_validation.test_ccc.get(name)
    return None if found is None else found.mean


def rendered(template: str, **values: Any) -> str:
    """One of the page's templates, filled in."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    text = (files("serfit.inference.page") / template).read_text(encoding="utf-8")
    return environment.from_string(text).render(**values)
