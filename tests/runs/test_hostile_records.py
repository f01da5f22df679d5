"""Run directories that anybody may have changed: each reader reads them, or gives one sentence that names the file."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lies import FEW, indices, lies
from serfit.config.load import load_config
from serfit.errors import UserError
from serfit.labels import LabelScale
from serfit.report.compare import compare, to_csv, to_markdown
from serfit.report.diagnosis.diagnose import diagnose
from serfit.report.page import to_html
from serfit.runs import directory as runs
from serfit.runs.calibration import calibrations_of
from serfit.runs.directory import Run
from serfit.runs.live import Reader

RECORDED = Path(__file__).parent / "recorded"
SCALES = {"valence": LabelScale(1.0, 5.0), "arousal": LabelScale(1.0, 5.0)}
RECORDS = (
    *(("finished", name) for name in (runs.CONFIG, runs.ENVIRONMENT, runs.SCORES, runs.METRICS, runs.TIMING)),
    *(("finished", name) for name in (runs.CALIBRATION, runs.LABELS)),
    *(("stopped", name) for name in (runs.CONFIG, runs.ENVIRONMENT, runs.METRICS, runs.STOPPED, runs.PROGRESS)),
    ("handmade", runs.ENVIRONMENT),
)


def run_of(kind: str, folder: Path) -> Path:
    """A recorded run as a directory."""
    run = Path(shutil.copytree(RECORDED / kind, folder / "runs" / kind))
    if kind == "stopped":
        so_far = {
            "epoch": 2,
            "seconds": 1.5,
            "waiting": 0.5,
            "computing": 0.5,
            "steps": 2,
            "loading": {"read": [1, 0.5]},
        }
        now = {"epoch": 9, "step": 1, "steps": 3, "loss": 0.5, "at": 1e9, "so_far": so_far}
        (run / runs.PROGRESS).write_text(json.dumps(now))
    else:
        (run / runs.FINISHED).touch()
    return run


def compared(run: Path) -> None:
    comparison = compare([run])
    to_markdown(comparison)
    if not comparison.experiments:
        raise UserError(comparison.warnings[0])
    to_csv(comparison)
    to_html(comparison)


def watched(run: Path) -> None:
    reader = Reader()
    for history in reader.read([run]):
        diagnose(history)
        _ = history.seconds_left
    for trouble in reader.troubles.values():
        raise UserError(trouble)


def calibrated(run: Path) -> None:
    calibrations_of(run, ("valence", "arousal"), SCALES)


def resumed(run: Path) -> None:
    kept = (run / runs.STOPPED).read_bytes()
    Run.reopen(run, load_config(run / runs.CONFIG))
    (run / runs.STOPPED).write_bytes(kept)


def readers(kind: str, name: str) -> tuple[Callable[[Path], object], ...]:
    """Those of a file in a run that is finished, stopped or of the hand-made baseline."""
    if name == runs.CALIBRATION:
        return (calibrated,)
    if name == runs.LABELS:
        return (runs.read_labels,)
    return (watched, resumed) if kind == "stopped" else (compared, watched)


def damaged(content: bytes, lines: bool) -> Iterator[bytes]:
    """A file with every value in it replaced in turn, cut short, and as what is no text."""
    whole = content.splitlines()[0] if lines else content
    rest = content[len(whole) :]
    document = json.loads(whole)
    for index in indices(document):
        for lie in lies(document, index, FEW):
            yield json.dumps(lie).encode() + rest
    yield from (content[: len(content) // 2], b"\xff\xfe" + content, b"[" * 100_000, b"[]", b"null", b"")


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), RECORDS)
def test_any_value_of_any_key_is_read_or_refused_in_one_sentence(kind: str, name: str, tmp_path: Path) -> None:
    run = run_of(kind, tmp_path)
    names = {path.name for path in run.iterdir()}
    for content in damaged((run / name).read_bytes(), lines=name.endswith("jsonl")):
        (run / name).write_bytes(content)
        for read in readers(kind, name):
            try:
                read(run)
            except UserError as error:
                said = str(error)
                assert name in said or name == runs.CONFIG, said
                assert "\n" not in said or name == runs.CONFIG, said
            assert {path.name for path in run.iterdir()} == names
