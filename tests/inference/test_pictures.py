"""Pictures: whole SVG files that show every dimension where it is, and nothing from elsewhere."""

import re
import struct
from dataclasses import replace
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest

from serfit.errors import UserError
from serfit.inference.pictures import MOST_POINTS, circumplex_picture, clock, points_over_time, time_marks, time_picture
from serfit.inference.png import circumplex_print, time_print
from serfit.inference.recogniser import Estimates
from serfit.inference.windows import Curve
from serfit.labels import Dimension, LabelScale

SVG = "{http://www.w3.org/2000/svg}"
BOTH: tuple[Dimension, ...] = ("valence", "arousal")
SCALES: dict[Dimension, LabelScale] = {name: LabelScale(1, 5) for name in ("valence", "arousal", "dominance")}


def made(windows: int, dimensions: tuple[Dimension, ...] = BOTH, spread: bool = False, unit: float = 0.0) -> Curve:
    random = np.random.default_rng(1)
    values = random.uniform(size=(windows, len(dimensions))) + unit
    starts = 0.5 * np.arange(windows)
    deviations = np.full(values.shape, 0.2) if spread else None
    estimates = Estimates(dimensions, values, 1 + 4 * values, deviations, np.zeros((windows, 0), dtype=np.float32))
    return Curve(starts, starts + 3.0, estimates)


def lines(picture: str, kind: str) -> list[np.ndarray]:
    """Points of every line of a kind, in pixels."""
    found = []
    for path in ElementTree.fromstring(picture).iter(f"{SVG}path"):
        if path.attrib["class"].split()[:2] == ["line", kind]:
            found.append(np.array(re.findall(r"([\d.]+) ([\d.]+)", path.attrib["d"]), dtype=float))
    return found


