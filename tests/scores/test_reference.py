import pytest

from report.written import scores_of
from serfit.scores.reference import FROZEN, GOAL, difference, measure, obstacle, verdict


def test_the_reference_is_the_published_one() -> None:
    assert dict(FROZEN.ccc) == {"valence": 0.5896, "arousal": 0.6867}
    assert FROZEN.average == pytest.approx(sum(FROZEN.ccc.values()) / 2, abs=1e-4)
    assert GOAL == 0.62


@pytest.mark.parametrize(
    ("valence", "reached"),
    [
        (0.62, "reached"),
        (0.6199, "not reached, 0.0001 short"),
        (0.5896, "not reached, 0.0304 short"),
        (-0.1, "not reached, 0.7200 short"),
    ],
)
def test_each_case_has_its_goal_line(valence: float, reached: str) -> None:
    text = verdict(scores_of(valence=valence, arousal=0.7))
    goal = next(line for line in text.splitlines() if line.startswith("goal"))
    assert goal.endswith(f": {reached}")


def test_differences_are_shown_per_dimension_and_for_the_average() -> None:
    lines = verdict(scores_of(valence=0.6396, arousal=0.6768)).splitlines()
    assert [line.split() for line in lines[4:7]] == [
        ["CCC-V", "0.6396", "0.5896", "+0.0500"],
        ["CCC-A", "0.6768", "0.6867", "-0.0099"],
        ["CCC-Avg", "0.6582", "0.6381", "+0.0201"],
    ]


def test_an_undefined_score_is_never_a_success() -> None:
    text = verdict(scores_of(valence=None, arousal=0.9))
    assert "not reached, CCC-V is n/a" in text
    assert text.count("n/a") == 5  # V and its difference, the average and its difference, the goal line


def test_other_corpora_get_no_verdict_and_much_smaller_ones_a_warning() -> None:
    good = scores_of(valence=0.9, arousal=0.9)
    assert verdict(good, corpus="ravdess") == "no verdict: the published result was measured on iemocap, not on ravdess"
    small = verdict(good, utterances=400)
    assert small.startswith("not comparable: the published result was measured on 10,039 utterances, not on 400")
    assert "goal" not in small
    assert verdict(good, utterances=10_039).startswith("caution: one fold's CCC is uncertain")
    assert obstacle(FROZEN, "iemocap", 10_000) is None
    assert obstacle(FROZEN, "iemocap", None) is None
    assert obstacle(FROZEN, "iemocap", 9_900) is not None


def test_the_average_is_only_compared_over_the_same_dimensions() -> None:
    three = difference(FROZEN, {"valence": 0.6, "arousal": 0.7, "dominance": 0.5})
    assert three["average"] is None
    assert three["dominance"] is None
    assert three["valence"] == pytest.approx(0.0104)
    assert difference(FROZEN, {"valence": 0.6})["average"] is None
    assert measure(scores_of(valence=0.6, arousal=0.7), "average") == pytest.approx(0.65)
