"""What an experiment is made from: its corpus, split into the parts of one fold, read and checked."""

from dataclasses import dataclass

from serfit.config.schema import ExperimentConfig
from serfit.corpus.folds import Split, check_varying, make_split
from serfit.corpus.load import load_corpus
from serfit.corpus.utterance import Corpus, Utterance
from serfit.preflight import check_audio
from serfit.trainer import Part


@dataclass(frozen=True, slots=True)
class Material:
    """A corpus, its split, and the parts as training and evaluation want them."""

    corpus: Corpus
    split: Split
    train: Part
    validation: Part
    test: Part


def prepare(config: ExperimentConfig) -> Material:
    """Read the corpus, split it, and check everything that can be checked without a model.

    Raises:
        UserError: naming the files, rows, utterances or keys that are wrong.
    """
    corpus = load_corpus(config.data)
    split = make_split(corpus, config.data.split)
    check_varying(split, config.data.dimensions)
    seconds = check_audio([*split.train, *split.validation, *split.test])

    def part(utterances: tuple[Utterance, ...]) -> Part:
        lengths = tuple(seconds[utterance.id] for utterance in utterances)
        return Part(utterances, lengths, config.data.dimensions, corpus.scales)

    return Material(corpus, split, part(split.train), part(split.validation), part(split.test))
