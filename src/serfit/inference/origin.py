"""Where a network comes from and how it was tested, as bundles and ONNX files carry it along."""

from typing import Any

from pydantic import Field

from serfit.corpus.overlap import TrainedOn
from serfit.labels import Dimension
from serfit.runs.records import NOT_RECORDED, CorpusRecord, EncoderRecord, Fold, StartRecord, TestScores
from serfit.scores.reference import Measure
from serfit.system.records import Count, Number, Record


class Reached(Record):
    """Test scores of an experiment in one measure: CCC, means over folds. None is undefined or unknown.

    Attributes:
        mean: over folds.
        deviation: standard deviation over folds.
        interval: 95% CI of the mean.
        holds_for: what the intervals generalise to; earlier versions, which didn't record it, took the trained models
            as given.
        pooled: CCC over the predictions of all folds together.
        pooled_interval: its 95% CI.
        scenario_baseline: of the audio-free baseline.
        one_rater: of one rater against the others.
        in_a_raters_place: of the system on the same targets.
    """

    mean: Number | None
    deviation: Number | None
    interval: tuple[Number, Number] | None
    holds_for: str | None = None
    pooled: Number | None
    pooled_interval: tuple[Number, Number] | None
    scenario_baseline: Number | None
    one_rater: Number | None
    in_a_raters_place: Number | None


class CrossValidation(Record):
    """Cross-validated scores of an experiment, as carried by a network trained on everything.

    Attributes:
        runs: names of their directories.
        best_epochs: of each.
        folds: with a run.
        missing_folds: without one.
        seeds: of the runs.
        test_utterances: in all folds together.
        chosen_among: experiments among which this one was chosen by its test scores; 1 where there was no choice.
        test_ccc: by measure.
    """

    runs: tuple[str, ...] = ()
    best_epochs: tuple[Count, ...]
    folds: tuple[Fold, ...]
    missing_folds: tuple[Fold, ...]
    seeds: tuple[Count, ...]
    test_utterances: Count
    chosen_among: Count
    test_ccc: dict[Measure, Reached]


class Applied(Record):
    """The calibration that values went through.

    Attributes:
        kind: of calibration.
        utterances: of the validation part, to which it was fitted.
    """

    kind: str
    utterances: Count


class Imported(Record):
    """The public model that a network was imported from.

    Attributes:
        name: hub id, or name of the folder.
        revision: commit on the hub; None where there is none.
        layout: what its tensors are called and mean.
        outputs: the dimension of each of its outputs, in its own order.
        licence: of its weights.
        licence_from: where that was read.
        terms: what its page on the hub adds; "" for nothing.
        assumed: sentences about what its files don't state.
    """

    name: str
    revision: str | None = None
    layout: str
    outputs: tuple[Dimension, ...]
    licence: str
    licence_from: str
    terms: str = ""
    assumed: tuple[str, ...] = ()

    @property
    def in_words(self) -> str:
        """The licence and its terms."""
        return f"{self.licence} ({self.licence_from})" + (f"; {self.terms}" if self.terms else "")


class Origin(Record):
    """The origin of a network. What isn't recorded is None or empty.

    Attributes:
        serfit: version that exported it.
        run: name of the run directory.
        settings: that bear on the result, by dotted key.
        encoder: that training began with.
        start: the trained network that it went on from.
        corpus: that it was trained on.
        protocol: which utterances were trained, validated and tested on, in words.
        folds: of the experiment.
        precision: of training.
        frozen_precision: "bf16" where features of the frozen part were computed in it; None for float32.
        packages: versions by name.
        commit: of the source.
        parameters: number of parameters.
        trained_parameters: number of trained ones.
        scores: on its test part.
        cross_validation: what to expect of it, where it was trained on everything.
        calibration: that was put into an ONNX file.
        trained_on: digests of the speakers and recordings that it was trained on; None where not recorded.
        imported: the public model that it is; None where serfit trained it.
        members: of an ONNX file with several networks; then nothing else is recorded.
    """

    serfit: str | None = None
    run: str | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    encoder: EncoderRecord = EncoderRecord()
    start: StartRecord | None = None
    corpus: CorpusRecord = CorpusRecord(name="a corpus that isn't recorded")
    protocol: str = NOT_RECORDED
    folds: Fold | None = None
    precision: str | None = None
    frozen_precision: str | None = None
    packages: dict[str, str | None] = Field(default_factory=dict)
    commit: str | None = None
    parameters: Count | None = None
    trained_parameters: Count | None = None
    scores: TestScores | None = None
    cross_validation: CrossValidation | None = None
    calibration: Applied | None = None
    trained_on: TrainedOn | None = None
    imported: Imported | None = None
    members: "tuple[Origin, ...]" = ()

    @property
    def untested(self) -> bool:
        """Whether nothing was kept to test on, so that there are no scores."""
        return self.settings.get("data.split.scheme") == "everything"
