"""The page, served on a free port of this machine, by a thread that may look up no other host."""

import socket
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from extras import need
from inference.page.stand_in import recogniser
from serfit.inference.page.answers import Limits
from support import PATIENCE

LIMITS = Limits(minutes=0.5, megabytes=3.0)


@dataclass(frozen=True, slots=True)
class Served:
    address: str
    uploads: Path
    around: Path
    looked_up: list[Any]

    def left(self) -> list[Path]:
        """Files in the folder of uploads."""
        return [path for path in self.uploads.rglob("*") if path.is_file()]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    need("serve")
    from serfit.inference.page.server import application, listening, server_of, upload_folder

    around = tmp_path_factory.mktemp("around")
    looked_up: list[Any] = []
    real = socket.getaddrinfo

    def only_here(host: Any, *rest: Any, **options: Any) -> Any:
        if host not in ("127.0.0.1", "localhost", "::1"):
            looked_up.append(host)
            raise socket.gaierror(f"a test may not look up {host}")
        return real(host, *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(around))
        patch.setattr(socket, "getaddrinfo", only_here)
        with listening("127.0.0.1", 0) as listener, upload_folder() as uploads:
            server = server_of(application(recogniser(2), uploads, limits=LIMITS))
            thread = threading.Thread(target=server.run, args=([listener],))
            thread.start()
            yield Served(f"http://127.0.0.1:{listener.getsockname()[1]}", uploads, around, looked_up)
            server.should_exit = True
            thread.join(PATIENCE)
            assert not thread.is_alive()
    assert looked_up == []
    assert list(around.glob("serfit-page-*")) == []
