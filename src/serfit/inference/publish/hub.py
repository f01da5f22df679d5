"""A folder for the hub: a bundle with its model card."""

from collections.abc import Sequence
from pathlib import Path

from serfit.errors import UserError
from serfit.inference.bundle import Member, is_bundle, write_bundle
from serfit.inference.publish.card import imported_card, model_card
from serfit.report.compare import chosen_directories, compare
from serfit.runs.directory import BEST_WEIGHTS
from serfit.scores.calibration import Kind
from serfit.system.files import write_text

CARD = "README.md"


def write_hub_folder(folder: Path, sources: Sequence[Path], members: Sequence[Member], applied: Kind | None) -> None:
    """Write a folder that `serfit.load` opens and that can be uploaded to the hub as it is.

    Args:
        folder: must not exist, or be empty.
        sources: what the members are from. Run directories, or folders of them, are what the card tells of; of
            bundles, of a network trained on everything, and of a public model, it tells what is inside.
        members: their networks, in any order.
        applied: the calibration that the members apply.

    Raises:
        UserError: the members aren't of one experiment, don't say how they were tested, or the folder can't be written.
    """
    card = _card(folder.name, sources, members, applied)
    write_bundle(folder, members)
    write_text(folder / CARD, card)


def _card(name: str, sources: Sequence[Path], members: Sequence[Member], applied: Kind | None) -> str:
    if any(member.about.origin.imported for member in members):
        if len(members) > 1:
            raise UserError(
                f"a public model is among the {len(members)} networks, and its model card describes it alone; name it "
                "by itself, or use --to bundle"
            )
        return imported_card(members[0], name)
    untested = any(member.about.origin.untested for member in members)
    if untested and len(members) > 1:
        raise UserError(
            f"a network trained on everything is among the {len(members)} networks, and its model card describes it "
            "alone; name it by itself, or leave it out"
        )
    runs = [] if untested else _runs(sources)
    return model_card(members, applied, name, str(sources[0]), compare(runs) if runs else None)


def _runs(sources: Sequence[Path]) -> list[Path]:
    """The runs with a network among what was named; none where something else is among it."""
    if any(not source.is_dir() or is_bundle(source) for source in sources):
        return []
    return [run for run in chosen_directories(sources) if (run / BEST_WEIGHTS).is_file()]
