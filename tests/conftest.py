"""Fixtures shared by all tests, their order, and the rule that CI skips nothing."""

import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

REQUIRE_ALL = os.environ.get("CMRTRIALS_REQUIRE_ALL") == "1"

# Before anything imports torch, and for every command that a test runs: on small images threads mostly wait
# for each other, and two test processes already use both cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that hold slow tests, so that two processes end at nearly the same time."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


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


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of Debian's Chromium."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium: apt-get install chromium")
    return path
