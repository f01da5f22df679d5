"""The model card of a hub folder, written from the runs' records: nothing in it is typed by hand or remembered."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from serfit import __version__
from serfit.corpus.load import languages
from serfit.errors import UserError, counted
from serfit.inference.bundle import Member
from serfit.inference.publish.cross_validated import (
    KEY,
    expectation,
    intervals_hold_for,
    measure_title,
    reached,
    score_table,
)
from serfit.inference.publish.licences import licences, limits
from serfit.inference.publish.tested import in_words, mean_ccc, recorded_tests, results
from serfit.inference.source import public_name, public_notes
from serfit.labels import Dimension
from serfit.report.answers import ONE_AXIS_WORDS, miscalibration_rows, together_rows
from serfit.report.comparison import Comparison
from serfit.report.context import baseline_rows, rater_rows, what_stands_beside
from serfit.report.markdown import Rows, as_markdown, bullets, escaped
from serfit.runs.experiments import ExperimentResult, ranges
from serfit.scores.calibration import Kind
from serfit.scores.reference import Measure


@dataclass(frozen=True, slots=True)
class _Subject:
    """What a card is about.

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


def model_card(comparison: Comparison, members: Sequence[Member], applied: Kind | None, folder: str) -> str:
    """README.md of a hub folder.

    Args:
        comparison: of exactly the runs whose networks are in the folder.
        members: these networks.
        applied: the calibration that the folder applies.
        folder: its name, for the example.

    Raises:
        UserError: the runs can't be read, or aren't of one experiment.
    """
    counted = sum(len(one.runs) + len(one.incomplete) for one in comparison.experiments)
    if len(comparison.experiments) != 1 or counted != len(members):
        labels = [result.label for result in comparison.experiments]
        said = f"they are {', '.join(labels)}" if len(labels) > 1 else "some can't be read or repeat a fold and seed"
        raise UserError(
            f"a model card needs finished runs of one experiment, one per fold and seed, and {said}; name the runs of "
            "one experiment (see serfit compare)"
        )
    (result,) = comparison.experiments
    means = {name: summary.mean for name, summary in result.test.items()}
    environment = result.runs[0].environment
    revised = bool(environment.get("encoder", {}).get("revision"))  # it came from the hub
    subject = _subject(members[0], _encoder(result), result.runs[0].corpus)
    front = _front(subject, result.dimensions, base_model=revised)
    return _document(
        front | _scored(result.runs[0].name, subject.corpus, ranges("fold", result.folds), means),
        result.runs[0].name,
        members,
        _what(members, subject, _runs(result), applied),
        folder,
        _results(result, comparison),
        _protocol(result, members, subject),
        subject,
    )


def recorded_card(members: Sequence[Member], applied: Kind | None, folder: str) -> str:
    """README.md of networks whose runs aren't at hand, from what their bundle recorded of their tests.

    Args:
        members: tested networks of one experiment.
        applied: the calibration that the folder applies.
        folder: its name, for the example.

    Raises:
        UserError: they aren't of one experiment, or two are of the same fold and seed.
        AttributeError, KeyError, TypeError, ValueError: what is written there is damaged.
    """
    tests, about, origin = recorded_tests(members), members[0].about, members[0].about.origin
    subject = _subject(members[0], str(origin["encoder"]["name"]), str(origin["corpus"]["name"]))
    names: tuple[Measure, ...] = (*about.dimensions, "average")
    means = {name: mean_ccc(tests, name) for name in names}
    folds = ranges("fold", sorted({one.fold for one in tests}))
    told = [f"{one.protocol}; best epoch {one.best_epoch}." for one in tests]
    notes = sorted({note for member in members for note in public_notes(member.about.origin["corpus"])})
    return _document(
        _front(subject, about.dimensions, base_model=bool(origin["encoder"].get("revision")))
        | _scored(about.name, subject.corpus, folds, means),
        about.name,
        members,
        _what(members, subject, in_words(tests), applied),
        folder,
        results(tests),
        [
            f"Corpus: {subject.described}, {counted(sum(origin['corpus']['counts'].values()), 'utterance')}.",
            *told,
            *(f"{note}." for note in notes),
            _told(members[0]),
            _source(origin),
        ],
        subject,
    )


def untested_card(member: Member, folder: str) -> str:
    """README.md of a network that was trained on everything: it has no score, and says whose to expect.

    Args:
        member: the network; what its experiment reached is in its origin, where `serfit cv --retrain` made it.
        folder: its name, for the example.

    Raises:
        AttributeError, IndexError, KeyError, TypeError, ValueError: what is written there is damaged.
    """
    origin = member.about.origin
    corpus, encoder = origin.get("corpus", {}), origin.get("encoder", {})
    names = str(encoder.get("name", "encoder not recorded")), str(corpus.get("name", "a corpus that isn't recorded"))
    subject = _subject(member, *names)
    protocol = [f"{note}." for note in public_notes(corpus)]
    said = origin.get(KEY)
    unknown = "What its settings reach on unheard speech isn't recorded with it, so how good it is isn't known."
    return _document(
        _front(subject, member.about.dimensions, base_model=bool(encoder.get("revision"))),
        member.about.name,
        [member],
        _what([member], subject, "", None),
        folder,
        [
            f"None of its own: it was trained on all {counted(sum(corpus.get('counts', {}).values()), 'utterance')} of "
            f"{escaped(subject.corpus)}, and none are left to test it on.",
            *([unknown] if said is None else expectation(said)),
        ],
        [*protocol, _told(member), _source(origin)],
        subject,
    )


