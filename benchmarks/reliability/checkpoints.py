"""R2 to R5: checkpoints under kills, full disks, flipped bits and hostile content."""

import errno
import io
import json
import os
import pickle
import random
import resource
import signal
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import Place, Timer, ended, forked, train
from safetensors.torch import save

from serfit.config.load import load_config
from serfit.config.schema import ExperimentConfig, ModelParams
from serfit.corpus.load import load_corpus
from serfit.errors import UserError
from serfit.nn.model import build_model
from serfit.nn.saved import load_weights
from serfit.system import files
from serfit.system.lease import Holder
from serfit.training.checkpoint import latest_checkpoint, save_checkpoint
from serfit.training.store import store_contents


def _tensors(step: int) -> dict[str, torch.Tensor]:
    random_ = torch.Generator().manual_seed(step)
    return {
        "a": torch.randn(50, 40, generator=random_),
        "b": torch.randn(3, generator=random_),
        "n": torch.tensor(step),
    }


def _put(folder: Path, step: int) -> Path:
    return save_checkpoint(folder, step, _tensors(step), {"step": step})


def _holds(folder: Path, step: int) -> bool:
    """Whether the newest checkpoint that loads is that of a step, and whole."""
    found = latest_checkpoint(folder)
    if found is None:
        return step == 0
    tensors, state, _ = found
    wanted = _tensors(step)
    return state == {"step": step} and all(torch.equal(tensors[name], wanted[name]) for name in wanted)


