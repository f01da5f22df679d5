"""The evidence of a comparison as sentences and Markdown tables."""

from collections.abc import Iterable, Mapping, Sequence

from serfit.labels import Dimension, letter
from serfit.metrics import Correlation
from serfit.report.breakdown import GROUPINGS, LEAST, GroupScore, Miscalibration
from serfit.report.evidence import LEVEL, Evidence, Pair, seed_deviation
from serfit.report.experiments import ExperimentResult, ranges
from serfit.report.markdown import ABSENT, UNDEFINED, Rows, as_markdown, bullets, escaped, number
from serfit.report.reference import Measure
from serfit.statistics.interval import Estimate, Kind

MOST_GROUPS = 24
"""Most groups of one grouping that a table lists; of more, the table says only how many there are."""

MOST_BESIDE = 4
"""Most experiments beside each other in the table of groups."""

HOW_SURE = (
    "Intervals are 95 % confidence intervals for other speakers and dialogues like these: jackknife standard errors "
    "from leaving out whole speakers, whole dialogues, and both ways together (the headline, never narrower than the "
    "other two), with t quantiles. They don't tell how the scores vary with the seed of the training; the deviation "
    "over seeds (root of the mean variance inside a fold) does.",
    "p is the largest of three: permutation tests that swap the two systems' predictions of whole speakers and of "
    "whole dialogues, and the t test that belongs to the interval. Corrected: by Holm's method for all tests on the "
    f"corpus. A difference counts as shown where the corrected p is below {LEVEL:g}; intervals are not corrected.",
)

_KNOWN: tuple[Kind, Kind] = ("speaker", "dialogue")

FEW_SPEAKERS = (
    "Where the folds have too few speakers for an interval by speaker, the interval is by dialogue alone and holds for "
    "these speakers only; with fewer than five dialogues there is none."
)


def answers(pairs: Sequence[Pair]) -> list[str]:
    """The sentences that answer whether one experiment is better than another: one per two experiments."""
    together: dict[tuple[str, str], list[Pair]] = {}
    for pair in pairs:
        together.setdefault((pair.first, pair.second), []).append(pair)
    return [
        f"{first} against {second} on {_where(same[0])}: {'; '.join(_finding(pair) for pair in same)}."
        for (first, second), same in together.items()
    ]


def _where(pair: Pair) -> str:
    """What was compared, for example "iemocap (folds 1-5, 360 utterances, 10 speakers, 30 dialogues, 3 seeds)"."""
    estimate = pair.difference
    counts = [
        f"{estimate.clusters[kind]:,} {kind}{'s' if estimate.clusters[kind] > 1 else ''}"
        for kind in _KNOWN
        if kind in estimate.clusters
    ]
    known = counts or ["speakers and dialogues unknown"]
    seeds = f"{pair.seeds} seeds" if pair.seeds > 1 else "one seed: about these trained models, not the recipes"
    return (
        f"{pair.corpus} ({', '.join([ranges('fold', pair.folds), f'{pair.utterances:,} utterances', *known, seeds])})"
    )


def _finding(pair: Pair) -> str:
    """For example "better in valence by 0.0312 CCC (95 % interval +0.0120 to +0.0504, corrected p 0.004)"."""
    what = "on average" if pair.measure == "average" else f"in {pair.measure}"
    value, interval = pair.difference.value, pair.difference.interval
    if value is None or pair.corrected is None:
        return f"nothing can be said {what}, for a CCC is undefined"
    size = abs(value) if pair.shown else value
    reach = ""
    if interval is not None:
        ends = (-interval.high, -interval.low) if pair.shown and value < 0.0 else (interval.low, interval.high)
        reach = f"95 % interval {ends[0]:+.4f} to {ends[1]:+.4f}, "
    numbers = f"({reach}corrected p {p_text(pair.corrected)}{_too_few(pair)})"
    if pair.shown:
        return f"{'better' if value > 0.0 else 'worse'} {what} by {size:.4f} CCC {numbers}"
    return f"no difference shown {what}: {size:+.4f} CCC {numbers}"


