"""The verbs about the store of frozen features: cache show, cache fill, cache clear."""

from pathlib import Path
from typing import Annotated

import typer

from serfit.cli.boundary import needs_torch
from serfit.cli.options import Config, Cpu, Overrides, experiment, new_log
from serfit.cli.wording import help_text

app = typer.Typer(help="Show, fill or clear the store of frozen features.", no_args_is_help=True, rich_markup_mode=None)

Store = Annotated[Path, typer.Option("--store", help="Folder of the store, as in features.store.", show_default=True)]


@needs_torch
def show(store: Store = Path("cache/features")) -> None:
    """List what the store of frozen features holds.

    Example: serfit cache show
    """
    from time import localtime, strftime

    from serfit.errors import counted
    from serfit.system.files import free_bytes, gigabytes
    from serfit.training.store import store_contents

    contents = store_contents(store)
    for content in contents:
        about = content.about
        used = f", last used {strftime('%Y-%m-%d %H:%M', localtime(content.used))}" if content.entries else ""
        print(
            f"{content.folder}: {about.get('stage_name')} of {about.get('encoder')}, "
            f"{counted(content.entries, 'utterance')}, {gigabytes(content.size)} in {about.get('dtype')}{used}"
        )
    total = sum(content.size for content in contents)
    holds = f"{gigabytes(total)} in all" if contents else "no features (--store names another folder)"
    print(f"{store} holds {holds}; {gigabytes(free_bytes(store))} are free there")


@needs_torch
def clear(store: Store = Path("cache/features")) -> None:
    """Remove all features from the store; they are computed again when needed.

    Example: serfit cache clear
    """
    from serfit.system.files import gigabytes
    from serfit.training.store import clear_store

    print(f"{gigabytes(clear_store(store))} freed in {store}")


@needs_torch
def fill(
    overrides: Overrides = None,
    config: Config = None,
    gpu: Annotated[int | None, typer.Option("--gpu", help="Index among the visible GPUs.")] = None,
    cpu: Cpu = False,
) -> None:
    """Compute and store what an experiment's frozen part makes of the whole corpus, for all its folds and seeds.

    Example: serfit cache fill --config configs/baseline.yaml
    """
    chosen = experiment(config, overrides or [], None, None)
    from serfit.training.filling import fill_features

    fill_features(chosen, new_log(), gpu=gpu)


for verb, summary in (
    (show, "List what the store holds."),
    (clear, "Remove all features from the store."),
    (fill, "Compute and store the frozen features of a corpus."),
):
    app.command(help=help_text(verb), short_help=summary)(verb)
