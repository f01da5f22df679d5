"""From the data section of a configuration to a corpus."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from typing import Any, get_args

from serfit.config.schema import Data
from serfit.corpus.table import read_table
from serfit.corpus.utterance import Corpus, Release
from serfit.errors import UserError, listed
from serfit.labels import Dimension, LabelScale

RELEASES = tuple(name for name in get_args(Data.model_fields["corpus"].annotation) if name != "csv")
"""Corpora that are read as they are distributed."""


def load_corpus(data: Data) -> Corpus:
    """Read the corpus that the configuration asks for; every utterance has a rating of every trained dimension.

    Ratings off the declared scale are an error for tables. IEMOCAP has a few in its official labels, which are kept
    and noted.

    Raises:
        UserError: naming the files, rows or utterances that are wrong.
    """
    root = data.root.expanduser()
    match data.corpus:
        case "csv":
            assert data.table is not None, "the schema asks for a table"
            corpus = read_table(root, data.table, data.dimensions, rating_scales(data))
        case name:
            corpus = release(name).read(root)
    if data.name is not None:
        corpus = replace(corpus, name=data.name)
    check_rated(corpus, data.dimensions)
    return corpus


def release(name: str) -> Release:
    """The release that `data.corpus` names: `RELEASE` of the module beside this one that has its name.

    Found by name, so that another corpus takes its module and a word in the schema, and nothing here.
    """
    found: Release = import_module(f"serfit.corpus.{name}").RELEASE
    return found


def languages(settings: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """The ISO 639 codes of what is spoken in a corpus; empty if that isn't known.

    Args:
        settings: flat settings of a run, by dotted key, as recorded.
        name: of its corpus.

    >>> languages({"data.language": "en, de"}, "radio"), languages({}, "iemocap"), languages({}, "radio")
    (('en', 'de'), ('en',), ())
    """
    said = settings.get("data.language") or (release(name).language if name in RELEASES else "")
    return tuple(code.strip() for code in str(said).split(",") if code.strip())


def rating_scales(data: Data) -> dict[Dimension, LabelScale]:
    """The scale on which the corpus rates each predicted dimension, known without reading the corpus."""
    match data.corpus:
        case "csv":
            assert data.scales is not None, "the schema asks for scales"
            return {name: LabelScale(*data.scales[name]) for name in data.dimensions}
        case name:
            return dict.fromkeys(data.dimensions, release(name).scale)


def check_rated(corpus: Corpus, dimensions: Sequence[Dimension]) -> None:
    """Raise a UserError when an utterance lacks a rating of a trained dimension."""
    for name in dimensions:
        unrated = [utterance.id for utterance in corpus.utterances if name not in utterance.ratings]
        if unrated:
            raise UserError(
                f"{len(unrated)} of {len(corpus.utterances)} utterances of {corpus.name} have no {name}: "
                f"{listed(unrated)}; remove them from the corpus, or {name} from data.dimensions"
            )
