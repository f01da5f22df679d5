"""What an experiment is made from: its corpus, split into the parts of one fold, read and checked."""

import hashlib
import json
from dataclasses import dataclass, replace

from serfit.config.schema import ExperimentConfig
from serfit.corpus.copies import check_copies
from serfit.corpus.folds import Split, check_varying, make_split
from serfit.corpus.identity import Labels, labels_of
from serfit.corpus.load import load_corpus
from serfit.corpus.overlap import TrainedOn, trained_on
from serfit.corpus.preflight import (
    Measured,
    check_durations,
    check_known,
    check_learnt,
    check_levels,
    check_polarity,
    measure_audio,
    refuse_unusable,
)
from serfit.corpus.utterance import Corpus, Utterance
from serfit.errors import below
from serfit.runs.records import CorpusRecord
from serfit.training.trainer import Part


@dataclass(frozen=True, slots=True)
class Material:
    """A corpus, its split, and the parts as training and evaluation want them.

    Attributes:
        corpus: as read, with what was noticed about it.
        split: the parts of one fold.
        train: the training part with durations and scales.
        validation: likewise.
        test: likewise.
        left_out: ids of utterances left out because their audio can't be used.
    """

    corpus: Corpus
    split: Split
    train: Part
    validation: Part
    test: Part
    left_out: tuple[str, ...] = ()

    def seconds(self) -> dict[str, float]:
        """Duration of every utterance by id."""
        parts = (self.train, self.validation, self.test)
        return {
            spoken.id: length for part in parts for spoken, length in zip(part.utterances, part.seconds, strict=True)
        }

    def labels(self) -> Labels:
        """The utterances of the whole corpus and their ratings of the trained dimensions, whatever the parts."""
        return labels_of(self.corpus, self.train.dimensions)

    def trained_on(self) -> TrainedOn:
        """The speakers and recordings of the training part, and the speakers of the validation part, as digests."""
        return trained_on(self.corpus.name, self.split.train, self.split.validation)

    def digest(self) -> str:
        """SHA-256 (hex) of which utterances stand in which part, where their audio begins and ends, and their ratings.

        Equal for equal corpora wherever their files lie.
        """
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        rows = [
            [name, spoken.id, spoken.start, spoken.end, length, *(spoken.ratings[dim] for dim in part.dimensions)]
            for name, part in parts.items()
            for spoken, length in zip(part.utterances, part.seconds, strict=True)
        ]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    def record(self) -> CorpusRecord:
        """The run's record of its corpus."""
        return CorpusRecord(
            name=self.corpus.name,
            notes=self.corpus.notes,
            counts={name: len(getattr(self.split, name)) for name in ("train", "validation", "test")},
            left_out=self.left_out,
            digest=self.digest(),
            labels=self.labels().digests(),
        )


def prepare(config: ExperimentConfig, *, decode: bool = False) -> Material:
    """Read the corpus, split it, and check everything that can be checked without a model.

    Args:
        config: the experiment.
        decode: read all audio to its end instead of trusting headers; done anyway where data.unreadable is skip, for
            the parts must be known before training begins.

    Raises:
        UserError: naming the files, rows, utterances or keys that are wrong.
    """
    check_learnt(config)
    corpus = load_corpus(config.data)
    skip = config.data.unreadable == "skip"
    split = make_split(corpus, config.data.split)
    everyone = [*split.train, *split.validation, *split.test]
    measured = measure_audio(everyone, decode=decode or skip)
    if not skip:
        refuse_unusable(measured)
    left_out = tuple(sorted(measured.complaints))
    if left_out:
        corpus, split = _without(corpus, config, measured)
    check_varying(split, config.data.dimensions)
    kept = [*split.train, *split.validation, *split.test]
    warnings = [
        *check_known(kept, config.data.split),
        *check_copies(split, measured.seconds, measured.anchors),
        *check_levels(kept, measured.doubts),
        *check_polarity(kept),
        *check_durations(kept, measured.seconds),
    ]
    corpus = replace(corpus, notes=(*corpus.notes, *warnings))

    def part(utterances: tuple[Utterance, ...]) -> Part:
        lengths = tuple(measured.seconds[utterance.id] for utterance in utterances)
        return Part(utterances, lengths, config.data.dimensions, corpus.scales)

    return Material(corpus, split, part(split.train), part(split.validation), part(split.test), left_out)


def _without(corpus: Corpus, config: ExperimentConfig, measured: Measured) -> tuple[Corpus, Split]:
    """The corpus and its split without the utterances whose audio can't be used, which the protocol counts."""
    complaints = list(measured.complaints.values())
    kept = tuple(utterance for utterance in corpus.utterances if utterance.id not in measured.complaints)
    told = f"{len(complaints)} of {len(corpus.utterances)} utterances are left out (data.unreadable=skip)"
    named = below(complaints, most=20).splitlines()
    notes = (*corpus.notes, f"warning: {told}, for their audio can't be used:", *named)
    smaller = replace(corpus, utterances=kept, notes=notes)
    split = make_split(smaller, config.data.split)
    return smaller, replace(split, protocol=f"{split.protocol}; {told}")
