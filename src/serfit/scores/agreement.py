"""How well people agree with each other about the test utterances: what one rater is worth beside the others."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from serfit.corpus.utterance import Utterance
from serfit.labels import Dimension
from serfit.scores.metrics import DimensionScores, Scores, score_dimension
from serfit.scores.records import Predictions


@dataclass(frozen=True, slots=True)
class Agreement:
    """Every single rating held against the mean of the other ratings of the same utterance.

    Both scores are over the same pairs, one per rating: an utterance with three raters is in them three times, each
    time without another rater in its target. A dimension's `count` is the number of pairs.

    Attributes:
        rater: scores of the single ratings.
        system: scores of the system's predictions on these targets: the system in the place of one rater.
    """

    rater: Scores
    system: Scores


def agreement(predictions: Predictions, utterances: Mapping[str, Utterance]) -> Agreement | None:
    """One rater against the others on the predicted utterances, and the system on the same targets.

    All ratings of a dimension are scored together, whoever gave them, so that a rater who uses the scale in another
    way than the rest counts as disagreement, and corpora whose raters have no names can be scored as well. Utterances
    with fewer than two ratings of a dimension don't take part.

    Args:
        predictions: of the test part.
        utterances: the predicted utterances by id.

    Returns:
        None where no utterance has two ratings of any dimension.
    """
    rater: dict[Dimension, DimensionScores] = {}
    system: dict[Dimension, DimensionScores] = {}
    for column, name in enumerate(predictions.dimensions):
        others, ratings, predicted = [], [], []
        for utterance, value in zip(predictions.ids, predictions.values[:, column], strict=True):
            given = np.array(utterances[utterance].single_ratings.get(name, ()), dtype=np.float64)
            if len(given) >= 2:
                others.append((given.sum() - given) / (len(given) - 1))
                ratings.append(given)
                predicted.append(np.full(len(given), value))
        targets = np.concatenate([*others, []])
        rater[name] = score_dimension(targets, np.concatenate([*ratings, []]))
        system[name] = score_dimension(targets, np.concatenate([*predicted, []]))
    if not any(scored.count for scored in rater.values()):
        return None
    return Agreement(Scores(rater), Scores(system))
