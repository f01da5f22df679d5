"""What a run says in words: a line per epoch, the lines at its end, and best_result.txt."""

from collections.abc import Iterable, Sequence

from serfit.config.schema import ExperimentConfig
from serfit.errors import counted
from serfit.labels import Dimension, letter
from serfit.runs.records import TestScores
from serfit.scores.metrics import Scores
from serfit.scores.records import EpochRecord, EpochTime
from serfit.scores.reference import Measure, measure

UNDEFINED = "n/a"


def best_result_text(config: ExperimentConfig, results: TestScores) -> str:
    """The content of best_result.txt: one `key: value` per line, scores with four decimals, undefined ones n/a.

    `ccc_v`, `ccc_a`, `ccc_d` (those that were predicted) and `ccc_avg` are test scores with the weights of
    `best_epoch`; `validation_ccc_avg` is what that epoch was chosen by; `scenario_baseline_...` and
    `within_scenario_...` are there where the corpus has scenarios.
    """
    lines = [
        *_score_lines("", results.test),
        f"best_epoch: {results.best_epoch}",
        f"validation_ccc_avg: {_number(results.validation.average)}",
        f"experiment: {config.experiment.name}",
        f"fold: {config.data.split.fold}",
        f"seed: {config.experiment.seed}",
        f"test_utterances: {results.tested}",
    ]
    if results.scenario_baseline is not None:
        lines += _score_lines("scenario_baseline_", results.scenario_baseline)
    if results.within_scenario is not None:
        lines += _score_lines("within_scenario_", results.within_scenario)
    return "\n".join(lines) + "\n"


def epoch_heading(dimensions: Sequence[Dimension], groups: Sequence[str], epochs: int) -> str:
    """Return the heading of the lines of `epoch_line`.

    Args:
        dimensions: those that are predicted.
        groups: parameter groups with rates of their own ("encoder", "head").
        epochs: how many epochs there are at most.
    """
    letters = [letter(name) for name in dimensions]
    train = _cells([f"train {letters[0]}", *letters[1:]], 7)
    validation = _cells([f"validation {letters[0]}", *letters[1:], "mean"], 12)
    rates = "lr " + "/".join(groups)
    return f"{'epoch':>{_epoch_width(epochs)}}    loss | {train} | {validation} | {rates} |  time (CCC, learning rates)"


def epoch_line(record: EpochRecord, epochs: int, spent: EpochTime) -> str:
    """One epoch in one line, beneath `epoch_heading`; speed and GPU memory where they were measured and fit.

    Args:
        record: the epoch.
        epochs: how many there are at most.
        spent: where its time went.
    """
    names = list(record.validation.dimensions)
    train = _cells([_number(record.train.ccc(name), ".3f") for name in names], 7)
    scored = [*(record.validation.ccc(name) for name in names), record.validation.average]
    rates = "/".join(f"{rate:.1e}".replace("e-0", "e-") for rate in record.learning_rates.values())
    heading = len("lr " + "/".join(record.learning_rates))
    line = (
        f"{f'{record.epoch}/{epochs}':>{_epoch_width(epochs)}} {_loss(record.train_loss):>7} | {train} | "
        f"{_cells([_number(value, '.3f') for value in scored], 12)} | {rates:>{heading}} | {spent.seconds:>4.0f} s"
    )
    best = "  best" if record.best else "  best V" if record.best_valence else ""
    measured = [] if spent.gpu_memory is None else [f"{spent.gpu_memory / 2**30:.1f} GiB"]
    measured += [] if spent.gpu_memory is None or spent.speed is None else [f"{spent.speed:.1f} utt/s"]
    for more in measured:
        line += f"  {more}" if len(f"{line}  {more}{best}") <= LINE else ""
    return line + best


LINE = 110
"""Most characters of a line with a time before it on a terminal of 120 columns."""


def result_lines(results: TestScores, corpus: str) -> list[str]:
    """Return the lines at the end of a training: test CCC per dimension, then what puts it into perspective.

    Args:
        results: of one run.
        corpus: name of the corpus.
    """
    if not results.tested:
        return [f"trained on all of {corpus} for {counted(results.best_epoch, 'epoch')}: nothing was left to test on"]
    names: tuple[Measure, ...] = (*results.test.dimensions, "average")
    rows: list[tuple[str, Scores | None, str]] = [(f"test ({counted(results.tested, 'utterance')})", results.test, "")]
    if results.scenario_baseline is not None:
        words = "scenario means of the ratings; a useful model is better"
        rows += [("no-audio baseline", results.scenario_baseline, words)]
        rows += [("within scenario", results.within_scenario, "scenario means taken out")]
    if results.rater is not None:
        rows += [("one rater", results.rater, "with the mean of the others; not an upper bound")]
        rows += [("model as a rater", results.as_rater, "with the same means")]
    width = max(len(title) for title, _, _ in rows)
    heading = _cells([*(letter(name) for name in results.test.dimensions), "mean"], 7)
    chosen = f"best epoch: {results.best_epoch} (mean validation CCC {_number(results.validation.average, '.3f')})"
    lines = [f"{chosen}; the test set was scored once, with its weights", f"{'CCC':{width}} {heading}"]
    for title, scores, words in rows:
        values = [None if scores is None else measure(scores, name) for name in names]
        lines.append(f"{title:{width}} {_cells([_number(value, '.3f') for value in values], 7)}   {words}".rstrip())
    return lines + [warning for name in results.test.dimensions for warning in _warnings(name, results)]


def _warnings(name: Dimension, results: TestScores) -> Iterable[str]:
    """Sentences about scores that look better or worse than they are."""
    scored = results.test.dimensions[name]
    base = None if results.scenario_baseline is None else results.scenario_baseline.ccc(name)
    if scored.ccc is None:
        yield f"CCC of {name} is undefined: look for predictions that are not finite, or ratings that are all equal"
    elif base is not None and scored.ccc <= base:
        yield f"{name}: no better than the no-audio baseline ({scored.ccc:.4f} against {base:.4f})"


def _score_lines(prefix: str, scores: Scores) -> list[str]:
    lines = [f"{prefix}ccc_{letter(name).lower()}: {_number(scores.ccc(name))}" for name in scores.dimensions]
    return [*lines, f"{prefix}ccc_avg: {_number(scores.average)}"]


def _cells(texts: Sequence[str], first: int) -> str:
    """Cells of a row, aligned to the right; the first as wide as said, the others 7 wide."""
    return "".join(f"{text:>{7 if index else first}}" for index, text in enumerate(texts))


def _epoch_width(epochs: int) -> int:
    return max(len("epoch"), 2 * len(str(epochs)) + 1)


def _loss(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 1000 else f"{value:.2g}"


def _number(value: float | None, form: str = ".4f") -> str:
    return UNDEFINED if value is None else format(value, form)
