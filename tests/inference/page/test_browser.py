"""The page in a real browser: from the upload to the file that is downloaded, and no request to any other host.

With SERFIT_SCREENSHOTS=FOLDER in the environment, what it looks like is kept there.
"""

import csv
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import soundfile

from inference.page.conftest import LIMITS, Served
from inference.page.stand_in import recogniser, speechlike
from serfit.inference.page.words import LANGUAGES
from serfit.inference.windows import curve
from support import PATIENCE

playwright = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed")


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("speech") / "speech.wav"
    soundfile.write(path, speechlike(12.0), 16_000)
    return path


@pytest.fixture(scope="module")
def browser(speech: Path) -> Iterator[Any]:
    """Chromium, Debian's or another that is installed, else Playwright's own; its microphone plays the speech."""
    found = [path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))]
    arguments = [
        "--no-sandbox",  # in containers, as root
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={speech}",
    ]
    with playwright.sync_playwright() as started:
        if not found and not Path(started.chromium.executable_path).is_file():
            pytest.skip("there is no Chromium here")
        running = started.chromium.launch(executable_path=found[0] if found else None, args=arguments)
        yield running
        running.close()


class Visit:
    """One visitor's window, and every request that it makes."""

    def __init__(self, browser: Any, served: Served, **options: Any) -> None:
        self.context = browser.new_context(accept_downloads=True, **options)
        self.context.set_default_timeout(1000 * PATIENCE)
        self.asked: list[str] = []
        self.failures: list[str] = []
        self.served = served
        self.context.on("request", lambda request: self.asked.append(request.url))
        self.page = self.context.new_page()
        self.page.on("pageerror", lambda error: self.failures.append(str(error)))
        self.page.on(
            "console", lambda said: self.failures.append(said.text) if "Content Security" in said.text else None
        )

    def open(self, path: str = "/") -> None:
        self.page.goto(self.served.address + path)
        self.page.wait_for_selector("#sound input[type=file]", state="attached")

    def give(self, path: Path) -> None:
        self.page.set_input_files("#sound input[type=file]", path)

    def picture(self, name: str) -> None:
        if folder := os.environ.get("SERFIT_SCREENSHOTS"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.page.wait_for_timeout(600)  # for gradio's fading
            self.page.screenshot(path=Path(folder) / f"page-{name}.png", full_page=True)

    def done(self) -> None:
        """Close, and hold what was asked for and what went wrong against what may be."""
        self.context.close()
        own = urlsplit(self.served.address).netloc
        elsewhere = [url for url in self.asked if urlsplit(url).scheme not in ("data", "blob")]
        assert elsewhere
        assert {urlsplit(url).netloc for url in elsewhere} == {own}
        assert self.failures == []
        assert self.served.left() == []


def shown(page: Any) -> list[list[str]]:
    """The table on the page."""
    rows = page.locator("#answer tbody tr").all()
    return [row.locator("td").all_inner_texts() for row in rows]


def test_from_upload_to_download_and_back_in_chinese(
    served: Served, browser: Any, speech: Path, tmp_path: Path
) -> None:
    visit = Visit(browser, served, locale="en-GB", color_scheme="light", viewport={"width": 1280, "height": 900})
    page = visit.page
    visit.open()
    assert page.title() == LANGUAGES["en"].title
    assert page.get_by_text(f"{LIMITS.minutes:g} min and {LIMITS.megabytes:g} MB").is_visible()
    visit.picture("start")
    visit.give(speech)
    page.wait_for_selector("#answer tbody tr")
    expected = curve(recogniser(2), speech)
    values, spread = expected.estimates.values, expected.estimates.spread
    assert spread is not None
    rows = shown(page)
    assert len(rows) == len(expected) == page.locator("#answer tbody tr").count()
    assert rows[0][2] == f"{values[0, 0]:.2f} ± {spread[0, 0]:.2f}"
    assert page.locator("#answer svg").count() == 2
    assert page.locator("#answer .path svg").bounding_box()["width"] > 200
    with page.expect_download() as download:
        page.get_by_text(LANGUAGES["en"].download).click()
    assert download.value.suggested_filename == "emotion.csv"
    download.value.save_as(tmp_path / "emotion.csv")
    with (tmp_path / "emotion.csv").open() as file:
        saved = list(csv.DictReader(file))
    np.testing.assert_allclose([float(row["arousal"]) for row in saved], values[:, 1], atol=1e-6)
    np.testing.assert_allclose([float(row["valence_spread"]) for row in saved], spread[:, 0], atol=1e-6)
    visit.picture("answer-light")

    page.get_by_role("link", name="中文").click()
    page.wait_for_selector("#sound input[type=file]", state="attached")
    assert page.title() == LANGUAGES["zh"].title
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    page.get_by_text("点击上传").wait_for()
    visit.give(speech)
    page.wait_for_selector("#answer tbody tr")
    assert page.locator("#answer").get_by_text("唤醒度", exact=True).first.is_visible()
    visit.picture("answer-chinese")
    visit.done()


def test_what_cant_be_heard_is_said_kindly(served: Served, browser: Any, speech: Path, tmp_path: Path) -> None:
    broken, long, large = (tmp_path / f"{name}.wav" for name in ("broken", "long", "large"))
    broken.write_bytes(b"RIFF nonsense")
    soundfile.write(long, speechlike(31.0, 8_000), 8_000)
    large.write_bytes(bytes(LIMITS.bytes + 1))
    visit = Visit(browser, served, locale="de-AT", color_scheme="dark", viewport={"width": 1280, "height": 900})
    page = visit.page
    visit.open()
    assert page.title() == LANGUAGES["de"].title
    sentence = page.locator("#answer .sorry")
    visit.give(broken)
    sentence.filter(has_text="als Audio lesen").wait_for()
    visit.picture("broken-dark")
    visit.give(long)
    sentence.filter(has_text="höchstens 0.5 min").wait_for()
    page.wait_for_selector("#sound input[type=file]", state="attached")
    before = len(visit.asked)
    visit.give(large)
    page.locator("#too-big").wait_for(state="visible")
    assert not [url for url in visit.asked[before:] if "upload" in url]
    assert page.get_by_text("Traceback").count() == 0
    visit.give(speech)
    page.wait_for_selector("#answer tbody tr")
    assert page.locator("#too-big").is_hidden()
    visit.picture("answer-dark")
    page.get_by_role("button", name="Löschen").or_(page.locator("#sound .top-panel button")).first.click()
    page.locator("#answer .answer").wait_for(state="detached")
    visit.done()


@pytest.mark.slow
def test_a_recording_on_a_narrow_screen(served: Served, browser: Any) -> None:
    visit = Visit(
        browser, served, locale="en", permissions=["microphone"], viewport={"width": 390, "height": 844}, has_touch=True
    )
    page = visit.page
    visit.open("/en/")
    page.locator("#sound button[aria-label='Record audio']").click()
    page.locator("#sound button.record-button").click()
    page.wait_for_timeout(1_000)
    page.locator("#sound button.stop-button").click()
    page.wait_for_selector("#answer tbody tr")
    rows = shown(page)
    assert len(rows) == 1
    assert float(rows[0][1]) > 0.3
    for part in page.locator("#answer .figure, #answer figure, #answer .bar, #answer .wide, header").all():
        box = part.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
    visit.picture("recording-narrow")
    visit.done()
