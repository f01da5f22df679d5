"""The page in all its languages, on one port, until it is stopped."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

import gradio
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse
from starlette.types import ASGIApp

from serfit.errors import UserError
from serfit.inference.page.answers import Limits, networks_in, rendered
from serfit.inference.page.guard import Guard
from serfit.inference.page.page import page, style, theme
from serfit.inference.page.words import LANGUAGES, wished
from serfit.inference.recogniser import Recogniser

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
"""Names of this machine that no other can use."""


def serve(recogniser: Recogniser, *, host: str, port: int, limits: Limits, language: str | None = None) -> None:
    """Serve the page until the process is stopped.

    Args:
        recogniser: the model.
        host: the address to listen on.
        port: the port; 0 takes a free one.
        limits: what is accepted.
        language: one of `LANGUAGES`, in which the page opens; None leaves it to the browser.

    Raises:
        UserError: the address or the port can't be had.
    """
    listener = listening(host, port)
    signal.signal(signal.SIGTERM, _leave)
    with listener, upload_folder() as uploads:
        app = application(recogniser, uploads, language=language, limits=limits, host=host)
        number = listener.getsockname()[1]
        print(f"the page: http://{f'[{host}]' if ':' in host else host}:{number}/ (stop it with Ctrl-C)", flush=True)
        if not is_loopback(host):
            print(
                f"warning: everybody who reaches port {number} of this machine can use the page, and browsers allow "
                "microphones only over https or on the machine itself",
                file=sys.stderr,
            )
        server_of(app).run([listener])


def application(
    recogniser: Recogniser, uploads: Path, *, limits: Limits, language: str | None = None, host: str = LOOPBACK[0]
) -> ASGIApp:
    """The server's application: a page per language, a door that leads to one of them, and the guard before all.

    Args:
        recogniser: the model.
        uploads: where gradio puts uploads: the folder given by `upload_folder`.
        language: one of `LANGUAGES`, in which the page opens; None leaves it to the browser.
        limits: what is accepted.
        host: the address listened on; on a loopback address, requests under other names are refused.
    """
    app = FastAPI(openapi_url=None)

    @app.api_route("/", methods=["GET", "HEAD"])
    def door(request: Request) -> RedirectResponse:
        code = language or wished(request.headers.get("accept-language", ""))
        return RedirectResponse(f"/{code}/", headers={"vary": "accept-language"})

    turn, count = threading.Lock(), networks_in(recogniser)
    for code, words in LANGUAGES.items():
        gradio.mount_gradio_app(
            app,
            page(recogniser, count, words, limits, turn),
            f"/{code}",
            footer_links=[],
            show_error=False,
            ssr_mode=False,
            enable_monitoring=False,
            theme=theme(),
            css=style(),
        )
    return Guard(
        app,
        uploads=uploads,
        largest=limits.bytes,
        too_big={code: words.too_big.format(megabytes=limits.megabytes) for code, words in LANGUAGES.items()},
        heads={
            code: (words.locale, rendered("head.html.jinja", locale=words.locale, bytes=limits.bytes))
            for code, words in LANGUAGES.items()
        },
        hosts=LOOPBACK if is_loopback(host) else None,
    )


def server_of(app: ASGIApp) -> uvicorn.Server:
    """The server, quiet, and leaving soon when told to."""
    return uvicorn.Server(
        uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=2)
    )


def listening(host: str, port: int) -> socket.socket:
    """A socket on an address. Raises UserError where it can't be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen()
        except OSError:
            listener.close()
            raise
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"can't listen on {host}, port {port} ({reason}); name another --port or --host") from error
    return listener


@contextmanager
def upload_folder() -> Iterator[Path]:
    """A private folder for uploads, gone afterwards. Gradio is told of it by its environment variable."""
    name = "GRADIO_TEMP_DIR"
    before = os.environ.get(name)
    with TemporaryDirectory(prefix="serfit-page-", ignore_cleanup_errors=True) as folder:
        os.environ[name] = folder
        try:
            yield Path(folder).resolve()
        finally:
            os.environ.pop(name)
            if before is not None:
                os.environ[name] = before


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, True, False)
    """
    return host in ("localhost", "::1") or host.startswith("127.")


def _leave(number: int, frame: FrameType | None) -> Any:
    """Leave in order, so that the folder of uploads goes too."""
    raise SystemExit(0)
