"""The model card of a hub folder, written from the runs' records: nothing in it is typed by hand or remembered."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from serfit import __version__
from serfit.corpus.load import languages
from serfit.errors import UserError, counted
from serfit.inference.about import About
from serfit.inference.bundle import Member
from serfit.inference.origin import Origin
from serfit.inference.publish.cross_validated import (
    expectation,
    intervals_hold_for,
    measure_title,
    reached,
    score_table,
)
from serfit.inference.publish.licences import licences, limits
from serfit.inference.publish.tested import check_one_experiment, in_words, mean_ccc, recorded_tests
from serfit.inference.publish.tested import results as recorded
from serfit.inference.source import public_notes
from serfit.labels import Dimension
from serfit.nn.encoders.source import public_name
from serfit.report.answers import ONE_AXIS_WORDS, miscalibration_rows, together_rows
from serfit.report.comparison import Comparison
from serfit.report.context import baseline_rows, rater_rows, what_stands_beside
from serfit.report.markdown import Rows, as_markdown, bullets, escaped
from serfit.runs.experiments import ExperimentResult, ranges
from serfit.scores.calibration import Kind
from serfit.scores.reference import Measure


@dataclass(frozen=True, slots=True)
class _Subject:
    """The contents of a model card.

    Attributes:
        encoder: its name, without folders of somebody's machine.
        corpus: its name.
        languages: ISO 639 codes of what is spoken in it; empty if unknown.
    """

    encoder: str
    corpus: str
    languages: tuple[str, ...]

    @property
    def described(self) -> str:
        """The corpus and its language."""
        return f"{self.corpus} (language: {', '.join(self.languages) or 'not recorded'})"


def model_card(
    members: Sequence[Member], applied: Kind | None, folder: str, where: str, comparison: Comparison | None = None
) -> str:
    """README.md of a hub folder.

    Args:
        members: tested networks of one experiment, or one that was trained on everything: it has no score, and says
            whose to expect.
        applied: the calibration that the folder applies.
        folder: its name, for the example.
        where: what the members are from, for messages.
        comparison: of exactly the runs whose networks they are, where these are at hand; else the card tells what the
            networks carry along.

    Raises:
        UserError: they aren't of one experiment, two are of the same fold and seed, or they don't say how they were
            tested.
    """
    about, subject = members[0].about, _subject(members[0].about)
    if about.origin.untested:
        front: dict[str, Any] = {}
        trained, results, told = "", _untested_results(about.origin, subject), []
    else:
        result = None if comparison is None else _only(comparison, members)
        tests = recorded_tests([member.about for member in members], where)
        if result is None:
            check_one_experiment([member.about.origin for member in members])
            means = {name: mean_ccc(tests, name) for name in _measures(about.dimensions)}
        else:
            means = {name: summary.mean for name, summary in result.test.items()}
        folds = ranges("fold", sorted({one.which.fold for one in tests}))
        front = _scored(about.name, subject.corpus, folds, means)
        trained, results = in_words(tests), recorded(tests) if comparison is None else _results(comparison)
        if len({one.which.fold for one in tests}) > 1:
            results.append(
                "The mean of all networks has no score here: a network of one fold may have been trained on what is "
                "the test part of another."
            )
        told = [f"Corpus: {subject.described}, {counted(about.origin.corpus.utterances, 'utterance')}."]
        told += [f"{one.origin.protocol}; best epoch {one.scores.best_epoch}." for one in tests]
    notes = sorted({note for member in members for note in public_notes(member.about.origin.corpus)})
    front = _front(subject, about.dimensions, base_model=bool(about.origin.encoder.revision)) | front
    blocks = [
        f"---\n{_yaml(front)}---",
        f"# {escaped(about.name)}: {_order(about.dimensions)} from speech",
        _what(members, subject, trained, applied),
        "## Use",
        _use(folder),
        "## Results",
        *results,
        "## Data and protocol",
        bullets([*told, *(f"{note}." for note in notes), _told(about.origin), _source(about.origin)]),
        "## Limits",
        bullets(limits(subject.corpus, subject.languages)),
        "## Licences",
        bullets([*licences(subject.encoder, subject.corpus), *_start(about.origin)]),
        f"Written by serfit {__version__} from the records of the runs.",
    ]
    return "\n\n".join(blocks) + "\n"


def imported_card(member: Member, folder: str) -> str:
    """README.md of a hub folder with a public model, whose licence goes along.

    Args:
        member: the model, with `origin.imported`.
        folder: the folder's name, for the example.
    """
    about, imported = member.about, member.about.origin.imported
    assert imported is not None, "only for public models"
    known = re.fullmatch(r"[a-z0-9.-]+", imported.licence) is not None
    front: dict[str, Any] = {
        "library_name": "serfit",
        "pipeline_tag": "audio-classification",
        "license": imported.licence if known else "other",
        **({} if known else {"license_name": imported.licence}),
        "tags": ["speech-emotion-recognition", "regression", *about.dimensions],
        **({"base_model": imported.name} if imported.revision else {}),
    }
    corpus = about.origin.corpus.name
    at = f" at commit {imported.revision}" if imported.revision else ""
    blocks = [
        f"---\n{_yaml(front)}---",
        f"# {escaped(about.name)}: {_order(about.dimensions)} from speech",
        f"The public model {escaped(imported.name)}{at}, in serfit's format: its weights, computed by serfit. It "
        f"predicts {_scales(about)}, the scale of {corpus}.",
        "## Use",
        _use(folder),
        "## Results",
        "None are recorded here; its authors publish theirs.",
        "## Data and protocol",
        bullets(
            [
                f"Layout: {imported.layout}.",
                f"Order of its own outputs: {', '.join(imported.outputs)}; here they are in serfit's order.",
                f"It was trained on {corpus}, with ratings mapped to [0, 1], which unit is here.",
                *(f"Assumed: {one}." for one in imported.assumed),
                f"{about.origin.protocol}.".capitalize(),
            ]
        ),
        "## Limits",
        bullets(limits(corpus, ["en"])),
        "## Licences",
        bullets([f"Weights: {imported.in_words}.", "serfit itself: Apache-2.0."]),
        f"Written by serfit {__version__}.",
    ]
    return "\n\n".join(blocks) + "\n"


def _only(comparison: Comparison, members: Sequence[Member]) -> ExperimentResult:
    """The experiment of a comparison. Raises UserError where it isn't one, or isn't of exactly these networks."""
    among = sum(len(one.runs) + len(one.incomplete) for one in comparison.experiments)
    if len(comparison.experiments) != 1 or among != len(members):
        labels = [result.label for result in comparison.experiments]
        said = f"they are {', '.join(labels)}" if len(labels) > 1 else "some can't be read or repeat a fold and seed"
        raise UserError(
            f"a model card needs finished runs of one experiment, one per fold and seed, and {said}; name the runs of "
            "one experiment (see serfit compare)"
        )
    return comparison.experiments[0]


def _untested_results(origin: Origin, subject: _Subject) -> list[str]:
    unknown = "What its settings reach on unheard speech isn't recorded with it, so how good it is isn't known."
    return [
        f"None of its own: it was trained on all {counted(origin.corpus.utterances, 'utterance')} of "
        f"{escaped(subject.corpus)}, and none are left to test it on.",
        *([unknown] if origin.cross_validation is None else expectation(origin.cross_validation)),
    ]


def _front(subject: _Subject, dimensions: Sequence[Dimension], *, base_model: bool) -> dict[str, Any]:
    """Return the metadata for the hub: https://huggingface.co/docs/hub/model-cards#model-card-metadata."""
    front: dict[str, Any] = {
        "library_name": "serfit",
        "pipeline_tag": "audio-classification",
        "license": "other",
        "license_name": "terms-of-encoder-and-corpus",
        "tags": ["speech-emotion-recognition", "regression", *dimensions, subject.corpus],
        "metrics": ["concordance_correlation_coefficient"],
    }
    spoken = {"language": list(subject.languages)} if subject.languages else {}
    return front | spoken | ({"base_model": subject.encoder} if base_model else {})


