"""What tested networks in a bundle say of their tests: all that is left of the records when the runs aren't at hand."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

from serfit.corpus.identity import agree, recorded
from serfit.errors import UserError, listed
from serfit.inference.bundle import Member
from serfit.inference.publish.cross_validated import measure_title
from serfit.labels import Dimension
from serfit.report.markdown import Rows, as_markdown, number
from serfit.runs.experiments import IRRELEVANT, ranges, summarise
from serfit.runs.finished import recorded_fold
from serfit.scores.metrics import Scores
from serfit.scores.raters import Agreement
from serfit.scores.reference import Measure, measure


@dataclass(frozen=True, slots=True)
class RecordedTest:
    """The test of one network, as its run recorded it.

    Attributes:
        fold: from 1.
        seed: of everything random.
        folds: how many folds the experiment has; None where not recorded.
        protocol: which utterances it was trained, validated and tested on, in words.
        best_epoch: whose weights were tested.
        beside: scores by what they are of: "test", and where they are known "scenario baseline", "one rater" and "in a
            rater's place".
    """

    fold: int
    seed: int
    folds: int | None
    protocol: str
    best_epoch: int
    beside: Mapping[str, Scores]


def recorded_tests(members: Sequence[Member]) -> list[RecordedTest]:
    """What the members of a bundle recorded of their tests, by fold and seed.

    Raises:
        UserError: they aren't of one experiment, or two are of the same fold and seed.
        AttributeError, KeyError, TypeError, ValueError: something is missing or can't be; anybody may write a bundle.
    """
    origins = [member.about.origin for member in members]
    first, *others = [_decisive(origin) for origin in origins]
    keys = sorted(first.keys() | {key for other in others for key in other})
    differing = [key for key in keys if any(other.get(key) != first.get(key) for other in others)]
    labels = [recorded(origin["corpus"]) for origin in origins]
    differing += ["labels"] if not all(agree(*pair) for pair in combinations(labels, 2)) else []
    if differing:
        raise UserError(
            f"a model card is about one experiment, and these networks differ in {listed(differing, most=5)}; name the "
            "models of one experiment, or use --to bundle"
        )
    tests = [_test(origin, members[0].about.dimensions) for origin in origins]
    tests.sort(key=lambda one: (one.fold, one.seed))
    for one, other in pairwise(tests):
        if (one.fold, one.seed) == (other.fold, other.seed):
            raise UserError(
                f"two of these networks are of fold {one.fold} and seed {one.seed}, and a model card counts each once; "
                "leave one of them out, or use --to bundle"
            )
    return tests


def mean_ccc(tests: Sequence[RecordedTest], name: Measure, of: str = "test") -> float | None:
    """Mean over the folds of the mean over their seeds; None where it isn't known or defined in one of them."""
    by_fold: dict[int, list[float | None]] = defaultdict(list)
    for one in tests:
        by_fold[one.fold].append(measure(one.beside[of], name) if of in one.beside else None)
    return summarise([summarise(found).mean for found in by_fold.values()]).mean


def in_words(tests: Sequence[RecordedTest]) -> str:
    """Which folds and seeds there are."""
    folds, seeds = (sorted({getattr(one, key) for one in tests}) for key in ("fold", "seed"))
    return f"{ranges('fold', folds)}, {ranges('seed', seeds)}"


def results(tests: Sequence[RecordedTest]) -> list[str]:
    """Paragraphs and a table of Markdown: the test CCC of every network, their mean, and what stands beside it."""
    dimensions = tuple(tests[0].beside["test"].dimensions)
    names: tuple[Measure, ...] = (*dimensions, "average")
    rows = []
    for one in tests:
        scores = one.beside["test"]
        count = str(scores.dimensions[dimensions[0]].count)
        rows.append([f"fold {one.fold}, seed {one.seed}", count, *(number(measure(scores, name)) for name in names)])
    for title, of in (("mean over the folds", "test"), *((of, of) for of in _BESIDE)):
        if all(of in one.beside for one in tests):
            rows.append([title, "", *(number(mean_ccc(tests, name, of)) for name in names)])
    folds = {one.fold for one in tests}
    missing = [fold for fold in range(1, (tests[0].folds or 0) + 1) if fold not in folds]
    left_out = f" Not among them: {ranges('fold', missing)}." if missing else ""
    blocks = [
        f"Concordance correlation coefficients (CCC) on test utterances, as the runs recorded them: {in_words(tests)}."
        f"{left_out} Each utterance was predicted by a network that was not trained on it and whose epoch was not "
        "chosen by it.",
        as_markdown(Rows(["", "test utterances", *(measure_title(name) for name in names)], rows)),
        "Scenario baseline: predicted without any audio. One rater: against the mean of the others; in a rater's "
        "place: the system on the same targets. Where these aren't shown, they weren't recorded.",
        "This card was written from a bundle, which holds no single predictions: so there are no intervals here, and "
        "nothing about bias and slope. A card that is written from the run directories has them.",
    ]
    if len(folds) > 1:
        blocks.append(
            "The mean of all networks has no score here: a network of one fold may have been trained on what is the "
            "test part of another."
        )
    return blocks


_BESIDE = ("scenario baseline", "one rater", "in a rater's place")


def _decisive(origin: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in origin["settings"].items() if key not in IRRELEVANT}
    return {**kept, "corpus": origin["corpus"]["name"], "encoder weights": origin.get("encoder", {}).get("sha256")}


def _test(origin: Mapping[str, Any], dimensions: Sequence[Dimension]) -> RecordedTest:
    scores, settings = origin["scores"], origin["settings"]
    beside = {"test": Scores.from_json(scores["test"])}
    if tuple(beside["test"].dimensions) != tuple(dimensions):
        raise ValueError("its scores are of other dimensions")
    if scores.get("scenario_baseline") is not None:
        beside["scenario baseline"] = Scores.from_json(scores["scenario_baseline"])
    if scores.get("raters_agreement") is not None:
        agreement = Agreement.from_json(scores["raters_agreement"])
        beside |= {"one rater": agreement.rater, "in a rater's place": agreement.system}
    return RecordedTest(
        fold=recorded_fold(settings["data.split.fold"]),
        seed=int(settings["experiment.seed"]),
        folds=None if origin.get("folds") is None else recorded_fold(origin["folds"]),
        protocol=str(origin.get("protocol", "protocol not recorded")),
        best_epoch=int(scores["best_epoch"]),
        beside=beside,
    )
