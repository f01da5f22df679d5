"""Named tensors on disk as safetensors: written as a stream and atomically, read only after a look at the header.

The format (https://huggingface.co/docs/safetensors): 8 bytes with the length of the header, the header in JSON, the
tensors one after another. Nothing in such a file is ever executed.
"""

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

import torch
from safetensors import SafetensorError, safe_open

from serfit.errors import UserError
from serfit.system.files import refuse_lfs_pointer, write_atomically

MOST_HEADER_BYTES = 16 * 1024**2
"""Longest header that is parsed; thousands of tensors need less than one megabyte."""

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}

Shapes = Mapping[str, tuple[int, ...]]
"""Shape of each tensor in a file."""


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> int:
    """Write tensors atomically and durably, without a second copy of them in memory.

    Returns:
        The size of the file in bytes.

    Raises:
        WriteError: when they can't be written.
    """
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name, tensor in held.items():
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)

    def write(file: IO[bytes]) -> None:
        file.write(struct.pack("<Q", len(text)))
        file.write(text)
        for tensor in held.values():
            if tensor.nbytes:
                file.write(tensor.reshape(-1).view(torch.uint8).numpy().data)

    size = 8 + len(text) + end
    write_atomically(path, write, size=size)
    return size


def read_tensors(
    path: Path, fits: Callable[[Shapes, Mapping[str, str]], bool] = lambda shapes, metadata: True
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors and the metadata of a file.

    Each tensor is in memory of its own and doesn't follow what happens to the file. That also puts it where torch's
    allocator puts tensors: on CPUs without AVX-512, products of a few rows round by the address of their operands.

    Args:
        path: a safetensors file.
        fits: whether shapes and metadata are what is wanted; asked before any tensor is read, so that a file that
            promises gigabytes costs nothing.

    Raises:
        UserError: when it can't be read, isn't safetensors, or doesn't fit.
    """
    try:
        _check_header(path)
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            metadata = file.metadata() or {}
            if not fits({name: tuple(file.get_slice(name).get_shape()) for name in names}, metadata):
                raise UserError(f"{path} holds something else than what is wanted here")
            return {name: file.get_tensor(name).clone() for name in names}, metadata
    except (OSError, SafetensorError, ValueError, MemoryError, RuntimeError) as error:  # the last: torch can't map
        raise UserError(
            f"can't read {path} as safetensors ({error}); it is missing, torn or of another kind"
        ) from error


def _check_header(path: Path) -> None:
    """Refuse what isn't a plain file, and headers that are too long to be honest, before anything is mapped."""
    if path.exists() and not path.is_file():
        raise ValueError("it is not a plain file")
    refuse_lfs_pointer(path)
    with path.open("rb") as file:
        head = file.read(8)
    length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
    if not 2 <= length <= MOST_HEADER_BYTES:
        raise ValueError("it doesn't begin with a header")