class _Inert(yaml.SafeDumper):
    """Puts text that holds a tag between double quotes, where YAML knows escapes."""


_Inert.add_representer(
    str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if "<" in text else None)
)


def _yaml(front: Mapping[str, Any]) -> str:
    """Front matter that holds no tag, for what shows it as if it were Markdown; YAML reads the same from it."""
    return yaml.dump(front, Dumper=_Inert, sort_keys=False, allow_unicode=True).replace("<", "\\x3C")


def _scored(experiment: str, corpus: str, folds: str, means: Mapping[Measure, float | None]) -> dict[str, Any]:
    """The scores, means over the folds, as the hub reads them; empty where none is defined."""
    found = [
        {
            "type": "concordance_correlation_coefficient",
            "name": f"test {measure_title(name)}, mean over {folds}",
            "value": round(mean, 4),
        }
        for name, mean in means.items()
        if mean is not None
    ]
    if not found:
        return {}
    scored = {
        "task": {"type": "audio-classification", "name": "dimensional speech emotion recognition"},
        "dataset": {"type": corpus, "name": corpus},
        "metrics": found,
    }
    return {"model-index": [{"name": experiment, "results": [scored]}]}


def _what(members: Sequence[Member], subject: _Subject, runs: str, applied: Kind | None) -> str:
    said = [
        f"A fine-tuned speech encoder ({escaped(subject.encoder)}) that predicts {_scales(members[0].about)}, the "
        f"scale of {escaped(subject.corpus)}."
    ]
    if len(members) > 1:
        said.append(
            f"The folder holds {len(members)} networks ({runs}). Loaded together they answer with their mean, "
            "and with the deviation between them."
        )
    if applied is None:
        said.append("Values are as the networks give them, without calibration.")
    else:
        said.append(
            f'Values are calibrated ({applied}) on the validation parts; `calibrate="none"` gives them as the '
            "networks do. The results below are without calibration."
        )
    return " ".join(said)


