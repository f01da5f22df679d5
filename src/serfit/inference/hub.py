"""A folder for the hub: a bundle with its model card."""

from collections.abc import Sequence
from pathlib import Path

from serfit.calibration.maps import Kind
from serfit.errors import UserError
from serfit.files import write_text
from serfit.inference.bundle import Member, write_bundle
from serfit.inference.card import model_card, untested_card
from serfit.inference.source import trained_on_everything
from serfit.report.compare import chosen_directories, compare
from serfit.runs import BEST_WEIGHTS

CARD = "README.md"


def write_hub_folder(folder: Path, sources: Sequence[Path], members: Sequence[Member], applied: Kind | None) -> None:
    """Write a folder that `serfit.load` opens and that can be uploaded to the hub as it is.

    Args:
        folder: must not exist, or be empty.
        sources: run directories, or folders of them: where the members are from and what the card tells of. A network
            trained on everything may also be from a bundle: what the card tells of is inside.
        members: their networks, in any order.
        applied: the calibration that the members apply.

    Raises:
        UserError: something named is no run, the runs aren't of one experiment, or the folder can't be written.
    """
    if any(trained_on_everything(member.about) for member in members):
        if len(members) > 1:
            raise UserError(
                f"a network trained on everything is among the {len(members)} networks, and its model card tells of it "
                "alone; name it by itself, or leave it out"
            )
        try:
            card = untested_card(members[0], folder.name)
        except (AttributeError, LookupError, TypeError, ValueError) as error:  # a bundle is a file of anybody's
            raise UserError(
                f"{sources[0]} doesn't say how it was trained ({type(error).__name__}: {error}), so there is no model "
                "card for it; leave with it anew (serfit cv --retrain), or use --to bundle"
            ) from error
    else:
        card = model_card(compare(_runs(sources)), members, applied, folder.name)
    write_bundle(folder, members)
    write_text(folder / CARD, card)


def _runs(sources: Sequence[Path]) -> list[Path]:
    """The runs with a network among what was named."""
    for source in sources:
        if not source.is_dir() or (source / "serfit.json").is_file():
            raise UserError(
                f"{source} is no run directory, and a model card is written from the records of runs; name the runs "
                "themselves, or use --to bundle"
            )
    return [run for run in chosen_directories(sources) if (run / BEST_WEIGHTS).is_file()]
