"""Pictures of a curve as SVG that needs nothing beside it: over time, and as a path on the circumplex.

The circumplex (Russell 1980) lays valence from left to right and arousal from bottom to top, with the middle of both
scales at the centre.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from serfit.errors import UserError
from serfit.inference.windows import Curve
from serfit.labels import DIMENSIONS, Dimension, LabelScale
from serfit.report.drawing.svg import Chart, ticks

MOST_POINTS = 1000
"""Most points drawn of a curve; of longer ones, neighbouring windows are averaged."""

TIME_STEPS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800)
"""Seconds between two marks on the axis of time."""

MOST_MARKS = 9
SHADES = 5
"""In how many shades, from early to late, the path on the circumplex is drawn."""

_CLASSES: dict[Dimension, str] = {"valence": "v", "arousal": "a", "dominance": "d"}
_KIND = "serfit-picture"

_LIGHT = "--paper:#ffffff;--ink:#1c1e21;--soft:#5c6470;--line:#e3e6ea;--v:#0072b2;--a:#c44e00;--d:#00825f;--m:#6b4fa0"
_DARK = "--paper:#15181c;--ink:#e6e8eb;--soft:#a2abb5;--line:#30363d;--v:#5ab4ee;--a:#ff9a5c;--d:#3fcf9f;--m:#b79cf0"
_RULES = (
    ("", "height:auto;max-width:100%;font:11px system-ui,'Segoe UI',Roboto,'DejaVu Sans',sans-serif"),
    (".paper", "fill:var(--paper)"),
    (".heading", "fill:var(--ink);font-size:12.5px;font-weight:600"),
    (".label", "fill:var(--soft)"),
    (".grid", "stroke:var(--line)"),
    (".axis", "stroke:var(--soft)"),
    (".line", "fill:none;stroke-linejoin:round;stroke-linecap:round;stroke-width:1.8"),
    (".area", "opacity:.18;stroke:none"),
    (".line.ideal", "stroke:var(--soft);stroke-width:1;stroke-dasharray:2 4"),
    *((f".line.{kind}", f"stroke:var(--{kind})") for kind in "vadm"),
    *((f".area.{kind},.serfit-picture .dot.{kind}", f"fill:var(--{kind})") for kind in "vadm"),
    *((f".name.{kind}", f"fill:var(--{kind});font-weight:600") for kind in "vadm"),
    (".dot.open", "fill:var(--paper);stroke:var(--m);stroke-width:2"),
    *((f".s{shade}", f"opacity:{0.1 + 0.9 * shade / SHADES:.2f}") for shade in range(1, SHADES + 1)),
)
STYLE = (
    f".{_KIND}{{{_LIGHT}}}@media(prefers-color-scheme:dark){{.{_KIND}{{{_DARK}}}}}.dark .{_KIND}{{{_DARK}}}"
    + "".join(f".{_KIND} {part}{{{rule}}}" if part else f".{_KIND}{{{rule}}}" for part, rule in _RULES)
)
"""Style sheet of both pictures. It reaches nothing else on a page, and follows a page's class "dark" as well."""


@dataclass(frozen=True, slots=True)
class Captions:
    """The words in a picture, English where nothing else is given.

    Attributes:
        names: what to call each dimension.
        poles: what its lowest and highest values mean.
        averaged: what is drawn of very long curves; {count} windows make one point.
    """

    names: Mapping[Dimension, str] = field(default_factory=lambda: {name: name for name in DIMENSIONS})
    poles: Mapping[Dimension, str] = field(
        default_factory=lambda: {
            "valence": "unpleasant to pleasant",
            "arousal": "calm to excited",
            "dominance": "weak to strong",
        }
    )
    through_time: str = "emotion through time"
    path: str = "path"
    averaged: str = "means of {count} windows"
    time: str = "time"
    rating: str = "rating"
    unit: str = "on [0, 1]"
    start: str = "start"
    end: str = "end"
    spread: str = "spread of networks"


ENGLISH = Captions()


