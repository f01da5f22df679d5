from dataclasses import replace

import numpy as np
import pytest

from report.written import epoch_record, numpy_ccc, part_predictions, scores_of, settings
from serfit.config.schema import ExperimentConfig
from serfit.corpus.raters import Agreement
from serfit.metrics import Scores
from serfit.records import EpochRecord
from serfit.report.text import best_result_text, epoch_line, result_lines
from serfit.results import Results


def config(fold: int = 2, seed: int = 7) -> ExperimentConfig:
    return ExperimentConfig.model_validate(settings("alpha", fold, seed, ("valence", "arousal"), "iemocap"))


def results(
    baseline: Scores | None = None, noise: float = 0.5, dimensions: tuple[str, ...] = ("valence", "arousal")
) -> Results:
    predictions = part_predictions(2, 7, dimensions, noise, 50)  # type: ignore[arg-type]
    within = None if baseline is None else scores_of(valence=0.31, arousal=None)
    styles = (
        {}
        if baseline is None
        else {"improvised": scores_of(valence=0.41, arousal=0.42), "scripted": scores_of(valence=0.43, arousal=0.44)}
    )
    best = epoch_record(3, dimensions, True)  # type: ignore[arg-type]
    return Results(best, predictions, predictions.scores(), baseline, within, styles, None, {})  # type: ignore[arg-type]


def test_best_result_is_key_value_lines_with_the_very_numbers() -> None:
    outcome = results(scores_of(valence=0.6, arousal=0.1))
    lines = dict(line.split(": ") for line in best_result_text(config(), outcome).splitlines())
    found = [numpy_ccc(outcome.predictions, name) for name in ("valence", "arousal")]
    assert lines == {
        "ccc_v": f"{found[0]:.4f}",
        "ccc_a": f"{found[1]:.4f}",
        "ccc_avg": f"{np.mean(found):.4f}",
        "best_epoch": "3",
        "validation_ccc_avg": f"{outcome.best.validation.average:.4f}",
        "experiment": "alpha",
        "fold": "2",
        "seed": "7",
        "test_utterances": "50",
        "scenario_baseline_ccc_v": "0.6000",
        "scenario_baseline_ccc_a": "0.1000",
        "scenario_baseline_ccc_avg": "0.3500",
        "within_scenario_ccc_v": "0.3100",
        "within_scenario_ccc_a": "n/a",
        "within_scenario_ccc_avg": "n/a",
    }


def test_the_guides_own_pattern_finds_the_scores() -> None:
    text = best_result_text(config(), results())
    assert [line.split(":")[0] for line in text.splitlines()[:4]] == ["ccc_v", "ccc_a", "ccc_avg", "best_epoch"]
    assert text.endswith("\n")
    assert "scenario" not in text
    assert "ccc_d: " in best_result_text(config(), results(dimensions=("valence", "arousal", "dominance")))


def test_result_lines_put_the_test_score_beside_everything_else() -> None:
    outcome = results(scores_of(valence=0.6, arousal=0.1))
    lines = result_lines(outcome, "iemocap")
    assert lines[0] == "result on iemocap: CCC of 50 test utterances with the weights of epoch 3"
    for heading in ("test", "validation", "scenario baseline", "within scenario", "improvised", "scripted"):
        assert heading in lines[1]
    validation = outcome.best.validation
    expected = {
        "CCC-V": [outcome.test.ccc("valence"), validation.ccc("valence"), 0.6, 0.31, 0.41, 0.43],
        "CCC-A": [outcome.test.ccc("arousal"), validation.ccc("arousal"), 0.1, None, 0.42, 0.44],
        "CCC-Avg": [outcome.test.average, validation.average, 0.35, None, 0.415, 0.435],
    }
    for line, (title, values) in zip(lines[2:5], expected.items(), strict=True):
        assert line.split() == [title, *("n/a" if value is None else f"{value:.4f}" for value in values)]
    assert len({len(line) for line in lines[1:5]}) == 1  # columns are aligned
    assert all(line.isascii() for line in lines)


def test_a_score_below_the_baseline_is_called_so() -> None:
    poor = results(scores_of(valence=0.99, arousal=0.1))
    said = [line for line in result_lines(poor, "iemocap") if "no better than the scenario baseline" in line]
    assert len(said) == 1
    assert said[0].startswith("valence: ")
    assert not any(
        "no better" in line for line in result_lines(results(scores_of(valence=0.1, arousal=0.1)), "iemocap")
    )


def test_without_scenarios_nothing_is_said_of_them() -> None:
    lines = result_lines(results(), "emodb")
    assert lines[1].split() == ["test", "validation"]
    assert len(lines) == 5
    assert not any("scenario" in line for line in lines)


def test_an_undefined_test_score_is_explained() -> None:
    outcome = results()
    outcome.predictions.values[0, 0] = np.nan
    broken = Results(outcome.best, outcome.predictions, outcome.predictions.scores(), None, None, {}, None, {})
    lines = result_lines(broken, "emodb")
    assert lines[2].split()[1] == "n/a"
    assert lines[4].split()[1] == "n/a"
    assert lines[-1].startswith("CCC of valence is undefined")


@pytest.mark.parametrize(
    ("best", "valence", "end"), [(True, True, "best"), (False, True, "best valence"), (False, False, "84 s")]
)
def test_an_epoch_is_one_line(best: bool, valence: bool, end: str) -> None:
    train, validation = scores_of(valence=0.51234, arousal=0.6), scores_of(valence=None, arousal=0.55)
    record = EpochRecord(3, 90, 0.41234, train, validation, {"encoder": 1e-5, "head": 5e-4}, 12.345, 0, best, valence)
    line = epoch_line(record, 20, 83.7)
    wanted = (
        "epoch  3/20 | loss 0.4123 | train V 0.512 A 0.600 avg 0.556 | validation V n/a A 0.550 avg n/a | "
        "gradient 12 | lr encoder 1e-05, head 0.0005 | 84 s"
    )
    assert line.startswith(wanted)
    assert line.split(" | ")[-1] == end


def test_batches_that_teach_nothing_are_mentioned() -> None:
    scores = scores_of(valence=0.5)
    record = EpochRecord(1, 9, 0.4, scores, scores, {"head": 1e-4}, 1.0, 2, True, True)
    assert "2 batches with constant targets" in epoch_line(record, 5, 1.0)


def test_the_raters_have_a_line_of_their_own_where_there_are_some() -> None:
    without = results()
    raters = Agreement(scores_of(valence=0.51, arousal=None), scores_of(valence=0.62, arousal=0.71))
    lines = result_lines(replace(without, agreement=raters), "iemocap")
    (line,) = [line for line in lines if line not in result_lines(without, "iemocap")]
    assert "one rater against the others V 0.510 A n/a avg n/a" in line
    assert "in a rater's place V 0.620 A 0.710 avg 0.665" in line
