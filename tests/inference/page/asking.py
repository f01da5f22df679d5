"""What the page in a browser asks of its server, over plain HTTP."""

import html
import io
import json
from typing import Any

import soundfile

from inference.page.stand_in import speechlike


def wav(seconds: float = 1.0) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, speechlike(seconds), 16_000, format="WAV")
    return file.getvalue()


def upload(client: Any, content: bytes, name: str = "a.wav", language: str = "en") -> Any:
    return client.post(f"/{language}/gradio_api/upload", files={"files": (name, content, "audio/wav")})


def ask(client: Any, path: str, language: str = "en", session: str = "abc") -> Any:
    data = [{"path": path, "meta": {"_type": "gradio.FileData"}}]
    request = {"data": data, "fn_index": 0, "session_hash": session}
    return client.post(f"/{language}/gradio_api/queue/join", json=request)


def answer(client: Any, path: str, language: str = "en", session: str = "abc") -> str:
    assert ask(client, path, language, session).status_code == 200
    said = ""
    with client.stream("GET", f"/{language}/gradio_api/queue/data", params={"session_hash": session}) as events:
        for line in events.iter_lines():
            if line.startswith("data:"):
                message = json.loads(line.removeprefix("data:"))
                said += " ".join(texts(message.get("output")))
                if message["msg"] == "process_completed":
                    break
    return html.unescape(said)


def texts(data: Any) -> list[str]:
    """All texts in some JSON."""
    if isinstance(data, str):
        return [data]
    parts = data.values() if isinstance(data, dict) else data if isinstance(data, list) else []
    return [text for part in parts for text in texts(part)]
