"""serfit without what only POSIX has: nobody here can run Windows, so its gaps are made in a process of their own."""

import subprocess
import sys
from pathlib import Path

import pytest

from support import config_file

WITHOUT = r'''
import importlib, multiprocessing, os, pkgutil, signal, subprocess, sys, tempfile, warnings
os.environ["USERNAME"] = "somebody"
from transformers import WavLMModel
import torch, transformers, soundfile, matplotlib.pyplot, huggingface_hub, rich.progress  # know Windows themselves
try:
    import gradio
except ModuleNotFoundError:
    pass

OS = """fork forkpty getpgid getpgrp geteuid getuid getegid getgid kill killpg nice posix_fadvise posix_fallocate
pread preadv pwrite pwritev sched_getaffinity getloadavg setsid sysconf uname mkfifo""".split()
SIGNALS = "SIGKILL SIGHUP SIGUSR1 SIGUSR2 SIGCHLD SIGALRM SIGPIPE SIGSTOP SIGCONT pthread_sigmask alarm".split()
for module, names in ((os, OS), (signal, SIGNALS)):
    for name in names:
        delattr(module, name)
for name in ("fcntl", "resource"):
    sys.modules[name] = None

def kill(pid, number):
    raise AssertionError("on Windows this is no question, but Ctrl-C")
os.kill = kill
opened = os.open
def no_folders(path, *rest, **options):
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied", str(path))
    return opened(path, *rest, **options)
os.open = no_folders

import serfit
for found in pkgutil.walk_packages(serfit.__path__, "serfit."):
    if found.name.rpartition(".")[2] in ("__main__", "kernels", "child"):
        continue
    try:
        importlib.import_module(found.name)
    except ModuleNotFoundError as error:
        assert error.name.split(".")[0] in ("gradio", "starlette", "uvicorn", "fastapi"), error

from serfit.cli import main
def run(*arguments):
    try:
        main(arguments)
    except SystemExit as end:
        assert not end.code, (arguments, end.code)
config, folder, wav = sys.argv[1:]
run("check", config)
run("train", config)
runs = [name for name in os.listdir(folder + "/runs") if name.startswith("tiny_fold1")]
assert "LOCK" not in os.listdir(f"{folder}/runs/{runs[0]}")
run("compare", folder + "/runs")
run("watch", "--once", folder + "/runs")
run("export", f"{folder}/runs/{runs[0]}", "--to", "bundle", "--output", folder + "/model")
run("predict", folder + "/model", wav, "--output", folder + "/labels.csv")
print("all done")
'''


@pytest.mark.slow
def test_serfit_works_without_what_only_posix_has(release: Path, tmp_path: Path) -> None:
    config = config_file(tmp_path / "tiny.yaml", release, tmp_path, train__epochs=1)
    wav = next(release.rglob("*.wav"))
    command = [sys.executable, "-c", WITHOUT, config, tmp_path, wav]
    ended = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert ended.stdout.endswith("all done\n"), ended.stderr[-3000:]


def test_a_lock_without_flock_goes_by_signs_of_life_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows nobody can ask whether a process lives; a holder of this machine is watched like any other."""
    from contextlib import ExitStack

    from serfit.system import lease, lock

    for module in (lease, lock):
        monkeypatch.setattr(module, "ASKABLE", False)
    monkeypatch.setattr(lock, "_flock", lambda descriptor: None)
    gone = lease.Holder(lease.Holder.me().host, 2**22 + 1)
    (tmp_path / "LOCK.claim").write_bytes(gone.to_bytes())
    clock = [0.0]
    monkeypatch.setattr("serfit.system.lease.time.monotonic", lambda: clock[0])

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    held = lock.take(tmp_path / "LOCK", sleep)
    assert isinstance(held, ExitStack)
    assert clock[0] >= lease.PATIENCE
    held.close()