def _too_few(pair: Pair) -> str:
    """A remark where the clusters are too few for a permutation test to show anything, however large the difference."""
    for kind, test in pair.swaps.items():
        least = 2.0 / test.tried
        if test.exact and pair.p is not None and test.p <= least and pair.p <= least and not pair.shown:
            return f"; {test.clusters} {kind}s allow no p below {p_text(least)}"
    return ""


def evidence_blocks(experiments: Sequence[ExperimentResult], evidence: Evidence) -> list[str]:
    """Markdown about the experiments on one corpus: answers, tests, intervals."""
    labels = {result.label for result in experiments}
    pairs = [pair for pair in evidence.pairs if pair.first in labels]
    blocks: list[str] = []
    if pairs:
        blocks += [
            "### Which is better",
            bullets(escaped(line) for line in answers(pairs)),
            as_markdown(pair_rows(pairs)),
        ]
    blocks += ["### How sure", as_markdown(interval_rows(experiments, evidence))]
    if any("speaker" not in one.intervals for one in _every(experiments, evidence) if one.headline is not None):
        blocks.append(FEW_SPEAKERS)
    return blocks


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
        "rating from the prediction (1 is calibrated); spread is the deviation of the predictions over that of the "
        "ratings (near 0 the output has collapsed to a constant).",
        f"Groups: test utterances of all folds, means over the seeds; no CCC of fewer than {LEAST} utterances. A CCC "
        "inside a group depends on how much the ratings vary there, so compare systems within a group, not groups.",
    )


def heading(name: Measure) -> str:
    """What a column or row about a measure is called."""
    return "CCC-Avg" if name == "average" else f"CCC-{letter(name)}"


def interval_text(estimate: Estimate | None, kind: Kind | None = None) -> str:
    """An interval as "[0.512, 0.634]", the one that counts or a given one."""
    if estimate is None or estimate.headline is None:
        return UNDEFINED
    interval = estimate.interval if kind is None else estimate.intervals.get(kind)
    return UNDEFINED if interval is None else f"[{interval.low:.3f}, {interval.high:.3f}]"


def interval_rows(experiments: Sequence[ExperimentResult], evidence: Evidence) -> Rows:
    """Mean over folds and pooled score of each experiment, with intervals clustered in each way."""
    header = ["experiment", "CCC", "mean over folds", "95 % interval", "by speaker", "by dialogue"]
    header += ["deviation over seeds", "pooled", "95 % interval", "speakers", "dialogues"]
    rows = []
    for result in experiments:
        pooled = evidence.pooled[result.label]
        for name, one in evidence.over_folds[result.label].items():
            row = [result.label, heading(name), number(one.value), interval_text(one)]
            row += [interval_text(one, "speaker"), interval_text(one, "dialogue")]
            row.append(number(seed_deviation(result.runs, name)))
            together = pooled.get(name)
            row += [number(None if together is None else together.value), interval_text(together)]
            row += [str(one.clusters.get(kind, ABSENT)) for kind in _KNOWN]
            rows.append(row)
    return Rows(header, rows, left=2)


def pair_rows(pairs: Sequence[Pair]) -> Rows:
    """Differences between experiments, and each test of them."""
    header = ["first", "second", "CCC", "first - second", "95 % interval", "p by speaker", "p by dialogue"]
    header += ["p of the interval", "p", "corrected p"]
    rows = []
    for pair in pairs:
        interval = pair.difference.interval
        row = [pair.first, pair.second, heading(pair.measure)]
        row += [number(pair.difference.value, "+.4f"), interval_text(pair.difference)]
        row += [p_text(pair.swaps[kind].p if kind in pair.swaps else None) for kind in _KNOWN]
        row += [p_text(None if interval is None else interval.p), p_text(pair.p), p_text(pair.corrected)]
        rows.append(row)
    return Rows(header, rows, left=3)


def _every(experiments: Iterable[ExperimentResult], evidence: Evidence) -> Iterable[Estimate]:
    return (one for result in experiments for one in evidence.over_folds[result.label].values())


def p_text(value: float | None) -> str:
    """A p value with as many digits as matter."""
    if value is None:
        return UNDEFINED
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}" if value < 0.01 else f"{value:.3f}"
