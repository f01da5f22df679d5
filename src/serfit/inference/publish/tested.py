"""What tested networks recorded of their tests: all that is left of them where the runs aren't at hand."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

from serfit.config.load import without_added
from serfit.config.schema import UNTRAINED
from serfit.corpus.identity import agree
from serfit.errors import UserError, listed
from serfit.inference.about import About
from serfit.inference.origin import Origin
from serfit.inference.publish.cross_validated import measure_title
from serfit.report.markdown import Rows, as_markdown, number
from serfit.runs.experiments import IRRELEVANT, STARTS, ranges, summarise
from serfit.runs.records import TestScores, Which
from serfit.scores.metrics import Scores
from serfit.scores.reference import Measure, measure
from serfit.system.records import from_plain


@dataclass(frozen=True, slots=True)
class Tested:
    """The test of one network, as its run recorded it.

    Attributes:
        which: experiment, fold and seed.
        scores: what came out.
        origin: everything else.
    """

    which: Which
    scores: TestScores
    origin: Origin


Pick = Callable[[TestScores], Scores | None]
"""Some of the scores of a test; None where they aren't known."""

BESIDE: dict[str, Pick] = {
    "scenario baseline": lambda scores: scores.scenario_baseline,
    "one rater": lambda scores: scores.rater,
    "in a rater's place": lambda scores: scores.as_rater,
}


def recorded_tests(abouts: Sequence[About], where: str) -> list[Tested]:
    """Test scores that networks carry, by fold and seed.

    Args:
        abouts: of the networks.
        where: what they are from, for the message.

    Raises:
        UserError: one didn't, or two are of the same fold and seed.
    """
    remedy = "it can have no model card: export its runs, leave with it anew (serfit cv --retrain), or use --to bundle"
    missing = f"{where} doesn't say how it was trained and tested"
    tests = []
    for about in abouts:
        origin = about.origin
        if origin.scores is None or tuple(origin.scores.test.dimensions) != about.dimensions:
            raise UserError(f"{missing}; {remedy}")
        which = from_plain(Which, origin.settings, f"{missing}: of its settings", remedy)
        tests.append(Tested(which, origin.scores, origin))
    tests.sort(key=lambda one: (one.which.fold, one.which.seed))
    for one, other in pairwise(tests):
        if (one.which.fold, one.which.seed) == (other.which.fold, other.which.seed):
            raise UserError(
                f"two of these networks are of fold {one.which.fold} and seed {one.which.seed}, and a model card "
                "counts each once; leave one of them out, or use --to bundle"
            )
    return tests


def check_one_experiment(origins: Sequence[Origin]) -> None:
    """Raise UserError where networks are known to be of several experiments."""
    first, *others = [decisive(origin) for origin in origins]
    keys = sorted(first.keys() | {key for other in others for key in other})
    differing = [key for key in keys if any(other.get(key) != first.get(key) for other in others)]
    labels = [origin.corpus.labels for origin in origins]
    differing += ["labels"] if not all(agree(*pair) for pair in combinations(labels, 2)) else []
    if differing:
        raise UserError(
            f"a model card is about one experiment, and these networks differ in {listed(differing, most=5)}; name the "
            "models of one experiment, or use --to bundle"
        )


def decisive(origin: Origin) -> dict[str, object]:
    """What makes a network one of an experiment, whatever its fold and seed."""
    kept = {key: value for key, value in without_added(origin.settings).items() if key not in IRRELEVANT | STARTS}
    kept |= {} if origin.start is None else {"model.start_from": str(origin.start)}
    weights = None if origin.encoder.name.startswith(UNTRAINED) else origin.encoder.sha256  # those follow the seed
    return {**kept, "corpus": origin.corpus.name, "encoder weights": weights}


def mean_ccc(tests: Sequence[Tested], name: Measure, pick: Pick = lambda scores: scores.test) -> float | None:
    """Mean over the folds of the mean over their seeds; None where it isn't known or defined in one of them."""
    by_fold: dict[int, list[float | None]] = defaultdict(list)
    for one in tests:
        scores = pick(one.scores)
        by_fold[one.which.fold].append(None if scores is None else measure(scores, name))
    return summarise([summarise(found).mean for found in by_fold.values()]).mean


def in_words(tests: Sequence[Tested]) -> str:
    """List the folds and seeds."""
    folds, seeds = (sorted({getattr(one.which, key) for one in tests}) for key in ("fold", "seed"))
    return f"{ranges('fold', folds)}, {ranges('seed', seeds)}"


def results(tests: Sequence[Tested]) -> list[str]:
    """Paragraphs and a table of Markdown: the test CCC of every network, their mean, and what stands beside it."""
    dimensions = tuple(tests[0].scores.test.dimensions)
    names: tuple[Measure, ...] = (*dimensions, "average")
    rows = [
        [
            f"fold {one.which.fold}, seed {one.which.seed}",
            str(one.scores.test.dimensions[dimensions[0]].count),
            *(number(measure(one.scores.test, name)) for name in names),
        ]
        for one in tests
    ]
    rows.append(["mean over the folds", "", *(number(mean_ccc(tests, name)) for name in names)])
    for title, pick in BESIDE.items():
        if all(pick(one.scores) is not None for one in tests):
            rows.append([title, "", *(number(mean_ccc(tests, name, pick)) for name in names)])
    missing = sorted(set(range(1, (tests[0].origin.folds or 0) + 1)) - {one.which.fold for one in tests})
    left_out = f" Not among them: {ranges('fold', missing)}." if missing else ""
    return [
        f"Concordance correlation coefficients (CCC) on test utterances, as the runs recorded them: {in_words(tests)}."
        f"{left_out} Each utterance was predicted by a network that was not trained on it and whose epoch was not "
        "chosen by it.",
        as_markdown(Rows(["", "test utterances", *(measure_title(name) for name in names)], rows)),
        "Scenario baseline: predicted without any audio. One rater: against the mean of the others; in a rater's "
        "place: the system on the same targets. Where these aren't shown, they weren't recorded.",
        "This card was written from a bundle, which holds no single predictions: so there are no intervals here, and "
        "nothing about bias and slope. A card that is written from the run directories has them.",
    ]
