"""A network whose values are calibrated, and which of the calibrations that it keeps is asked for."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from serfit.errors import UserError
from serfit.inference.about import About
from serfit.inference.networks import Network, Outputs, Waveform
from serfit.inference.origin import Applied
from serfit.labels import Dimension
from serfit.scores.calibration import KINDS, Calibration, Kind
from serfit.system.records import Record

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
        """The network's description, with the calibration in its origin."""
        about = self.network.about
        applied = Applied(kind=self.calibration.kind, utterances=self.calibration.utterances)
        return replace(about, origin=about.origin.model_copy(update={"calibration": applied}))

    @property
    def members(self) -> int:
        """As the network's own."""
        return self.network.members

    def __call__(self, waveforms: Sequence[Waveform]) -> Outputs:
        """See `serfit.inference.networks.Network`."""
        outputs = self.network(waveforms)
        return replace(outputs, unit=self.calibration(outputs.unit, self.network.about.dimensions))


class Kept(Record):
    """The calibrations of a member as a bundle stores them.

    Attributes:
        applied: the one that counts unless asked; None for none.
        affine: as fitted; None where there was nothing to fit it to.
        isotonic: likewise.
    """

    applied: Kind | None = None
    affine: Calibration | None = None
    isotonic: Calibration | None = None


def chosen(kept: Kept | None, choice: Choice, dimensions: Sequence[Dimension], where: str) -> Calibration | None:
    """The calibration to use of those that a member keeps; None for none.

    Raises:
        UserError: one is asked for that isn't there, or what is there can't be used.
    """
    wanted = (None if kept is None else kept.applied) if choice is None else choice
    if wanted is None or wanted == "none":
        return None
    if wanted not in KINDS:
        raise UserError(f"there is no calibration called {str(wanted)[:40]}; choose {', '.join(KINDS)} or none")
    found: Calibration | None = getattr(kept, wanted, None)
    if found is None:
        raise UserError(
            f"{where} has no {wanted} calibration: its run wrote no predictions of the validation part "
            "(validation.csv; one trained on everything has none, nor has a public model); train it again with this "
            "serfit, or leave --calibrate out"
        )
    found.check(dimensions, where, "export the run again")
    return found
