"""Pictures of a curve as PNG at the resolution of print; `pictures` draws the same as SVG."""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from serfit.inference.pictures import (
    ENGLISH,
    SHADES,
    Captions,
    circumplex_path,
    clock,
    points_over_time,
    reach_of,
    time_marks,
    titled,
    with_room,
)
from serfit.inference.windows import Curve
from serfit.labels import Dimension, LabelScale
from serfit.report.drawing.plots import COLOURS, DOTS_PER_INCH, plain_style, png_of
from serfit.report.drawing.svg import ticks


def time_print(curve: Curve, scales: Mapping[Dimension, LabelScale], captions: Captions = ENGLISH) -> bytes:
    """Every dimension over time, as `time_picture`, as the bytes of a PNG file of 7 by 2.8 inches."""
    from matplotlib.figure import Figure

    drawn = points_over_time(curve, scales)
    with plain_style():
        figure = Figure(figsize=(7.0, 2.8), dpi=DOTS_PER_INCH, layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(titled(captions.through_time, captions, drawn.size), loc="left", fontsize=11)
        axes.set_xlabel(captions.time)
        axes.set_ylabel(captions.rating if drawn.common else captions.unit)
        axes.set_xlim(float(curve.starts[0]), float(curve.ends[-1]))
        axes.set_ylim(*drawn.reach)
        marks = time_marks(*axes.get_xlim())
        axes.set_xticks(marks, [clock(mark) for mark in marks])
        axes.set_yticks(ticks(*drawn.reach))
        axes.grid(color="#e3e6ea")
        for column, name in enumerate(curve.estimates.dimensions):
            values, colour = drawn.values[:, column], COLOURS[name]
            marker = "o" if len(values) <= 60 else None
            axes.plot(drawn.centres, values, color=colour, label=captions.names[name], marker=marker, markersize=3)
            if drawn.spread is not None:
                spread = drawn.spread[:, column]
                axes.fill_between(
                    drawn.centres, values - spread, values + spread, color=colour, alpha=0.18, linewidth=0
                )
        figure.legend(loc="outside upper right", ncols=3, frameon=False, fontsize=9)
        return png_of(figure)


def circumplex_print(curve: Curve, scales: Mapping[Dimension, LabelScale], captions: Captions = ENGLISH) -> bytes:
    """The path on the circumplex, as `circumplex_picture`, as the bytes of a PNG file of 4 by 4 inches.

    Raises:
        UserError: valence or arousal isn't predicted.
    """
    from matplotlib.figure import Figure

    path, size = circumplex_path(curve)
    across, up = scales["valence"], scales["arousal"]
    with plain_style():
        figure = Figure(figsize=(4.0, 4.0), dpi=DOTS_PER_INCH, layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(titled(captions.path, captions, size), loc="left", fontsize=11)
        axes.set_xlabel(f"{captions.names['valence']}: {captions.poles['valence']}")
        axes.set_ylabel(f"{captions.names['arousal']}: {captions.poles['arousal']}")
        axes.set_xlim(*with_room(reach_of(across.minimum, across.maximum, path[:, 0])))
        axes.set_ylim(*with_room(reach_of(up.minimum, up.maximum, path[:, 1])))
        axes.set_xticks(ticks(across.minimum, across.maximum))
        axes.set_yticks(ticks(up.minimum, up.maximum))
        axes.grid(color="#e3e6ea")
        axes.axvline(float(across.from_unit(0.5)), color="#5c6470", linewidth=0.8, linestyle=":")
        axes.axhline(float(up.from_unit(0.5)), color="#5c6470", linewidth=0.8, linestyle=":")
        borders = np.linspace(0, len(path), SHADES + 1).round().astype(int)
        for shade, (begin, end) in enumerate(pairwise(borders), start=1):
            part = path[max(0, begin - 1) : end]
            axes.plot(part[:, 0], part[:, 1], color=_PATH, alpha=0.1 + 0.9 * shade / SHADES, linewidth=1.4)
        indices = ((0, "white", captions.start), (-1, _PATH, captions.end))
        for index, fill, label in indices:
            axes.plot(*path[index], "o", markersize=7, color=fill, markeredgecolor=_PATH, label=label, clip_on=False)
        figure.legend(loc="outside upper right", ncols=2, frameon=False, fontsize=9)
        return png_of(figure)


_PATH = "#6b4fa0"
