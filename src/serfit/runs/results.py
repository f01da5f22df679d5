"""What a finished training comes to: the test scores, and what belongs beside them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from serfit.corpus.folds import Split
from serfit.corpus.utterance import Style
from serfit.scores.metrics import Correlation, Scores
from serfit.scores.raters import Agreement, agreement
from serfit.scores.records import EpochRecord, Predictions
from serfit.scores.scenario import by_style, scenario_baseline, within_scenario


@dataclass(frozen=True, slots=True)
class Results:
    """Test scores of one run.

    Attributes:
        best: the epoch whose weights were tested.
        predictions: of every test utterance.
        test: scores of the predictions.
        baseline: scores of predicting each scenario's mean rating in the other parts, without any audio; None
            where the corpus has no scenarios.
        within: scores of deviations from the scenario means; None likewise.
        styles: scores of improvised and scripted speech apart; empty likewise.
        correlations: of every two dimensions, in predictions and in ratings, by part ("validation", "test").
        agreement: one rater against the others, and the system on the same targets; None where the corpus doesn't give
            single ratings.
    """

    best: EpochRecord
    predictions: Predictions
    test: Scores
    baseline: Scores | None
    within: Scores | None
    styles: Mapping[Style, Scores]
    agreement: Agreement | None
    correlations: Mapping[str, Sequence[Correlation]]

    def to_json(self) -> dict[str, Any]:
        """The content of scores.json."""
        return {
            "test": self.test.to_json(),
            "best_epoch": self.best.epoch,
            "validation": self.best.validation.to_json(),
            "scenario_baseline": None if self.baseline is None else self.baseline.to_json(),
            "within_scenario": None if self.within is None else self.within.to_json(),
            "styles": {style: scores.to_json() for style, scores in self.styles.items()},
            "raters_agreement": None if self.agreement is None else self.agreement.to_json(),
            "correlations": correlations_json(self.correlations),
        }


def correlations_json(found: Mapping[str, Sequence[Correlation]]) -> dict[str, Any]:
    """What scores.json says of dimensions together, by part ("validation", "test")."""
    return {part: [one.to_json() for one in pairs] for part, pairs in found.items()}


def results(best: EpochRecord, validated: Predictions, predictions: Predictions, split: Split) -> Results:
    """Score the test predictions made with the weights of the best epoch, beside baseline and raters.

    Args:
        best: the epoch.
        validated: its predictions of the validation part.
        predictions: its predictions of the test part.
        split: the parts.
    """
    utterances = {utterance.id: utterance for utterance in split.test}
    baseline = scenario_baseline(split, predictions.dimensions) if split.test else None
    return Results(
        best=best,
        predictions=predictions,
        test=predictions.scores(),
        baseline=None if baseline is None else baseline.scores(),
        within=within_scenario(predictions, utterances),
        styles=by_style(predictions, utterances),
        agreement=agreement(predictions, utterances),
        correlations={"validation": validated.correlations(), "test": predictions.correlations()},
    )
