"""What a run says in words: a line per epoch, the lines at its end, and best_result.txt."""

from collections.abc import Iterable

from serfit.config.schema import ExperimentConfig
from serfit.labels import Dimension, letter
from serfit.metrics import Scores
from serfit.records import EpochRecord
from serfit.report.reference import Measure, measure
from serfit.results import Results

UNDEFINED = "n/a"


def best_result_text(config: ExperimentConfig, results: Results) -> str:
    """The content of best_result.txt: one `key: value` per line, scores with four decimals, undefined ones n/a.

    `ccc_v`, `ccc_a`, `ccc_d` (those that were predicted) and `ccc_avg` are test scores with the weights of
    `best_epoch`; `validation_ccc_avg` is what that epoch was chosen by; `scenario_baseline_...` and
    `within_scenario_...` are there where the corpus has scenarios.
    """
    lines = [
        *_score_lines("", results.test),
        f"best_epoch: {results.best.epoch}",
        f"validation_ccc_avg: {_number(results.best.validation.average)}",
        f"experiment: {config.experiment.name}",
        f"fold: {config.data.split.fold}",
        f"seed: {config.experiment.seed}",
        f"test_utterances: {len(results.predictions.ids)}",
    ]
    if results.baseline is not None:
        lines += _score_lines("scenario_baseline_", results.baseline)
    if results.within is not None:
        lines += _score_lines("within_scenario_", results.within)
    return "\n".join(lines) + "\n"


def epoch_line(record: EpochRecord, epochs: int, seconds: float) -> str:
    """One epoch in one line.

    Args:
        record: the epoch.
        epochs: how many there are at most.
        seconds: wall-clock time of the epoch.
    """
    rates = ", ".join(f"{group} {rate:.2g}" for group, rate in record.learning_rates.items())
    parts = [
        f"epoch {record.epoch:>{len(str(epochs))}}/{epochs}",
        f"loss {record.train_loss:.4f}",
        f"train {_brief(record.train)}",
        f"validation {_brief(record.validation)}",
        f"gradient {record.gradient_norm:.2g}",
        f"lr {rates}",
        f"{seconds:.0f} s",
    ]
    if record.constant_batches:
        parts.append(f"{record.constant_batches} batches with constant targets")
    if record.best:
        parts.append("best")
    elif record.best_valence:
        parts.append("best valence")
    return " | ".join(parts)


def result_lines(results: Results, corpus: str) -> list[str]:
    """What training says at its end: test CCC per dimension, beside everything that puts it into perspective.

    Args:
        results: of one run.
        corpus: name of the corpus.
    """
    if not results.predictions.ids:
        return [f"trained on all of {corpus} for {results.best.epoch} epochs: nothing was left to test on"]
    columns: list[tuple[str, Scores | None]] = [("test", results.test)]
    columns.append(("validation", results.best.validation))
    if results.baseline is not None:
        columns += [("scenario baseline", results.baseline), ("within scenario", results.within)]
    columns += [(style, results.styles[style]) for style in ("improvised", "scripted") if style in results.styles]
    names: tuple[Measure, ...] = (*results.predictions.dimensions, "average")
    count = len(results.predictions.ids)
    lines = [f"result on {corpus}: CCC of {count:,} test utterances with the weights of epoch {results.best.epoch}"]
    lines.append(" " * 7 + "".join(f"{heading:>{_width(heading)}}" for heading, _ in columns))
    for name in names:
        values = ((heading, None if scores is None else measure(scores, name)) for heading, scores in columns)
        title = "CCC-Avg" if name == "average" else f"CCC-{letter(name)}  "
        lines.append(title + "".join(f"{_number(value):>{_width(heading)}}" for heading, value in values))
    if results.agreement is not None:
        lines.append(
            f"raters' agreement (no ceiling): one rater against the others {_brief(results.agreement.rater)}; "
            f"this run in a rater's place {_brief(results.agreement.system)}"
        )
    lines += [warning for name in results.predictions.dimensions for warning in _warnings(name, results)]
    if results.baseline is not None:
        lines.append(
            "scenario baseline: each scenario's mean rating in the other parts, without any audio; "
            "within scenario: deviations from the scenario means"
        )
    return lines


def _warnings(name: Dimension, results: Results) -> Iterable[str]:
    """Sentences about scores that look better or worse than they are."""
    scored = results.test.dimensions[name]
    base = None if results.baseline is None else results.baseline.ccc(name)
    if scored.ccc is None:
        yield f"CCC of {name} is undefined: look for predictions that are not finite, or ratings that are all equal"
    elif base is not None and scored.ccc <= base:
        yield f"{name}: no better than the scenario baseline, which hears nothing ({scored.ccc:.4f} against {base:.4f})"


def _score_lines(prefix: str, scores: Scores) -> list[str]:
    lines = [f"{prefix}ccc_{letter(name).lower()}: {_number(scores.ccc(name))}" for name in scores.dimensions]
    return [*lines, f"{prefix}ccc_avg: {_number(scores.average)}"]


def _brief(scores: Scores) -> str:
    """For example "V 0.512 A 0.634 avg 0.573"."""
    parts = [f"{letter(name)} {_number(scores.ccc(name), '.3f')}" for name in scores.dimensions]
    return " ".join([*parts, f"avg {_number(scores.average, '.3f')}"])


def _width(heading: str) -> int:
    return max(len(heading), 7) + 3


def _number(value: float | None, form: str = ".4f") -> str:
    return UNDEFINED if value is None else format(value, form)
