"""A network whose values are calibrated, and which of the calibrations that it keeps is asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from serfit.errors import UserError, error_line
from serfit.inference.about import About
from serfit.inference.networks import Network, Outputs, Waveform
from serfit.labels import Dimension
from serfit.scores.calibration import KINDS, Calibration, Kind

Choice = Kind | Literal["none"] | None
"""What a user asks for; None takes a model as it was exported, and a run as it is."""


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A network whose values are calibrated; its pooled vectors are untouched.

    Attributes:
        network: whose values.
        calibration: the maps.
    """

    network: Network
    calibration: Calibration

    @property
    def about(self) -> About:
        """What the network predicts, with a word about the calibration in its origin."""
        about = self.network.about
        said = {"kind": self.calibration.kind, "validation_utterances": self.calibration.utterances}
        return replace(about, origin={**about.origin, "calibration": said})

    @property
    def members(self) -> int:
        """As the network's own."""
        return self.network.members

    def __call__(self, waveforms: Sequence[Waveform]) -> Outputs:
        """See `serfit.inference.networks.Network`."""
        outputs = self.network(waveforms)
        return replace(outputs, unit=self.calibration(outputs.unit, self.network.about.dimensions))


def stored(fitted: Sequence[Calibration], applied: Kind | None) -> dict[str, Any]:
    """What a bundle keeps of a member's calibrations: all that were fitted, and which one counts unless asked."""
    return {"applied": applied, **{one.kind: one.to_json() for one in fitted}}


def chosen(
    kept: Mapping[str, Any] | None, choice: Choice, dimensions: Sequence[Dimension], where: str
) -> Calibration | None:
    """The calibration to use of those that a member keeps; None for none.

    Raises:
        UserError: one is asked for that isn't there, or what is there can't be used.
    """
    wanted = (kept or {}).get("applied") if choice is None else choice
    if wanted is None or wanted == "none":
        return None
    if wanted not in KINDS:
        raise UserError(f"there is no calibration called {str(wanted)[:40]}; choose {', '.join(KINDS)} or none")
    if not kept or wanted not in kept:
        raise UserError(
            f"{where} has no {wanted} calibration: its run wrote no predictions of the validation part "
            "(validation.csv; one trained on everything has none); train it again with this serfit, or leave "
            "--calibrate out"
        )
    try:
        return Calibration.from_json(kept[wanted], dimensions)
    except ValueError as error:
        raise UserError(
            f"{where} holds a calibration that can't be used ({error_line(error)}); export the run again"
        ) from error
