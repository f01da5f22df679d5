"""What may be asked of the page's server, and what browsers may fetch for it: nothing from anywhere else.

Gradio's server can do more than a page needs: pass requests on to other hosts, fetch what a path that is an address
names, serve its programming interface. Only what the page itself asks for comes through here, paths must lie in the
folder of uploads, and a content security policy (W3C CSP3) forbids the browser every other host, whatever gradio's
scripts would like.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serfit.system.files import sweep

POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self' data: blob:; worker-src 'self' blob:; manifest-src 'self'; "
    "base-uri 'self'; form-action 'none'; frame-ancestors 'self'"
)

GET = re.compile(
    r"/|/(?P<page>[a-z]{2})(/|/config/?|/theme\.css|/(assets|static)/.+|/gradio_api/(heartbeat/\w+|queue/data|"
    r"upload_progress|app_id/?|startup-events|file=(?P<file>.+)))?",
    re.DOTALL,
)
POST = re.compile(r"/(?P<page>[a-z]{2})/gradio_api/(?P<verb>upload|queue/join|cancel|reset)/?")

MOST_JSON = 1_000_000
"""Longest request that isn't an upload, in bytes."""

ENVELOPE = 100_000
"""Bytes by which an upload may be longer than the file in it."""


FORGOTTEN = 600
"""Seconds after which an upload that nobody asked about, or what a broken one left, is removed."""


class Guard:
    """An ASGI application in front of gradio's.

    Args:
        app: what is guarded.
        uploads: the folder of uploads; nothing outside it is served or read.
        largest: largest upload in bytes.
        too_big: per language of the page, the sentence for larger ones.
        heads: per language of the page, its locale and what to put at the beginning of the HTML head.
        hosts: names under which the server may be asked for; None allows all.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        uploads: Path,
        largest: int,
        too_big: Mapping[str, str],
        heads: Mapping[str, tuple[str, str]],
        hosts: tuple[str, ...] | None,
    ) -> None:
        self.app = app
        self.uploads = uploads.resolve()
        self.largest = largest
        self.too_big = too_big
        self.heads = heads
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with why not."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._request(scope, receive, _with_policy(send))

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        allowed = POST if scope["method"] == "POST" else GET if scope["method"] in ("GET", "HEAD") else None
        asked = allowed.fullmatch(scope["path"]) if allowed else None
        refusal = self._refusal(headers, asked)
        if refusal is None and asked is not None and scope["method"] == "POST":
            part = asked.groupdict()
            if part["verb"] == "upload":
                refusal = self._too_big(headers, part["page"])
                for folder in (self.uploads, *self.uploads.glob("*/")):
                    sweep(folder, older_than=FORGOTTEN, pattern="*")
            else:
                body = await _body(receive)
                refusal = None if self._paths_are_uploads(body) else (400, "This request isn't one of the page's.")
                receive = _again(body, receive)
        if refusal is not None:
            await PlainTextResponse(refusal[1], refusal[0])(scope, receive, send)
        elif asked is not None and scope["path"] == f"/{asked['page']}/":
            scope = {**scope, "headers": [(name, value) for name, value in scope["headers"] if name != _ENCODING]}
            await self.app(scope, receive, _Headed(send, *self.heads[asked["page"]]))
        else:
            await self.app(scope, receive, send)

    def _refusal(self, headers: Headers, asked: re.Match[str] | None) -> tuple[int, str] | None:
        """Status and sentence for what is none of the page's own requests."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if self.hosts is not None and re.sub(r":\d+$", "", host) not in self.hosts:
            return 403, "This page is served under another name."
        if origin is not None and re.sub(r"^https?://", "", origin) != host:
            return 403, "This request comes from another page."
        if asked is None or (asked.groupdict()["page"] or next(iter(self.heads))) not in self.heads:
            return 404, "There is nothing here."
        file = asked.groupdict().get("file")
        return (404, "There is no such file.") if file is not None and not self._is_upload(file) else None

    def _too_big(self, headers: Headers, page: str) -> tuple[int, str] | None:
        length = headers.get("content-length", "")
        if not length.isdecimal():
            return 411, "An upload must say how long it is."
        return (413, self.too_big[page]) if int(length) > self.largest + ENVELOPE else None

    def _is_upload(self, path: Any) -> bool:
        """Whether a path lies in the folder of uploads; an address of another host doesn't."""
        try:
            return isinstance(path, str) and Path(path).is_absolute() and self._inside(Path(path).resolve())
        except (OSError, ValueError):
            return False

    def _inside(self, path: Path) -> bool:
        return path != self.uploads and path.is_relative_to(self.uploads)

    def _paths_are_uploads(self, body: bytes) -> bool:
        """Whether a request's JSON names no path outside the folder of uploads."""
        try:
            left = [json.loads(body)]
        except (ValueError, RecursionError):
            return False
        while left:
            part = left.pop()
            if isinstance(part, Mapping):
                if "path" in part and not self._is_upload(part["path"]):
                    return False
                left += part.values()
            elif isinstance(part, list):
                left += part
        return True


_ENCODING = b"accept-encoding"

_UNWANTED = re.compile(r'<link\b[^>]*\brel="manifest"[^>]*>|<(?:link|script)\b[^>]*"https?://[^>]*>(?:</script>)?')
"""What gradio's page refers to elsewhere (some versions do), and the manifest of an application it isn't."""


class _Headed:
    """Sends the page with its language named, something at the beginning of its head, and nothing from elsewhere."""

    def __init__(self, send: Send, locale: str, head: str) -> None:
        self.send = send
        self.locale = locale
        self.head = head
        self.start: Message | None = None
        self.body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.start = message
            return
        self.body += message.get("body", b"")
        if message.get("more_body", False) or self.start is None:
            return
        headers = MutableHeaders(scope=self.start)
        if headers.get("content-type", "").startswith("text/html"):
            text = re.sub(r'<html\s+lang="[^"]*"', f'<html lang="{self.locale}"', self.body.decode(), count=1)
            text = _UNWANTED.sub("", text)
            self.body = text.replace("<head>", f"<head>{self.head}", 1).encode()
            headers["content-length"] = str(len(self.body))
        await self.send(self.start)
        await self.send({"type": "http.response.body", "body": self.body})


def _with_policy(send: Send) -> Send:
    """The same, with the policy in every answer."""

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["content-security-policy"] = POLICY
            headers["referrer-policy"] = "no-referrer"
            headers["x-content-type-options"] = "nosniff"
        await send(message)

    return sent


async def _body(receive: Receive) -> bytes:
    """A request's body; of one that is too long, as much as makes it no JSON."""
    body, more = b"", True
    while more and len(body) <= MOST_JSON:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body if len(body) <= MOST_JSON else b""


def _again(body: bytes, receive: Receive) -> Receive:
    """Gives a body that has been read once more, then what follows it."""
    given = False

    async def received() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return received
