"""Diagnoses from the course of learning: pure functions of a run's configuration and epochs.

Thresholds are for sustained changes well outside of what a healthy run's noise does;
tests/report/diagnosis/test_learning.py measures how seldom they speak up over thousands of simulated healthy histories,
looked at after every epoch.
"""

import math
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Literal

from serfit.errors import counted
from serfit.labels import Dimension, letter
from serfit.report.diagnosis.finding import HIGH_ENCODER_RATE, LOW_ENCODER_RATE, Finding, bolder, gentler, more_frozen
from serfit.runs.live import History
from serfit.scores.metrics import COLLAPSED
from serfit.scores.reference import EXPECTED

RECENT = 3
"""Epochs whose mean stands for "now": one epoch alone may be a bad draw."""

FALL = 0.12
"""Drop of the validation CCC below its best that counts as falling. Between epochs of a healthy run it moves by 0.02 or
so on 2,000 utterances; on smaller parts the threshold grows, see `noise`."""

LOSS_JUMP = 0.2
"""Rise of an epoch's mean training loss above its lowest that counts as exploding. The loss is 1 - CCC, and that of a
healthy run hardly ever rises from epoch to epoch."""

LOSS_LIMIT = 2.0
"""1 - CCC can't exceed 2; the squared error of outputs on the rating scale, of which `train.loss.mse_share` is added,
can't exceed 1. A mean loss above that means outputs far outside the scale."""

SETTLING = 2
"""Epochs after the warm-up in which nothing is judged yet."""

STALLED = 4
"""Epochs after settling without anything learnt that count as not rising."""

LOW = 0.1
"""Validation CCC below which hardly anything has been learnt; 0 is what guessing the mean gets."""

TRAIN_RISES = 0.03
"""Least rise of the training CCC, from the validation's best epoch to now, that means the training part is still being
learnt: the mark of overfitting, where a rate that is too high hurts both."""

GAP = 0.3
"""Training CCC minus validation CCC from which a validation CCC that never rose is put down to overfitting."""

FAINT = 0.05
"""Share of the first epoch's gradient norm below which gradients have vanished: saturated or dead units."""

LOST = 3.0
"""Factor by which the spread of the outputs has shrunk when they have been lost rather than never found."""

HUGE = 10.0
"""Factor for the rate of weights that began at random and were destroyed, or never moved: no half or double helps."""

MOST_DROPOUT = 0.5
"""Dropout of the head beyond which no more is advised."""

CONSTANT = 0.05
"""Share of optimisation batches with constant targets from which it is worth saying: they teach nothing."""

SLACK = 0.03
"""How far the best CCC of a span of epochs may lie below the expected range without a word: the CCC of one fold
has a standard error of 0.03 to 0.05."""

Standing = Literal["below", "within", "above"]


def noise(count: int) -> float:
    """Four standard errors of the CCC of `count` unrelated pairs: what chance may do to the extremes of many epochs."""
    return 4.0 / math.sqrt(max(count, 1))


def of_learning(history: History) -> Iterator[Finding]:
    """All diagnoses from a run's epochs; where one explains another, only the first is given."""
    first = [*not_finite(history), *exploding(history)]
    yield from first
    yield from constant_batches(history)
    if first:
        return
    lost = collapsed_dimensions(history)
    yield from collapsed(history, lost)
    others = [name for name in history.config.data.dimensions if name not in lost]
    curves = [finding for name in others for finding in one_dimension(history, name)]
    yield from curves
    yield from one_axis(history, others)
    if not lost and not curves:
        yield from below_expectation(history)


def not_finite(history: History) -> Iterator[Finding]:
    """The run stopped at a loss, gradient or prediction that isn't finite."""
    if history.stopped is not None and history.stopped.kind == "NumericalError":
        evidence = history.stopped.message.split("; ")[0].split(". ")[0]
        yield Finding("not finite", evidence, "clip harder and halve the rate", _smaller_steps(history))


