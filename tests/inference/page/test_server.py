"""The page over plain HTTP: what it gives, what it refuses, what it leaves behind."""

import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest

from extras import need
from inference.page.asking import answer, ask, upload, wav
from inference.page.conftest import LIMITS, Served
from serfit.inference.page.words import LANGUAGES
from support import PATIENCE

httpx = need("serve", "httpx")
FORGOTTEN = need("serve", "serfit.inference.page.guard").FORGOTTEN


@pytest.fixture(scope="module")
def client(served: Served) -> Any:
    with httpx.Client(base_url=served.address, timeout=PATIENCE, trust_env=False) as client:
        yield client


def test_the_door_opens_in_the_browsers_language(client: Any) -> None:
    for header, code in (("zh-CN,zh;q=0.9", "zh"), ("fr", "en"), ("es", "es")):
        answered = client.get("/", headers={"accept-language": header})
        assert (answered.status_code, answered.headers["location"]) == (307, f"/{code}/")
    assert client.head("/").status_code == 307


@pytest.mark.parametrize("code", LANGUAGES)
def test_every_language_has_its_page_and_asks_no_other_host(client: Any, code: str) -> None:
    page = client.get(f"/{code}/")
    assert page.status_code == 200
    assert f'<html lang="{LANGUAGES[code].locale}"' in page.text
    (config,) = re.findall(r"window\.gradio_config = (\{.*?\});</script>", page.text, flags=re.S)
    assert json.loads(config)["title"] == LANGUAGES[code].title
    requested = re.findall(r'<(?:script|link|img|iframe|source)\b[^>]*?(?:src|href)="([^"]*)"', page.text)
    assert len(requested) >= 3
    for address in requested:
        assert address.startswith(("./", "data:,")), address
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert not re.search(r"https?:|\*", policy)
    theme = client.get(f"/{code}/theme.css").text
    assert not re.search(r"@import|url\(\s*['\"]?https?:", theme)


HOSTILE = [
    "../../../../evil.wav",
    "..%2f..%2fevil.wav",
    "/etc/cron.d/evil.wav",
    "..\\..\\evil.wav",
    "C:\\evil.wav",
    "..",
    ".",
    "/",
    ".bashrc",
    "a/b/../../../evil.wav",
    '"><img src=x onerror=alert(1)>.wav',
    "$(touch evil).wav",
    "x" * 400 + ".wav",
    "情感.wav",
    "a\tb.wav",
]


def test_names_of_uploads_cant_leave_their_folder_and_uploads_go_once_heard(served: Served, client: Any) -> None:
    refused = []
    before = set(served.around.rglob("*")) - set(served.uploads.rglob("*"))
    for number, name in enumerate(HOSTILE):
        answered = upload(client, wav(1.0 + number / 100), name)
        if answered.status_code != 200:
            assert answered.status_code == 400, name
            refused.append(name)
            continue
        (path,) = answered.json()
        assert Path(path).resolve().is_relative_to(served.uploads), name
        assert Path(path).is_file()
        said = answer(client, path, session=f"s{number}")
        assert "figure" in said, said[-300:]
        assert "onerror" not in said
        assert not Path(path).exists()
    assert set(served.around.rglob("*")) - set(served.uploads.rglob("*")) == before
    assert len(served.left()) == len(refused)
    upload(client, wav(), "nobody asks.wav")
    for path in served.left():  # gradio leaves what it refused; that and the forgotten go with a later upload
        os.utime(path, (time.time() - FORGOTTEN - 1,) * 2)
    (path,) = upload(client, wav()).json()
    assert served.left() == [Path(path)]
    answer(client, path)
    assert served.left() == []


def test_the_same_name_sent_raw_cant_leave_either(served: Served, client: Any) -> None:
    for name in ("../../evil.wav", "/evil.wav", "a\\..\\..\\evil.wav"):
        body = (
            f'--B\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
            + wav()
            + b"\r\n--B--\r\n"
        )
        answered = client.post(
            "/en/gradio_api/upload", content=body, headers={"content-type": "multipart/form-data; boundary=B"}
        )
        assert answered.status_code == 200
        (path,) = answered.json()
        assert Path(path).resolve().is_relative_to(served.uploads)
        Path(path).unlink()
    assert not list(served.around.rglob("evil.wav"))


@pytest.mark.parametrize("code", ["en", "zh"])
def test_broken_files_get_a_sentence_in_the_pages_language_and_are_deleted(
    served: Served, client: Any, code: str
) -> None:
    (path,) = upload(client, b"RIFF nonsense", language=code).json()
    said = answer(client, path, code)
    assert LANGUAGES[code].unreadable in said
    assert "Traceback" not in said
    assert served.left() == []
    assert LANGUAGES[code].gone in answer(client, path, code, "again")


def test_files_that_are_too_large_are_refused_before_they_are_kept(served: Served, client: Any) -> None:
    for code in ("en", "zh"):
        answered = upload(client, bytes(LIMITS.bytes + 200_000), language=code)
        assert (answered.status_code, answered.text) == (413, LANGUAGES[code].too_big.format(megabytes=3.0))
    (path,) = upload(client, bytes(LIMITS.bytes + 50)).json()
    assert LANGUAGES["en"].too_big.format(megabytes=3.0) in answer(client, path)
    many = [("files", (f"{number}.wav", bytes(1_000_000), "audio/wav")) for number in range(5)]
    assert client.post("/en/gradio_api/upload", files=many).status_code == 413
    unsaid = client.post("/en/gradio_api/upload", content=iter([b"a" * 10]))
    assert unsaid.status_code == 411
    assert served.left() == []


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "https://example.com/a.wav",
        "http://127.0.0.1:9/a.wav",
        "HTTPS://example.com/a.wav",
        "../../etc/passwd",
        "{uploads}/../../secret.wav",
        "{uploads}",
        "a\0b",
        "",
    ],
)
def test_no_other_file_or_host_is_read(served: Served, client: Any, path: str) -> None:
    path = path.format(uploads=served.uploads)
    assert ask(client, path).status_code == 400
    assert client.get("/en/gradio_api/file=" + path.replace("\0", "%00").replace("..", "%2e%2e")).status_code == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/en/gradio_api/proxy=https://example.com/"),
        ("GET", "/en/gradio_api/info"),
        ("GET", "/en/gradio_api/openapi.json"),
        ("GET", "/en/gradio_api/runs"),
        ("GET", "/en/monitoring"),
        ("POST", "/en/gradio_api/run/predict"),
        ("POST", "/en/gradio_api/call/hear"),
        ("POST", "/en/gradio_api/component_server"),
        ("POST", "/en/login"),
        ("PUT", "/en/gradio_api/upload"),
        ("DELETE", "/en/"),
        ("GET", "/fr/"),
        ("GET", "/docs"),
        ("GET", "/en/../../etc/passwd"),
    ],
)
def test_only_what_the_page_asks_for_is_answered(client: Any, method: str, path: str) -> None:
    assert client.request(method, path).status_code == 404


def test_other_names_and_other_pages_are_refused(client: Any) -> None:
    assert client.get("/en/", headers={"host": "evil.example"}).status_code == 403
    assert client.get("/en/", headers={"host": "localhost:1234"}).status_code == 200
    crossing = {"origin": "https://evil.example"}
    assert client.post("/en/gradio_api/upload", headers=crossing, files={"files": ("a.wav", wav())}).status_code == 403


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b"1" * 2_000_000, b'{"data": [{"path": 3}]}'])
def test_requests_that_arent_the_pages_are_refused(client: Any, body: bytes) -> None:
    assert client.post("/en/gradio_api/queue/join", content=body).status_code == 400
