"""The evidence of a comparison as sentences and Markdown tables."""

from collections.abc import Mapping, Sequence

from serfit.errors import counted, listed
from serfit.labels import Dimension, letter
from serfit.report.breakdown import GROUPINGS, LEAST, GroupScore, Miscalibration
from serfit.report.evidence import LEVEL, Evidence, Pair, seed_deviation
from serfit.report.markdown import UNDEFINED, Rows, as_markdown, bullets, number
from serfit.runs.experiments import ExperimentResult, ranges
from serfit.scores.metrics import Correlation
from serfit.scores.reference import Measure
from serfit.scores.statistics.contrast import Kind
from serfit.scores.statistics.interval import FEWEST, Estimate, Scope

MOST_GROUPS = 24
"""Most groups of one grouping that a table lists; of more, the table says only how many there are."""

MOST_BESIDE = 4
"""Most experiments beside each other in the table of groups."""

HOW_SURE = (
    "95% CI: confidence interval from leaving out whole clusters one at a time (jackknife), with t quantiles and df "
    "degrees of freedom. Clusters are folds: each has its own trained model and usually its own speakers and "
    "dialogues. Speakers and dialogues in several folds are clusters too. With fewer than "
    f"{FEWEST['fold']} folds the trained models are taken as given, with fewer than {FEWEST['speaker']} speakers these "
    "as well; the column “holds for” names what is left. Utterances alone are never clusters.",
    "SD over seeds: root of the mean variance inside a fold. With one seed, what a seed does to all folds alike is in "
    "no interval.",
    "p: the paired t test that belongs to the interval, below 0.05 exactly where the 95% CI excludes 0. Corrected: by "
    "Holm's method for all tests on the corpus; a difference is significant where the corrected p is below "
    f"{LEVEL:g}. Intervals are not corrected. Nothing is tested with speakers taken as given or unknown.",
)

_COUNTED: tuple[Kind, ...] = ("speaker", "dialogue")


def answers(pairs: Sequence[Pair]) -> list[str]:
    """The sentences that answer whether one experiment is better than another: one per two experiments."""
    together: dict[tuple[str, str], list[Pair]] = {}
    for pair in pairs:
        together.setdefault((pair.first, pair.second), []).append(pair)
    return [
        f"{first} against {second} on {_where(same[0])}: {_found(same)}." for (first, second), same in together.items()
    ]


def _where(pair: Pair) -> str:
    """What was compared, for example "iemocap (folds 1-5, 360 utterances, 10 speakers, 30 dialogues, 3 seeds)"."""
    scope = pair.difference.scope
    known = [counted(pair.utterances, "utterance")]
    known += [counted(scope.counts[kind], kind) for kind in _COUNTED if kind in scope.counts]
    known += [f"{kind}s of {scope.unknown[kind]:,} unknown" for kind in _COUNTED if kind not in scope.counts]
    seeds = counted(pair.seeds, "seed")
    return f"{pair.corpus} ({', '.join([ranges('fold', pair.folds), *known, seeds])})"


def _found(same: Sequence[Pair]) -> str:
    """The findings about two experiments, all of one scope."""
    scope = same[0].difference.scope
    parts = [] if scope.testable else [f"can't be decided: {_obstacle(scope)}"]
    parts += [_finding(pair) for pair in same]
    if any(pair.difference.interval is not None for pair in same):
        parts.append(f"95% CIs hold for {scope}")
    return "; ".join(parts)


def _obstacle(scope: Scope) -> str:
    """Why differences can't be tested, and what would help."""
    if scope.unknown["speaker"]:
        unknown = counted(scope.unknown["speaker"], "utterance")
        return f"the speakers of {unknown} are unknown (name them in the corpus)"
    more = "" if "fold" in scope.varied else f" or {FEWEST['fold']} folds (run more folds)"
    return f"{counted(scope.counts['speaker'], 'speaker')}, and a test needs {FEWEST['speaker']} speakers{more}"