@dataclass(frozen=True, slots=True)
class TimePoints:
    """A curve over time as it is drawn.

    Attributes:
        centres: [P] seconds.
        values: [P, D], on the scale if all dimensions share one, else on [0, 1].
        spread: [P, D] likewise; None with one network.
        reach: lowest and highest value of the axis.
        common: whether all dimensions share a scale.
        size: windows averaged for one point.
    """

    centres: NDArray[np.float64]
    values: NDArray[np.float64]
    spread: NDArray[np.float64] | None
    reach: tuple[float, float]
    common: bool
    size: int


def points_over_time(curve: Curve, scales: Mapping[Dimension, LabelScale]) -> TimePoints:
    """The points of a curve of at least one window, at most `MOST_POINTS`."""
    names, estimates = curve.estimates.dimensions, curve.estimates
    first, *others = [scales[name] for name in names]
    common = all(other == first for other in others)
    low, high = (first.minimum, first.maximum) if common else (0.0, 1.0)
    size = group(len(curve))
    values = averaged(estimates.values if common else estimates.unit, size)
    spread = None
    if estimates.spread is not None:
        ranges = np.array([1.0 if common else scales[name].maximum - scales[name].minimum for name in names])
        spread = averaged(estimates.spread / ranges, size)
    ends = values if spread is None else np.concatenate([values - spread, values + spread])
    return TimePoints(averaged(curve.centres, size), values, spread, reach_of(low, high, ends), common, size)


def time_picture(curve: Curve, scales: Mapping[Dimension, LabelScale], captions: Captions = ENGLISH) -> str:
    """Every dimension over time, at the middle of each window, with the spread of several networks as a band.

    Args:
        curve: at least one window.
        scales: the corpus's scale of each dimension; where they differ, the axis shows [0, 1].
        captions: the words in it.
    """
    names, drawn = curve.estimates.dimensions, points_over_time(curve, scales)
    centres, values, reach, common, spread = drawn.centres, drawn.values, drawn.reach, drawn.common, drawn.spread
    title = titled(captions.through_time, captions, drawn.size)
    chart = Chart(title, _span(curve), reach, width=720, height=280)
    marks = time_marks(*chart.x)
    fitting = [clock(mark) if chart.px(mark) + 3.5 * len(clock(mark)) < chart.width else "" for mark in marks]
    chart.x_axis(captions.time, marks, fitting)
    chart.y_axis(captions.rating if common else captions.unit)
    if spread is not None:
        for column, name in enumerate(names):
            lower, upper = values[:, column] - spread[:, column], values[:, column] + spread[:, column]
            tip = f"{captions.names[name]}: {captions.spread}"
            chart.area(_points(centres, lower), _points(centres, upper), _CLASSES[name], tip)
    for column, name in enumerate(names):
        kind, called = _CLASSES[name], captions.names[name]
        chart.line(_points(centres, values[:, column]), kind, called)
        if len(centres) <= 60:
            for x, y in _points(centres, values[:, column]):
                chart.dot(x, y, kind, f"{called} {y:.2f}, {clock(x)}", 2.5)
        index = chart.x[1] - (len(names) - 1 - column) * 78 * (chart.x[1] - chart.x[0]) / (chart.width - chart.left)
        chart.note(index, reach[1] + (reach[1] - reach[0]) * 10 / 214, called, f"name {kind}", "end")
    return chart.document(_KIND, STYLE)


