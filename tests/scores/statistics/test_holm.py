import pytest

from serfit.scores.statistics.holm import holm


def test_holm_is_the_published_example_and_never_below_the_raw_values() -> None:
    assert holm([0.01, 0.02, 0.03, 0.04]) == pytest.approx([0.04, 0.06, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
