"""Simulated histories as run directories, in any state."""

from dataclasses import replace
from pathlib import Path

from serfit.runs import directory as runs
from serfit.runs.directory import Run
from serfit.runs.live import History, State
from serfit.runs.records import CorpusRecord, Environment
from serfit.scores.records import Progress
from serfit.system.lease import Holder
from serfit.system.records import write_record

NOBODY = 2**22 + 1
"""A process number that Linux never gives."""


def write(history: History, directory: Path, state: State, progress: Progress | None = None) -> Path:
    """Write what a run of this history would have left behind."""
    run = Run.create(history.config, directory)
    assert history.corpus is not None
    assert history.utterances is not None
    corpus = CorpusRecord(name=history.corpus, counts={"train": history.utterances})
    about = {"device_type": history.device, "precision": history.precision, "visible_gpus": history.card}
    run.describe(Environment(corpus=corpus, **about))
    for record, spent in zip(history.records, history.times, strict=True):
        run.add(record, replace(spent, epoch=record.epoch))
    if progress is not None:
        write_record(run / runs.PROGRESS, progress)
    me = Holder.me()
    match state:
        case "finished":
            (run / runs.FINISHED).touch()
        case "running":
            (run / runs.LOCK).write_bytes(me.to_bytes())
        case "died":
            (run / runs.LOCK).write_bytes(Holder(me.host, NOBODY).to_bytes())
        case "stopped" if history.stopped is not None:
            write_record(run / runs.STOPPED, history.stopped)
    return directory
