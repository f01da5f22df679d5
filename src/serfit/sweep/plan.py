"""Which runs a sweep consists of, what each one's command is, and how far it has come."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from serfit import runs
from serfit.config.load import load_config, result_fingerprint
from serfit.corpus.folds import make_split
from serfit.corpus.load import load_corpus
from serfit.corpus.utterance import Corpus
from serfit.errors import UserError

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
        """How far the run has come, from its directory alone."""
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


def check_folds(jobs: Sequence[Job]) -> None:
    """Raise a UserError where the corpus doesn't have a fold of which the run is still to be made.

    The corpora are read for that, not their audio: otherwise a fold too many is found after all the others have run.
    """
    corpora: dict[Path, Corpus] = {}
    for job in jobs:
        if job.state != "finished":
            data = load_config(job.config, job.overrides).data
            if job.config not in corpora:
                corpora[job.config] = load_corpus(data)
            make_split(corpora[job.config], data.split)


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
