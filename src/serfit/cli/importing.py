"""The verb that takes models of others: import."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serfit.cli.boundary import needs_torch
from serfit.errors import UserError, listed

if TYPE_CHECKING:
    from serfit.inference.bundle import Member
    from serfit.labels import Dimension


@needs_torch
def import_(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A name on the hub, or a folder in hub layout.")],
    output: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder for the bundle.")],
    revision: Annotated[
        str | None, typer.Option("--revision", help="Commit, branch or tag on the hub. [default branch]")
    ] = None,
    order: Annotated[
        str | None,
        typer.Option("--order", metavar="NAMES", help="Dimensions of its outputs, where its files don't state them."),
    ] = None,
) -> None:
    """Make a bundle of a public dimensional model, for predict, stream, serve and export. None of its code is run.

    Supported are audeering/wav2vec2-large-robust-12-ft-emotion-msp-dim, the Odyssey 2024 baselines
    (3loi/SER-Odyssey-Baseline-WavLM-Multi-Attributes and single attributes), and Vox-Profile's
    tiantiaf/wavlm-large-msp-podcast-emotion-dim and tiantiaf/whisper-large-v3-msp-podcast-emotion-dim.

    Example: serfit import audeering/wav2vec2-large-robust-12-ft-emotion-msp-dim dawn
    """
    from serfit.inference.bundle import check_free
    from serfit.inference.public.importing import import_model
    from serfit.inference.publish.hub import write_hub_folder

    check_free(output)
    member = import_model(model, revision, _dimensions(order))
    write_hub_folder(output, [Path(model)], [member], None)
    _tell(member)
    print(f"written: {output}")


import_.__name__ = "import"  # the name of the verb, which Python keeps for itself


def _dimensions(order: str | None) -> "tuple[Dimension, ...]":
    from serfit.labels import DIMENSIONS

    named = [] if order is None else [one.strip().lower() for one in order.split(",")]
    if strange := [one for one in named if one not in DIMENSIONS]:
        raise UserError(f"--order names {listed(strange)}; give {', '.join(DIMENSIONS)} or some of them, with commas")
    return tuple(one for name in named for one in DIMENSIONS if one == name)


def _tell(member: "Member") -> None:
    """Print what the user has to know about a model of others."""
    about, imported = member.about, member.about.origin.imported
    assert imported is not None, "an imported model says so"
    scale = about.scales[about.dimensions[0]]
    print(f"layout: {imported.layout}")
    print(f"outputs: {', '.join(imported.outputs)}; in the bundle: {', '.join(about.dimensions)}")
    print(
        f"scale: {scale.minimum:g} to {scale.maximum:g}, that of {about.origin.corpus.name}; its own outputs, about "
        "0 to 1, are the columns _unit"
    )
    for assumed in imported.assumed:
        print(f"assumed: {assumed}")
    print(f"licence: {imported.in_words}")
