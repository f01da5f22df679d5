"""Every key of a configuration file, section by section: its type, unit, default and meaning.

The classes mirror the YAML. Unknown keys are errors, and every key has an effect.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from serfit.labels import DIMENSIONS, Dimension

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """Base of all sections: immutable, strict about unknown keys, documented by its attribute docstrings."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class Experiment(Section):
    """What the run is called and where it goes."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Name of the experiment; run directories begin with it. Letters, digits, dot, underscore, hyphen."""
    seed: Annotated[int, Field(ge=0)] = 1
    """Seed of everything random: head initialisation, shuffling, dropout, augmentation."""
    runs_dir: Path = Path("runs")
    """Folder in which run directories are created."""


class TableColumns(Section):
    """A CSV file of rated utterances, columns chosen by name."""

    path: Path
    """The CSV file (UTF-8, header line), relative to data.root or absolute."""
    audio: str = "path"
    """Column holding the audio file, relative to data.root or absolute."""
    id: str | None = None
    """Column holding the unique utterance id; null takes the audio path (with start and end, if given)."""
    valence: str | list[str] | None = None
    """Column of valence ratings, or several columns (raters) to be averaged."""
    arousal: str | list[str] | None = None
    """Column of arousal ratings, or several columns (raters) to be averaged."""
    dominance: str | list[str] | None = None
    """Column of dominance ratings, or several columns (raters) to be averaged."""
    speaker: str | None = None
    """Column of speakers; needed to keep speakers apart."""
    session: str | None = None
    """Column of recording sessions."""
    dialogue: str | None = None
    """Column of dialogues."""
    start: str | None = None
    """Column of segment starts in seconds; null starts at 0."""
    end: str | None = None
    """Column of segment ends in seconds; null, or an empty cell, goes to the end of the file."""
    part: str | None = None
    """Column of official parts (train / validation, val, dev, development / test)."""
    gender: str | None = None
    """Column of the speaker's gender."""
    emotion: str | None = None
    """Column of categorical emotion labels."""
    transcript: str | None = None
    """Column of transcripts."""


class SplitSettings(Section):
    """Which utterances train, validate and test."""

    scheme: Literal["leave_one_session_out", "grouped_kfold", "official", "everything"] = "leave_one_session_out"
    """leave_one_session_out: test on session k, validate on session k % n + 1; grouped_kfold: the same with groups
    dealt into folds of equal size; official: the parts the corpus declares; everything: train on all utterances, with
    nothing left to validate or test on, for a model to be used (see train.stop_after and `serfit cv --retrain`)."""
    fold: Count = 1
    """The fold to run, from 1; `--fold` sets it."""
    folds: Annotated[int, Field(ge=3)] = 5
    """Number of folds for grouped_kfold (leave_one_session_out has as many as sessions)."""
    group: Literal["speaker", "session", "dialogue"] = "speaker"
    """What grouped_kfold keeps together."""


class Loader(Section):
    """How utterances become batches."""

    batch_size: Count = 4
    """Utterances per batch. batch_size x accumulation_steps utterances make one optimisation batch: one loss, one
    exact gradient, however it is executed."""
    workers: Annotated[int, Field(ge=0)] = 2
    """Threads that read and decode audio ahead of the training; 0 reads in the training thread."""
    bucketing: bool = True
    """Put utterances of similar length into one optimisation batch (drawn from shuffled pools), which saves padding."""
    crop_seconds: Annotated[float, Field(ge=0.1)] | None = None
    """Train on a random stretch of at most this many seconds; null trains on whole utterances. Evaluation always
    hears whole utterances."""


class Augmentation(Section):
    """Random changes to training utterances, off by default; refused where the encoder's output is stored."""

    gain_db: NotNegative = 0.0
    """Gain drawn evenly from [-gain_db, +gain_db] decibels, applied to what the encoder hears (after normalisation)."""
    noise_snr_db: tuple[float, float] | None = None
    """White noise at a signal-to-noise ratio drawn evenly from [low, high] decibels; null adds none."""
    mixup_alpha: NotNegative = 0.0
    """Mix utterances and labels inside the optimisation batch with a share drawn from Beta(alpha, alpha); 0 is off."""
    time_mask_share: Fraction = 0.0
    """SpecAugment: share of the frames hidden from the transformer; 0 is off."""
    time_mask_frames: Count = 10
    """SpecAugment: length of one hidden span in frames of 20 ms."""