def _scales(about: About) -> str:
    return ", ".join(
        f"{name} from {about.scales[name].minimum:g} to {about.scales[name].maximum:g}" for name in about.dimensions
    )


def _use(folder: str) -> str:
    lines = ["import serfit", f"model = serfit.load({json.dumps(folder)})", 'print(model.predict("speech.wav").values)']
    words = (
        "This needs serfit, the program that wrote this card: `pip install ./serfit` (or `uv add ./serfit`) next to a "
        "clone of its repository. Name the folder, or this repository (owner/name). Any sample rate "
        "and number of channels is read. No code of this repository is run."
    )
    return "```python\n" + "\n".join(lines) + "\n```\n\n" + words


def _results(comparison: Comparison) -> list[str]:
    """The results of one experiment, with everything that its predictions show."""
    (result,) = comparison.experiments
    seeds = ranges("seed", sorted({run.seed for run in result.runs}))
    missing = f" Not among them: {ranges('fold', result.missing)} (†)." if result.missing else ""
    found = reached(comparison)
    scores = found.test_ccc
    blocks = [
        f"Concordance correlation coefficients (CCC) on {counted(found.test_utterances, 'test utterance')}: "
        f"{ranges('fold', result.folds)}, {seeds}.{missing} "
        "Each utterance was predicted by a network that was not trained on it and whose epoch was not chosen by it. "
        + intervals_hold_for(scores),
        as_markdown(score_table(scores)),
    ]
    details = comparison.details[result.label]
    calibrated = miscalibration_rows([result], {result.label: details.miscalibration})
    together = together_rows([result], {result.label: details.together})
    for table in (baseline_rows([result]), rater_rows([result]), calibrated, together):
        if table is not None:
            blocks.append(as_markdown(Rows(table.header[1:], [row[1:] for row in table.rows])))
    said = [
        "Bias is the mean of prediction minus rating, slope that of the line that gives ratings from predictions, "
        "spread the deviation of the predictions over that of the ratings.",
        *([ONE_AXIS_WORDS] if together else []),
        *what_stands_beside([result]),
    ]
    if not result.rater:
        said.append("Raters' agreement was not recorded.")
    return [*blocks, bullets(said)]


def _told(origin: Origin) -> str:
    settings = origin.settings
    told = ", ".join(f"{key.split('.')[-1]} {settings[key]}" for key in _TOLD if settings.get(key) is not None)
    return f"Settings: {told}; all that bear on the result are in serfit.json."


def _start(origin: Origin) -> list[str]:
    """A sentence about the network that this one went on from."""
    if origin.start is None:
        return []
    licence = f", under the licence {origin.start.licence}" if origin.start.licence else ""
    return [
        f"Training went on from {origin.start}, which was trained on {origin.start.corpus}{licence}: the terms of that "
        "network and of that corpus bear on this one too."
    ]


def _source(origin: Origin) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in origin.packages.items())
    return f"Source: commit {origin.commit or 'not recorded'}; {versions}."


_TOLD = (
    "train.epochs",
    "train.stop_after",
    "data.loader.batch_size",
    "train.accumulation_steps",
    "train.optimizer.lr",
    "train.optimizer.encoder_lr",
    "model.params.freeze_speech_encoder",
    "model.params.freeze_cnn",
    "model.params.freeze_layers",
    "model.params.layers",
    "model.params.pooling",
)


def _subject(about: About) -> _Subject:
    origin = about.origin
    corpus = origin.corpus.name
    return _Subject(public_name(origin.encoder.name), corpus, languages(origin.settings, corpus))


def _measures(dimensions: Sequence[Dimension]) -> tuple[Measure, ...]:
    return (*dimensions, "average")


def _order(dimensions: Sequence[Dimension]) -> str:
    *first, last = dimensions
    return f"{', '.join(first)} and {last}" if first else last
