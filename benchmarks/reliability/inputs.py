"""R12: malformed audio, tables, releases and configurations: a result, or one sentence with exit code 2."""

import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import yaml
from common import Place, Timer, ended, forked

from serfit.cli import main
from support import settings, small_release

SPEAKERS, TURNS = 3, 4
HEADER = "path,v,a,speaker\n"

Change = Callable[[Path], object]
"""Damages a corpus folder or a configuration file."""


def corpus(folder: Path) -> Path:
    """A CSV corpus of three speakers with four utterances each; returns the configuration file."""
    draw = np.random.default_rng(1)
    rows = []
    for speaker in range(SPEAKERS):
        for turn in range(TURNS):
            name = f"{speaker}{turn}.wav"
            soundfile.write(folder / name, 0.1 * draw.standard_normal(4000), 16_000)
            rows.append(f"{name},{1 + (speaker + turn) % 5},{5 - (2 * turn + speaker) % 5},s{speaker}\n")
    (folder / "t.csv").write_text(HEADER + "".join(rows))
    table = {"path": "t.csv", "valence": "v", "arousal": "a", "speaker": "speaker"}
    data = {
        "corpus": "csv",
        "root": str(folder),
        "table": table,
        "scales": {"valence": [1, 5], "arousal": [1, 5]},
        "split": {"scheme": "grouped_kfold", "folds": 3},
        "loader": {"batch_size": 4, "workers": 0},
    }
    config = settings(folder, folder, data=data, train__epochs=1)
    (folder / "c.yaml").write_text(yaml.safe_dump(config))
    return folder / "c.yaml"


