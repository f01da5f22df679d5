"""Curves of one run as PNG files fit for print: the same records give the same bytes."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from serfit.labels import DIMENSIONS, Dimension
from serfit.scores.records import EpochRecord
from serfit.scores.reference import Measure, Reference, measure
from serfit.system.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOSS = "loss.png"
"""Training loss per epoch."""

CCC = "ccc.png"
"""CCC of training and validation per epoch."""

COLOURS: dict[Measure, str] = {
    "valence": "#0072b2",
    "arousal": "#d55e00",
    "dominance": "#009e73",
    "average": "#222222",
}
"""Okabe and Ito's palette, which colour-blind readers can tell apart."""

DOTS_PER_INCH = 300
"""As journals ask for pictures in print."""

MOST_MARKERS = 30
"""Most epochs drawn with a dot each."""

_GREY = "#8a8a8a"


def plot_curves(records: Sequence[EpochRecord], directory: Path, reference: Reference | None = None) -> None:
    """Write loss.png and ccc.png into a directory, atomically; nothing is written without records.

    Args:
        records: the epochs of a run, in order.
        directory: where the files go.
        reference: a result to draw as dashed lines; its dimensions that the run doesn't predict are left out.

    Raises:
        UserError: the directory can't be written.
    """
    if not records:
        return
    with plain_style():
        write_bytes(directory / LOSS, png_of(_loss_figure(records)))
        write_bytes(directory / CCC, png_of(_ccc_figure(records, reference)))


@contextmanager
def plain_style() -> Iterator[None]:
    """Matplotlib's own defaults for a while, whatever the user's matplotlibrc says; a dollar sign is a dollar sign."""
    from matplotlib import style

    with style.context(["default", {"text.parse_math": False}]):
        yield


def png_of(figure: "Figure") -> bytes:
    """The bytes of a PNG file, the same for the same figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    data = io.BytesIO()
    figure.savefig(data, format="png", metadata={"Software": None}, pil_kwargs={"optimize": True})
    return data.getvalue()


def svg_of(figure: "Figure") -> bytes:
    """The bytes of an SVG file whose text stays text, the same for the same figure."""
    from matplotlib import rc_context

    data = io.BytesIO()
    with rc_context({"svg.hashsalt": "serfit", "svg.fonttype": "none"}):
        figure.savefig(data, format="svg", metadata={"Date": None, "Creator": None})
    return data.getvalue()


def _figure(title: str, label: str, records: Sequence[EpochRecord]) -> tuple["Figure", "Axes"]:
    """An empty figure with one pair of axes over whole epochs."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7.0, 4.2), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    axes.set_xlim(records[0].epoch - 0.5, records[-1].epoch + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _loss_figure(records: Sequence[EpochRecord]) -> "Figure":
    figure, axes = _figure("training loss (mean over the epoch's optimisation batches)", "loss", records)
    axes.plot(
        [record.epoch for record in records],
        [record.train_loss for record in records],
        color=COLOURS["average"],
        marker="o" if len(records) <= MOST_MARKERS else None,
        markersize=3.5,
        linewidth=1.6,
        label="train",
    )
    best = _best(records)
    if best is not None:
        axes.axvline(best.epoch, color=_GREY, linestyle=":", linewidth=1.2, label=f"best epoch ({best.epoch})")
    axes.legend(frameon=False, fontsize=9)
    return figure


def _ccc_figure(records: Sequence[EpochRecord], reference: Reference | None) -> "Figure":
    best = _best(records)
    title = "CCC: validation (bold), train (thin)"
    figure, axes = _figure(title, "CCC", records)
    predicted = [name for name in DIMENSIONS if any(name in record.validation.dimensions for record in records)]
    for name in predicted:
        _curves(axes, records, name)
    if len(predicted) > 1:
        _curves(axes, records, "average")
    if best is not None and best.validation.average is not None:
        axes.axvline(best.epoch, color=_GREY, linestyle=":", linewidth=1.2, zorder=1)
        axes.plot(
            [best.epoch],
            [best.validation.average],
            linestyle="none",
            marker="*",
            markersize=13,
            color="#f0b400",
            markeredgecolor=COLOURS["average"],
            markeredgewidth=0.8,
            zorder=5,
            label=f"best epoch: {best.epoch}\nvalidation {best.validation.average:.4f}",
        )
    if reference is not None:
        _reference_lines(axes, reference, predicted)
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]), top=1.0)
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    return figure


def _curves(axes: "Axes", records: Sequence[EpochRecord], name: Measure) -> None:
    """The validation curve of a dimension (or the average), and thinner that of the training part."""
    epochs = [record.epoch for record in records]
    average = name == "average"
    values = [[_value(record, part, name) for record in records] for part in ("validation", "train")]
    (bold,) = axes.plot(epochs, values[0], color=COLOURS[name], linewidth=2.2 if average else 1.7, label=name, zorder=3)
    (thin,) = axes.plot(epochs, values[1], color=COLOURS[name], linewidth=0.9, alpha=0.45, zorder=2)
    if len(records) <= MOST_MARKERS:
        bold.set(marker="o", markersize=3.5)
        thin.set(marker="o", markersize=1.5)


def _value(record: EpochRecord, part: str, name: Measure) -> float:
    """A CCC for drawing: undefined ones leave a gap."""
    scores = record.validation if part == "validation" else record.train
    value = measure(scores, name)
    return float("nan") if value is None else value


def _reference_lines(axes: "Axes", reference: Reference, predicted: Sequence[Dimension]) -> None:
    lines: list[tuple[Measure, float]] = [(name, reference.ccc[name]) for name in predicted if name in reference.ccc]
    if set(predicted) == set(reference.ccc):
        lines.append(("average", reference.average))
    for name, value in lines:
        label = f"published result,\n{name} {value:.4f}"
        axes.axhline(value, color=COLOURS[name], linestyle="--", linewidth=1.0, alpha=0.8, zorder=1, label=label)


def _best(records: Sequence[EpochRecord]) -> EpochRecord | None:
    """The best epoch so far: the last one that was better than all before it."""
    return next((record for record in reversed(records) if record.best), None)
