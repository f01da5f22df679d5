"""Diagnosis of slow epochs, from measured shares of their time."""

from collections.abc import Iterator

from serfit.errors import counted
from serfit.report.diagnosis.finding import Finding, more_frozen
from serfit.runs.live import History
from serfit.scores.records import EpochTime

SLOW_EPOCH = 30 * 60.0
"""Seconds from which an epoch counts as slow."""

BOUND = 0.4
"""Share of an epoch spent waiting for data (or writing, or evaluating) from which that is what to attend to."""

ROOMY = 0.25
"""Share of the GPU's memory below which activations may be kept instead of recomputed: that takes up to four times as
much."""

ENOUGH = 120.0
"""Seconds of the first epoch after which its pace is projected."""


def slow_epoch(history: History) -> Iterator[Finding]:
    """The last epoch took more than half an hour, or the first one will: what it is spent on, and what to do."""
    spent, words = _measured(history)
    if spent is None or spent.seconds <= SLOW_EPOCH:
        return
    if spent.waiting is None or spent.computing is None or spent.evaluating is None or spent.writing is None:
        yield Finding("slow epoch", f"{words} {spent.seconds / 60:.0f} minutes", "no shares were recorded for it")
        return
    shares = {
        "waiting for data": spent.waiting / spent.seconds,
        "computing": spent.computing / spent.seconds,
        "evaluating": spent.evaluating / spent.seconds,
        "writing": spent.writing / spent.seconds,
    }
    listed = ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares.items())
    evidence = f"{words} {spent.seconds / 60:.0f} minutes: {listed}"
    largest = max(shares, key=lambda name: shares[name])
    if shares["waiting for data"] >= BOUND:
        yield _data_bound(history, spent, evidence)
    elif largest == "writing":
        advice = "the run directory's disk is slow; put experiment.runs_dir on a local one, or save less often"
        yield Finding("slow epoch", evidence, advice, ("train.checkpoint_minutes=60",))
    elif largest == "evaluating":
        advice = "the validation part is evaluated whole, which takes longer than training; make evaluation faster"
        yield Finding("slow epoch", evidence, advice, _faster_evaluation(history))
    else:
        yield _compute_bound(history, evidence)


def _measured(history: History) -> tuple[EpochTime | None, str]:
    """The last whole epoch; in the first one its projection, once there is enough of it."""
    if history.times:
        return history.times[-1], f"epoch {history.times[-1].epoch} took"
    progress = history.progress
    if progress is None or progress.so_far.seconds < ENOUGH or not progress.so_far.steps:
        return None, ""
    so_far = progress.so_far
    factor = progress.steps / so_far.steps if so_far.steps else 0.0
    projected = EpochTime(
        epoch=so_far.epoch,
        seconds=so_far.seconds * factor,
        waiting=(so_far.waiting or 0.0) * factor,
        computing=(so_far.computing or 0.0) * factor,
        evaluating=0.0,
        writing=(so_far.writing or 0.0) * factor,
        loading=so_far.loading,
    )
    return projected, f"at its present pace epoch {so_far.epoch} will take, without its evaluation,"


