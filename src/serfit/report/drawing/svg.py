"""Small charts as inline SVG: plain text, the same for the same data, colours left to the page's style sheet.

Classes in use: `grid`, `axis`, `label`, `v`, `a`, `d`, `m` (valence, arousal, dominance, average), `e0` to `e5`
(experiments), `band`, `ideal`, `reference`, `l1` to `l5` (densities).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

Point = tuple[float, float]

LEVELS = 5
"""Shades of a density."""


def ticks(low: float, high: float, most: int = 7) -> list[float]:
    """Round numbers from low to high, at most `most` of them.

    >>> ticks(0.0, 1.0), ticks(1.0, 5.0)
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [1.0, 2.0, 3.0, 4.0, 5.0])
    """
    span = (high - low) or 1.0
    for power in range(math.floor(math.log10(span)) - 2, math.floor(math.log10(span)) + 2):
        for factor in (1, 2, 5):
            step = factor * 10.0**power
            first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
            if last - first < most:
                return [round(number * step, 10) for number in range(first, last + 1)]
    return [low, high]


@dataclass(slots=True)
class Chart:
    """A pair of axes and what is drawn between them; coordinates are those of the data.

    Attributes:
        title: what a screen reader says, and the heading above the axes.
        x: lowest and highest value from left to right.
        y: lowest and highest value from bottom to top.
        width: pixels in all.
        height: pixels in all.
        left: pixels for the labels of the vertical axis.
        bottom: pixels for the labels of the horizontal axis.
    """

    title: str
    x: Point
    y: Point
    width: int = 380
    height: int = 260
    left: int = 46
    bottom: int = 40
    _parts: list[str] = field(default_factory=list, init=False)

    TOP = 26
    RIGHT = 12

    def px(self, value: float) -> float:
        """Pixels from the left."""
        low, high = self.x
        return self.left + (value - low) / ((high - low) or 1.0) * (self.width - self.left - self.RIGHT)

    def py(self, value: float) -> float:
        """Pixels from the top."""
        low, high = self.y
        return (
            self.height - self.bottom - (value - low) / ((high - low) or 1.0) * (self.height - self.TOP - self.bottom)
        )

    def x_axis(self, label: str, marks: Sequence[float] | None = None, names: Sequence[str] | None = None) -> None:
        """Marks (round numbers by default) with names, and a label beneath them."""
        marks = ticks(*self.x) if marks is None else marks
        base = self.height - self.bottom
        for index, mark in enumerate(marks):
            x = self.px(mark)
            self._parts.append(_line((x, self.TOP), (x, base), "grid"))
            lines = (names[index] if names else f"{mark:g}").split("\n")
            for row, text in enumerate(lines):
                self._parts.append(_text(x, base + 14 + 12 * row, text, "label", "middle"))
        self._parts.append(_line((self.left, base), (self.width - self.RIGHT, base), "axis"))
        self._parts.append(_text((self.left + self.width - self.RIGHT) / 2, self.height - 5, label, "label", "middle"))

    def y_axis(self, label: str = "", marks: Sequence[float] | None = None, names: Sequence[str] | None = None) -> None:
        """Marks (round numbers by default) with names, and a label above them."""
        for index, mark in enumerate(ticks(*self.y) if marks is None else marks):
            y = self.py(mark)
            self._parts.append(_line((self.left, y), (self.width - self.RIGHT, y), "grid"))
            lines = (names[index] if names else f"{mark:g}").split("\n")
            for row, text in enumerate(lines):
                below = 12 * (row - (len(lines) - 1) / 2)
                self._parts.append(_text(self.left - 6, y + 4 + below, text, "label", "end"))
        if label:
            middle = (self.TOP + self.height - self.bottom) / 2
            self._parts.append(
                f'<text class="label" text-anchor="middle" transform="translate(11 {middle:.1f}) rotate(-90)">'
                f"{escape(label)}</text>"
            )

    def line(self, points: Iterable[Point], kind: str, tip: str = "") -> None:
        """A line through points; those that aren't finite leave gaps."""
        steps, pen = [], "M"
        for x, y in points:
            if math.isfinite(x) and math.isfinite(y):
                steps.append(f"{pen}{self.px(x):.1f} {self.py(y):.1f}")
                pen = "L"
            else:
                pen = "M"
        if steps:
            self._parts.append(f'<path class="line {kind}" d="{"".join(steps)}">{_tip(tip)}</path>')

    def area(self, lower: Sequence[Point], upper: Sequence[Point], kind: str, tip: str = "") -> None:
        """The area between two lines."""
        corners = " ".join(f"{self.px(x):.1f},{self.py(y):.1f}" for x, y in (*lower, *reversed(upper)))
        self._parts.append(f'<polygon class="area {kind}" points="{corners}">{_tip(tip)}</polygon>')

    def dot(self, x: float, y: float, kind: str, tip: str = "", radius: float = 3.5) -> None:
        """A dot."""
        if math.isfinite(x) and math.isfinite(y):
            circle = f'<circle class="dot {kind}" cx="{self.px(x):.1f}" cy="{self.py(y):.1f}" r="{radius:g}">'
            self._parts.append(f"{circle}{_tip(tip)}</circle>")

    def note(self, x: float, y: float, text: str, kind: str = "label", anchor: str = "start") -> None:
        """Words at a point."""
        self._parts.append(_text(self.px(x), self.py(y), text, kind, anchor))

    def density(self, counts: Sequence[Sequence[int]]) -> None:
        """Shaded cells of a grid over the whole area, counts[column][row] from the lower left; shades by rank."""
        filled = sorted(count for column in counts for count in column if count)
        borders = [filled[min(len(filled) - 1, len(filled) * level // LEVELS)] for level in range(1, LEVELS)]
        shades: list[list[str]] = [[] for _ in range(LEVELS)]
        wide = (self.width - self.left - self.RIGHT) / len(counts)
        high = (self.height - self.TOP - self.bottom) / len(counts[0])
        for column, rows in enumerate(counts):
            for row, count in enumerate(rows):
                if count:
                    x, y = self.left + column * wide, self.height - self.bottom - (row + 1) * high
                    shade = sum(count > border for border in borders)
                    shades[shade].append(f"M{x:.1f} {y:.1f}h{wide:.1f}v{high:.1f}h-{wide:.1f}z")
        for level, cells in enumerate(shades, start=1):
            if cells:
                self._parts.append(f'<path class="cells l{level}" d="{"".join(cells)}"/>')

    def __str__(self) -> str:
        size = f'viewBox="0 0 {self.width} {self.height}" width="{self.width}" height="{self.height}"'
        start = self.left if 7.9 * len(self.title) < self.width - self.left else 4
        heading = f'<text class="heading" x="{start}" y="16">{escape(self.title)}</text>'
        return f'<svg {size} role="img" aria-label="{escape(self.title)}">{heading}{"".join(self._parts)}</svg>'

    def document(self, kind: str, style: str) -> str:
        """The chart as a file of its own: of a class, with a background and a style sheet inside."""
        opening = f'<svg xmlns="http://www.w3.org/2000/svg" class="{kind}" '
        paper = f'<style>{style}</style><rect class="paper" width="{self.width}" height="{self.height}"/>'
        attributes, rest = str(self).removeprefix("<svg ").split(">", 1)
        return f"{opening}{attributes}>{paper}{rest}\n"


def _line(start: Point, end: Point, kind: str) -> str:
    return f'<line class="{kind}" x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}"/>'


def _text(x: float, y: float, text: str, kind: str, anchor: str) -> str:
    return f'<text class="{kind}" text-anchor="{anchor}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _tip(text: str) -> str:
    return f"<title>{escape(text)}</title>" if text else ""