def _kill(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _killed_in_write(share: float) -> Callable[[], None]:
    """A trap: the process dies when so much of a file has been written."""

    def set_trap() -> None:
        real = Path.open

        def opened(self: Path, mode: str = "r", *rest: Any, **named: Any) -> Any:
            file = real(self, mode, *rest, **named)
            if mode != "xb":
                return file

            class Mortal:
                def __enter__(self) -> "Mortal":
                    return self

                def __exit__(self, *_: object) -> None:
                    file.close()

                def write(self, data: Any) -> int:
                    size = len(memoryview(data).cast("B"))
                    if size > 1000:
                        file.write(memoryview(data).cast("B")[: int(share * size)])
                        file.flush()
                        _kill()
                    return int(file.write(data))

                def flush(self) -> None:
                    file.flush()

                def fileno(self) -> int:
                    return int(file.fileno())

            return Mortal()

        Path.open = opened

    return set_trap


def _before(owner: Any, name: str) -> Callable[[], None]:
    return lambda: setattr(owner, name, _kill)


def _after(owner: Any, name: str) -> Callable[[], None]:
    def set_trap() -> None:
        real = getattr(owner, name)

        def then(*arguments: Any, **named: Any) -> None:
            real(*arguments, **named)
            _kill()

        setattr(owner, name, then)

    return set_trap


FAILPOINTS: dict[str, Callable[[], None]] = {
    "nothing written yet": _killed_in_write(0.0),
    "half written": _killed_in_write(0.5),
    "written, not flushed": _before(os, "fsync"),
    "flushed, not renamed": _before(Path, "replace"),
    "renamed, folder not flushed": _before(files, "_flush_folder"),
    "durable, not read back": _after(files, "_flush_folder"),
    "read back, old one not removed": _before(Path, "unlink"),
}


def r2(index: Place, scale: int) -> Timer:
    """Kills at seven places of a save with 0, 1 or 2 checkpoints before; in the long tier, 100 kills of a save loop."""
    timer = Timer("R2")
    for name, trap in FAILPOINTS.items():
        for earlier in range(3):
            folder = index.fresh("save")
            for step in range(1, earlier + 1):
                _put(folder, step)

            def work(trap: Callable[[], None] = trap, folder: Path = folder, step: int = earlier + 1) -> None:
                trap()
                _put(folder, step)

            code = ended(forked(work))
            files.sweep(folder)
            kept = any(_holds(folder, step) for step in (earlier, earlier + 1))
            clean = not list(folder.glob(".*"))
            killed = code == -signal.SIGKILL or (code == 0 and "old one" in name and earlier < 2)
            timer.case(f"{name}, {earlier} before", kept and clean and killed, f"exit {code}, {os.listdir(folder)}")
    folder, draw, saved = index.fresh("loop"), random.Random(f"{index.seed} loop"), 0
    _put(folder, 1)
    for _ in range(100 if scale > 1 else 0):
        found = latest_checkpoint(folder)
        assert found is not None
        first = int(found[1]["step"])
        child = forked(lambda first=first: [_put(folder, step) for step in range(first + 1, first + 10_000)])
        time.sleep(draw.uniform(0.0, 0.1))
        os.kill(child, signal.SIGKILL)
        ended(child)
        files.sweep(folder)
        newest = max(int(path.stem.split("-")[1]) for path in folder.glob("step-*"))
        timer.case("save loop", newest >= first and _holds(folder, newest), f"{first} then {newest}")
        saved = newest
    if scale > 1:
        timer.notes.append(f"{saved} checkpoints were written in the save loop under 100 kills")
    return timer


def r3(index: Place, scale: int) -> Timer:
    """A save that finds no room: ten sizes by RLIMIT_FSIZE, /dev/full, a failing fsync."""
    timer = Timer("R3")
    whole = _put(index.fresh("size"), 1).stat().st_size
    shares = [0, 1, 8, 100, whole // 10, whole // 3, whole // 2, whole * 9 // 10, whole - 100, whole - 1]

    def limited(size: int) -> Callable[[], None]:
        return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    def full() -> None:
        real = Path.open
        Path.open = lambda self, mode="r", *rest, **named: (
            os.fdopen(os.open("/dev/full", os.O_WRONLY), "wb") if mode == "xb" else real(self, mode, *rest, **named)
        )

    def no_flush() -> None:
        def failing(_: int) -> None:
            raise OSError(errno.EIO, "Input/output error")

        os.fsync = failing

    cases = {f"room for {size} of {whole} bytes": limited(size) for size in shares}
    for name, trap in {**cases, "/dev/full": full, "failing fsync": no_flush}.items():
        folder = index.fresh("full")
        before = _put(folder, 1).read_bytes()
        said = index.fresh("said") / "said"

        def work(trap: Callable[[], None] = trap, folder: Path = folder) -> None:
            trap()
            _put(folder, 2)

        code = ended(forked(work, said)) if name in ("/dev/full", "failing fsync") else _piped(work, said)
        text = said.read_text()
        named = "step-00000002.safetensors" in text and f"({whole:,} bytes)" in text and "untouched" in text
        untouched = os.listdir(folder) == ["step-00000001.safetensors"] and _holds(folder, 1)
        same = (folder / "step-00000001.safetensors").read_bytes() == before
        timer.case(
            name, code == 2 and named and untouched and same, f"exit {code}, {os.listdir(folder)}, {text[-300:]}"
        )
    return timer


def _piped(work: Callable[[], None], said: Path) -> int:
    """Run a child whose files are limited; what it says comes through a pipe."""
    reader, writer = os.pipe()

    def talking() -> None:
        os.dup2(writer, 1)
        work()

    child = forked(talking)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said.write_text(pipe.read())
    return ended(child)


def r4(index: Place, scale: int) -> Timer:
    """Flip one bit anywhere, or cut the file anywhere: recognised, and the checkpoint before is used."""
    timer = Timer("R4")
    folder, draw = index.fresh("bits"), random.Random(f"{index.seed} bits")
    _put(folder, 1)
    path = _put(folder, 2)
    whole = path.read_bytes()
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    for number in range(50 if scale == 1 else 500):
        end = header if number % 3 == 0 else len(whole)
        if number % 2:
            damaged = whole[: draw.randrange(end)]
        else:
            bits = bytearray(whole)
            bits[draw.randrange(end)] ^= 1 << draw.randrange(8)
            damaged = bytes(bits)
        path.write_bytes(damaged)
        found = latest_checkpoint(folder)
        held = found is not None and found[1] == {"step": 1} and len(found[2]) == 1
        timer.case(f"damage {number}", held, f"{len(damaged)} of {len(whole)} bytes")
    path.write_bytes(whole)
    timer.case("undamaged again", _holds(folder, 2))
    return timer


class _Canary:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


def _safetensors(header: dict[str, Any], data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def hostile_files(folder: Path) -> dict[str, Callable[[Path], object]]:
    """Ways to make a file that means harm, by name; each writes it at a path."""
    canary = folder / "canary"
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 50_000_000)
    evil = io.BytesIO()
    torch.save(_Canary(canary), evil)

    def sparse(path: Path) -> None:
        size = 1 << 40
        head = _safetensors({"x": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}})
        path.write_bytes(head)
        os.truncate(path, len(head) + size)

    def content(data: bytes) -> Callable[[Path], object]:
        return lambda path: path.write_bytes(data)

    deep = json.dumps({"step": 1})[:-1] + ', "x": ' + "[" * 100_000 + "]" * 100_000 + "}"
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    return {
        "pickle": content(pickle.dumps(_Canary(canary))),
        "torch.save": content(evil.getvalue()),
        "zip bomb": content(bomb.getvalue()),
        "header of 2^63": content(struct.pack("<Q", 1 << 63) + b"{}"),
        "header of 2^40": content(struct.pack("<Q", 1 << 40) + b"{}"),
        "header of a gigabyte": content(struct.pack("<Q", 1 << 30) + b"{" * 1000),
        "sparse terabyte": sparse,
        "negative offsets": content(_safetensors({"x": entry | {"data_offsets": [-8, 8]}}, b"\0" * 8)),
        "shape 2^62": content(_safetensors({"x": entry | {"shape": [1 << 62]}}, b"\0" * 8)),
        "overlapping tensors": content(_safetensors({"x": entry, "y": entry}, b"\0" * 8)),
        "deep header": content(struct.pack("<Q", 200_000) + b"[" * 200_000),
        "deep state": content(save({"x": torch.zeros(1)}, metadata={"state": deep, "sha256": "0" * 64})),
        "state without checksum": content(save({"x": torch.zeros(1)}, metadata={"state": '{"step": 1}'})),
        "fifo": lambda path: os.mkfifo(path),
        "endless device": lambda path: path.symlink_to("/dev/zero"),
        "folder": lambda path: path.mkdir(),
    }


def r5(index: Place, scale: int) -> Timer:
    """Files that mean harm, as checkpoint and as weights; manifests and texts that lead astray; no pickle in a run."""
    timer = Timer("R5")
    model = build_model(ModelParams(speech_encoder="random:tiny"), dimensions=2, seed=1)
    folder = index.fresh("hostile")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, make in hostile_files(folder).items():
        checkpoints = index.fresh("hostile")
        _put(checkpoints, 1)
        make(checkpoints / "step-00000002.safetensors")
        make(checkpoints / "best.safetensors")
        began = time.process_time()
        found = latest_checkpoint(checkpoints)
        used = found is not None and found[1] == {"step": 1}
        refused = False
        try:
            load_weights(checkpoints / "best.safetensors", model, "x")
        except UserError:
            refused = True
        took = time.process_time() - began
        harmless = not (folder / "canary").exists()
        timer.case(name, used and refused and harmless and took < 20.0, f"{used}, {refused}, {harmless}, {took:.1f} s")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 1024
    timer.case("memory", grown < 100, f"{grown:.0f} MiB more")
    _texts(index, timer)
    _fuzz(index, timer, 50 if scale == 1 else 2000)
    folder = index.fresh("pickle")
    (folder / "runs").mkdir()
    train(index.config(folder, train__epochs=1), folder / "runs" / "r", resume=False)
    pickles = [path for path in folder.rglob("*") if path.is_file() and _unpickles(path)]
    timer.case("no pickle in run directory and store", not pickles, f"{pickles}")
    return timer


def _texts(index: Place, timer: Timer) -> None:
    """Configurations, tables and notes that want more than they should."""
    folder = index.fresh("texts")
    yaml = folder / "evil.yaml"
    tags = {
        "yaml tag": f'experiment: !!python/object/apply:os.system ["touch {folder}/canary"]\n',
        "yaml bomb": "a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"{c}: &{c} [{', '.join([f'*{p}'] * 9)}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True)),
        "deep yaml": "a: " + "[" * 5000 + "]" * 5000,
    }
    for name, text in tags.items():
        yaml.write_text(text)
        began = time.process_time()  # of this process: others may keep the machine busy
        try:
            load_config(yaml)
            refused = False
        except UserError:
            refused = True
        took = time.process_time() - began
        timer.case(name, refused and not (folder / "canary").exists() and took < 5, f"{refused}, {took:.1f} s")
    (folder / "t.csv").write_text("path,v\n../../../etc/passwd,1\n")
    table = {"path": "t.csv", "valence": "v"}
    data = {"corpus": "csv", "root": str(folder), "table": table, "scales": {"valence": [1, 5]}}
    config = ExperimentConfig.model_validate({"experiment": {"name": "x"}, "data": {**data, "dimensions": ["valence"]}})
    try:
        load_corpus(config.data)
        timer.case("../ in a table", False, "was read")
    except UserError as error:
        timer.case("../ in a table", "leads out of data.root" in str(error), str(error))
    store = folder / "store" / "k"
    store.mkdir(parents=True)
    (store / "about.json").write_text("[" * 100_000)
    timer.case("about.json", store_contents(folder / "store")[0].about == {})
    timer.case("claim", Holder.from_bytes(b"[" * 100_000) is None)


def _fuzz(index: Place, timer: Timer, count: int) -> None:
    """Random bytes after plausible beginnings."""
    folder, draw = index.fresh("fuzz"), random.Random(f"{index.seed} fuzz")
    _put(folder, 1)
    path = folder / "step-00000002.safetensors"
    bad = 0
    for _ in range(count):
        noise = draw.randbytes(draw.randrange(400))
        start = draw.choice(
            [b"", struct.pack("<Q", draw.randrange(500)), struct.pack("<Q", 60) + b'{"__metadata__":{"sha']
        )
        path.write_bytes(start + noise)
        found = latest_checkpoint(folder)
        bad += not (found is not None and found[1] == {"step": 1})
    timer.case(f"{count} files of noise", bad == 0, f"{bad} were taken for checkpoints")


def _unpickles(path: Path) -> bool:
    data = path.read_bytes()
    return data[:1] == b"\x80" or data[:2] == b"PK"
