"""Take pictures of an HTML report in a real browser: light and dark, wide and on a narrow screen.

    uv run python scripts/screenshots.py runs/report.html pictures
    uv run python scripts/screenshots.py runs/report.html docs/images --schemes light --widths 1240 --height 1685

Needs Chromium or Chrome. Ends with exit code 1 where the page asks for anything from outside its own file, says
something on the browser's console, or is wider than the window; with 2 where there is no browser or no page.
"""

import argparse
import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")

COLOURS = 256
"""Colours of a picture; enough for charts, and a third of the size."""


def picture(browser: Browser, page: Path, path: Path, scheme: str, width: int, height: int | None) -> list[str]:
    """Write a PNG of the page in few colours, and say what is wrong with it.

    Args:
        browser: where to show it.
        page: the HTML file.
        path: the picture.
        scheme: light or dark.
        width: of the window, in pixels.
        height: how much of it from the top; None takes all.
    """
    address = page.resolve().as_uri()
    wrong: list[str] = []
    tab = browser.new_page(viewport={"width": width, "height": height or 900}, color_scheme=scheme)
    tab.on("request", lambda asked: None if asked.url.startswith((address, "data:")) else wrong.append(asked.url))
    tab.on("console", lambda message: wrong.append(message.text))
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.set_default_timeout(600_000)  # milliseconds; a busy machine takes long
    tab.goto(address)
    needed = tab.evaluate("document.documentElement.scrollWidth")
    taken = Image.open(io.BytesIO(tab.screenshot(full_page=height is None))).convert("RGB")
    taken.quantize(COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(path, optimize=True)
    tab.close()
    return wrong if needed <= width else [*wrong, f"{needed} pixels wide in a window of {width}"]


def main() -> int:
    """Take the pictures that the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("page", type=Path, help="the HTML file")
    parser.add_argument("folder", type=Path, help="where the pictures go; made where it doesn't exist")
    parser.add_argument("--schemes", nargs="+", choices=("light", "dark"), default=["light", "dark"])
    parser.add_argument("--widths", type=int, nargs="+", default=[1240, 400], help="windows, in pixels")
    parser.add_argument("--height", type=int, help="only so many pixels from the top")
    given = parser.parse_args()
    program = next((found for name in PROGRAMS if (found := shutil.which(name))), None)
    if program is None or not given.page.is_file():
        reason = "no Chromium was found" if program is None else f"there is no page {given.page}"
        print(f"error: {reason}", file=sys.stderr)
        return 2
    given.folder.mkdir(parents=True, exist_ok=True)
    failed = False
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=program) as browser:
        for scheme in given.schemes:
            for width in given.widths:
                path = given.folder / f"{given.page.stem}_{scheme}_{width}.png"
                wrong = picture(browser, given.page, path, scheme, width, given.height)
                print("; ".join([f"{path}: {path.stat().st_size / 1024:.0f} KiB", *wrong]))
                failed = failed or bool(wrong)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