def _finding(pair: Pair) -> str:
    """For example "better in valence by 0.0312 CCC (95% CI +0.0120 to +0.0504, p 0.001, corrected 0.004)"."""
    what = "on average" if pair.measure == "average" else f"in {pair.measure}"
    value, interval = pair.difference.value, pair.difference.interval
    if value is None:
        return f"nothing can be said {what}, because a CCC is undefined"
    if interval is None:
        return f"{what} {value:+.4f} CCC, no interval"
    worse = pair.shown and value < 0.0
    low, high = (-interval.high, -interval.low) if worse else (interval.low, interval.high)
    reach = f"95% CI {low:+.4f} to {high:+.4f}"
    if pair.corrected is None:
        return f"{what} {value:+.4f} CCC ({reach})"
    numbers = f"({reach}, p {p_text(pair.p)}, corrected {p_text(pair.corrected)})"
    if pair.shown:
        return f"{'worse' if worse else 'better'} {what} by {abs(value):.4f} CCC {numbers}"
    return f"no significant difference {what}: {value:+.4f} CCC {numbers}"


def holds_for(experiments: Sequence[ExperimentResult], evidence: Evidence) -> str:
    """A sentence on what the intervals of some experiments hold for; "" where none has any."""
    scopes: dict[str, list[str]] = {}
    for result in experiments:
        found = [one for one in evidence.over_folds[result.label].values() if one.interval is not None]
        if found:
            scopes.setdefault(str(found[0].scope), []).append(result.label)
    if len(scopes) == 1:
        return f"95% CIs hold for {next(iter(scopes))}."
    several = (f"of {', '.join(labels)} for {scope}" for scope, labels in scopes.items())
    return f"95% CIs hold: {'. '.join(several)}." if scopes else ""


def evidence_blocks(experiments: Sequence[ExperimentResult], evidence: Evidence) -> list[str]:
    """Markdown about the experiments on one corpus: answers, tests, intervals."""
    labels = {result.label for result in experiments}
    pairs = [pair for pair in evidence.pairs if pair.first in labels]
    blocks: list[str] = []
    if pairs:
        blocks += [
            "### Which is better",
            bullets(answers(pairs)),
            as_markdown(pair_rows(pairs)),
        ]
    return [*blocks, "### How sure", as_markdown(interval_rows(experiments, evidence))]


def miscalibration_rows(
    experiments: Sequence[ExperimentResult], found: Mapping[str, Mapping[Dimension, Miscalibration]]
) -> Rows:
    """Bias, slope and spread per experiment and dimension."""
    header = ["experiment", "dimension", "bias", "slope", "spread", ""]
    rows = []
    for result in experiments:
        for name in result.dimensions:
            one = found[result.label][name]
            mark = "collapsed" if one.collapsed else ""
            row = [result.label, name, number(one.bias, "+.3f"), number(one.slope, ".3f")]
            rows.append([*row, number(one.spread, ".3f"), mark])
    return Rows(header, rows, left=2)


ONE_AXIS_WORDS = (
    "r is Pearson's correlation of two dimensions over all test utterances; one axis: predictions correlate so much "
    "more than ratings do that they hardly tell the two dimensions apart."
)


def one_axis_line(found: Mapping[str, Sequence[Correlation]]) -> str | None:
    """One sentence on the experiments whose predictions hardly tell two dimensions apart; None where all do."""
    flat = [
        f"{label}, {one.first} and {one.second} (r {one.predicted:.2f} in predictions, {one.rated:.2f} in ratings)"
        for label, correlations in found.items()
        for one in correlations
        if one.one_axis
    ]
    return f"warning: predicted dimensions lie on one axis: {listed(flat)}" if flat else None


def together_rows(experiments: Sequence[ExperimentResult], found: Mapping[str, Sequence[Correlation]]) -> Rows | None:
    """Correlation of every two dimensions in predictions beside that in ratings; None where each predicts only one."""
    header = ["experiment", "dimensions", "r of predictions", "r of ratings", ""]
    rows = [
        [
            result.label,
            f"{one.first}, {one.second}",
            number(one.predicted, ".3f"),
            number(one.rated, ".3f"),
            "one axis" if one.one_axis else "",
        ]
        for result in experiments
        for one in found[result.label]
    ]
    return Rows(header, rows, left=2) if rows else None


