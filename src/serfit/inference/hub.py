"""A folder for the hub: a bundle with its model card."""

from collections.abc import Sequence
from pathlib import Path

from serfit.errors import UserError
from serfit.files import write_text
from serfit.inference.bundle import Member, write_bundle
from serfit.inference.calibration import Kind
from serfit.inference.card import model_card
from serfit.report.compare import chosen_directories, compare
from serfit.runs import BEST_WEIGHTS

CARD = "README.md"


def write_hub_folder(folder: Path, runs: Sequence[Path], members: Sequence[Member], applied: Kind | None) -> None:
    """Write a folder that `serfit.load` opens and that can be uploaded to the hub as it is.

    Args:
        folder: must not exist, or be empty.
        runs: run directories, or folders of them: where the members are from and what the card tells of.
        members: their networks, in any order.
        applied: the calibration that the members apply.

    Raises:
        UserError: something named is no run, the runs aren't of one experiment, or the folder can't be written.
    """
    for run in runs:
        if not run.is_dir() or (run / "serfit.json").is_file():
            raise UserError(
                f"{run} is no run directory, and a model card is written from the records of runs; name the runs "
                "themselves, or use --to bundle"
            )
    with_network = [run for run in chosen_directories(runs) if (run / BEST_WEIGHTS).is_file()]
    card = model_card(compare(with_network), members, applied, folder.name)
    write_bundle(folder, members)
    write_text(folder / CARD, card)
