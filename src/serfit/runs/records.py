"""What the JSON files of a run directory hold. `serfit.system.records` reads and writes them.

Records of epochs and of the epoch in progress are in `serfit.scores.records`, the labels in `serfit.corpus.identity`,
the calibrations in `serfit.runs.calibration`.
"""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AliasChoices, AliasPath, Field

from serfit.corpus.utterance import Style
from serfit.scores.agreement import Agreement
from serfit.scores.metrics import Correlation, Scores
from serfit.system.records import Count, Record, VersionedRecord

MOST_FOLDS = 10_000
"""Most folds that a record may speak of; those without a run are listed one by one."""

REMEDY = "move the run directory elsewhere"
"""What to do with a run whose records can't be read."""

Fold = Annotated[int, Field(ge=1, le=MOST_FOLDS)]
"""A fold, or a number of folds."""

NOT_RECORDED = "protocol not recorded"


class EncoderRecord(Record):
    """The encoder that a run began with: a `serfit.nn.encoders.build.Provenance`; older versions recorded less of it.

    Attributes:
        name: hub id, folder, file or random:size, as the user wrote it; of the baseline, what stands for an encoder.
        revision: commit on the hub; None where there is none.
        sha256: digest of the weights as loaded.
        normalise: whether waveforms were brought to zero mean and unit variance.
        normalise_from: the file that stated it.
        sampling_rate: samples per second.
        architecture: what it computes besides its weights.
    """

    name: str = "unknown encoder"
    revision: str | None = None
    sha256: str | None = None
    normalise: bool | None = None
    normalise_from: str = ""
    sampling_rate: Count | None = None
    architecture: dict[str, Any] = Field(default_factory=dict)


class CorpusRecord(Record):
    """The corpus that a run was made from.

    Attributes:
        name: of the corpus.
        notes: what was worth saying about it.
        counts: utterances by part.
        left_out: ids of utterances that couldn't be read and were to be left out.
        digest: of utterances, audio and ratings; None where not recorded.
        labels: digests of the labels (see `serfit.corpus.identity`); empty in runs of older versions.
    """

    name: str
    notes: tuple[str, ...] = ()
    counts: dict[str, Count] = Field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    digest: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)

    @property
    def utterances(self) -> int:
        """In all parts together."""
        return sum(self.counts.values())


class StartRecord(Record):
    """The trained network that a training went on from.

    Attributes:
        source: as the user wrote it; in bundles without the folders above it.
        name: of its experiment.
        run: name of the run directory that it was trained in; None where not recorded.
        corpus: name of the corpus that it was trained on last.
        licence: of the public model that it is, or went on from; "" where there was none.
        sha256: digest of its weights.
        part: "all", or "encoder" alone.
    """

    source: str
    name: str
    run: str | None = None
    corpus: str
    licence: str = ""
    sha256: str
    part: str

    def __str__(self) -> str:
        """In short; different where the weights or the part are."""
        return f"{'encoder of ' if self.part == 'encoder' else ''}{self.run or self.name} ({self.sha256[:8]})"


class EvaluatedNetwork(Record):
    """A network that was scored.

    Attributes:
        name: of its experiment.
        run: name of the run directory that it was trained in; None where not recorded.
        sha256: digest of its weights, or of its ONNX file.
    """

    name: str
    run: str | None = None
    sha256: str


class Evaluation(Record):
    """What an evaluation scored: the mean of networks that were trained elsewhere, on a part of a corpus.

    Attributes:
        model: the networks in short; evaluations of equal ones are of one experiment.
        networks: their names and digests.
        part: "test", "validation", "train" or "all".
        calibration: kind that the predictions went through; None for none.
        unknown: names of networks whose training data, in part at least, isn't recorded.
    """

    model: str
    networks: tuple[EvaluatedNetwork, ...]
    part: str
    calibration: str | None = None
    unknown: tuple[str, ...] = ()


