"""CCC by layer of one or several encoders, beside the hand-made baseline, as PNG and SVG fit for print."""

from typing import TYPE_CHECKING

import numpy as np

from serfit.report.answers import heading
from serfit.report.drawing.plots import DOTS_PER_INCH, plain_style, png_of, svg_of
from serfit.report.layers import Line, Probed
from serfit.scores.reference import Measure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Of the encoders, from Okabe and Ito's palette; of more they come again."""

_GREY = "#8a8a8a"


def layer_pictures(probed: Probed) -> dict[str, bytes]:
    """The picture of a probe by the ending of its file: a panel for each dimension, intervals as bars.

    Solid: mean and standard deviation over time; dashed: the mean alone. To the right what isn't a single layer. Grey:
    hand-made features.
    """
    with plain_style():
        figure = _figure(probed)
        return {".png": png_of(figure), ".svg": svg_of(figure)}


def _figure(probed: Probed) -> "Figure":
    from matplotlib.figure import Figure

    dimensions = [name for name in probed.measures if name != "average"]
    figure = Figure(figsize=(0.6 + 3.4 * len(dimensions), 3.9), dpi=DOTS_PER_INCH, layout="constrained")
    panels = figure.subplots(1, len(dimensions), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, dimensions, strict=True):
        axes.set_title(heading(name), loc="left", fontsize=10)
        axes.set_xlabel("layer")
        axes.grid(color="#e6e6e6", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        _panel(axes, probed, name)
    ends = [one.interval.low for line in probed.shown[1:] for one in line.scores.values() if one.interval]
    panels[0].set_ylim(min([0.0, *ends]) - 0.02, 1.0)
    panels[0].set_ylabel("test CCC, mean over folds, 95% CI")
    figure.suptitle(f"{probed.corpus}: ridge regression on frozen layers", fontsize=11, x=0.01, ha="left")
    handles = dict(zip(*reversed(panels[0].get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside lower left", ncols=3, frameon=False, fontsize=8)
    return figure


def _panel(axes: "Axes", probed: Probed, name: Measure) -> None:
    baseline, *lines = probed.shown
    one = baseline.scores[name]
    if one.value is not None:
        axes.axhline(one.value, color=_GREY, linestyle=":", linewidth=1.3, label=baseline.features)
    if one.interval is not None:
        axes.axhspan(one.interval.low, one.interval.high, color=_GREY, alpha=0.15, linewidth=0)
    deepest = max(line.layer or 0 for line in lines)
    whole = list(dict.fromkeys(line.features for line in lines if line.layer is None))
    for index, encoder in enumerate(dict.fromkeys(line.encoder for line in lines)):
        colour, own = COLOURS[index % len(COLOURS)], [line for line in lines if line.encoder == encoder]
        shift = 0.08 * index
        for pooling, style in (("mean", "--"), ("mean + SD", "-")):
            layers = [line for line in own if line.layer is not None and line.pooling == pooling]
            label = f"{encoder}: {pooling}"
            _points(axes, [(line.layer or 0) + shift for line in layers], layers, name, colour, style, label)
        rest = [line for line in own if line.layer is None and line.pooling != "mean"]
        _points(axes, [deepest + 2 + whole.index(line.features) + shift for line in rest], rest, name, colour, "")
    step = max(1, -(-(deepest + 1) // 9))
    marks = {layer: str(layer) for layer in range(0, deepest + 1, step)}
    marks |= {deepest + 2 + index: words for index, words in enumerate(whole)}
    axes.set_xticks(list(marks), list(marks.values()))
    for text in axes.get_xticklabels()[-len(whole) :]:
        text.set(rotation=35, ha="right", rotation_mode="anchor", fontsize=8)


def _points(
    axes: "Axes", x: list[float], lines: list[Line], name: Measure, colour: str, style: str, label: str | None = None
) -> None:
    """Scores at their places, joined by a line of a style ("" for none), with bars for intervals."""
    estimates = [line.scores[name] for line in lines]
    values = np.array([np.nan if one.value is None else one.value for one in estimates])
    thin = style == "--"
    axes.plot(
        x,
        values,
        linestyle=style or "none",
        color=colour,
        marker="o",
        markersize=3 if thin else 4.5,
        linewidth=1.0 if thin else 1.8,
        label=label,
    )
    ends = [(place, one.interval) for place, one in zip(x, estimates, strict=True) if one.interval and not thin]
    for place, interval in ends:
        axes.plot([place, place], [interval.low, interval.high], color=colour, linewidth=0.9, alpha=0.5)