def _data_bound(history: History, spent: EpochTime, evidence: str) -> Finding:
    """Training waits for its utterances: what the loader's threads were doing."""
    more = _more_threads(history)
    total = sum(seconds for _, seconds in spent.loading.values())
    if total <= 0.0:
        return Finding("slow epoch", evidence, "what the loader did wasn't recorded; try more threads", (more,))
    parts = {name: seconds / total for name, (_, seconds) in spent.loading.items()}
    busy = ", ".join(
        f"{_WORDS.get(name, name)} {100 * share:.0f} % ({counted(spent.loading[name][0], 'time')})"
        for name, share in sorted(parts.items(), key=lambda part: -part[1])
    )
    evidence += f"; the loader's time went into {busy}"
    match max(parts, key=lambda name: parts[name]):
        case "frozen part":
            if history.config.features.store is None:
                advice = "the frozen part is computed anew in every epoch; let its output be stored"
                return Finding("slow epoch", evidence, advice, ("features.store=cache/features",))
            if history.config.features.max_gb is not None:
                advice = "the store is too small for the corpus, so features are thrown out and computed again"
                return Finding("slow epoch", evidence, advice, ("features.max_gb=null",))
            advice = (
                "the store was filled before training and is cold all the same: it can't be read, or something empties "
                "it; look with `serfit cache show --store FOLDER`, or let a new one be filled"
            )
            return Finding("slow epoch", evidence, advice, (f"features.store={history.config.features.store}-new",))
        case "decoding":
            if history.config.features.store is None:
                advice = "audio is decoded anew in every epoch; let it be stored, and read it with more threads"
                return Finding("slow epoch", evidence, advice, ("features.store=cache/features", more))
            if spent.epoch == 1:
                advice = "the store is cold: the first epoch fills it with decoded audio, and the next ones read that"
                return Finding("slow epoch", evidence, advice, (more,))
            advice = "decoding is the bottleneck; more threads, or the corpus as 16-bit WAV at 16 kHz"
            return Finding("slow epoch", evidence, advice, (more,))
        case _:
            advice = (
                "reading the store is the bottleneck; put features.store on a local disk, or read with more threads"
            )
            return Finding("slow epoch", evidence, advice, (more,))


def _compute_bound(history: History, evidence: str) -> Finding:
    if history.device == "cpu":
        if history.config.model.params.freeze_speech_encoder:
            return Finding("slow epoch", evidence, "the computing is done by the CPU; use a GPU")
        advice = "the computing is done by the CPU; use a GPU, or train less of the encoder"
        return Finding("slow epoch", evidence, advice, ("model.params.freeze_speech_encoder=true",))
    advice = "the data come fast enough and the computing takes the time; compute less per utterance"
    return Finding("slow epoch", evidence, advice, _faster(history))


def _faster(history: History) -> tuple[str, ...]:
    """Settings that save computing and aren't in force yet."""
    config = history.config
    settings = []
    if config.train.precision == "fp32" and history.device == "cuda":
        settings.append("train.precision=auto")
    spent = history.times[-1] if history.times else None
    if config.train.gradient_checkpointing and spent is not None and _roomy(spent):
        settings.append("train.gradient_checkpointing=false")
    if not config.model.params.freeze_cnn and not config.model.params.freeze_speech_encoder:
        settings.append("model.params.freeze_cnn=true")
    if not config.data.loader.bucketing:
        settings.append("data.loader.bucketing=true")
    if config.data.loader.crop_seconds is None and not config.model.params.freeze_speech_encoder:
        settings.append("data.loader.crop_seconds=12")
    if not settings and (frozen := more_frozen(config)) is not None:
        settings.append(frozen)
    return tuple(settings)


def _roomy(spent: EpochTime) -> bool:
    """Whether the GPU's memory was hardly used, so that keeping what is recomputed now can't exhaust it."""
    used, total = spent.gpu_memory, spent.gpu_memory_total
    return used is not None and total is not None and used < ROOMY * total


def _faster_evaluation(history: History) -> tuple[str, ...]:
    """The same for what is heard whole and not learnt from: what crops, buckets and gradients cost has no bearing."""
    config, settings = history.config, [_more_threads(history)]
    if config.train.precision == "fp32" and history.device == "cuda":
        settings.insert(0, "train.precision=auto")
    if config.features.store is None:
        settings.append("features.store=cache/features")
    return tuple(settings)


def _more_threads(history: History) -> str:
    return f"data.loader.workers={max(4, 2 * history.config.data.loader.workers)}"


_WORDS = {
    "decoding": "decoding audio",
    "frozen part": "computing the frozen part of the encoder",
    "store": "reading the store",
}