class Environment(VersionedRecord):
    """environment.json: what a run is made of and where it runs. None is not recorded.

    Attributes:
        kind: "evaluation" where nothing was trained; None for a training or a baseline.
        evaluation: what was scored there.
        packages: versions by name.
        python: version.
        platform: operating system.
        commit: of the source.
        command: the command line.
        host: name of the machine.
        device: name of the GPU or processor.
        device_type: "cuda" or "cpu".
        visible_gpus: which GPUs the run was given (CUDA_VISIBLE_DEVICES); None where it may use all, or none.
        threads: of torch.
        cuda: version that torch was built for.
        system: what was fitted or scored, where no network was trained.
        precision: "fp32", "bf16" or "fp64".
        frozen_precision: "bf16" where features of the frozen part were computed in it; None for float32.
        encoder: what training began with.
        start: the trained network that it went on from; None where there was none.
        features: number of features of a ridge regression.
        penalties: of the ridge regression, by dimension.
        trained_parameters: number of trained parameters.
        parameters: number of parameters.
        training_starts_from: name of the first stage that isn't frozen.
        corpus: what the run is made from.
        protocol: which utterances were trained, validated and tested on, in words.
        folds: how many there are.
    """

    kind: str | None = None
    evaluation: Evaluation | None = None
    packages: dict[str, str | None] = Field(default_factory=dict)
    python: str | None = None
    platform: str | None = None
    commit: str | None = None
    command: tuple[str, ...] = ()
    host: str | None = None
    device: str | None = None
    device_type: str | None = None
    visible_gpus: str | None = None
    threads: Count | None = None
    cuda: str | None = None
    system: str | None = None
    precision: str | None = None
    frozen_precision: str | None = None
    encoder: EncoderRecord = EncoderRecord()
    start: StartRecord | None = None
    features: Count | None = None
    penalties: dict[str, float] = Field(default_factory=dict)
    trained_parameters: Count | None = None
    parameters: Count | None = None
    training_starts_from: str | None = None
    corpus: CorpusRecord
    protocol: str = NOT_RECORDED
    folds: Fold | None = None


class TestScores(VersionedRecord):
    """scores.json: what the weights of the best epoch reach, and what belongs beside it.

    Attributes:
        test: scores of the test part.
        best_epoch: the epoch, from 1; 0 where there are no epochs.
        validation: scores of the validation part.
        scenario_baseline: scores of predicting each scenario's mean rating in the other parts, without any audio; None
            where the corpus has no scenarios.
        within_scenario: scores of deviations from the scenario means; None likewise.
        styles: scores of improvised and scripted speech apart; empty likewise.
        raters_agreement: one rater against the others, and the system on the same targets; None where the corpus
            doesn't give single ratings.
        correlations: of every two dimensions, in predictions and in ratings, by part ("validation", "test").
    """

    __test__ = False  # no test of pytest's

    test: Scores
    best_epoch: Count
    validation: Scores
    scenario_baseline: Scores | None = None
    within_scenario: Scores | None = None
    styles: dict[Style, Scores] = Field(default_factory=dict)
    raters_agreement: Agreement | None = None
    correlations: dict[str, tuple[Correlation, ...]] = Field(default_factory=dict)

    @property
    def rater(self) -> Scores | None:
        """Of one rater against the others; None where single ratings aren't known."""
        return None if self.raters_agreement is None else self.raters_agreement.rater

    @property
    def as_rater(self) -> Scores | None:
        """Of the system on the same targets; None likewise."""
        return None if self.raters_agreement is None else self.raters_agreement.system

    @property
    def tested(self) -> int:
        """Number of test utterances."""
        return max((scored.count for scored in self.test.dimensions.values()), default=0)


def _either(*path: str) -> AliasChoices:
    """A setting in a configuration, nested or flattened to dotted keys."""
    return AliasChoices(AliasPath(*path), ".".join(path))


class Which(Record):
    """Identity of a run by its configuration, whatever version wrote that.

    Attributes:
        name: of the experiment.
        seed: of everything random.
        corpus: the reader of the corpus.
        scheme: of the split.
        fold: from 1.
        folds: how many there are, where the scheme leaves that open.
    """

    name: str = Field(validation_alias=_either("experiment", "name"))
    seed: Count = Field(validation_alias=_either("experiment", "seed"))
    corpus: str = Field(validation_alias=_either("data", "corpus"))
    scheme: str = Field(validation_alias=_either("data", "split", "scheme"))
    fold: Fold = Field(validation_alias=_either("data", "split", "fold"))
    folds: Fold | None = Field(None, validation_alias=_either("data", "split", "folds"))

    @property
    def untested(self) -> bool:
        """Whether nothing was kept to test on, so that there are no scores."""
        return self.scheme == "everything"


@dataclass(frozen=True, slots=True)
class Stopped:
    """stopped.json: how the last process of an unfinished run ended, where it could still say so.

    Attributes:
        kind: "NumericalError", "Interrupted", "UserError" or another exception's name.
        message: its words.
    """

    kind: str
    message: str