@pytest.mark.parametrize("windows", [1, 2, 30, 2_500])
@pytest.mark.parametrize("spread", [False, True])
def test_every_dimension_is_drawn_where_it_is(windows: int, spread: bool) -> None:
    dimensions: tuple[Dimension, ...] = ("valence", "arousal", "dominance")
    curve = made(windows, dimensions, spread)
    picture = time_picture(curve, SCALES)
    size = -(-windows // MOST_POINTS)
    low, high = points_over_time(curve, SCALES).reach
    assert (low, high) == (1.0, 5.0) if not spread else low <= 1.0 < 5.0 <= high
    for column, kind in enumerate("vad"):
        (drawn,) = lines(picture, kind)
        groups = [slice(n, n + size) for n in range(0, windows, size)]
        means = np.array([curve.estimates.values[group, column].mean() for group in groups])
        times = np.array([curve.centres[group].mean() for group in groups])
        assert len(drawn) == len(groups) <= MOST_POINTS
        right, bottom, top = 720 - 12, 280 - 40, 26
        np.testing.assert_allclose(drawn[:, 0], 46 + times / curve.ends[-1] * (right - 46), atol=0.06)
        np.testing.assert_allclose(drawn[:, 1], bottom - (means - low) / (high - low) * (bottom - top), atol=0.06)
    assert len(re.findall("<polygon", picture)) == (3 if spread else 0)
    assert ("means of" in picture) == (size > 1)


def test_the_path_runs_from_start_to_end_across_its_shades() -> None:
    curve = made(50)
    picture = circumplex_picture(curve, SCALES)
    parts = lines(picture, "m")
    assert len(parts) == 5
    for one, other in pairwise(parts):
        np.testing.assert_array_equal(one[-1], other[0])
    values = curve.estimates.values
    drawn = np.concatenate([parts[0], *(part[1:] for part in parts[1:])])
    np.testing.assert_allclose(drawn[:, 0], 46 + (values[:, 0] - 0.88) / 4.24 * (380 - 12 - 46), atol=0.06)
    np.testing.assert_allclose(drawn[:, 1], 346 - (values[:, 1] - 0.88) / 4.24 * (346 - 26), atol=0.06)
    assert f"start: valence {values[0, 0]:.2f}, arousal {values[0, 1]:.2f}" in picture


def test_values_beyond_the_scale_and_other_scales_have_room() -> None:
    beyond = made(20, unit=0.8)
    for picture, kinds in ((time_picture(beyond, SCALES), "va"), (circumplex_picture(beyond, SCALES), "m")):
        size = ElementTree.fromstring(picture).attrib
        for drawn in (line for kind in kinds for line in lines(picture, kind)):
            assert drawn.min() > 20
            assert drawn[:, 0].max() < float(size["width"])
            assert drawn[:, 1].max() < float(size["height"])
    mixed = SCALES | {"arousal": LabelScale(1, 7)}
    assert "on [0, 1]" in time_picture(made(5), mixed)
    assert "on [0, 1]" not in time_picture(made(5), SCALES)


def test_no_mark_covers_a_label() -> None:
    """Bands and dots stay within the axes, wherever the values lie; labels are outside of them."""
    corners = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    for ends in range(4):
        curve = made(4, spread=True)
        unit = np.roll(corners, ends, axis=0)
        estimates = replace(curve.estimates, unit=unit, values=1 + 4 * unit, spread=np.full((4, 2), 0.7))
        curve = replace(curve, estimates=estimates)
        for picture, right, bottom in (
            (time_picture(curve, SCALES), 720 - 12, 280 - 40),
            (circumplex_picture(curve, SCALES), 380 - 12, 386 - 40),
        ):
            for mark in ElementTree.fromstring(picture).iter():
                if mark.tag == f"{SVG}polygon":
                    points = np.array([pair.split(",") for pair in mark.attrib["points"].split()], dtype=float)
                    reach = 0.0
                elif mark.tag == f"{SVG}circle" and float(mark.attrib["r"]) == 5:
                    points = np.array([[float(mark.attrib["cx"]), float(mark.attrib["cy"])]])
                    reach = 5.0
                else:
                    continue
                assert points[:, 0].min() - reach >= 46
                assert points[:, 0].max() + reach <= right
                assert points[:, 1].min() - reach >= 26 - 0.05
                assert points[:, 1].max() + reach <= bottom + 0.05


@pytest.mark.slow
@pytest.mark.parametrize("windows", [1, 40, 2_500])
def test_prints_are_png_at_print_resolution_and_the_same_every_time(windows: int) -> None:
    curve = made(windows, spread=windows == 40)
    for draw, inches in ((time_print, (7.0, 2.8)), (circumplex_print, (4.0, 4.0))):
        data = draw(curve, SCALES)
        assert data[:8] == b"\x89PNG\r\n\x1a\n"
        assert struct.unpack(">II", data[16:24]) == tuple(round(300 * one) for one in inches)
        assert draw(curve, SCALES) == data
    with pytest.raises(UserError, match="this model predicts arousal"):
        circumplex_print(made(5, ("arousal",)), SCALES)


def test_nothing_comes_from_elsewhere_and_dark_is_provided_for() -> None:
    for picture in (time_picture(made(5), SCALES), circumplex_picture(made(5), SCALES)):
        assert re.findall(r"https?://[^\"]*", picture) == ["http://www.w3.org/2000/svg"]
        assert "prefers-color-scheme:dark" in picture
        assert "@import" not in picture
        assert "url(" not in picture
        for selector in re.findall(r"[}>]([^{}@<>]+)\{", picture):
            assert all(".serfit-picture" in part for part in selector.split(",")), selector
        root = ElementTree.fromstring(picture)
        assert root.attrib["role"] == "img"
        assert root.attrib["aria-label"]


def test_a_circumplex_needs_both() -> None:
    with pytest.raises(UserError, match="this model predicts arousal"):
        circumplex_picture(made(5, ("arousal",)), SCALES)
    assert "arousal" in time_picture(made(5, ("arousal",)), SCALES)


@pytest.mark.parametrize("seconds", [0.05, 1.0, 7.7, 60.0, 95.0, 600.0, 3_600.0, 10_800.0, 100_000.0])
def test_marks_of_time_are_few_and_inside(seconds: float) -> None:
    marks = time_marks(0.0, seconds)
    assert 2 <= len(marks) <= 10
    assert marks[0] == 0.0
    assert marks[-1] <= seconds
    assert len({clock(mark) for mark in marks}) == len(marks)
