"""The filling of the store: frozen features are computed once, before all folds and seeds that share them."""

import time
from collections.abc import Callable

from serfit.config.schema import ExperimentConfig
from serfit.errors import counted
from serfit.inference.begun import begun
from serfit.inference.source import start_of
from serfit.system.log import Log
from serfit.system.precision import choose_precision
from serfit.system.runtime import choose_device
from serfit.training.features import Features, features_of
from serfit.training.material import Material, prepare


def fill_features(config: ExperimentConfig, log: Log, *, gpu: int | None = None) -> None:
    """Do the part of an experiment that all its folds and seeds share: fill the store of frozen features.

    Raises:
        UserError: as `serfit.training.experiment.run_experiment`.
    """
    device, device_line = choose_device(gpu)
    material = prepare(config)
    log.say(device_line)
    model = begun(config, start_of(config)).to(device)
    features = features_of(config, model, choose_precision(config.train.precision, device, model.encoder.width))
    if features.store is None:
        log.say(f"nothing to store: training starts from the {model.stage_name(features.stage)}")
        return
    fill_store(features, material, log)
    log.say(f"{model.stage_name(features.stage)} of all utterances: {features.store.folder}")


def fill_store(features: Features, material: Material, log: Log, check: Callable[[], None] = lambda: None) -> None:
    """Compute the frozen features of all parts that the store doesn't have yet.

    Args:
        features: what training starts from.
        material: the utterances.
        log: where to show how far it is.
        check: called after each utterance; may raise to stop.

    Raises:
        UserError: the disk, or features.max_gb, is clearly too small for what is missing.
    """
    utterances = [*material.split.train, *material.split.validation, *material.split.test]
    missing = features.missing(utterances)
    if not missing:
        return
    began = time.monotonic()
    for done, spoken in enumerate(features.fill(missing), start=1):
        check()
        if done == 1 and features.store is not None:
            # only now is it known how large a feature is: the first one, scaled by duration, stands for all
            seconds = material.seconds()
            share = sum(seconds[other.id] for other in missing) / seconds[spoken.id]
            features.store.check_room(round(share * features(spoken).nbytes), len(utterances) / len(missing))
        log.advance("computing frozen features", done, len(missing))
    log.settle()
    log.say(f"computed the frozen features of {counted(len(missing), 'utterance')} in {time.monotonic() - began:.0f} s")
