"""Screenshots of a visit's page: ``python -m tests.benchmarks.screenshots ROOT S01/V1 FOLDER``.

Needs Debian's chromium. The first picture is what a reader sees on opening the page, the second shows echoes,
the third the segments after the blinding has ended.
"""

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

SIZE = {"width": 1360, "height": 1180}


def take(page_file: Path, folder: Path) -> list[Path]:
    """Take the pictures of a page."""
    folder.mkdir(parents=True, exist_ok=True)
    taken = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport=SIZE)  # type: ignore[arg-type]
        page.goto(page_file.resolve().as_uri())
        for name, place in {"visit": "", "echoes": "motion", "segments": "segments"}.items():
            if place == "segments":
                page.click("#look")
            if place:
                page.evaluate("id => document.getElementById(id).scrollIntoView()", place)
            taken.append(folder / f"{name}.png")
            page.screenshot(path=taken[-1])
        browser.close()
    return taken


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, help="folder of a trial after a night")
    parser.add_argument("visit", help="subject and visit, as in S01/V1")
    parser.add_argument("folder", type=Path, help="where the pictures go")
    arguments = parser.parse_args()
    for picture in take(arguments.root / "reports" / f"{arguments.visit}.html", arguments.folder):
        print(picture)  # noqa: T201 (what a script is for)
