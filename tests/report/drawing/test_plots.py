import struct
from pathlib import Path

import numpy as np
import pytest

from report.written import scores_of
from serfit.errors import UserError
from serfit.labels import DIMENSIONS, Dimension
from serfit.report.drawing.figures import Course, learning_curves
from serfit.report.drawing.plots import CCC, LOSS, plot_curves
from serfit.scores.records import EpochRecord
from serfit.scores.reference import FROZEN
from serfit.system.counters import generator


def curves(epochs: int, dimensions: tuple[Dimension, ...], shift: float = 0.0) -> list[EpochRecord]:
    noise = generator("curves", epochs).normal(0, 0.02, size=(epochs, 2, 3))
    records, best = [], -2.0
    for epoch in range(1, epochs + 1):
        level = 0.6 * (1 - np.exp(-epoch / 5)) + shift
        parts = [scores_of(**{d: level + n for d, n in zip(dimensions, row, strict=False)}) for row in noise[epoch - 1]]
        better = (parts[1].average or 0.0) > best
        best = max(best, parts[1].average or 0.0)
        records.append(EpochRecord(epoch, epoch, 1.0 / epoch, *parts, {"head": 1e-4}, 1.0, 0, better, better))
    return records


def size(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", data[16:24])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("epochs", "dimensions"), [(1, ("valence",)), (20, ("valence", "arousal")), (30, DIMENSIONS), (100, DIMENSIONS)]
)
def test_the_pictures_are_small_and_the_same_every_time(
    tmp_path: Path, epochs: int, dimensions: tuple[Dimension, ...]
) -> None:
    records = curves(epochs, dimensions)
    found = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        plot_curves(records, tmp_path / name, FROZEN)
        assert {path.name for path in (tmp_path / name).iterdir()} == {LOSS, CCC}
        found.append([(tmp_path / name / file).read_bytes() for file in (LOSS, CCC)])
    assert found[0] == found[1]
    for file in (LOSS, CCC):
        assert (tmp_path / "one" / file).stat().st_size < 300 * 1024
        assert size(tmp_path / "one" / file) == (2100, 1260)  # 7 x 4.2 inches at 300 dots each
    assert b"Software" not in found[0][0]


def test_the_pictures_show_what_they_are_given(tmp_path: Path) -> None:
    pictures = {}
    for name, records, reference in (
        ("plain", curves(8, ("valence", "arousal")), None),
        ("reference", curves(8, ("valence", "arousal")), FROZEN),
        ("higher", curves(8, ("valence", "arousal"), 0.1), None),
        ("negative", curves(8, ("valence", "arousal"), -0.5), None),
    ):
        (tmp_path / name).mkdir()
        plot_curves(records, tmp_path / name, reference)
        pictures[name] = (tmp_path / name / CCC).read_bytes()
    assert len(set(pictures.values())) == 4


def test_undefined_scores_leave_gaps_and_no_epoch_is_best(tmp_path: Path) -> None:
    undefined = scores_of(valence=None, arousal=None)
    records = [EpochRecord(epoch, epoch, 1.0, undefined, undefined, {}, 1.0, 0, False, False) for epoch in (1, 2)]
    plot_curves(records, tmp_path, FROZEN)
    assert (tmp_path / CCC).is_file()


def test_nothing_is_written_without_records(tmp_path: Path) -> None:
    plot_curves([], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_users_own_matplotlib_settings_are_neither_used_nor_changed(tmp_path: Path) -> None:
    import matplotlib

    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    plot_curves(curves(3, ("valence",)), tmp_path / "one")
    with matplotlib.rc_context({"font.size": 22.0, "axes.facecolor": "yellow", "savefig.dpi": 300}):
        plot_curves(curves(3, ("valence",)), tmp_path / "two")
        assert matplotlib.rcParams["font.size"] == 22.0
    assert (tmp_path / "one" / CCC).read_bytes() == (tmp_path / "two" / CCC).read_bytes()


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"can't write .*loss\.png"):
        plot_curves(curves(2, ("valence",)), tmp_path / "nowhere")


def test_a_lone_runs_curve_is_drawn_at_full_strength() -> None:
    """A thin line is pale, so that several don't hide their mean; alone it was hardly seen on a dark page."""
    records = curves(8, ("valence", "arousal"))
    course = Course(1, 1, records, 3, comparable=False)
    alone, two = (learning_curves("one", [course] * count, "valence") for count in (1, 2))
    assert ('class="line v thin"' in alone, 'class="line v bold"' in alone) == (False, True)
    assert ('class="line v thin"' in two, 'class="line v bold"' in two) == (True, True)
