"""The machine a run happens on: its device, its memory, its versions."""

import importlib
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from serfit.errors import UserError
from serfit.system.precision import bf16_line

RECORDED_PACKAGES = ("serfit", "torch", "transformers", "safetensors", "numpy", "soundfile", "soxr")


def choose_device(gpu: int | None) -> tuple[torch.device, str]:
    """The device to compute on, and one line that says so.

    Args:
        gpu: index among the visible GPUs, or None for the first one, else the CPU.

    Raises:
        UserError: when that GPU doesn't exist, or CUDA_VISIBLE_DEVICES names GPUs and there are none.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        check_cpu_is_meant()
    if gpu is None and count == 0:
        threads = torch.get_num_threads()
        return torch.device("cpu"), f"device: CPU with {threads} thread{'s' * (threads != 1)} (no GPU is visible)"
    index = 0 if gpu is None else gpu
    if not 0 <= index < count:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "not set")
        allowed = f"0 to {count - 1}" if count > 1 else "only 0" if count else "no GPU is visible to torch"
        raise UserError(
            f"GPU {index} doesn't exist: {allowed} (CUDA_VISIBLE_DEVICES={visible}); "
            "leave --gpu out (and --gpus) to take the first GPU, or the CPU where there is none"
        )
    torch.cuda.set_device(index)
    properties = torch.cuda.get_device_properties(index)
    gibibytes = properties.total_memory / 1024**3
    return torch.device("cuda", index), f"device: GPU {index}, {properties.name}, {gibibytes:.0f} GiB"


def check_cpu_is_meant(environment: Mapping[str, str] = os.environ) -> None:
    """Where torch sees no GPU, raise UserError if CUDA_VISIBLE_DEVICES asks for some. Empty or -1 asks for none.

    Five trainings, each with a GPU of its own, would otherwise share one CPU, with a line in a log to show it.
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES", "")
    if re.match(r"\s*(\d|GPU-|MIG-)", visible):
        raise UserError(
            f"CUDA_VISIBLE_DEVICES={visible} asks for GPUs, but torch sees none; mend the driver or the torch build "
            "(`serfit doctor`), or give --cpu to compute on the CPU (without --gpu and --gpus)"
        )


def computer_memory() -> int:
    """Bytes of memory of this computer; 8 GiB where the system doesn't say (Windows)."""
    if not hasattr(os, "sysconf"):
        return 8 * 1024**3
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def gpu_memory(device: torch.device) -> tuple[int, int] | None:
    """Most bytes that torch has allocated on a GPU so far, and the bytes it has; None for other devices."""
    if device.type != "cuda":
        return None
    return torch.cuda.max_memory_allocated(device), torch.cuda.get_device_properties(device).total_memory


def gpu_busy(device: torch.device) -> float | None:
    """Share of the last moments in which a GPU was computing, by its driver; None where nobody can tell."""
    if device.type != "cuda":
        return None
    try:
        return torch.cuda.utilization(device) / 100.0
    except Exception:  # without nvidia-ml-py, or one of NVML's own errors, such as on a slice of a GPU
        return None


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, source commit, command and machine, as written into a run directory."""
    return {
        "packages": {name: version_of(name) for name in RECORDED_PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "commit": _commit(),
        "command": sys.argv,
        "host": platform.node(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        "device_type": device.type,
        "visible_gpus": os.environ.get("CUDA_VISIBLE_DEVICES") if device.type == "cuda" else None,
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda,
    }


def version_of(package: str) -> str | None:
    """Version of an installed package; None where it is missing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Commit of the source checkout, with "+changes" when it differs from what is committed; None outside of one."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=60)
        changes = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if commit.returncode != 0:
        return None
    return commit.stdout.strip() + ("+changes" if changes.stdout.strip() else "")


def machine_lines() -> list[str]:
    """Device, versions and known troubles of this machine, one line each."""
    try:
        lines = [choose_device(None)[1]]
    except UserError as error:
        lines = [f"warning: {error}"]
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            free, total = torch.cuda.mem_get_info(index)
            lines.append(f"GPU {index}: {properties.name}, {free / 1024**3:.1f} of {total / 1024**3:.1f} GiB free")
        if version_of("nvidia-ml-py") is None:
            lines.append("how busy a GPU is stays unknown without nvidia-ml-py: `uv sync --extra gpu`")
    lines.append(bf16_line(torch.device("cuda" if torch.cuda.is_available() else "cpu")))
    lines.append(f"Python {platform.python_version()}, CUDA build {torch.version.cuda or 'none'}")
    lines += [f"{name} {version_of(name) or 'is missing'}" for name in RECORDED_PACKAGES]
    if version_of("torchaudio") is not None:
        try:
            importlib.import_module("torchaudio")
        except (ImportError, OSError, RuntimeError) as error:
            lines.append(
                f"warning: torchaudio is installed but doesn't load ({type(error).__name__}); serfit doesn't need it, "
                "but peft fails to import beside it: remove it, or install the build that belongs to this torch"
            )
    return lines
