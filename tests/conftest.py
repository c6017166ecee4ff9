"""Fixtures shared by all tests, their order, and the rule that CI skips nothing."""

import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.tasks.report.watched import Watched

REQUIRE_ALL = os.environ.get("CMRTRIALS_REQUIRE_ALL") == "1"

# Before anything imports torch, and for every command that a test runs: on small images threads mostly wait
# for each other, and the test processes already use both cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")


ON_SITE = {
    *("test_concurrency.py", "test_failures.py", "test_guided_night.py", "test_nightly.py"),
    *("test_object_night.py", "test_pages.py"),
    *("test_real_upload.py", "test_report.py", "test_review.py", "test_stopped.py", "test_training.py"),
}
"""Files of `tests/flows` whose nights share a server, a cluster and finished nights, in one process."""

LONG = ("test_ui.py", "test_kills.py", "test_privacy.py", "test_deploy.py", "test_fanout.py")
"""The longest of the others, which the other processes run meanwhile."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that the processes end at nearly the same time."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    for item in items:
        if "site" in getattr(item, "fixturenames", ()) and item.path.name not in ON_SITE:
            message = (
                f"{item.path.name} shares the site of the nights: name it in ON_SITE of tests/conftest.py"
            )
            raise pytest.UsageError(message)

    def order(item: pytest.Item) -> int:
        name = item.path.name
        if item.path not in slow:
            return len(LONG) + 2
        return 0 if name in ON_SITE else 1 + (LONG.index(name) if name in LONG else len(LONG))

    items.sort(key=order)


class TogetherOnSite(LoadFileScheduling):  # type: ignore[misc]  # xdist is untyped
    """A file stays in one process, and all that share the site of the nights do."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "on site" if file.rpartition("/")[2] in ON_SITE else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling:
    """Hand out tests to processes."""
    return TogetherOnSite(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Make a skip a failure where everything a test needs must be there."""
    report = yield
    if REQUIRE_ALL and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped although CMRTRIALS_REQUIRE_ALL=1: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the measured data, which never travels with the project."""
    folder = Path(os.environ.get("CMRTRIALS_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / "README.md").is_file():
        pytest.skip("no real data: set CMRTRIALS_REAL_DATA")
    return folder


@pytest.fixture(scope="session")
def s3_bucket() -> Iterator[str]:
    """URL of a bucket on a server of this session."""
    from tests.object_server import s3_server  # two seconds

    with s3_server() as url:
        yield url


@pytest.fixture(scope="module")  # its loop in this thread would be in the way of other tests
def browser(chromium: str) -> Iterator["Browser"]:
    """Headless Chromium."""
    from playwright.sync_api import sync_playwright

    from tests.tasks.report.watched import CHROMIUM_OPTIONS

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def watched(browser: "Browser") -> Iterator["Watched"]:
    """Page that must stay quiet until its test ends."""
    from tests.tasks.report.watched import Watched

    watched = Watched(browser.new_page(viewport={"width": 1280, "height": 900}))
    yield watched
    watched.page.close()
    assert watched.errors == []
    assert watched.requests == []


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of Debian's Chromium."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium: apt-get install chromium")
    return path
