"""The commands of the user's guide, to the letter, on a tiny corpus and encoder."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from support import small_release

REPOSITORY = Path(__file__).parents[1]
TINY = "model.params.speech_encoder=random:tiny train.epochs=1 features.store=null"

pytestmark = pytest.mark.skipif(shutil.which("uv") is None, reason="uv is not installed")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder that looks like the checkout and runs its code, with a tiny corpus where configs/*.yaml expect one."""
    for name in ("configs", "scripts", "src", "pyproject.toml", "uv.lock", "README.md", "LICENSE"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    (tmp_path / "configs").unlink()
    shutil.copytree(REPOSITORY / "configs", tmp_path / "configs")
    small_release(tmp_path / "data" / "IEMOCAP_full_release", dialogues=2, turns=3, seconds=0.2)
    return tmp_path


def shell(checkout: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script as a user would, in this test's environment instead of a freshly synced one."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("IEMOCAP", "CUDA"))}
    environment |= {"UV_NO_SYNC": "1", "UV_PROJECT": str(REPOSITORY), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=checkout,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_the_verification_script(checkout: Path) -> None:
    done = shell(checkout, f"bash {REPOSITORY}/scripts/verify_finetune.sh {TINY}".replace(f"{REPOSITORY}/", ""))
    assert done.returncode == 0, done.stderr
    assert "device: " in done.stdout
    assert "ccc_v: " in done.stdout
    for number in ("0.5896", "0.6867", "0.6381", "0.62"):
        assert number in done.stdout
    assert list((checkout / "runs").glob("ema_iemocap_finetune_*fold1*/train.log"))


def test_the_training_command_with_and_without_a_gpu(checkout: Path) -> None:
    command = "uv run python src/train.py --config configs/finetune.yaml --fold 1"
    with_gpu = shell(checkout, f"{command} --gpu 0 {TINY}")
    import torch

    if not torch.cuda.is_available():
        assert with_gpu.returncode == 2
        assert "GPU 0 doesn't exist" in with_gpu.stderr
        assert not (checkout / "runs").exists()
    else:
        assert with_gpu.returncode == 0, with_gpu.stderr
    variants = (
        "data.loader.batch_size=2 train.accumulation_steps=4 train.optimizer.encoder_lr=0.000005 train.grad_clip=0.3"
    )
    done = shell(
        checkout,
        f"{command} {TINY} {variants}\n"
        "LATEST_RUN=$(ls -td runs/ema_iemocap_finetune_*fold1* | head -1)\n"
        'tail "$LATEST_RUN/train.log"\n',
    )
    assert done.returncode == 0, done.stderr
    assert "run directory: runs/ema_iemocap_finetune_" in done.stdout


def test_the_full_run_is_one_substitution_away(checkout: Path) -> None:
    done = shell(
        checkout,
        "cp configs/finetune.yaml configs/finetune_full.yaml && sed -i 's/epochs: 20/epochs: 50/' "
        "configs/finetune_full.yaml && diff configs/finetune.yaml configs/finetune_full.yaml || true",
    )
    assert re.findall(r"^[<>].*", done.stdout, flags=re.M) == ["<   epochs: 20", ">   epochs: 50"]


def test_five_folds_in_a_loop_and_at_once(checkout: Path) -> None:
    """The loop over two of the five; all five at once."""
    command = "uv run python src/train.py --config configs/finetune.yaml"
    done = shell(
        checkout,
        f"for FOLD in 1 2; do {command} --fold $FOLD {TINY}; done\n"
        f"for FOLD in 1 2 3 4 5; do\n"
        f"  CUDA_VISIBLE_DEVICES=$((FOLD - 1)) {command} --fold $FOLD {TINY} experiment.seed=2 > fold$FOLD.txt 2>&1 &\n"
        "done\nwait\n"
        "uv run serfit compare runs",
    )
    assert done.returncode == 0, done.stderr
    finished = [path.parent.name for path in (checkout / "runs").glob("*/FINISHED")]
    folds = sorted(re.findall(r"fold(\d)_seed(\d)", " ".join(finished)))
    assert folds == [("1", "1"), ("1", "2"), ("2", "1"), ("2", "2"), ("3", "2"), ("4", "2"), ("5", "2")]
    table = (checkout / "runs" / "experiment_comparison.md").read_text()
    assert "ema_iemocap_finetune" in table
    assert "±" in table
