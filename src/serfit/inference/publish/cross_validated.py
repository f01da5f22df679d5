"""What a cross-validation reached, as a network trained on everything carries it along: it has no test part."""

from collections.abc import Mapping

from serfit.errors import counted, listed
from serfit.inference.origin import CrossValidation, Reached
from serfit.labels import DIMENSIONS, letter
from serfit.report.comparison import Comparison
from serfit.report.markdown import UNDEFINED, Rows, as_markdown, number
from serfit.runs.experiments import ranges
from serfit.scores.reference import Measure
from serfit.scores.statistics.interval import Estimate


def reached(comparison: Comparison, among: int = 1) -> CrossValidation:
    """The test results of one experiment.

    Args:
        comparison: of the runs of exactly one experiment.
        among: experiments among which this one was chosen by its test scores; 1 where there was no choice.
    """
    (result,) = comparison.experiments
    over, pooled = comparison.evidence.over_folds[result.label], comparison.evidence.pooled[result.label]
    return CrossValidation(
        runs=tuple(run.directory.name for run in result.runs),
        best_epochs=tuple(run.scores.best_epoch for run in result.runs),
        folds=result.folds,
        missing_folds=result.missing,
        seeds=tuple(sorted({run.seed for run in result.runs})),
        test_utterances=sum({run.fold: len(run.predictions.ids) for run in result.runs}.values()),
        chosen_among=among,
        test_ccc={
            name: Reached(
                mean=summary.mean,
                deviation=summary.deviation,
                interval=_ends(over.get(name)),
                holds_for=_scope(over.get(name)),
                pooled=result.pooled.get(name),
                pooled_interval=_ends(pooled.get(name)),
                scenario_baseline=result.baseline[name].mean if name in result.baseline else None,
                one_rater=result.rater[name].mean if name in result.rater else None,
                in_a_raters_place=result.as_rater[name].mean if name in result.as_rater else None,
            )
            for name, summary in result.test.items()
        },
    )


def expectation(said: CrossValidation) -> list[str]:
    """Paragraphs and a table of Markdown: what to expect of a network that can't be tested."""
    missing = f" Not among them: {ranges('fold', said.missing_folds)}." if said.missing_folds else ""
    epochs = listed([str(epoch) for epoch in said.best_epochs], most=10)
    blocks = [
        "What to expect of it is what networks of the same settings, each trained on a part of the corpus, reached "
        f"on {counted(said.test_utterances, 'utterance')} that they weren't trained on: concordance "
        f"correlation coefficients (CCC) of {ranges('fold', said.folds)}, {ranges('seed', said.seeds)}.{missing} "
        "Whether this network is better for its additional training data was not measured.",
        as_markdown(score_table(said.test_ccc, beside=True)),
        f"{intervals_hold_for(said.test_ccc)} Scenario baseline: predicted without any "
        "audio. One rater: against the mean of the others; in a rater's place: the system on the same targets.",
        f"Their best epochs were {epochs}; this network was trained for the median of these.",
    ]
    if said.chosen_among > 1:
        blocks.append(
            f"These settings were chosen among {said.chosen_among} by these very scores, so expect a little less."
        )
    return blocks


def intervals_hold_for(scores: Mapping[Measure, Reached]) -> str:
    """A sentence on what the intervals of scores hold for."""
    if all(one.interval is None for one in scores.values()):
        return "There are too few speakers and dialogues for intervals."
    scopes = dict.fromkeys(one.holds_for or "these trained models" for one in scores.values())
    return f"95% CIs hold for {listed(list(scopes))}."


def score_table(scores: Mapping[Measure, Reached], *, beside: bool = False) -> Rows:
    """Scores as a table; `beside` adds baseline and raters where they are known."""
    header = ["", "mean ± SD over folds", "95% CI", "all folds together", "95% CI"]
    known = [key for key in _BESIDE if beside and any(getattr(one, key) is not None for one in scores.values())]
    measures: tuple[Measure, ...] = (*DIMENSIONS, "average")
    rows = []
    for name in measures:
        if name in scores:
            one = scores[name]
            deviation = "" if one.deviation is None else f" ± {one.deviation:.4f}"
            row = [measure_title(name), f"{number(one.mean)}{deviation}", _span(one.interval)]
            row += [number(one.pooled), _span(one.pooled_interval)]
            rows.append([*row, *(number(getattr(one, key)) for key in known)])
    return Rows([*header, *(_BESIDE[key] for key in known)], rows)


def measure_title(name: Measure) -> str:
    """Return the name of a score: CCC-V, CCC-A, CCC-D or CCC-Avg."""
    return "CCC-Avg" if name == "average" else f"CCC-{letter(name)}"


_BESIDE = {
    "scenario_baseline": "scenario baseline",
    "one_rater": "one rater",
    "in_a_raters_place": "in a rater's place",
}


def _ends(estimate: Estimate | None) -> tuple[float, float] | None:
    interval = None if estimate is None else estimate.interval
    return None if interval is None else (interval.low, interval.high)


def _scope(estimate: Estimate | None) -> str | None:
    return None if estimate is None or estimate.interval is None else str(estimate.scope)


def _span(ends: tuple[float, float] | None) -> str:
    return UNDEFINED if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"
