"""Which runs a sweep consists of, what each one's command is, and how far it has come."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Literal

from serfit.config.load import load_config, result_fingerprint
from serfit.corpus.folds import make_split
from serfit.corpus.identity import Labels, agree, differences, labels_of, short
from serfit.corpus.load import load_corpus
from serfit.corpus.utterance import Corpus
from serfit.errors import UserError
from serfit.runs import directory as runs
from serfit.runs.finished import read_run
from serfit.runs.label_versions import contradicted

State = Literal["new", "unfinished", "finished"]


@dataclass(frozen=True, slots=True)
class Job:
    """One run of a sweep.

    Attributes:
        name: what people call it, for example "ema_iemocap_finetune fold 1 seed 2".
        config: the configuration file.
        overrides: `key=value` settings, fold and seed among them.
        directory: its run directory, the same whenever the sweep is repeated.
        gpus: GPUs that the run uses together.
        program: the command line that is serfit.
    """

    name: str
    config: Path
    overrides: tuple[str, ...]
    directory: Path
    gpus: int = 1
    program: tuple[str, ...] = (sys.executable, "-m", "serfit")

    @property
    def begun(self) -> bool:
        """Whether it has a run directory with a configuration in it."""
        return (self.directory / runs.CONFIG).exists()

    @property
    def state(self) -> State:
        """Progress of the run, from its directory alone."""
        if (self.directory / runs.FINISHED).exists():
            return "finished"
        return "unfinished" if self.begun else "new"

    def command(self) -> list[str]:
        """The `serfit train` command that starts the run, or goes on with it."""
        train = [*self.program, "train"]
        if self.gpus > 1:
            train += ["--gpus", ",".join(str(number) for number in range(self.gpus))]
        if self.state == "unfinished":
            return [*train, "--resume", str(self.directory)]
        return [*train, "--config", str(self.config), "--run-dir", str(self.directory), *self.overrides]


def plan_jobs(
    configs: Sequence[Path], folds: Sequence[int], seeds: Sequence[int], overrides: Sequence[str] = (), gpus: int = 1
) -> tuple[Job, ...]:
    """All runs of a sweep: folds first, so that one seed of every configuration is complete early.

    A run directory is named by experiment, fold, seed and a fingerprint of everything that can change its result, so
    that repeating the command finds it again, and another configuration of the same name doesn't.

    Raises:
        UserError: a configuration is wrong or has nothing to test on, or two of them are the same experiment.
    """
    jobs: list[Job] = []
    for seed in seeds:
        for config in configs:
            for fold in folds:
                given = (*overrides, f"data.split.fold={fold}", f"experiment.seed={seed}")
                experiment = load_config(config, given)
                if experiment.data.split.scheme == "everything":
                    raise UserError(
                        f"{config} trains on everything (data.split.scheme), so there are no folds to test on; choose "
                        "another scheme and leave with a model by --retrain, or run it with `serfit train`"
                    )
                stem = f"{experiment.experiment.name}_fold{fold}_seed{seed}_{result_fingerprint(experiment)[:8]}"
                label = f"{experiment.experiment.name} fold {fold} seed {seed}"
                jobs.append(Job(label, config, given, experiment.experiment.runs_dir / stem, gpus))
    seen: dict[Path, Job] = {}
    for job in jobs:
        if job.directory in seen:
            raise UserError(
                f"{job.config} and {seen[job.directory].config} are the same experiment; name each configuration once"
            )
        seen[job.directory] = job
    return tuple(jobs)


def on_present_labels(jobs: Sequence[Job], corpora: dict[Path, Corpus]) -> tuple[tuple[Job, ...], list[str]]:
    """The jobs, in another directory where their own holds a run on labels that the corpus doesn't have any more.

    Args:
        jobs: of a sweep.
        corpora: those that were read already, by configuration file; those read now are added.

    Returns:
        The jobs, and sentences about the runs that don't count.

    Raises:
        UserError: a corpus can't be read, and not all of its runs are finished.
    """
    settled, said = [], []
    unread: dict[Path, str] = {}
    for job in jobs:
        if not job.begun or job.config in unread:
            settled.append(job)
            continue
        try:
            corpus = _corpus(job, corpora)
        except UserError as error:
            if any(other.config == job.config and other.state != "finished" for other in jobs):
                raise
            unread[job.config] = f"whether the labels are still those of the runs of {job.config} is unknown: {error}"
            settled.append(job)
            continue
        found, differs = _settled(job, labels_of(corpus, load_config(job.config, job.overrides).data.dimensions))
        settled.append(found)
        if found.directory != job.directory:
            said.append(
                f"{job.name}: the run in {job.directory} was made from other labels ({differs}), so it doesn't count; "
                f"it stays as it is, and {found.directory} is the run on the present labels ({found.state})"
            )
    return tuple(settled), [*said, *unread.values()]


def _settled(job: Job, labels: Labels) -> tuple[Job, str]:
    """The job in the first directory for it that is free or of these labels, and what differs in its own."""
    differs = _other_labels(job, labels)
    if differs is None:
        return job, ""
    stem = f"{job.directory.name}_{short(labels.digests())}"
    for number in count(1):
        found = replace(job, directory=job.directory.with_name(stem if number == 1 else f"{stem}-{number}"))
        if not found.begun or _other_labels(found, labels) is None:
            return found, differs
    raise AssertionError("numbers have no end")


def _other_labels(job: Job, labels: Labels) -> str | None:
    """Describe how a run's labels differ from these; None if no difference is known."""
    about, then = runs.read_environment(job.directory), runs.read_labels(job.directory)
    if about is not None and about.corpus.labels:
        now = labels.without(about.corpus.left_out)
        if agree(about.corpus.labels, now.digests()):
            return None
        return (then is not None and differences(then, now)) or "their digests differ"
    if job.state == "finished" and contradicted(read_run(job.directory), labels):
        return "its test ratings or its number of utterances differ"
    return None


def _corpus(job: Job, corpora: dict[Path, Corpus]) -> Corpus:
    if job.config not in corpora:
        corpora[job.config] = load_corpus(load_config(job.config, job.overrides).data)
    return corpora[job.config]


def check_folds(jobs: Sequence[Job], corpora: dict[Path, Corpus]) -> None:
    """Raise a UserError where the corpus doesn't have a fold of which the run is still to be made.

    The corpora are read for that, not their audio: otherwise a fold too many is found after all the others have run.
    """
    for job in jobs:
        if job.state != "finished":
            make_split(_corpus(job, corpora), load_config(job.config, job.overrides).data.split)


def numbers(text: str, what: str) -> tuple[int, ...]:
    """Numbers written as "1-5", "1,3" or "1-3,5".

    Raises:
        UserError: it is something else.

    >>> numbers("1-3,5", "--folds")
    (1, 2, 3, 5)
    """
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or (dash and int(last) < int(first)):
            raise UserError(f"{what} is {text}; it takes numbers such as 1-5, 1,3 or 1-3,5")
        found += range(int(first), int(last or first) + 1)
    if len(set(found)) != len(found):
        raise UserError(f"{what} is {text}, which names a number twice; name each once")
    return tuple(found)
