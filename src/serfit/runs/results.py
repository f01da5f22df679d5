"""What a finished training comes to: the test scores, and what belongs beside them."""

from serfit.corpus.folds import Split
from serfit.runs.records import TestScores
from serfit.scores.agreement import agreement
from serfit.scores.metrics import Scores
from serfit.scores.records import Predictions
from serfit.scores.scenario import by_style, scenario_baseline, within_scenario


def results(
    best_epoch: int, validation: Scores, validated: Predictions, predictions: Predictions, split: Split
) -> TestScores:
    """Score the test predictions made with the weights of the best epoch, beside baseline and raters.

    Args:
        best_epoch: from 1; 0 where there are no epochs.
        validation: its scores.
        validated: its predictions of the validation part.
        predictions: its predictions of the test part.
        split: the parts.
    """
    utterances = {utterance.id: utterance for utterance in split.test}
    baseline = scenario_baseline(split, predictions.dimensions) if split.test else None
    return TestScores(
        test=predictions.scores(),
        best_epoch=best_epoch,
        validation=validation,
        scenario_baseline=None if baseline is None else baseline.scores(),
        within_scenario=within_scenario(predictions, utterances),
        styles=by_style(predictions, utterances),
        raters_agreement=agreement(predictions, utterances),
        correlations={"validation": validated.correlations(), "test": predictions.correlations()},
    )
