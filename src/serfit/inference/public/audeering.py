"""audEERING's dimensional models: a wav2vec 2.0 whose frames are averaged, and a head with tanh.

    wav2vec2.*, classifier.dense.{weight,bias}, classifier.out_proj.{weight,bias}

As published in audeering/wav2vec2-large-robust-12-ft-emotion-msp-dim (Wagner et al., "Dawn of the transformer era in
speech emotion recognition", 2023). The mean is over all frames, and no padding mask is used: as serfit does with an
utterance that isn't padded.
"""

import re

from serfit.config.schema import ModelParams
from serfit.errors import UserError
from serfit.inference.public.checkpoint import Checkpoint, Parts
from serfit.nn.variant import Variant

LAYOUT = "audEERING's EmotionModel (wav2vec2.*, classifier.dense, classifier.out_proj)"

_KNOWN = re.compile(r"(wav2vec2|hubert|wavlm)\..+|classifier\.(dense|out_proj)\.(weight|bias)")

_GUESS = "no preprocessor_config.json states whether waveforms are normalised: they are if its CNN has layer norms"


def read(checkpoint: Checkpoint) -> Parts | None:
    """Take a model apart; None where it is of another layout. Raises KeyError where a tensor is missing."""
    if not {"classifier.dense.weight", "classifier.out_proj.weight"} <= checkpoint.tensors.keys():
        return None
    pooling = checkpoint.config.get("pooling_mode", "mean")
    if pooling != "mean":
        raise UserError(
            f"{checkpoint.name} pools its frames by {str(pooling)[:40]} (pooling_mode in config.json), and of this "
            "layout serfit knows the mean; import another model"
        )
    head = {
        f"head.{ours}.{part}": checkpoint.tensor(f"classifier.{theirs}.{part}")
        for ours, theirs in (("hidden", "dense"), ("out", "out_proj"))
        for part in ("weight", "bias")
    }
    return Parts(
        settings=checkpoint.config,
        encoder=checkpoint.below(f"{checkpoint.config.get('model_type')}."),
        normalisation=checkpoint.normalisation,
        others=head,
        params=ModelParams(layers="last", pooling="mean", head_hidden=len(head["head.hidden.bias"])),
        variant=Variant(head_norm=False, activation="tanh"),
        outputs=checkpoint.outputs(len(head["head.out.bias"])),
        known=_KNOWN,
        licence="cc-by-nc-sa-4.0",
        terms="no commercial use",
        assumed=(_GUESS,) if checkpoint.normalisation.normalise is None else (),
    )
