"""Several processes compute what one does."""

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

import ranked
from ranked import in_processes
from serfit.errors import NumericalError, UserError
from serfit.runs import directory as runs
from serfit.runs.directory import UnwrittenRun
from serfit.system.interrupt import Interrupted
from serfit.system.log import silent_log
from serfit.training.experiment import run_experiment
from serfit.training.ranks import ALONE, Ranks, _gpu_of, deal, in_company, parsed_gpus
from support import PATIENCE, RESULTS, eventually, is_gone, settings


@given(st.lists(st.integers(1, 100), max_size=40), st.integers(1, 9))
def test_examples_are_dealt_once_and_evenly(lengths: list[int], count: int) -> None:
    shares = deal(lengths, count)
    assert sorted(index for share in shares for index in share) == list(range(len(lengths)))
    loads = [sum(lengths[index] for index in share) for share in shares]
    assert max(loads) - min(loads) <= max(lengths, default=0)


@pytest.mark.parametrize(("processes", "count", "budget"), [(2, 8, None), (2, 8, 9000), (3, 2, None), (3, 7, 6000)])
def test_the_gradient_is_that_of_one_process(processes: int, count: int, budget: int | None, tmp_path: Path) -> None:
    """Ragged, with dropout, in micro-batches, with more processes than utterances."""
    value, predictions, flat, _ = ranked.gradient(ALONE, count, None)
    for other_value, other_predictions, other, _ in in_processes(processes, tmp_path, ranked.gradient, count, budget):
        assert other_value == pytest.approx(value, rel=1e-12)
        np.testing.assert_allclose(other_predictions, predictions, rtol=0, atol=1e-12)
        assert np.linalg.norm(other - flat) / np.linalg.norm(flat) < 1e-12


def test_memory_that_runs_out_in_one_process_makes_all_cut_smaller(tmp_path: Path) -> None:
    _, _, flat, _ = ranked.gradient(ALONE, 8, None)
    found = in_processes(2, tmp_path, ranked.gradient, 8, None, (10**9, 7000))
    assert len({budget for *_, budget in found}) == 1
    assert found[0][-1] is not None
    for _, _, other, _ in found:
        assert np.linalg.norm(other - flat) / np.linalg.norm(flat) < 1e-12


def test_memory_for_not_even_one_utterance_ends_all_processes_alike(tmp_path: Path) -> None:
    for found in in_processes(2, tmp_path, ranked.gradient, 8, None, (10**9, 1000)):
        assert isinstance(found, UserError)
        assert "single utterance 4" in str(found)


def test_predictions_are_gathered(tmp_path: Path) -> None:
    alone = ranked.predict(ALONE, 8)
    for found in in_processes(2, tmp_path, ranked.predict, 8):
        np.testing.assert_allclose(found, alone, rtol=0, atol=1e-12)


def contents(directory: Path) -> dict[str, bytes]:
    return {name: (directory / name).read_bytes() for name in RESULTS}


def in_full(count: int, folder: Path, plan: dict[str, Any], directory: Path, resume: bool = False) -> Path:
    assert in_processes(count, folder, ranked.experiment, plan, directory, resume) == [None] * count
    return directory


@pytest.mark.slow
def test_two_processes_train_the_weights_of_one(release: Path, tmp_path: Path) -> None:
    """And the same bytes again, also when one of them was told to stop in between, and when torchrun starts them."""
    plan = settings(release, tmp_path)
    alone = load_file(in_full(1, tmp_path, plan, tmp_path / "alone") / runs.BEST_WEIGHTS)
    first = in_full(2, tmp_path, plan, tmp_path / "first")
    together = load_file(first / runs.BEST_WEIGHTS)
    assert together.keys() == alone.keys()
    for name, weight in alone.items():
        if name.endswith("k_proj.bias"):  # cancels in the softmax: its gradient is rounding, which Adam scales up
            continue
        np.testing.assert_allclose(together[name], weight, rtol=0, atol=1e-6, err_msg=name)
    again = tmp_path / "again"
    stopped = in_processes(2, tmp_path, ranked.stopped_experiment, plan, again, 2)
    assert isinstance(stopped[0], Interrupted)
    assert stopped[1] is None
    assert contents(in_full(2, tmp_path, plan, again, resume=True)) == contents(first)
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "serfit"]
    command += ["train", "--config", str(tmp_path / "plan.yaml"), "--run-dir", str(tmp_path / "torchrun")]
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("  2/2 ") == 1
    assert contents(tmp_path / "torchrun") == contents(first)


LEADER = """
import sys
from functools import partial
import ranked
from serfit.training.ranks import leading
if __name__ == "__main__":
    with leading(2, {what}) as ranks:
        ranked.note_process(sys.argv[1], 60, ranks=ranks)
"""


def leader(folder: Path, what: str) -> subprocess.Popen[str]:
    script = folder / "leader.py"
    script.write_text(LEADER.format(what=what))
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(folder)]
    return subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's death signal")
