"""The page in a real browser, where there is one: fetches nothing, complains of nothing, fits every window."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from report.written import Written
from serfit.report.compare import compare
from serfit.report.page import write_report
from support import PATIENCE

Write = Callable[..., Written]
SCRIPT = Path(__file__).parents[2] / "scripts" / "screenshots.py"

pytest.importorskip("playwright")


def pictures(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the script; skip where it finds no browser."""
    done = subprocess.run(
        [sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True, timeout=PATIENCE
    )
    if "no Chromium" in done.stderr:
        pytest.skip("no Chromium is installed")
    return done


def test_the_page_is_at_home_in_every_window(write_run: Write, tmp_path: Path) -> None:
    for fold in range(1, 6):
        write_run("an_experiment_with_quite_a_long_name_of_its_own", fold, described=True, total=10_039)
        write_run("other", fold, noise=1.0, described=True, total=10_039)
    page = write_report(compare(tmp_path / "runs"), tmp_path / "page.html")
    done = pictures(page, tmp_path / "seen", "--height", 1000)
    assert done.returncode == 0, done.stdout + done.stderr
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "seen").iterdir()}
    assert sizes.keys() == {f"page_{scheme}_{width}.png" for scheme in ("light", "dark") for width in (1240, 400)}
    assert min(sizes.values()) > 20_000
    light, dark = ((tmp_path / "seen" / f"page_{scheme}_400.png").read_bytes() for scheme in ("light", "dark"))
    assert light != dark


def test_what_is_wrong_with_a_page_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    flaws = (
        '<img src="http://127.0.0.1:9/x.png"><script>nothing()</script>',
        '<script>console.log("said")</script><div style="width: 700px">wide</div>',
    )
    page.write_text(f"<!doctype html><title>page</title>{''.join(flaws)}")
    done = pictures(page, tmp_path / "seen", "--schemes", "light", "--widths", 400)
    assert done.returncode == 1
    for found in ("http://127.0.0.1:9/x.png", "nothing is not defined", "; said", "pixels wide in a window of 400"):
        assert found in done.stdout
