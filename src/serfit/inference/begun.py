"""The network of an experiment before its first step: new, or gone on from a trained one."""

from serfit.config.schema import ExperimentConfig, ModelParams
from serfit.errors import UserError, listed
from serfit.inference.bundle import Member
from serfit.nn.encoders.build import Provenance
from serfit.nn.encoders.folder import Normalisation
from serfit.nn.encoders.source import Source, public_name
from serfit.nn.model import EmotionModel, build_model, model_of
from serfit.nn.variant import TRAINED, Variant

SHAPED = ("encoder_input", "layers", "pooling", "head_hidden", "output")
"""Settings of a model that decide what it computes with the same weights, or of what shape these are."""


def begun(config: ExperimentConfig, start: Member | None) -> EmotionModel:
    """The network of an experiment as training begins with it, on the CPU.

    Args:
        config: the experiment.
        start: the trained network that it goes on from, or None. What is frozen or dropped is decided by the
            configuration alone.

    Raises:
        UserError: as `serfit.nn.model.build_model`; or the trained network has another encoder, pooling or head.
    """
    if start is None:
        return model_of(config)
    _check_fits(config, start)
    encoder = start.model.encoder
    source = Source(
        config.model.params.speech_encoder,
        encoder.description(),
        str(config.model.start_from),
        Normalisation(encoder.normalise, "model.start_from"),
        revision=start.params.encoder_revision,
    )
    model = build_model(
        config.model.params,
        dimensions=len(config.data.dimensions),
        seed=config.experiment.seed,
        gradient_checkpointing=config.train.gradient_checkpointing,
        source=source,
        variant=variant_of(config, start),
    )
    if config.model.start_part == "encoder":
        model.encoder.load_state_dict(encoder.state_dict())
    else:
        model.load_state_dict(start.model.state_dict())
    model.provenance = Provenance.of(source, model.encoder)
    return model


def variant_of(config: ExperimentConfig, start: Member | None) -> Variant:
    """How the network of an experiment differs from those that a configuration describes, as a public model does."""
    return TRAINED if start is None or config.model.start_part == "encoder" else start.variant


def _check_fits(config: ExperimentConfig, start: Member) -> None:
    """Raise UserError naming every setting in which a trained network is another than the one to be trained."""
    mine, theirs = config.model.params, start.params
    differing = []
    if public_name(mine.speech_encoder) != public_name(theirs.speech_encoder):
        differing.append(f"model.params.speech_encoder is {mine.speech_encoder} here and {theirs.speech_encoder} there")
    apart = _apart(mine, theirs) if config.model.start_part == "all" else []
    if config.model.start_part == "all" and config.data.dimensions != start.about.dimensions:
        here, there = (listed(names) for names in (config.data.dimensions, start.about.dimensions))
        apart.insert(0, f"data.dimensions is {here} here and {there} there")
    if differing or apart:
        advice = ", or take its encoder alone with model.start_part=encoder" if apart and not differing else ""
        raise UserError(
            f"the network of model.start_from ({config.model.start_from}) doesn't fit this experiment: "
            f"{'; '.join([*differing, *apart])}; set what differs as it is there{advice}"
        )


def _apart(mine: ModelParams, theirs: ModelParams) -> list[str]:
    pairs = [(key, getattr(mine, key), getattr(theirs, key)) for key in SHAPED]
    return [f"model.params.{key} is {here} here and {there} there" for key, here, there in pairs if here != there]