def audio_cases(draw: random.Random, scale: int) -> Iterator[tuple[str, Change]]:
    """Ways to damage one audio file."""
    target = "11.wav"
    header_fields = {
        "riff size": (4, "<I"),
        "format length": (16, "<I"),
        "format": (20, "<H"),
        "channels": (22, "<H"),
        "rate": (24, "<I"),
        "byte rate": (28, "<I"),
        "block": (32, "<H"),
        "bits": (34, "<H"),
        "data size": (40, "<I"),
    }

    def patched(offset: int, data: bytes) -> Change:
        def change(folder: Path) -> None:
            whole = bytearray((folder / target).read_bytes())
            whole[offset : offset + len(data)] = data
            (folder / target).write_bytes(bytes(whole))

        return change

    def content(data: bytes) -> Change:
        return lambda folder: (folder / target).write_bytes(data)

    def written(samples: Any, rate: int = 16_000, **how: Any) -> Change:
        def change(folder: Path) -> None:
            (folder / target).unlink()
            with (folder / target).open("wb") as file:
                soundfile.write(file, samples, rate, **{"format": "WAV", **how})

        return change

    for share in [0, 1, 4, 12, 20, 36, 43, 44, 45, 46, *(draw.randrange(8044) for _ in range(10 * scale))]:
        yield (
            f"cut to {share} bytes",
            lambda f, n=share: (f / target).write_bytes((f / target).read_bytes()[:n]) and None,
        )
    for name, (offset, kind) in header_fields.items():
        for value in (0, 1, 7, 2 ** (8 * struct.calcsize(kind)) - 1):
            yield f"{name} says {value}", patched(offset, struct.pack(kind, value))
    for _ in range(10 * scale):
        yield "random byte in header", patched(draw.randrange(44), draw.randbytes(1))
    noise = np.random.default_rng(2).standard_normal(4000) * 0.1
    for value in (np.nan, np.inf, -np.inf, 1e30, 3e38, 1e-40):
        samples = noise.astype(np.float32)
        samples[100:110] = value
        yield f"samples of {value}", written(samples, subtype="FLOAT")
    for count in (0, 1, 6, 399, 400, 401):
        yield f"{count} samples", written(noise[:count])
    yield "silence", written(np.zeros(4000))
    for channels in (2, 8):
        yield f"{channels} channels", written(np.repeat(noise[:, None], channels, axis=1))
    for subtype in ("PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM"):
        yield f"subtype {subtype}", written(noise, subtype=subtype)
    for rate in (1, 100, 8_000, 11_025, 22_050, 44_100, 96_000, 1_000_000):
        yield f"rate {rate}", written(noise, rate)
    for kind, how in {"FLAC": {}, "OGG": {}, "MP3": {}, "AIFF": {}, "W64": {}, "RF64": {}, "CAF": {}}.items():
        yield f"{kind} named .wav", written(noise, format=kind, **how)
    yield "HTML page", content(b"<!DOCTYPE html><html>404</html>" * 20)
    yield "git-lfs pointer", content(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 8044\n")
    for number in range(5 * scale):
        yield f"noise {number}", content(draw.randbytes(draw.randrange(3000)))
    yield "RIFF and noise", content(b"RIFF" + draw.randbytes(500))
    yield "a folder", lambda f: ((f / target).unlink(), (f / target).mkdir())
    yield "a dangling link", lambda f: ((f / target).unlink(), (f / target).symlink_to("nowhere"))
    yield "a link to itself", lambda f: ((f / target).unlink(), (f / target).symlink_to(target))
    yield "missing", lambda f: (f / target).unlink()


def table_cases() -> Iterator[tuple[str, Change]]:
    """Ways to spoil the CSV file."""

    def edited(edit: Callable[[str], str | bytes]) -> Change:
        def change(folder: Path) -> None:
            text = edit((folder / "t.csv").read_text())
            (folder / "t.csv").write_bytes(text if isinstance(text, bytes) else text.encode())

        return change

    def row(new: str) -> Change:
        return edited(lambda text: text.replace("11.wav,3,2,s1", new))

    rows = {
        "empty rating": "11.wav,,2,s1",
        "word as rating": "11.wav,high,2,s1",
        "nan": "11.wav,nan,2,s1",
        "inf": "11.wav,inf,2,s1",
        "decimal comma": '11.wav,"3,5",2,s1',
        "off the scale": "11.wav,7,2,s1",
        "just off the scale": "11.wav,5.0001,2,s1",
        "1e999": "11.wav,1e999,2,s1",
        "hexadecimal": "11.wav,0x3,2,s1",
        "full-width digit": "11.wav,３,2,s1",
        "few cells": "11.wav,3",
        "many cells": "11.wav,3,2,s1,more,more",
        "no path": ",3,2,s1",
        "path of blanks": "   ,3,2,s1",
        "path twice": "10.wav,3,2,s1",
        "no such file": "nothing.wav,3,2,s1",
        "out of the folder": "../../etc/passwd,3,2,s1",
        "absolute nonsense": "/etc/passwd,3,2,s1",
        "null byte": "11\0.wav,3,2,s1",
        "very long path": "a" * 5000 + ".wav,3,2,s1",
        "open quote": '"11.wav,3,2,s1',
        "unknown speaker": "11.wav,3,2,",
        "blank line": "\n11.wav,3,2,s1",
        "row of commas": ",,,",
        "newline in a cell": '"11\n.wav",3,2,s1',
    }
    for name, new in rows.items():
        yield f"table: {name}", row(new)
    whole: dict[str, Callable[[str], str | bytes]] = {
        "empty": lambda text: "",
        "header only": lambda text: HEADER,
        "no header": lambda text: text.removeprefix(HEADER),
        "header twice": lambda text: HEADER + text,
        "column twice": lambda text: text.replace("path,v,a", "path,v,v"),
        "column misspelt": lambda text: text.replace("path,v,a", "path,val,a"),
        "semicolons": lambda text: text.replace(",", ";"),
        "tabs": lambda text: text.replace(",", "\t"),
        "CRLF": lambda text: text.replace("\n", "\r\n"),
        "CR": lambda text: text.replace("\n", "\r"),
        "byte order mark": lambda text: "\ufeff" + text,
        "UTF-16": lambda text: text.encode("utf-16"),
        "Latin-1": lambda text: text.replace("s1", "sé").encode("latin-1"),
        "NUL bytes": lambda text: b"\0" * 100,
        "a cell of 200,000 characters": lambda text: text.replace("s1", "x" * 200_000),
        "one speaker": lambda text: text.replace("s1", "s0").replace("s2", "s0"),
        "constant ratings": lambda text: "\n".join(
            [HEADER.strip(), *(f"{s}{t}.wav,3,3,s{s}" for s in range(3) for t in range(4))]
        ),
        "two rows": lambda text: "".join(text.splitlines(keepends=True)[:3]),
        "binary": lambda text: bytes(range(256)) * 4,
    }
    for name, edit in whole.items():
        yield f"table: {name}", edited(edit)


def yaml_cases() -> Iterator[tuple[str, Change]]:
    """Configurations of every wrong shape."""

    def raw(data: bytes) -> Change:
        return lambda folder: (folder / "c.yaml").write_bytes(data)

    def changed(*address: str, value: Any) -> Change:
        def change(folder: Path) -> None:
            config = yaml.safe_load((folder / "c.yaml").read_text())
            section = config
            for name in address[:-1]:
                section = section.setdefault(name, {})
            section[address[-1]] = value
            (folder / "c.yaml").write_text(yaml.safe_dump(config))

        return change

    shapes: dict[str, Any] = {
        "list": [1],
        "text": "x",
        "number": 3,
        "null": None,
        "true": True,
        "nested": {"a": {"b": 1}},
    }
    for section in ("experiment", "data", "features", "model", "train"):
        for name, value in shapes.items():
            yield f"{section} is {name}", changed(section, value=value)
    values = {
        ("train", "epochs"): (0, -1, 1.5, "many", float("nan")),
        ("train", "optimizer", "lr"): (0, -1, float("inf"), float("nan"), "1e", True),
        ("data", "loader", "batch_size"): (0, 1e9, [4], None),
        ("data", "scales", "valence"): ([5, 1], [1], [1, 1], [float("nan"), 5], "1-5", [1, 5, 7]),
        ("data", "dimensions"): ([], ["valence", "valence"], ["arousal", "valence"], ["anger"], "valence"),
        ("data", "split", "fold"): (0, 4, -1, "one"),
        ("data", "root"): ("", "\0", "/nowhere", 7),
        ("experiment", "name"): ("", "../x", "a/b", ".", "x" * 300),
        ("experiment", "runs_dir"): ("/proc/none", "\0"),
        ("model", "params", "speech_encoder"): ("", "random:huge", "../../etc", "no/such/model/at/all"),
        ("features", "max_gb"): (0, -1, 1e-9),
    }
    for address, some in values.items():
        for value in some:
            yield f"{'.'.join(address)} is {value!r}"[:60], changed(*address, value=value)
    texts = {
        "empty": b"",
        "blank": b"  \n\n",
        "comment": b"# nothing\n",
        "list": b"- a\n- b\n",
        "scalar": b"hello",
        "number": b"3",
        "tab": b"experiment:\n\tname: x\n",
        "open bracket": b"experiment: {name: x\n",
        "open quote": b'experiment: {name: "x}\n',
        "two documents": b"a: 1\n---\nb: 2\n",
        "duplicate key": b"experiment: {name: x}\nexperiment: {name: y}\n",
        "UTF-16": "experiment: {name: x}".encode("utf-16"),
        "Latin-1": "experiment: {name: é}".encode("latin-1"),
        "NUL": b"\0\0\0",
        "binary": bytes(range(256)),
        "recursion": b"&a [*a]",
        "merge loop": b"a: &a {<<: *a}\n",
        "deep": b"a: " + b"[" * 3000,
        "tag": b"experiment: !!python/name:os.system\n",
        "unset variable": b"experiment: {name: '${NO_SUCH_VARIABLE}'}\n",
        "number as key": b"1: 2\n",
        "null as key": b"~: 2\n",
        "list as key": b"? [a, b]\n: 2\n",
    }
    for name, data in texts.items():
        yield f"configuration: {name}", raw(data)


def release_cases() -> Iterator[tuple[str, Change]]:
    """Ways to spoil an IEMOCAP release."""

    def labels(edit: Callable[[str], str]) -> Change:
        def change(root: Path) -> None:
            path = sorted(root.glob("Session2/dialog/EmoEvaluation/*.txt"))[0]
            path.write_bytes(edit(path.read_text(encoding="latin-1")).encode("latin-1", errors="replace"))

        return change

    edits: dict[str, Callable[[str], str]] = {
        "empty": lambda text: "",
        "no values": lambda text: text.replace("[", "").replace("]", ""),
        "comma for point": lambda text: text.replace(".", ","),
        "nan": lambda text: text.replace("[", "[nan, "),
        "unknown name": lambda text: text.replace("Ses02", "Ses09"),
        "cut in the middle": lambda text: text[: len(text) // 2],
        "every line twice": lambda text: "".join(line + "\n" + line + "\n" for line in text.splitlines()),
        "CRLF": lambda text: text.replace("\n", "\r\n"),
        "noise": lambda text: "".join(chr(33 + ord(c) * 7 % 90) for c in text),
        "times backwards": lambda text: text.replace("[0.", "[9."),
    }
    for name, edit in edits.items():
        yield f"release: {name}", labels(edit)
    yield "release: a session missing", lambda root: (root / "Session3").rename(root / "Sitzung3")
    yield "release: a wav missing", lambda root: sorted(root.rglob("*.wav"))[5].unlink()
    yield "release: empty wav", lambda root: sorted(root.rglob("*.wav"))[5].write_bytes(b"")
    yield "release: nothing", lambda root: [path.unlink() for path in root.rglob("*.txt")]


def r12(index: Place, scale: int) -> Timer:
    """Every malformed input through `serfit train`, one epoch long."""
    timer = Timer("R12")
    draw = random.Random(f"{index.seed} inputs")
    results = 0
    every = [*audio_cases(draw, scale), *table_cases(), *yaml_cases()]
    for name, change in every:
        folder = index.fresh("inputs")
        config = corpus(folder)
        change(folder)
        results += _judge(timer, name, folder, config)
    for name, change in release_cases():
        folder = index.fresh("inputs")
        root = small_release(folder / "iemocap")
        change(root)
        config = folder / "c.yaml"
        config.write_text(yaml.safe_dump(settings(root, folder, train__epochs=1)))
        results += _judge(timer, name, folder, config)
    timer.notes.append(f"{results} gave a result, {timer.total - results} a sentence")
    return timer


def _judge(timer: Timer, name: str, folder: Path, config: Path) -> bool:
    """Whether there is a result; counts the case."""
    said = folder / "said"
    code = ended(forked(lambda: main(["train", "--config", str(config)]), said), 60)
    text = said.read_text(errors="replace")
    runs = [path for path in folder.glob("runs/*") if path.is_dir()]
    if code == 0:
        timer.case(name, len(runs) == 1 and (runs[0] / "FINISHED").exists(), f"no result: {text[-300:]}")
        return True
    sentence = "\nerror: " in f"\n{text}" and "Traceback" not in text
    timer.case(name, code == 2 and sentence and not runs, f"exit {code}, runs {runs}: {text[-400:]}")
    return False
