"""How the ratings of several raters become an utterance's target: their mean.

The IEMOCAP release states these means itself, and `serfit.corpus.iemocap` takes them from there.
"""

import math
from collections.abc import Sequence


def mean_rating(ratings: Sequence[float]) -> float:
    """Average one dimension of an utterance over its raters, on the corpus's scale.

    Summed exactly and rounded once, so the order of raters or columns makes no difference.

    >>> mean_rating([1.0, 2.0, 4.5])
    2.5
    """
    return math.fsum(ratings) / len(ratings)