def circumplex_picture(curve: Curve, scales: Mapping[Dimension, LabelScale], captions: Captions = ENGLISH) -> str:
    """The path through valence (left to right) and arousal (bottom to top), from pale to strong as time goes on.

    Args:
        curve: at least one window.
        scales: the corpus's scales of valence and arousal.
        captions: the words in it.

    Raises:
        UserError: valence or arousal isn't predicted.
    """
    path, size = circumplex_path(curve)
    across, up = scales["valence"], scales["arousal"]
    chart = Chart(
        titled(captions.path, captions, size),
        with_room(reach_of(across.minimum, across.maximum, path[:, 0])),
        with_room(reach_of(up.minimum, up.maximum, path[:, 1])),
        width=380,
        height=386,
    )
    called = captions.names
    chart.x_axis(f"{called['valence']}: {captions.poles['valence']}", ticks(across.minimum, across.maximum))
    chart.y_axis(f"{called['arousal']}: {captions.poles['arousal']}", ticks(up.minimum, up.maximum))
    chart.note(
        chart.x[1],
        chart.y[1] + (chart.y[1] - chart.y[0]) * 10 / 320,
        f"○ {captions.start}   ● {captions.end}",
        "label",
        "end",
    )
    middle = (across.from_unit(0.5), up.from_unit(0.5))
    chart.line([(middle[0], chart.y[0]), (middle[0], chart.y[1])], "ideal")
    chart.line([(chart.x[0], middle[1]), (chart.x[1], middle[1])], "ideal")
    borders = [round(len(path) * part / SHADES) for part in range(SHADES + 1)]
    for shade in range(1, SHADES + 1):
        begin, end = borders[shade - 1], borders[shade]
        chart.line(_points(*path[max(0, begin - 1) : end].T), f"m s{shade}")
    centres = averaged(curve.centres, size)
    for name, index, kind in ((captions.start, 0, "m open"), (captions.end, -1, "m")):
        (x, y), moment = path[index].tolist(), clock(float(centres[index]))
        tip = f"{name}: {called['valence']} {x:.2f}, {called['arousal']} {y:.2f}, {moment}"
        chart.dot(x, y, kind, tip, 5)
    return chart.document(_KIND, STYLE)


def circumplex_path(curve: Curve) -> tuple[NDArray[np.float64], int]:
    """Points [P, 2] of valence and arousal, and how many windows make one. Raises UserError if one isn't predicted."""
    names = curve.estimates.dimensions
    if "valence" not in names or "arousal" not in names:
        raise UserError(f"the circumplex needs valence and arousal, and this model predicts {', '.join(names)}")
    size = group(len(curve))
    return averaged(curve.estimates.values[:, [names.index("valence"), names.index("arousal")]], size), size


def time_marks(low: float, high: float) -> list[float]:
    """Seconds from low to high that are round on a clock.

    >>> time_marks(0.0, 3.0), time_marks(0.0, 100.0)
    ([0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0], [0.0, 20.0, 40.0, 60.0, 80.0, 100.0])
    >>> time_marks(0.0, 3 * 3600.0)
    [0.0, 1800.0, 3600.0, 5400.0, 7200.0, 9000.0, 10800.0]
    """
    step = next((step for step in TIME_STEPS if (high - low) / step < MOST_MARKS), TIME_STEPS[-1])
    first, last = -int(-low // step), int(high // step + 1e-9)
    return [round(float(number * step), 6) for number in range(first, last + 1)]


def clock(seconds: float) -> str:
    """Seconds as people write them.

    >>> clock(0.0), clock(2.5), clock(59), clock(75), clock(10800)
    ('0 s', '2.5 s', '59 s', '1:15', '3:00:00')
    """
    if seconds < 60:
        return f"{round(seconds, 2):g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _span(curve: Curve) -> tuple[float, float]:
    return float(curve.starts[0]), float(curve.ends[-1])


def reach_of(low: float, high: float, values: NDArray[np.float64]) -> tuple[float, float]:
    """The scale, and as much more as the values need."""
    return min(low, float(values.min())), max(high, float(values.max()))


def with_room(reach: tuple[float, float]) -> tuple[float, float]:
    """A little more than a reach on both sides, so that dots at its ends don't cover the labels of the axes."""
    room = 0.03 * (reach[1] - reach[0])
    return reach[0] - room, reach[1] + room


def group(windows: int) -> int:
    """Return the number of windows per point of a picture."""
    return -(-windows // MOST_POINTS)


def titled(text: str, captions: Captions, size: int) -> str:
    """A heading that says so if a point is the mean of several windows."""
    return text if size == 1 else f"{text} ({captions.averaged.format(count=size)})"


def averaged(values: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Means of `size` neighbours each on axis 0; the last of as many as are left."""
    if size == 1:
        return values
    starts = np.arange(0, len(values), size)
    counts = np.diff([*starts, len(values)])
    sums: NDArray[np.float64] = np.add.reduceat(values, starts, axis=0)
    return sums / counts.reshape(-1, *[1] * (values.ndim - 1))


def _points(x: NDArray[np.float64], y: NDArray[np.float64]) -> list[tuple[float, float]]:
    pairs: Iterable[tuple[float, float]] = zip(x.tolist(), y.tolist(), strict=True)
    return list(pairs)
