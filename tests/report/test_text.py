import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from report.written import epoch_record, numpy_ccc, part_predictions, scores_of, settings
from serfit.config.schema import ExperimentConfig
from serfit.labels import DIMENSIONS
from serfit.report.text import LINE, best_result_text, epoch_heading, epoch_line, result_lines
from serfit.runs.records import TestScores
from serfit.scores.agreement import Agreement
from serfit.scores.metrics import Scores
from serfit.scores.records import EpochRecord, EpochTime


def config(fold: int = 2, seed: int = 7) -> ExperimentConfig:
    return ExperimentConfig.model_validate(settings("alpha", fold, seed, ("valence", "arousal"), "iemocap"))


def results(
    baseline: Scores | None = None, noise: float = 0.5, dimensions: tuple[str, ...] = ("valence", "arousal")
) -> TestScores:
    predictions = part_predictions(2, 7, dimensions, noise, 50)  # type: ignore[arg-type]
    within = None if baseline is None else scores_of(valence=0.31, arousal=None)
    styles = (
        {}
        if baseline is None
        else {"improvised": scores_of(valence=0.41, arousal=0.42), "scripted": scores_of(valence=0.43, arousal=0.44)}
    )
    best = epoch_record(3, dimensions, True)  # type: ignore[arg-type]
    return TestScores(
        test=predictions.scores(),
        best_epoch=3,
        validation=best.validation,
        scenario_baseline=baseline,
        within_scenario=within,
        styles=styles,  # type: ignore[arg-type]
    )


def test_best_result_is_key_value_lines_with_the_very_numbers() -> None:
    outcome = results(scores_of(valence=0.6, arousal=0.1))
    lines = dict(line.split(": ") for line in best_result_text(config(), outcome).splitlines())
    predictions = part_predictions(2, 7, ("valence", "arousal"), 0.5, 50)
    found = [numpy_ccc(predictions, name) for name in ("valence", "arousal")]
    assert lines == {
        "ccc_v": f"{found[0]:.4f}",
        "ccc_a": f"{found[1]:.4f}",
        "ccc_avg": f"{np.mean(found):.4f}",
        "best_epoch": "3",
        "validation_ccc_avg": f"{outcome.validation.average:.4f}",
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


def test_result_lines_put_the_test_score_above_everything_else() -> None:
    raters = Agreement(scores_of(valence=0.51, arousal=None), scores_of(valence=0.62, arousal=0.71))
    outcome = results(scores_of(valence=0.6, arousal=0.1)).model_copy(update={"raters_agreement": raters})
    lines = result_lines(outcome, "iemocap")
    average = outcome.validation.average
    assert (
        lines[0] == f"best epoch: 3 (mean validation CCC {average:.3f}); the test set was scored once, with its weights"
    )
    assert lines[1].split() == ["CCC", "V", "A", "mean"]
    expected = {
        "test (50 utterances)": [outcome.test.ccc("valence"), outcome.test.ccc("arousal"), outcome.test.average],
        "no-audio baseline": [0.6, 0.1, 0.35],
        "within scenario": [0.31, None, None],
        "one rater": [0.51, None, None],
        "model as a rater": [0.62, 0.71, 0.665],
    }
    for line, (title, values) in zip(lines[2:7], expected.items(), strict=True):
        shown = "".join(f"{'n/a' if value is None else f'{value:.3f}':>7}" for value in values)
        assert line.startswith(title)
        assert line[len(lines[1]) - len(shown) :].startswith(shown)  # beneath the letters
    assert all(line.isascii() and len(line) <= LINE for line in lines)


def test_a_score_below_the_baseline_is_called_so() -> None:
    poor = results(scores_of(valence=0.99, arousal=0.1))
    said = [line for line in result_lines(poor, "iemocap") if "no better than the no-audio baseline" in line]
    assert len(said) == 1
    assert said[0].startswith("valence: ")
    assert not any(
        "no better" in line for line in result_lines(results(scores_of(valence=0.1, arousal=0.1)), "iemocap")
    )


def test_without_scenarios_nothing_is_said_of_them() -> None:
    lines = result_lines(results(), "emodb")
    assert len(lines) == 3
    assert not any("scenario" in line or "baseline" in line for line in lines)


def test_an_undefined_test_score_is_explained() -> None:
    predictions = part_predictions(2, 7, ("valence", "arousal"), 0.5, 50)
    predictions.values[0, 0] = np.nan
    lines = result_lines(results().model_copy(update={"test": predictions.scores()}), "emodb")
    assert lines[2].split()[3:] == ["n/a", lines[2].split()[4], "n/a"]
    assert lines[-1].startswith("CCC of valence is undefined")


@pytest.mark.parametrize(
    ("best", "valence", "end"), [(True, True, "  best"), (False, True, "  best V"), (False, False, "")]
)
def test_an_epoch_is_one_line(best: bool, valence: bool, end: str) -> None:
    train, validation = scores_of(valence=0.51234, arousal=0.6), scores_of(valence=None, arousal=0.55)
    record = EpochRecord(3, 90, 0.41234, train, validation, {"encoder": 1e-5, "head": 5e-4}, 12.3, 2, best, valence)
    heading = epoch_heading(("valence", "arousal"), ("encoder", "head"), 20)
    line = epoch_line(record, 20, EpochTime(3, 83.7))
    assert heading.startswith("epoch    loss | train V      A | validation V      A   mean | lr encoder/head |  time")
    assert line == f" 3/20   0.412 |   0.512  0.600 |          n/a  0.550    n/a |   1.0e-5/5.0e-4 |   84 s{end}"


SCORE = st.one_of(st.none(), st.floats(-1, 1))


@given(
    st.integers(1, 3).flatmap(lambda count: st.tuples(*[st.lists(SCORE, min_size=count, max_size=count)] * 2)),
    st.sampled_from([("encoder", "head"), ("head",)]),
    st.integers(1, 999),
    st.floats(0, 1e30),
    st.floats(1e-12, 10),
    st.floats(0, 9999),
    st.one_of(st.none(), st.integers(0, 2**37)),
)
def test_epochs_stand_in_columns_and_fit_a_terminal(
    scores: tuple[list[float | None], list[float | None]],
    groups: tuple[str, ...],
    epochs: int,
    loss: float,
    rate: float,
    seconds: float,
    memory: int | None,
) -> None:
    names = DIMENSIONS[: len(scores[0])]
    train, validation = (scores_of(**dict(zip(names, part, strict=True))) for part in scores)
    record = EpochRecord(epochs, 1, loss, train, validation, dict.fromkeys(groups, rate), 1.0, 0, True, True)
    spent = EpochTime(epochs, seconds, 1.0, 2.0, 3.0, 4.0, 5, 600, gpu_memory=memory)
    heading, line = epoch_heading(names, groups, epochs), epoch_line(record, epochs, spent)
    bars = [[index for index, sign in enumerate(text) if sign == "|"] for text in (heading, line)]
    assert bars[0] == bars[1]
    assert len(line) <= LINE
    assert line.endswith("best")
    assert ("utt/s" in line) <= (memory is not None)
