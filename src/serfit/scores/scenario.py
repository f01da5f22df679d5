"""What a test score is worth without any audio: the scenario baseline and its companions.

On IEMOCAP the same eight improvisations and three scripts recur in every session, and what the speakers were asked to
play says much about valence. A score means little before it is compared with what the scenario alone predicts.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from serfit.corpus.folds import Split
from serfit.corpus.utterance import Style, Utterance
from serfit.labels import Dimension
from serfit.scores.metrics import Scores, score
from serfit.scores.records import Predictions

STYLES: tuple[Style, ...] = ("improvised", "scripted")


def scenario_baseline(split: Split, dimensions: Sequence[Dimension]) -> Predictions | None:
    """Predict each test utterance by the mean rating of its scenario in the training and validation parts together.

    A test utterance without scenario, or whose scenario occurs in no other part, is predicted by the mean of all
    training and validation utterances.

    Returns:
        Predictions of all test utterances in order, or None when no test utterance has a scenario, or when there are
        no other utterances.
    """
    others = [*split.train, *split.validation]
    if not others or all(utterance.scenario is None for utterance in split.test):
        return None
    ratings = _ratings(others, dimensions)
    means = _means([utterance.scenario for utterance in others], ratings)
    overall = ratings.mean(axis=0)
    values = [overall if test.scenario is None else means.get(test.scenario, overall) for test in split.test]
    ids = tuple(utterance.id for utterance in split.test)
    return Predictions(ids, tuple(dimensions), _ratings(split.test, dimensions), np.array(values))


def within_scenario(predictions: Predictions, utterances: Mapping[str, Utterance]) -> Scores | None:
    """Scores of deviations from the scenario: what is left once the scenario's own level is taken away.

    From each target the mean target of the utterances with the same scenario is subtracted, from each prediction
    their mean prediction; both means are taken over the predicted utterances, and the deviations of all scenarios are
    scored together. Utterances without scenario don't take part; one that is alone in its scenario counts as 0, 0.

    Args:
        predictions: of the test part.
        utterances: the predicted utterances by id.

    Returns:
        Scores, or None when no predicted utterance has a scenario. `bias` is 0 by construction.
    """
    has_scenario = [utterances[name].scenario is not None for name in predictions.ids]
    if not any(has_scenario):
        return None
    scored = predictions.only(has_scenario)
    scenarios = [utterances[name].scenario for name in scored.ids]
    return score(_deviations(scenarios, scored.targets), _deviations(scenarios, scored.values), scored.dimensions)


def by_style(predictions: Predictions, utterances: Mapping[str, Utterance]) -> dict[Style, Scores]:
    """Scores of improvised and of scripted utterances apart; a style that doesn't occur is left out."""
    styles = [utterances[name].style for name in predictions.ids]
    return {
        style: predictions.only([where == style for where in styles]).scores() for style in STYLES if style in styles
    }


def _ratings(utterances: Sequence[Utterance], dimensions: Sequence[Dimension]) -> NDArray[np.float64]:
    """Ratings [N, D] on the corpus's scale."""
    return np.array([[utterance.ratings[name] for name in dimensions] for utterance in utterances], dtype=np.float64)


def _means(scenarios: Sequence[str | None], rows: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Mean row [D] per scenario of rows [N, D]."""
    names = np.array([scenario or "" for scenario in scenarios])
    return {str(name): rows[names == name].mean(axis=0) for name in np.unique(names) if name}


def _deviations(scenarios: Sequence[str | None], rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows [N, D] less the mean of their scenario."""
    means = _means(scenarios, rows)
    levels: NDArray[np.float64] = np.array([means[str(scenario)] for scenario in scenarios])
    return np.subtract(rows, levels)