def test_nobody_outlives_the_first_process(tmp_path: Path) -> None:
    process = leader(tmp_path, "partial(ranked.note_process, sys.argv[1], 10_000)")
    try:
        written = [tmp_path / str(index) for index in (0, 1)]
        eventually(lambda: process.poll() is not None or all(path.exists() and path.read_text() for path in written))
        ids = [int(path.read_text()) for path in written]
        assert ids[0] == process.pid
    finally:
        os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    eventually(lambda: is_gone(ids[1]))


@pytest.mark.slow
def test_the_first_process_does_not_wait_for_the_dead(tmp_path: Path) -> None:
    process = leader(tmp_path, "ranked.leave_at_once")
    _, words = process.communicate(timeout=PATIENCE)
    assert process.returncode != 0
    assert "UserError: process 1 of this run died (exit code 9" in words


MISSING = "the disk is missing here"

ENDS = {
    ("prepare", 0): (2, f"UserError: {MISSING}"),
    ("prepare", 1): (2, f"UserError: in process 1 of this run: {MISSING}"),
    ("fill_store", 0): (2, f"UserError: {MISSING}"),
    ("fill_store", 1): (2, f"UserError: in process 1 of this run: {MISSING}"),
    ("stop", 1): (75, "Interrupted: stopped by a signal to another process; go on with --resume"),
    ("die", 1): (2, "UserError: process 1 of this run died (exit code 9"),
    ("fit", 1): (2, f"UserError: in process 1 of this run: {MISSING}"),
}
"""What happens to which of two processes, and how the run ends: exit code and words."""


@pytest.mark.slow
def test_what_ends_one_process_ends_the_run_in_one_sentence(release: Path, tmp_path: Path) -> None:
    """Whichever it is, and wherever the other one waits; and what couldn't begin leaves no directory."""
    script = tmp_path / "lead.py"
    arguments = (settings(release, tmp_path), str(tmp_path), list(ENDS))
    script.write_text(f"import ranked\nif __name__ == '__main__':\n    ranked.lead(*{arguments!r})\n")
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(script)], env=env, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    for (case, (code, words)), line in zip(ENDS.items(), done.stdout.splitlines(), strict=True):
        ended = json.loads(line)
        assert (case, ended["code"]) == (case, code)
        assert ended["words"].startswith(words)
        assert ended["exists"] == (case[0] != "prepare" and case != ("fill_store", 0))


def test_a_number_that_is_not_finite_ends_all_processes_and_is_said_once(release: Path, tmp_path: Path) -> None:
    plan = settings(
        release,
        tmp_path,
        train__optimizer={"lr": 1e18, "encoder_lr": 1e18},
        train__schedule={"warmup": 0.0},
        train__grad_clip=0.0,
    )
    first, second = in_processes(2, tmp_path, ranked.experiment, plan, tmp_path / "run")
    assert isinstance(first, NumericalError)
    assert second is None
    assert list((tmp_path / "run" / runs.CHECKPOINTS).iterdir())


@pytest.mark.parametrize("text", ["", "0,", "0,0", "a", "0;1", "-1", "1.0"])
def test_gpus_that_cannot_be_meant(text: str) -> None:
    with pytest.raises(UserError, match="different GPU indices with commas between, for example 0,1"):
        parsed_gpus(text)


def test_gpus_that_do_not_exist(release: Path, tmp_path: Path) -> None:
    assert parsed_gpus("1,0") == (1, 0)
    from serfit.config.schema import ExperimentConfig

    config = ExperimentConfig.model_validate(settings(release, tmp_path))
    with pytest.raises(UserError, match="GPU 97 doesn't exist"):
        in_company(partial(run_experiment, config), silent_log(), (97, 98))


def test_each_process_of_torchrun_has_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [_gpu_of(Ranks(index, 2), (3, 5), None) for index in (0, 1)] == [3, 5]
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert _gpu_of(Ranks(5, 8), None, None) == 1
    with pytest.raises(UserError, match="--gpus names 1 GPU, and torchrun started 2 processes; name one for each"):
        _gpu_of(Ranks(1, 2), (0,), None)


def test_a_run_that_another_process_writes_stays_in_memory(tmp_path: Path) -> None:
    run: Any = UnwrittenRun(tmp_path / "none")
    run.describe({})
    run.add("record", "time")
    run.keep({"labels.json": ""})
    run.finish({}, "")
    assert (run.records, run.times) == (["record"], ["time"])
    assert not run.written
    assert not list(tmp_path.iterdir())


def test_alone_nothing_happens() -> None:
    assert Ranks().first
    assert ALONE.least(None) is None
    assert ALONE.least(3) == 3
    assert ALONE.any(True)
    assert not ALONE.any(False)
    assert ALONE.from_first("x") == "x"