class Data(Section):
    """The corpus, its split, its batches."""

    corpus: Literal["iemocap", "csv"] = "iemocap"
    """iemocap: the release as distributed; csv: a table described in data.table."""
    name: Annotated[str, Field(min_length=1, max_length=80, pattern=r"^[^\x00-\x1f\x7f]*$")] | None = None
    """Name of the corpus in tables, reports and model cards; null takes iemocap, or the name of the CSV file. Runs on
    corpora of different names are never compared."""
    language: Annotated[str, Field(pattern=r"^[a-z]{2,3}(, ?[a-z]{2,3})*$")] | None = None
    """Language spoken in the corpus as an ISO 639 code, or several with commas (en, de), for model cards; null is
    unknown, except that IEMOCAP is en."""
    root: Path
    """Folder of the corpus. For iemocap the one that holds Session1 to Session5."""
    dimensions: tuple[Dimension, ...] = ("valence", "arousal")
    """What to predict, any of valence, arousal, dominance."""
    table: TableColumns | None = None
    """Columns of the CSV file; only with corpus: csv."""
    unreadable: Literal["error", "skip"] = "error"
    """What to do about utterances whose audio can't be used: error stops before training and names them all; skip
    decodes all audio first, leaves them out of their parts, and writes their number and names into the record."""
    scales: dict[Dimension, tuple[float, float]] | None = None
    """[minimum, maximum] of each dimension's rating scale; only with corpus: csv (IEMOCAP's is 1 to 5)."""
    split: SplitSettings = SplitSettings()
    """Which utterances train, validate and test."""
    loader: Loader = Loader()
    """How utterances become batches."""
    augmentation: Augmentation = Augmentation()
    """Random changes to training utterances."""

    @model_validator(mode="after")
    def _complete(self) -> "Data":
        if not self.dimensions or len(set(self.dimensions)) != len(self.dimensions):
            raise ValueError("data.dimensions must name at least one dimension, each once")
        if self.dimensions != tuple(name for name in DIMENSIONS if name in self.dimensions):
            raise ValueError(f"data.dimensions must keep the order {', '.join(DIMENSIONS)}")
        if self.corpus == "csv":
            if self.table is None:
                raise ValueError("data.table is needed with corpus: csv; it names the CSV file and its columns")
            unnamed = [name for name in self.dimensions if not getattr(self.table, name)]
            if unnamed:
                raise ValueError(f"data.table names no column for {', '.join(unnamed)}; data.dimensions asks for it")
            unscaled = [name for name in self.dimensions if name not in (self.scales or {})]
            if unscaled:
                raise ValueError(f"data.scales has no [minimum, maximum] for {', '.join(unscaled)}")
        elif self.table is not None or self.scales is not None:
            raise ValueError("data.table and data.scales only go with corpus: csv; a release brings its own")
        for name, (minimum, maximum) in (self.scales or {}).items():
            if minimum >= maximum:
                raise ValueError(f"data.scales.{name} must be [minimum, maximum] with minimum < maximum")
        return self


class FeatureSettings(Section):
    """The store of what the frozen part of the encoder computes."""

    store: Path | None = Path("cache/features")
    """Folder of the content-keyed store; null computes frozen features anew every time. Trainable parts are never
    stored."""
    dtype: Literal["float32", "float16"] = "float32"
    """Precision in the store; float16 halves the disk space and changes results slightly."""
    max_gb: Positive | None = None
    """Most gigabytes (10^9 bytes) that the store may take; the least recently used features go first. null is no
    limit but the disk's."""


UNTRAINED = "random:"
"""How the name of an encoder with untrained weights begins."""


class ModelParams(Section):
    """Encoder, pooling and head."""

    speech_encoder: str = "microsoft/wavlm-large"
    """Hub id, local folder in hub layout, or random:tiny / random:base / random:large for untrained weights."""
    encoder_revision: str | None = None
    """Commit, branch or tag on the hub; null takes the default branch."""
    encoder_input: Literal["utterance", "window"] = "utterance"
    """utterance: the encoder processes the utterance alone; window (Whisper only): 30 s, filled up with silence."""
    freeze_speech_encoder: bool = False
    """Freeze the whole encoder: its output is computed once and stored."""
    freeze_cnn: bool = True
    """Freeze the convolutional front end, as is usual in fine-tuning; its output then comes from the store."""
    freeze_layers: Annotated[int, Field(ge=0)] = 0
    """Number of transformer layers frozen from below; above 0 the CNN must be frozen too."""
    layers: Literal["last", "weighted"] = "weighted"
    """last: the encoder's final output; weighted: a learned weighted sum of all hidden states, each normalised."""
    pooling: Literal["mean", "attention", "attentive_statistics"] = "attentive_statistics"
    """How frames become one vector: mean, attention-weighted mean, or attention-weighted mean and deviation."""
    head_hidden: Annotated[int, Field(ge=1, le=65536)] = 256
    """Width of the head's hidden layer."""
    head_dropout: Fraction = 0.2
    """Dropout in the head."""
    output: Literal["linear", "sigmoid"] = "linear"
    """Whether the head's output on [0, 1] is unbounded or squashed."""
    encoder_dropout: Fraction = 0.1
    """Dropout of the transformer's input and after attention and feed-forward blocks, where these are trainable."""
    attention_dropout: Fraction = 0.0
    """Dropout of attention weights in trainable layers; above 0 the fused attention kernel can't be used."""

    @property
    def pretrained(self) -> bool:
        """Whether the encoder brings weights that training can destroy."""
        return not self.speech_encoder.startswith(UNTRAINED)


