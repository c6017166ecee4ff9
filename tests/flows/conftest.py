"""A digital trial and its nights, run by the real command against a real Prefect server and Dask cluster."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.flows.trials import SMALL_TRIAL, Cmrtrials, DemoNight, set_segmentation

COMMAND = Path(sys.executable).with_name("cmrtrials")


SERVE = """
import sys
from flows.server import prefect_server
with prefect_server() as url:
    print(url, flush=True)
    sys.stdin.read()
"""


@contextmanager
def running_server(environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """Run one Prefect server for several commands, each of which would start its own; gives what names it."""
    server = subprocess.Popen(
        [sys.executable, "-c", SERVE],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    with server:
        if server.stdin is None or server.stdout is None:
            message = "the server was started without pipes"
            raise RuntimeError(message)
        try:
            yield {"PREFECT_API_URL": server.stdout.readline().strip()}
        finally:
            server.stdin.close()
            server.wait(timeout=60)


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment with a Prefect home of the tests' own and a wide terminal."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "CMR_"))}
    return kept | {
        "PREFECT_HOME": str(tmp_path_factory.mktemp("prefect")),
        "COLUMNS": "200",
        "NO_COLOR": "1",
    }


@pytest.fixture(scope="session")
def cmrtrials(environment: dict[str, str]) -> Cmrtrials:
    """Run the command; gives exit code and output."""

    def run(*arguments: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=300,
            env=environment | more,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def demo_night(tmp_path_factory: pytest.TempPathFactory, cmrtrials: Cmrtrials) -> DemoNight:
    """Demo trial after one night; tests that change a trial take a copy."""
    root = tmp_path_factory.mktemp("demo") / "trial"
    simulated = cmrtrials("simulate", root, "--difficulty", "clean", "--guides", "all")
    assert simulated.returncode == 0, simulated.stderr
    set_segmentation(root)
    return DemoNight(root, cmrtrials("run", root))


@pytest.fixture
def demo_copy(demo_night: DemoNight, tmp_path: Path) -> Path:
    """Copy of the demo trial after its first night; file times are kept, so that nothing looks new."""
    return Path(shutil.copytree(demo_night.root, tmp_path / "trial", copy_function=shutil.copy2))


@pytest.fixture(scope="session")
def small_trial(tmp_path_factory: pytest.TempPathFactory, cmrtrials: Cmrtrials) -> Path:
    """Trial of two sound subjects with one visit each, before its first night."""
    root = tmp_path_factory.mktemp("small") / "trial"
    simulated = cmrtrials("simulate", root, *SMALL_TRIAL)
    assert simulated.returncode == 0, simulated.stderr
    set_segmentation(root)
    return root


@pytest.fixture
def small_copy(small_trial: Path, tmp_path: Path) -> Path:
    """Copy of the small trial before its first night."""
    return Path(shutil.copytree(small_trial, tmp_path / "trial", copy_function=shutil.copy2))
