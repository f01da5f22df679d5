"""The trained network that a training goes on from (`model.start_from`), and what that network has seen."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from serfit.config.schema import ExperimentConfig
from serfit.corpus.overlap import TrainedOn, check_unseen, doubts
from serfit.inference.about import mapped_scales
from serfit.inference.bundle import Member, is_bundle, write_bundle
from serfit.inference.source import start_of
from serfit.nn.model import EmotionModel
from serfit.nn.saved import weights_digest
from serfit.runs.directory import START, Run
from serfit.runs.records import StartRecord
from serfit.training.material import Material


@dataclass(frozen=True, slots=True)
class Start:
    """A network to go on from.

    Attributes:
        member: the network.
        record: what is recorded of it.
        seen: what it was trained on.
    """

    member: Member
    record: StartRecord
    seen: TrainedOn

    def check(self, material: Material) -> None:
        """Raise UserError where the network knows speakers or recordings of the validation or test part."""
        parts = {"validation": material.split.validation, "test": material.split.test}
        check_unseen(self.seen, f"the network of model.start_from ({self.record})", material.corpus.name, parts)

    def lines(self, material: Material) -> Iterator[str]:
        """Sentences about where training starts from."""
        yield f"start: {self.record}, from {self.record.source}"
        if self.record.part == "all":
            yield from mapped_scales(self.member.about, material.corpus.scales, material.corpus.name)
        yield from doubts(self.seen, material.corpus.name, material.split.test)

    def keep(self, run: Run) -> None:
        """Keep the network in the run directory, which then needs nothing else to be gone on with or used."""
        if run.written and not is_bundle(run / START):
            write_bundle(run / START, [self.member])


def find_start(config: ExperimentConfig, directory: Path | None = None) -> Start | None:
    """What an experiment goes on from; None where it starts from an encoder. Raises UserError as `start_of`."""
    member = start_of(config, directory)
    if member is None:
        return None
    origin, name = member.about.origin, member.about.origin.run or member.about.name
    licence = "" if origin.start is None else origin.start.licence
    record = StartRecord(
        source=str(config.model.start_from),
        name=member.about.name,
        run=origin.run,
        corpus=origin.corpus.name,
        licence=licence if origin.imported is None else origin.imported.in_words,
        sha256=weights_digest(member.model),
        part=config.model.start_part,
    )
    return Start(member, record, origin.trained_on or TrainedOn(unknown=(name,)))


def kept_bytes(config: ExperimentConfig, model: EmotionModel) -> int:
    """Bytes that a run directory takes for the network that training goes on from, which is of the model's size."""
    return 0 if config.model.start_from is None else sum(tensor.nbytes for tensor in model.state_dict().values())
