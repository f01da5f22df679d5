"""Slow epochs are put down to what was measured."""

from dataclasses import replace

import numpy as np
import pytest

from report.histories import config, rising, simulate
from serfit.report.diagnosis.diagnose import diagnose
from serfit.report.diagnosis.finding import Finding
from serfit.runs.live import History
from serfit.scores.records import EpochTime, Progress


def run(
    times: tuple[EpochTime, ...], device: str = "cuda", progress: Progress | None = None, **changes: object
) -> History:
    healthy = simulate(np.random.default_rng(0), max(1, len(times)), [rising(0.63, 1.0)] * 2, [rising(0.7, 1.0)] * 2)
    records = healthy.records[: len(times)]
    return replace(healthy, config=config(**changes), records=records, times=times, device=device, progress=progress)


def slow(history: History) -> Finding | None:
    found = [finding for finding in diagnose(history) if finding.kind == "slow epoch"]
    return found[0] if found else None


def epoch(number: int = 2, **changes: object) -> tuple[EpochTime, ...]:
    """An epoch of an hour, as the last of `number`."""
    base = EpochTime(number, 3600.0, 100.0, 3200.0, 250.0, 50.0, 700, 5600, {"store": (5600, 80.0)})
    return (*(EpochTime(one, 10.0) for one in range(1, number)), replace(base, **changes))  # type: ignore[arg-type]


WAITING = {"waiting": 2500.0, "computing": 900.0, "evaluating": 150.0}

CASES = {
    "decoding, no store": (
        run(epoch(**WAITING, loading={"decoding": (5600, 4000.0)}), features__store=None),
        ["decoding audio 100 % (5,600 times)", "features.store=cache/features"],
    ),
    "decoding with a store": (
        run(epoch(**WAITING, loading={"decoding": (5600, 4000.0), "store": (5600, 40.0)})),
        ["more threads, or the corpus as 16-bit WAV", "data.loader.workers=4"],
    ),
    "first epoch with a store": (run(epoch(1, **WAITING, loading={"decoding": (5600, 4000.0)})), ["the store is cold"]),
    "store too small": (
        run(epoch(**WAITING, loading={"frozen part": (3000, 4000.0)}), features__max_gb=1.0),
        ["computing the frozen part of the encoder 100 %", "features.max_gb=null"],
    ),
    "no store of the frozen part": (
        run(epoch(**WAITING, loading={"frozen part": (5600, 4000.0)}), features__store=None),
        ["computed anew in every epoch", "features.store=cache/features"],
    ),
    "slow store": (
        run(epoch(**WAITING, loading={"store": (5600, 4000.0)}), data__loader={"workers": 8}),
        ["put features.store on a local disk", "data.loader.workers=16"],
    ),
    "computing": (
        run(
            epoch(gpu_memory=2 << 30, gpu_memory_total=24 << 30),
            train__precision="fp32",
            train__gradient_checkpointing=True,
        ),
        ["computing 89 %", "train.precision=auto train.gradient_checkpointing=false data.loader.crop_seconds=12"],
    ),
    "computing, in little memory": (
        run(epoch(gpu_memory=12 << 30, gpu_memory_total=24 << 30), train__gradient_checkpointing=True),
        ["compute less per utterance: data.loader.crop_seconds=12"],
    ),
    "no GPU, all frozen": (
        run(epoch(), device="cpu", model__params={"freeze_speech_encoder": True}),
        ["by the CPU; use a GPU"],
    ),
    "no GPU": (run(epoch(), device="cpu"), ["by the CPU; use a GPU"]),
    "writing": (run(epoch(computing=600.0, writing=2600.0)), ["disk is slow", "train.checkpoint_minutes=60"]),
    "evaluating": (
        run(epoch(computing=600.0, evaluating=2600.0), train__precision="fp32"),
        ["evaluated whole", "make evaluation faster: train.precision=auto data.loader.workers=4"],
    ),
    "cold store": (
        run(epoch(**WAITING, loading={"frozen part": (5600, 4000.0)})),
        ["cold all the same", "features.store=cache/features-new"],
    ),
    "computing, everything tried": (
        run(epoch(), data__loader={"crop_seconds": 12.0}, model__params={"speech_encoder": "microsoft/wavlm-large"}),
        ["compute less per utterance: model.params.freeze_layers=12"],
    ),
    "nothing measured": (run((EpochTime(1, 3600.0),)), ["took 60 minutes", "no shares"]),
}


@pytest.mark.parametrize("case", CASES)
def test_the_largest_measured_share_is_named(case: str) -> None:
    history, words = CASES[case]
    finding = slow(history)
    assert finding is not None
    for word in words:
        assert word in str(finding)


def test_half_an_hour_is_the_limit() -> None:
    assert slow(run(epoch(seconds=1799.0))) is None
    assert slow(run(epoch(seconds=1801.0))) is not None


def test_a_slow_first_epoch_is_seen_before_its_end_and_not_too_early() -> None:
    so_far = EpochTime(1, 150.0, 100.0, 48.0, 0.0, 2.0, 20, 160, {"decoding": (200, 190.0)})
    finding = slow(run((), progress=Progress(1, 20, 700, 0.9, 0.0, so_far)))
    assert finding is not None
    assert "will take, without its evaluation, 88 minutes" in finding.evidence
    assert "waiting for data 67 %" in finding.evidence
    assert slow(run((), progress=Progress(1, 20, 700, 0.9, 0.0, replace(so_far, seconds=100.0)))) is None
    assert slow(run((), progress=Progress(1, 20, 100, 0.9, 0.0, so_far))) is None