def exploding(history: History) -> Iterator[Finding]:
    """The training loss has risen far above its lowest, or beyond what it can be of outputs on the rating scale."""
    losses = [record.train_loss for record in history.records]
    if not losses:
        return
    steps = max(1, history.records[-1].step // len(losses))
    jump = max(LOSS_JUMP, noise(steps) / 3)  # the loss of one batch has a standard deviation of about 0.3
    lowest = min(range(len(losses)), key=lambda index: losses[index])
    if min(losses[-2:]) > losses[lowest] + jump:
        evidence = (
            f"the training loss rose from {losses[lowest]:.3f} (epoch {lowest + 1}) to {losses[-1]:.3f} (epoch "
            f"{len(losses)}), with gradient norms up to {history.records[-1].gradient_norm:.2g}"
        )
        yield Finding("exploding", evidence, "clip harder and halve the rate", _smaller_steps(history))
    elif losses[-1] > (limit := LOSS_LIMIT + (share := history.config.train.loss.mse_share)):
        loss = f"1 - CCC + {share:g} MSE" if share else "1 - CCC"
        evidence = (
            f"the training loss is {losses[-1]:.3g} (epoch {len(losses)}), and {loss} of outputs on the rating scale "
            f"can't exceed {limit:g}"
        )
        yield Finding("exploding", evidence, "clip harder and halve the rate", _smaller_steps(history))


def constant_batches(history: History) -> Iterator[Finding]:
    """Many optimisation batches of the last epoch had constant targets in some dimension."""
    if not history.records:
        return
    last = history.records[-1]
    steps = last.step - (history.records[-2].step if len(history.records) > 1 else 0)
    if steps > 0 and last.constant_batches > max(1, CONSTANT * steps):
        config = history.config
        evidence = (
            f"in {last.constant_batches} of {steps} optimisation batches of epoch {last.epoch} all targets of a "
            f"dimension were equal, so their CCC taught nothing (batches of {config.optimisation_batch})"
        )
        larger = f"train.accumulation_steps={2 * config.train.accumulation_steps}"
        yield Finding("constant batches", evidence, "put more utterances behind each update", (larger,))


def collapsed_dimensions(history: History) -> list[Dimension]:
    """Dimensions whose outputs hardly varied over the validation part in each of the last two epochs."""
    if len(history.records) < 2 or not _settled(history):
        return []
    last = [record.validation.dimensions for record in history.records[-2:]]
    return [
        name
        for name in history.config.data.dimensions
        if all(name in one and (spread := one[name].spread) is not None and spread < COLLAPSED for one in last)
    ]


def collapsed(history: History, names: Sequence[Dimension]) -> Iterator[Finding]:
    """Advise what to do about collapsed outputs."""
    if not names:
        return
    last = history.records[-1].validation.dimensions
    spreads = ", ".join(f"{name} {100 * (last[name].spread or 0.0):.1f} %" for name in names)
    epoch = history.records[-1].epoch
    evidence = f"the outputs hardly vary: after epoch {epoch} they spread over {spreads} of what the labels do"
    advice, overrides = _rate_advice(history, names[0])
    yield Finding("collapsed", evidence, advice, overrides)


def one_dimension(history: History, name: Dimension) -> Iterator[Finding]:
    """Falling, overfitting or not rising: at most one of them per dimension."""
    validation, train = history.validation(name), history.train(name)
    count = history.validated(name)
    if len(validation) < RECENT + 1 or not count or not _settled(history):
        return
    best = max(range(len(validation)), key=lambda index: validation[index])
    now, recent = fmean(validation[-RECENT:]), validation[-RECENT:]
    fallen = max(FALL, noise(count))
    learnt = fmean(train[-RECENT:])
    said = f"the validation CCC-{letter(name)}"
    if max(recent) < validation[best] - fallen:
        evidence = (
            f"{said} fell from {validation[best]:.3f} (epoch {best + 1}) to {now:.3f} (mean of the last {RECENT})"
        )
        if learnt > train[best] + TRAIN_RISES:
            evidence += f", while that of training rose from {train[best]:.3f} to {learnt:.3f}"
            yield Finding("overfitting", evidence, *_less_by_heart(history, best + 1))
        else:
            evidence += f", and that of training went from {train[best]:.3f} to {learnt:.3f}"
            rate = "the head's rate" if history.config.model.params.freeze_speech_encoder else "the encoder's rate"
            yield Finding("falling", evidence, f"{rate} is probably too high; lower it", (gentler(history.config),))
        return
    if len(validation) < _first_judged(history) + STALLED or validation[best] >= LOW + noise(count) / 2:
        return
    evidence = f"{said} was never above {validation[best]:.3f} in {counted(len(validation), 'epoch')}"
    if learnt - now > max(GAP, noise(count)):
        evidence += f", while that of training reached {learnt:.3f}"
        yield Finding("overfitting", evidence, *_less_by_heart(history, best + 1))
    elif now < LOW and learnt < 2 * LOW:
        advice, overrides = _rate_advice(history, name)
        yield Finding("not rising", f"{evidence}, that of training is {learnt:.3f}", advice, overrides)


def one_axis(history: History, names: Sequence[Dimension]) -> Iterator[Finding]:
    """Two of these dimensions are predicted as if they were one, which their ratings aren't."""
    for found in history.correlations:
        if found.one_axis and found.first in names and found.second in names:
            evidence = (
                f"predictions of {found.first} and {found.second} correlate {found.predicted:.3f} over the validation "
                f"part, and their ratings {found.rated:.3f}: one axis is predicted twice"
            )
            advice = "train one of them alone, to see whether that learns more of it"
            yield Finding("one axis", evidence, advice, (f"data.dimensions=[{found.first}]",))
            return


def standing(history: History) -> Standing | None:
    """Where the best validation CCC of valence in the present span of epochs lies beside the expected range.

    None where nothing is expected: of an untrained encoder, on other corpora, without valence, before the first epoch.
    """
    if not history.comparable or not history.validated("valence"):
        return None
    first, (low, high) = _expected(len(history.records))
    value = max(history.validation("valence")[first - 1 :])
    return "below" if value < low else "above" if value > high else "within"


def below_expectation(history: History) -> Iterator[Finding]:
    """At the end of a span of epochs, its best validation CCC of valence lies below the expected range."""
    ends = [end for (_, end), _ in EXPECTED if end <= len(history.records)]
    if standing(history) is None or not ends or not _settled(history):
        return
    end = ends[-1]
    (first, _), (low, high) = next(item for item in EXPECTED if item[0][1] == end)
    validation, train = history.validation("valence"), history.train("valence")
    value = max(validation[first - 1 :])
    if value >= low - SLACK:
        return
    evidence = (
        f"the validation CCC-V reached {value:.3f} since epoch {first}; expected in epochs {first} to {end}: "
        f"{low:.2f} to {high:.2f}"
    )
    learnt = fmean(train[-RECENT:])
    if learnt - value > GAP:
        evidence += f"; that of training is {learnt:.3f}"
        yield Finding("below expectation", evidence, *_less_by_heart(history, None))
        return
    advice, overrides = _rate_advice(history, "valence")
    yield Finding("below expectation", f"{evidence}; that of training is {learnt:.3f}", advice, overrides)


def _rate_advice(history: History, name: Dimension) -> tuple[str, tuple[str, ...]]:
    """Whether too large or too small steps explain that little was learnt, and what to try."""
    frozen = history.config.model.params.freeze_speech_encoder
    what = "the head's rate" if frozen else "the encoder's rate"
    match too(history, name):
        case ("high", factor):
            return f"{what} is probably too high", (gentler(history.config, factor),)
        case ("low", factor):
            return f"{what} is probably too low", (bolder(history.config, factor),)
        case _:
            return f"{what} may be too high or too low; try a lower one first", (gentler(history.config),)


def too(history: History, name: Dimension) -> tuple[Literal["high", "low"], float] | None:
    """Whether the rate of what is trained seems too high or too low, and by what factor to change it.

    Something learnt and lost, or gradients that vanished, speak for steps that were too large; training scores that
    creep up, or outputs that never moved while gradients arrived, for steps that were too small. Where the course says
    neither, a rate far from the usual one decides for pretrained encoders. Weights that began at random and were
    destroyed, or never moved, want another order of magnitude; all else half or double.
    """
    records, train = history.records, history.train(name)
    from_scratch = 2.0 if history.config.model.params.pretrained else HUGE
    now = fmean(train[-RECENT:])
    gradients = [record.gradient_norm for record in records]
    spreads = [record.train.dimensions[name].spread or 0.0 for record in records if name in record.train.dimensions]
    if max(train) - now > FALL or gradients[-1] < FAINT * max(gradients):
        return "high", from_scratch
    if spreads and spreads[-1] * LOST < max(spreads[:-1], default=0.0) and spreads[-1] < COLLAPSED:
        return "high", from_scratch
    params, rate = history.config.model.params, history.config.train.optimizer.encoder_lr
    if params.pretrained and not params.freeze_speech_encoder:
        if rate >= HIGH_ENCODER_RATE:
            return "high", 2.0
        if rate <= LOW_ENCODER_RATE:
            return "low", 2.0
    if max(train) - min(train) < LOW / 2:
        return "low", from_scratch
    creeping = len(train) > RECENT and now - fmean(train[:RECENT]) > TRAIN_RISES
    return ("low", 2.0) if creeping else None


def _expected(epoch: int) -> tuple[int, tuple[float, float]]:
    """First epoch of the span that an epoch belongs to, and the CCC of valence expected there."""
    spans = [item for item in EXPECTED if item[0][0] <= epoch]
    return spans[-1][0][0], spans[-1][1]


def _first_judged(history: History) -> int:
    """The epoch after the warm-up and the time to settle."""
    train = history.config.train
    return math.ceil(train.schedule.warmup * train.epochs) + SETTLING


def _settled(history: History) -> bool:
    return len(history.records) >= _first_judged(history)


def _smaller_steps(history: History) -> tuple[str, ...]:
    clip = history.config.train.grad_clip
    return (f"train.grad_clip={0.3 if clip == 0.0 or clip > 0.3 else clip / 2:g}", gentler(history.config))


def _less_by_heart(history: History, best: int | None) -> tuple[str, tuple[str, ...]]:
    """Fewer epochs where the best one is known, and more of a pretrained encoder frozen, or else more dropout."""
    config, params = history.config, history.config.model.params
    remedies = []
    if best is not None and (epochs := max(best + 2, 3)) < config.train.epochs:
        remedies.append(("train for fewer epochs", f"train.epochs={epochs}"))
    if (frozen := more_frozen(config)) is not None:
        remedies.append(("leave more of the encoder as it was", frozen))
    elif (not remedies or params.freeze_speech_encoder) and params.head_dropout < MOST_DROPOUT:
        more = min(MOST_DROPOUT, params.head_dropout + 0.2)
        remedies.append(("drop out more in the head", f"model.params.head_dropout={more:g}"))
    words = " or ".join(text for text, _ in remedies) or "more recordings would help, or a smaller encoder"
    advice = f"the training part is being learnt by heart and the best epoch's weights are kept; {words}"
    return advice, tuple(setting for _, setting in remedies)