class Model(Section):
    """The network."""

    params: ModelParams = ModelParams()
    """Encoder, pooling and head."""
    start_from: str | None = None
    """A trained network to go on from: a finished run, a bundle or its name on the hub; null starts from the pretrained
    encoder and a new head. It must be of the same encoder, pooling and head, and know none of the speakers and
    recordings of the validation and test parts."""
    start_part: Literal["all", "encoder"] = "all"
    """What is taken from model.start_from: all of it, or its encoder alone, under a new pooling and head."""

    @model_validator(mode="after")
    def _consistent(self) -> "Model":
        params = self.params
        if params.freeze_layers and not (params.freeze_cnn or params.freeze_speech_encoder):
            raise ValueError("model.params.freeze_layers needs freeze_cnn: true, for the CNN lies below the layers")
        return self


class Optimizer(Section):
    """AdamW and its learning rates."""

    lr: Positive = 1e-4
    """Peak learning rate of pooling, layer weights and head."""
    encoder_lr: Positive = 1e-5
    """Peak learning rate of the encoder."""
    weight_decay: NotNegative = 1e-4
    """Decoupled weight decay; never on norms, biases and layer weights."""


class Schedule(Section):
    """How the learning rates move."""

    warmup: Fraction = 0.1
    """Share of all steps over which the rates rise linearly from 0."""
    decay: Literal["cosine", "constant"] = "cosine"
    """What follows the warm-up: a half cosine to 0, or no change."""


class LossSettings(Section):
    """One loss over the whole optimisation batch."""

    mse_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Weight of the mean squared error on [0, 1] labels added to 1 - CCC."""
    weights: dict[Dimension, NotNegative] = {}
    """Weight per dimension, 1 where not named; {valence: 2} counts valence twice."""


class Train(Section):
    """Optimisation."""

    epochs: Count = 20
    """Passes over the training part."""
    accumulation_steps: Count = 2
    """Batches per optimisation batch."""
    grad_clip: NotNegative = 1.0
    """Largest global L2 norm of the gradient over all trainable tensors; 0 turns clipping off."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 mixed precision on GPUs and CPUs that have it and where it pays, else fp32; a run goes on as it began.
    Pooling, CCC and weights are always fp32."""
    micro_batch_seconds: Positive | None = None
    """Most padded seconds of speech in one forward pass; null takes the largest that should fit. Changes memory and
    speed, never the result beyond rounding."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: about a third slower, much less memory."""
    stop_after: Count | None = None
    """Stop after this many epochs, though the schedule is laid out for train.epochs; null trains them all."""
    early_stopping: Count | None = None
    """Stop after this many epochs without a better mean validation CCC; null never stops early."""
    checkpoint_minutes: NotNegative = 10.0
    """Write a checkpoint at the first step after this many minutes, besides one after every epoch."""
    optimizer: Optimizer = Optimizer()
    """AdamW and its learning rates."""
    schedule: Schedule = Schedule()
    """How the learning rates move."""
    loss: LossSettings = LossSettings()
    """One loss over the whole optimisation batch."""


class ExperimentConfig(Section):
    """One experiment: everything that determines its result."""

    experiment: Experiment
    """What the run is called and where it goes."""
    data: Data
    """The corpus, its split, its batches."""
    features: FeatureSettings = FeatureSettings()
    """The store of what the frozen part of the encoder computes."""
    model: Model = Model()
    """The network."""
    train: Train = Train()
    """Optimisation."""

    @model_validator(mode="after")
    def _consistent(self) -> "ExperimentConfig":
        if self.optimisation_batch < 2:
            raise ValueError(
                "data.loader.batch_size x train.accumulation_steps is 1, and one utterance has no CCC; use 2 or more"
            )
        if self.data.split.scheme == "everything" and self.train.early_stopping is not None:
            raise ValueError(
                "train.early_stopping watches the validation part, and data.split.scheme: everything has none; set "
                "train.stop_after to the epoch to stop after"
            )
        weights = self.train.loss.weights
        if all(weights.get(name, 1.0) == 0.0 for name in self.data.dimensions):
            raise ValueError("train.loss.weights leaves nothing to learn; give at least one dimension a weight above 0")
        unused = [name for name in self.train.loss.weights if name not in self.data.dimensions]
        if unused:
            raise ValueError(f"train.loss.weights names {', '.join(unused)}, which data.dimensions doesn't train")
        return self

    @property
    def last_epoch(self) -> int:
        """The epoch after which training ends at the latest."""
        return min(self.train.epochs, self.train.stop_after or self.train.epochs)

    @property
    def optimisation_batch(self) -> int:
        """Utterances behind one loss and one update."""
        return self.data.loader.batch_size * self.train.accumulation_steps
