import re
from collections.abc import Callable
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from report.written import Written, change_json
from report.written import write_run as write_run_into
from serfit.errors import UserError
from serfit.report.answers import group_rows, interval_rows, pair_rows
from serfit.report.compare import chosen_directories, compare
from serfit.report.drawing.svg import Chart, ticks
from serfit.report.page import MOST_DRAWN, WORST, write_report
from serfit.runs.directory import CONFIG
from support import settings, small_release

Write = Callable[..., Written]
VOID = {"meta", "link", "br", "hr", "img", "input", "line", "circle"}


class Balanced(HTMLParser):
    """Fails on tags that aren't closed in order, and gathers what is linked to."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def page(directories: Path, path: Path, **options: bool) -> str:
    return write_report(compare(chosen_directories([directories])), path, **options).read_text()


@pytest.fixture
def runs(write_run: Write, tmp_path: Path) -> Path:
    for fold in range(1, 6):
        for seed in (1, 2):
            write_run("good_one", fold, seed, noise=0.4, described=True, total=10_039)
        write_run("other", fold, noise=1.0, described=True, total=10_039, changes={"train.epochs": 50})
    return tmp_path / "runs"


def test_the_page_is_one_balanced_file_small_and_the_same_every_time(runs: Path, tmp_path: Path) -> None:
    text = page(runs, tmp_path / "a.html")
    assert page(runs, tmp_path / "b.html") == text
    parser = Balanced()
    parser.feed(text)
    assert parser.open == []
    assert parser.sources == []
    assert not re.search(r"https?://", text)
    assert len(text.encode()) < 2**20
    assert "prefers-color-scheme: dark" in text
    for chart in re.findall(r"<svg.*?</svg>", text, flags=re.S):
        ElementTree.fromstring(chart)


def test_everything_that_was_asked_for_is_there(runs: Path, tmp_path: Path) -> None:
    text = page(runs, tmp_path / "a.html")
    for wanted in (
        "good_one against other on iemocap",
        "published result 0.5896",
        "expected in epochs 1 to 5: 0.45 to 0.55",
        "fold 3, seed 2",
        "prediction = rating",
        "error by rating",
        "error by duration: valence",
        "error by speaker: arousal",
        "ratings",
        "What it cost",
        "train.epochs",
        "Worst utterances",
        "fold 1 of 5: tests on Ses01",
        "Scenario baseline",
    ):
        assert wanted in text, wanted
    assert text.count("<audio") == 0
    assert len(re.findall(r"<td>Ses0\d_\d{3}</td>", text)) == 2 * WORST


def test_valence_and_arousal_of_ratings_and_predictions_lie_side_by_side(runs: Path, tmp_path: Path) -> None:
    """Where two dimensions are predicted as one, the plane shows a line beside the cloud of the ratings."""
    together = page(runs, tmp_path / "a.html").partition("<h3>Dimensions together</h3>")[2].partition("<h3>")[0]
    planes = [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", together, flags=re.S)]
    assert [plane.attrib["aria-label"] for plane in planes] == ["ratings", "good_one", "other"]
    for plane in planes:
        assert {"valence", "arousal"} <= {element.text for element in plane.iter()}


def test_the_expected_band_belongs_to_whole_iemocap_alone(write_run: Write, tmp_path: Path) -> None:
    write_run("mine", corpus="csv", corpus_name="mine", baseline=False)
    write_run("small", 1)
    text = page(tmp_path / "runs", tmp_path / "a.html")
    assert "expected in epochs" not in text
    assert "published result 0." not in text
    assert "<h2>mine</h2>" in text


def test_a_single_experiment_a_single_fold_and_one_dimension_are_enough(write_run: Write, tmp_path: Path) -> None:
    write_run("alone", dimensions=("dominance",), baseline=False)
    text = page(tmp_path / "runs", tmp_path / "a.html")
    assert "alone: dominance" in text
    assert "Differences" not in text
    assert "Dimensions together" not in text


def test_names_are_escaped(write_run: Write, tmp_path: Path) -> None:
    written = write_run("alone", corpus_name="<script>alert(1)</script>")
    change_json(written.directory / CONFIG, lambda data: data["experiment"].update(name="<b>bold</b>"))
    text = page(tmp_path / "runs", tmp_path / "a.html")
    assert "<script>" not in text
    assert "<b>bold" not in text
    assert "&lt;b&gt;bold" in text


def test_of_many_experiments_the_best_are_drawn_and_all_are_listed(write_run: Write, tmp_path: Path) -> None:
    for number in range(MOST_DRAWN + 2):
        write_run(f"e{number}", noise=0.2 + 0.2 * number)
    text = page(tmp_path / "runs", tmp_path / "a.html")
    assert "2 experiments are left out" in text
    assert f">e{MOST_DRAWN + 1}: valence<" not in text
    assert text.count(f"<td>e{MOST_DRAWN + 1}</td>") >= 2


def test_players_appear_where_the_audio_is_at_hand_and_a_remark_where_it_is_not(tmp_path: Path) -> None:
    root = small_release(tmp_path / "release", dialogues=1, turns=3)
    ids = [path.stem for path in sorted((root / "Session1" / "sentences").rglob("*.wav"))]
    found = write_run_into(tmp_path / "made", 1).predictions
    kept = found.only([index < len(ids) for index in range(len(found.ids))])
    renamed = type(kept)(tuple(ids), kept.dimensions, kept.targets, kept.values)
    written = write_run_into(tmp_path / "runs", 1, predictions=renamed)
    change_json(written.directory / CONFIG, lambda data: data["data"].update(settings(root, tmp_path)["data"]))
    text = page(tmp_path / "runs", tmp_path / "a.html", players=True)
    assert text.count('<audio controls preload="none" src="data:audio/mpeg;base64,') == len(ids)
    assert page(tmp_path / "runs", tmp_path / "b.html", players=True) == text
    change_json(written.directory / CONFIG, lambda data: data["data"].update(root=str(tmp_path / "gone")))
    assert "no players: the corpus can&#39;t be read" in page(tmp_path / "runs", tmp_path / "c.html", players=True)


def test_nothing_to_report_is_a_sentence(write_run: Write, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no finished run to look at"):
        page(tmp_path / "empty", tmp_path / "a.html")
    with pytest.raises(UserError, match="there is no folder"):
        page(tmp_path / "nowhere", tmp_path / "a.html")
    written = write_run()
    with pytest.raises(UserError, match=r"there is no folder .* for the report"):
        write_report(compare([written.directory]), tmp_path / "missing" / "a.html")


def test_run_directories_and_folders_mix(write_run: Write, tmp_path: Path) -> None:
    first, second = write_run("one").directory, write_run("two").directory
    write_run("three", finished=False)
    assert chosen_directories([tmp_path / "runs", first]) == sorted([first, second])
    assert chosen_directories([second]) == [second]


def test_charts_leave_gaps_for_what_is_not_finite() -> None:
    chart = Chart("a & b", (0, 3), (0, 1))
    chart.line([(0, 0.5), (1, float("nan")), (2, 0.5), (3, 1)], "v")
    chart.dot(1, float("inf"), "v")
    text = str(chart)
    ElementTree.fromstring(text)
    assert text.count("M") == 2
    assert "circle" not in text
    assert "nan" not in text
    assert "inf" not in text


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-0.2, 1), (1, 5), (0, 0.03), (-37, 5000), (2, 2)])
def test_ticks_are_few_round_and_inside(low: float, high: float) -> None:
    marks = ticks(low, high)
    assert 1 <= len(marks) <= 7
    assert all(low - 1e-9 <= mark <= max(high, low) + 1e-9 for mark in marks)


def test_tables_of_intervals_tests_and_groups_can_be_opened(runs: Path, tmp_path: Path) -> None:
    text = page(runs, tmp_path / "a.html")
    comparison = compare(chosen_directories([runs]))
    for table in (
        interval_rows(comparison.experiments, comparison.evidence),
        pair_rows(comparison.evidence.pairs),
        group_rows(comparison.experiments, {label: one.groups for label, one in comparison.details.items()}),
    ):
        assert len(table.rows) > 2
        for row in table.rows:
            kinds = ["" if index < table.left else ' class="n"' for index in range(len(row))]
            cells = (f"<td{kind}>{escape(cell)}</td>" for kind, cell in zip(kinds, row, strict=True))
            assert f"<tr>{''.join(cells)}</tr>" in text


def test_names_of_two_lines_lie_around_their_mark() -> None:
    chart = Chart("a", (0, 1), (0, 1))
    chart.y_axis(marks=[0.5], names=["above\nbelow"])
    heights = [float(one) for one in re.findall(r'<text class="label"[^>]* y="([\d.]+)">(?:above|below)', str(chart))]
    assert heights[1] - heights[0] == 12
    assert sum(heights) / 2 == pytest.approx(chart.py(0.5) + 4, abs=0.11)
