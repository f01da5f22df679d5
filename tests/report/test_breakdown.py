from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from report.written import SIZES, Written, part_predictions
from serfit.report.breakdown import GROUPINGS, LEAST, breakdown, duration_bin, miscalibration, predicted, worst
from serfit.report.compare import compare
from serfit.report.page import to_html
from serfit.report.tables import to_markdown
from serfit.scores.metrics import ccc
from serfit.scores.records import Predictions
from serfit.system.counters import generator

Write = Callable[..., Written]
BOTH = ("valence", "arousal")


def test_groups_hold_the_scores_of_their_utterances(write_run: Write, tmp_path: Path) -> None:
    runs = {(f, s): write_run("alpha", f, s, described=True).predictions for f in range(1, 6) for s in (1, 2)}
    (result,) = compare(tmp_path / "runs").experiments
    data = predicted(result)
    assert len(data.ids) == sum(SIZES)
    assert data.values["valence"].shape == (2, sum(SIZES))
    groups = breakdown(data)
    assert [name for name in GROUPINGS if name in {one.grouping for one in groups}] == list(GROUPINGS)
    for grouping in GROUPINGS:
        assert sum(one.count for one in groups if one.grouping == grouping) == sum(SIZES)
    (woman,) = [one for one in groups if one.group == "Ses03_F"]
    rows = np.arange(0, SIZES[2], 2)
    expected = [ccc(runs[3, s].targets[rows, 0], runs[3, s].values[rows, 0]) for s in (1, 2)]
    assert woman.count == len(rows) >= LEAST
    assert woman.ccc["valence"] == pytest.approx(np.mean(expected))  # type: ignore[arg-type]
    errors = [runs[3, s].values[rows, 1] - runs[3, s].targets[rows, 1] for s in (1, 2)]
    assert woman.rmse["arousal"] == pytest.approx(np.mean([np.sqrt((e**2).mean()) for e in errors]))
    assert woman.bias["arousal"] == pytest.approx(np.mean([e.mean() for e in errors]))


def test_small_groups_have_a_count_and_an_error_but_no_ccc(write_run: Write, tmp_path: Path) -> None:
    write_run("alpha", 1, described=True)
    groups = breakdown(predicted(compare(tmp_path / "runs").experiments[0]))
    few = [one for one in groups if one.count < LEAST]
    assert few
    assert all(one.ccc["valence"] is None and one.rmse["valence"] > 0 for one in few)


def test_durations_fall_into_bins_in_the_order_of_length(write_run: Write, tmp_path: Path) -> None:
    write_run("alpha", 5, described=True)
    data = predicted(compare(tmp_path / "runs").experiments[0])
    lengths = [0.5 + 0.5 * (index % 20) for index in range(SIZES[4])]
    assert Counter(data.described["duration"]) == Counter(duration_bin(str(length)) for length in lengths)
    names = [one.group for one in breakdown(data) if one.grouping == "duration"]
    assert names == ["under 1 s", "1 to 2 s", "2 to 4 s", "4 to 8 s", "8 to 16 s"]


def test_miscalibration_finds_shift_stretch_and_collapse(write_run: Write, tmp_path: Path) -> None:
    base = part_predictions(1, 1, BOTH, 0.5, SIZES[0])
    flat = 3 + 0.01 * generator("flat").normal(size=SIZES[0])
    values = np.stack([2.0 + 0.5 * base.targets[:, 0], flat], axis=1).round(6)
    write_run(predictions=Predictions(base.ids, BOTH, base.targets, values))
    found = miscalibration(predicted(compare(tmp_path / "runs").experiments[0]))
    assert found["valence"].slope == pytest.approx(2.0, abs=1e-3)
    assert found["valence"].spread == pytest.approx(0.5, abs=1e-3)
    assert found["valence"].bias == pytest.approx((2.0 - 0.5 * base.targets[:, 0]).mean(), abs=1e-5)
    assert not found["valence"].collapsed
    assert found["arousal"].collapsed


def test_the_worst_are_those_furthest_off_each_once(write_run: Write, tmp_path: Path) -> None:
    base = part_predictions(1, 1, BOTH, 0.1, SIZES[0])
    base.values[7, 1] += 9.0
    base.values[7, 0] -= 8.0
    base.values[3, 0] += 7.0
    write_run(predictions=base)
    data = predicted(compare(tmp_path / "runs").experiments[0])
    found = worst(data, 5)
    assert [data.ids[row] for row, _, _ in found[:2]] == ["Ses01_007", "Ses01_003"]
    assert len({row for row, _, _ in found}) == 5
    assert found[0][1:] == ("arousal", pytest.approx(base.values[7, 1] - base.targets[7, 1]))


def test_incomplete_seeds_are_left_out(write_run: Write, tmp_path: Path) -> None:
    for fold in (1, 2):
        write_run("alpha", fold, 1)
    write_run("alpha", 1, 2)
    data = predicted(compare(tmp_path / "runs").experiments[0])
    assert data.values["valence"].shape == (1, SIZES[0] + SIZES[1])


def test_dimensions_together_beside_the_ratings(write_run: Write, tmp_path: Path) -> None:
    """The mean over seeds of the correlation over all folds, in the table and on the page."""
    runs = {(f, s): write_run("alpha", f, s).predictions for f in range(1, 6) for s in (1, 2)}
    comparison = compare(tmp_path / "runs")
    (pair,) = comparison.details["alpha"].together
    both = [np.concatenate([runs[f, s].values for f in range(1, 6)]) for s in (1, 2)]
    assert pair.predicted == pytest.approx(np.mean([np.corrcoef(one.T)[0, 1] for one in both]))
    ratings = np.concatenate([runs[f, 1].targets for f in range(1, 6)])
    assert pair.rated == pytest.approx(np.corrcoef(ratings.T)[0, 1])
    cells = f"valence, arousal | {pair.predicted:.3f} | {pair.rated:.3f}"
    assert cells in to_markdown(comparison)
    assert f'<td class="n">{pair.predicted:.3f}</td>' in to_html(comparison)
