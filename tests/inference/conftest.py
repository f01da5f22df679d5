"""What was published once, shared by all tests of the use of trained models."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

TrainedRun = Callable[..., Path]


@pytest.fixture(scope="session")
def published(trained: TrainedRun, release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every command and every program of docs/publishing.md and docs/calibration.md was executed.

    The two runs there are of tiny encoders.
    """
    from documented import execute
    from extras import need

    need("onnx")

    folder = tmp_path_factory.mktemp("published")
    (folder / "runs").mkdir()
    for fold in (1, 2):
        run = trained(data__split__fold=fold)
        shutil.copytree(run, folder / "runs" / f"ema_iemocap_finetune_fold{fold}_seed1_20260101-120000")
    speech = sorted(release.rglob("sentences/**/*.wav"))[:3]
    (folder / "speech").mkdir()
    for path in speech:
        shutil.copy(path, folder / "speech" / path.name)
    shutil.copy(speech[0], folder / "speech.wav")
    for page in ("publishing.md", "calibration.md"):
        (folder / "labels.csv").unlink(missing_ok=True)
        execute(page, folder)
    return folder
