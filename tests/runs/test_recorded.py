"""Runs and a bundle that were written before records had types: everything reads them as if they were new.

`recorded/` holds their small files; the weights are those of a run that is trained here with the same settings.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import serfit
from serfit.inference.bundle import DESCRIPTION, read_bundle, write_bundle
from serfit.inference.publish.hub import CARD, write_hub_folder
from serfit.inference.source import calibrated_members, open_members
from serfit.report.compare import compare, to_markdown
from serfit.runs import directory as runs
from serfit.runs.finished import read_run
from serfit.runs.live import Reader
from serfit.runs.records import Environment, Stopped, TestScores
from serfit.scores.records import EpochRecord, EpochTime
from serfit.system.records import plain, read_lines, read_record

RECORDED = Path(__file__).parent / "recorded"
WAVEFORMS = [np.random.default_rng(7).standard_normal(8_000).astype(np.float32)]


@pytest.fixture
def old(trained: Callable[..., Path], tmp_path: Path) -> Path:
    """The recorded run with weights."""
    run = Path(shutil.copytree(trained(), tmp_path / "runs" / "old"))
    shutil.copytree(RECORDED / "finished", run, dirs_exist_ok=True)
    return run


@pytest.mark.parametrize(
    ("name", "kind"),
    [(runs.ENVIRONMENT, Environment), (runs.SCORES, TestScores), (runs.STOPPED, Stopped)],
)
def test_what_is_read_is_written_again_as_it_was(name: str, kind: type) -> None:
    found = sorted(RECORDED.glob(f"*/{name}"))
    assert found
    for path in found:
        again = plain(read_record(kind, path, ""))
        again.pop("format", None)
        assert again == json.loads(path.read_text()), path


@pytest.mark.parametrize(("name", "kind"), [(runs.METRICS, EpochRecord), (runs.TIMING, EpochTime)])
def test_lines_are_written_again_byte_for_byte(name: str, kind: type) -> None:
    for path in RECORDED.glob(f"*/{name}"):
        again = "".join(f"{json.dumps(plain(one))}\n" for one in read_lines(kind, path, ""))
        assert again == path.read_text()


def test_an_old_run_is_compared_watched_used_and_exported(old: Path, tmp_path: Path) -> None:
    handmade = Path(shutil.copytree(RECORDED / "handmade", tmp_path / "runs" / "handmade"))
    (handmade / runs.FINISHED).touch()
    comparison = compare([old, handmade])
    assert [result.label for result in comparison.experiments] == ["tiny", "tiny_handmade"]
    assert not [line for line in comparison.warnings if line.startswith("left out")]
    assert "hand-made features" in to_markdown(comparison)
    reader = Reader()
    assert [one.state for one in reader.read([old, handmade])] == ["finished", "finished"]
    assert reader.troubles == {}
    heard = serfit.load(old, calibrate="affine").estimate(WAVEFORMS).values
    members, kind = calibrated_members([old], "affine")
    write_hub_folder(tmp_path / "hub", [old], members, kind)
    np.testing.assert_array_equal(serfit.load(tmp_path / "hub").estimate(WAVEFORMS).values, heard)
    assert f"{read_run(old).scores.test.ccc('arousal'):.4f}" in (tmp_path / "hub" / CARD).read_text()


def test_a_run_from_before_labels_and_formats_is_read(old: Path) -> None:
    (old / runs.LABELS).unlink()
    about = json.loads((old / runs.ENVIRONMENT).read_text())
    for key in ("labels", "digest", "left_out"):
        del about["corpus"][key]
    about["encoder"] = {key: about["encoder"][key] for key in ("name", "revision", "sha256")}
    (old / runs.ENVIRONMENT).write_text(json.dumps(about))
    scores = json.loads((old / runs.SCORES).read_text())
    (old / runs.SCORES).write_text(json.dumps({key: scores[key] for key in ("test", "best_epoch", "validation")}))
    (old / runs.TIMING).unlink()
    assert [result.label for result in compare([old]).experiments] == ["tiny"]
    assert (read_run(old).labels, read_run(old).scores.scenario_baseline) == ({}, None)
    assert serfit.load(old).estimate(WAVEFORMS).values.shape == (1, 2)


def test_an_old_bundle_is_loaded_and_has_a_model_card(old: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    write_bundle(bundle, open_members(old))
    said = json.loads((RECORDED / "bundle" / DESCRIPTION).read_text())
    (member,) = json.loads((bundle / DESCRIPTION).read_text())["members"]
    said["members"][0]["sha256"] = member["sha256"]  # of weights that another processor rounds otherwise
    (bundle / DESCRIPTION).write_text(json.dumps(said))
    members = read_bundle(bundle)
    write_hub_folder(tmp_path / "hub", [bundle], members, None)
    assert "fold 1, seed 1" in (tmp_path / "hub" / CARD).read_text()
    assert serfit.load(bundle, calibrate="isotonic").estimate(WAVEFORMS).values.shape == (1, 2)
