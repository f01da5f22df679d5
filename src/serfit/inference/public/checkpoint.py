"""A public model's files as read, and as taken apart into what serfit's network is made of."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from serfit.config.schema import ModelParams
from serfit.errors import UserError, counted, listed
from serfit.labels import DIMENSIONS, Dimension
from serfit.nn.encoders.folder import Normalisation
from serfit.nn.variant import Variant

_SPELLINGS: Mapping[str, Dimension] = {**{name: name for name in DIMENSIONS}, "activation": "arousal"}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder in hub layout.

    Attributes:
        name: hub id, or the folder's name.
        folder: where it is.
        config: config.json, as anybody may have written it.
        normalisation: what the folder states about waveforms.
        tensors: its weights by name.
        order: dimensions of the outputs as the user stated them; empty where not.
    """

    name: str
    folder: Path
    config: Mapping[str, Any]
    normalisation: Normalisation
    tensors: Mapping[str, Tensor] = field(repr=False)
    order: tuple[Dimension, ...] = ()

    def tensor(self, name: str) -> Tensor:
        """A tensor in float32. Raises KeyError where it is missing."""
        return self.tensors[name].float()

    def below(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin with a prefix, without it."""
        found = self.tensors.items()
        return {name.removeprefix(prefix): tensor for name, tensor in found if name.startswith(prefix)}

    def outputs(self, count: int, usual: Sequence[Dimension] = ()) -> tuple[Dimension, ...]:
        """The dimensions of so many outputs: as the user says, as id2label in config.json says, or as is usual.

        Raises:
            UserError: none of them says it, or they contradict the number or each other.
        """
        stated = self._labels()
        named = self.order or stated or tuple(usual)
        if len(named) == count == len(set(named)) and (not stated or self.order in ((), stated)):
            return named
        said = f"id2label in its config.json names {', '.join(stated)}" if stated else "config.json names none of them"
        asked = f", and --order {', '.join(self.order)}" if self.order else ""
        raise UserError(
            f"{self.name} has {counted(count, 'output')}, {said}{asked}; give its dimensions in their order, "
            "each once, for example --order arousal,dominance,valence"
        )

    def _labels(self) -> tuple[Dimension, ...]:
        """The dimensions that id2label names, in its order; empty where it names outputs LABEL_0 and so on.

        Raises:
            UserError: an output is something else, as in classifiers of emotions.
        """
        labels = self.config.get("id2label")
        names = {str(key): str(label) for key, label in labels.items()} if isinstance(labels, Mapping) else {}
        ordered = [names[str(index)].lower() for index in range(len(names)) if str(index) in names]
        if all(one == f"label_{index}" for index, one in enumerate(ordered)):
            return ()
        if strange := [one for one in ordered if one not in _SPELLINGS]:
            raise UserError(
                f"{self.name} predicts {listed(strange)}, and serfit knows {', '.join(DIMENSIONS)}; import a model "
                "that predicts these dimensions"
            )
        return tuple(_SPELLINGS[one] for one in ordered)


@dataclass(frozen=True, slots=True)
class Parts:
    """A public model, taken apart.

    Attributes:
        settings: of its encoder, in transformers' words.
        encoder: the encoder's tensors.
        normalisation: whether the encoder wants waveforms at zero mean and unit variance, and what says so.
        others: tensors of mix, pooling and head, by the names that `serfit.nn.model.EmotionModel` gives them.
        params: layers, pooling, head and output.
        variant: other parts than serfit trains.
        outputs: the dimension of each output.
        known: the names of all tensors that the layout may hold.
        licence: what its page on the hub stated when this was written.
        terms: what that page adds to this licence.
        assumed: sentences about what the files don't state.
    """

    settings: Mapping[str, Any]
    encoder: Mapping[str, Tensor] = field(repr=False)
    normalisation: Normalisation
    others: Mapping[str, Tensor] = field(repr=False)
    params: ModelParams
    variant: Variant
    outputs: tuple[Dimension, ...]
    known: re.Pattern[str]
    licence: str
    terms: str
    assumed: tuple[str, ...]
