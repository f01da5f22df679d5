"""The mean over raters, against exact fractions."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from serfit.corpus.ratings import mean_rating

RATINGS = st.lists(st.floats(-100, 100, allow_subnormal=False), min_size=1, max_size=20)


@given(RATINGS, st.randoms())
def test_the_mean_is_that_of_fractions_in_any_order(ratings, random) -> None:
    exact = sum(map(Fraction, ratings)) / len(ratings)
    assert abs(mean_rating(ratings) - exact) <= abs(exact) * Fraction(1, 2**51)
    shuffled = random.sample(ratings, len(ratings))
    assert mean_rating(shuffled) == mean_rating(ratings)
