"""The verb that looks at runs while they last: watch."""

from pathlib import Path
from typing import Annotated

import typer


def watch(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Folders of run directories, or run directories; default: runs.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Print the state of things once and stop.")] = False,
    serve: Annotated[bool, typer.Option("--serve", help="Serve a live page instead, until Ctrl-C.")] = False,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port of the page; 0 takes a free one.")] = 8765,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; 0.0.0.0 lets other machines read the page.")
    ] = "127.0.0.1",
) -> None:
    """Show runs in progress and finished, from their records alone, and say what is wrong and what to try.

    Goes on until no run is in progress any more.

    Example: serfit watch runs --once
    """
    paths = runs or [Path("runs")]
    if serve:
        from serfit.report.live.serve import WatchServer

        with WatchServer(paths, host, port) as server:
            print(f"watching {', '.join(map(str, paths))}: {server.url} (Ctrl-C stops)", flush=True)
            server.serve_forever()
        return

    from serfit.report.live.terminal import watch as show
    from serfit.system.log import Terminal

    show(paths, Terminal(), once=once)