def _document(
    front: dict[str, Any],
    name: str,
    members: Sequence[Member],
    what: str,
    folder: str,
    results: Sequence[str],
    protocol: Sequence[str],
    subject: _Subject,
) -> str:
    blocks = [
        f"---\n{_yaml(front)}---",
        f"# {escaped(name)}: {_order(members[0].about.dimensions)} from speech",
        what,
        "## Use",
        _use(folder),
        "## Results",
        *results,
        "## Data and protocol",
        bullets(protocol),
        "## Limits",
        bullets(limits(subject.corpus, subject.languages)),
        "## Licences",
        bullets(licences(subject.encoder, subject.corpus)),
        f"Written by serfit {__version__} from the records of the runs.",
    ]
    return "\n\n".join(blocks) + "\n"


def _front(subject: _Subject, dimensions: Sequence[Dimension], *, base_model: bool) -> dict[str, Any]:
    """What the hub reads: https://huggingface.co/docs/hub/model-cards#model-card-metadata."""
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
    about = members[0].about
    scales = ", ".join(
        f"{name} from {about.scales[name].minimum:g} to {about.scales[name].maximum:g}" for name in about.dimensions
    )
    said = [
        f"A fine-tuned speech encoder ({escaped(subject.encoder)}) that predicts {scales}, the scale of "
        f"{escaped(subject.corpus)}."
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


def _use(folder: str) -> str:
    lines = ["import serfit", f"model = serfit.load({json.dumps(folder)})", 'print(model.predict("speech.wav").values)']
    words = (
        "This needs serfit, the program that wrote this card: `pip install ./serfit` (or `uv add ./serfit`) next to a "
        "clone of its repository. Name the folder, or this repository (owner/name). Any sample rate "
        "and number of channels is read. No code of this repository is run."
    )
    return "```python\n" + "\n".join(lines) + "\n```\n\n" + words


def _results(result: ExperimentResult, comparison: Comparison) -> list[str]:
    count = sum({run.fold: len(run.predictions.ids) for run in result.runs}.values())
    missing = f" Not among them: {ranges('fold', result.missing)} (†)." if result.missing else ""
    scores = reached(comparison)["test_ccc"]
    blocks = [
        f"Concordance correlation coefficients (CCC) on {counted(count, 'test utterance')}: {_runs(result)}.{missing} "
        "Each utterance was predicted by a network that was not trained on it and whose epoch was not chosen by it. "
        + intervals_hold_for(scores),
        as_markdown(score_table(scores)),
    ]
    if len(result.folds) > 1:
        blocks.append(
            "The mean of all networks has no score here: a network of one fold may have been trained on what is the "
            "test part of another."
        )
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


def _protocol(result: ExperimentResult, members: Sequence[Member], subject: _Subject) -> list[str]:
    said = [f"Corpus: {subject.described}, {counted(result.runs[0].utterances, 'utterance')}."]
    for run in result.runs:
        said.append(f"{run.environment.get('protocol', 'protocol not recorded')!s}; best epoch {run.best_epoch}.")
    notes = {note for run in result.runs for note in public_notes(run.environment["corpus"])}
    said += [f"{note}." for note in sorted(notes)]
    return [*said, _told(members[0]), _source(result.runs[0].environment)]


def _told(member: Member) -> str:
    settings = member.about.origin["settings"]
    told = ", ".join(f"{key.split('.')[-1]} {settings[key]}" for key in _TOLD if settings.get(key) is not None)
    return f"Settings: {told}; all that bear on the result are in serfit.json."


def _source(recorded: Mapping[str, Any]) -> str:
    commit = str(recorded.get("commit") or "not recorded")
    versions = ", ".join(f"{name} {version}" for name, version in recorded.get("packages", {}).items())
    return f"Source: commit {commit}; {versions}."


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


def _subject(member: Member, encoder: str, corpus: str) -> _Subject:
    return _Subject(encoder, corpus, languages(member.about.origin.get("settings", {}), corpus))


def _encoder(result: ExperimentResult) -> str:
    """Name of the encoder without folders of somebody's machine."""
    return public_name(str(result.runs[0].settings["model.params.speech_encoder"]))


def _runs(result: ExperimentResult) -> str:
    seeds = tuple(sorted({run.seed for run in result.runs}))
    return f"{ranges('fold', result.folds)}, {ranges('seed', seeds)}"


def _order(dimensions: Sequence[Dimension]) -> str:
    *first, last = dimensions
    return f"{', '.join(first)} and {last}" if first else last