def group_rows(experiments: Sequence[ExperimentResult], found: Mapping[str, Sequence[GroupScore]]) -> Rows:
    """CCC per group of test utterances, the experiments beside each other."""
    shown = experiments[:MOST_BESIDE]
    by = {result.label: {(one.grouping, one.group): one for one in found[result.label]} for result in shown}
    keys = list(dict.fromkeys(key for groups in by.values() for key in groups))
    keys.sort(key=lambda key: GROUPINGS.index(key[0]))
    header = ["group", "", "utterances"]
    header += [f"{one.label} {letter(name)}" for one in shown for name in one.dimensions]
    rows = []
    for grouping in GROUPINGS:
        inside = [key for key in keys if key[0] == grouping]
        if len(inside) > MOST_GROUPS:
            rows.append([grouping, f"{len(inside)} of them: see the CSV file", *[""] * (len(header) - 2)])
            continue
        for key in inside:
            counts = sorted({groups[key].count for groups in by.values() if key in groups})
            row = [grouping, key[1], " / ".join(f"{count:,}" for count in counts)]
            for result in shown:
                one = by[result.label].get(key)
                row += [number(None if one is None else one.ccc[name], ".3f") for name in result.dimensions]
            rows.append(row)
    return Rows(header, rows, left=2)


def how_to_read_groups() -> tuple[str, ...]:
    """Sentences about the tables of groups and calibration."""
    return (
        "Calibration: bias is the mean of prediction minus rating; slope is that of the straight line that gives the "
        "rating from the prediction (1 is calibrated); spread is the SD of the predictions over that of the "
        "ratings (near 0 the output has collapsed to a constant).",
        f"Groups: test utterances of all folds, means over the seeds; no CCC of fewer than {LEAST} utterances. A CCC "
        "inside a group depends on how much the ratings vary there, so compare systems within a group, not groups.",
    )


def heading(name: Measure) -> str:
    """What a column or row about a measure is called."""
    return "CCC-Avg" if name == "average" else f"CCC-{letter(name)}"


def interval_text(estimate: Estimate | None) -> str:
    """An interval as "[0.512, 0.634]"."""
    interval = None if estimate is None else estimate.interval
    return UNDEFINED if interval is None else f"[{interval.low:.3f}, {interval.high:.3f}]"


def interval_rows(experiments: Sequence[ExperimentResult], evidence: Evidence) -> Rows:
    """Mean over folds and pooled score of each experiment, with intervals and what they hold for."""
    header = ["experiment", "CCC", "mean over folds", "95% CI", "df", "pooled", "95% CI", "SD over seeds"]
    header += ["speakers", "dialogues", "holds for"]
    rows = []
    for result in experiments:
        pooled = evidence.pooled[result.label]
        for name, one in evidence.over_folds[result.label].items():
            row = [result.label, heading(name), number(one.value), interval_text(one), _degrees(one)]
            together = pooled.get(name)
            row += [number(None if together is None else together.value), interval_text(together)]
            row.append(number(seed_deviation(result.runs, name)))
            row += [_count(one.scope, kind) for kind in _COUNTED]
            rows.append([*row, _holds(one)])
    return Rows(header, rows, left=2)


def pair_rows(pairs: Sequence[Pair]) -> Rows:
    """Differences between experiments, and the test of each."""
    header = ["first", "second", "CCC", "first - second", "95% CI", "df", "p", "corrected p", "holds for"]
    rows = []
    for pair in pairs:
        one = pair.difference
        row = [pair.first, pair.second, heading(pair.measure), number(one.value, "+.4f"), interval_text(one)]
        rows.append([*row, _degrees(one), p_text(pair.p), p_text(pair.corrected), _holds(one)])
    return Rows(header, rows, left=3)


def _degrees(one: Estimate) -> str:
    return UNDEFINED if one.interval is None else f"{one.interval.degrees:,}"


def _holds(one: Estimate) -> str:
    return UNDEFINED if one.interval is None else str(one.scope)


def _count(scope: Scope, kind: Kind) -> str:
    return f"{scope.counts[kind]:,}" if kind in scope.counts else f"{scope.unknown[kind]:,} unknown"


def p_text(value: float | None) -> str:
    """A p value with as many digits as matter."""
    if value is None:
        return UNDEFINED
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}" if value < 0.01 else f"{value:.3f}"
