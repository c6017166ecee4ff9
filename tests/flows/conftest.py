"""A digital trial and its nights, run by the real command against a real Prefect server and Dask cluster."""

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from flows.simulate import simulate_trial
from tests.flows.trials import SMALL_TRIAL, Cmrtrials, DemoNight, set_segmentation, withhold

COMMAND = Path(sys.executable).with_name("cmrtrials")
PROJECT = Path(__file__).parents[2]


SERVE = """
import sys
from contextlib import nullcontext
from flows.cli import main
main()  # sets the environment as the command does
from distributed import LocalCluster
from flows.server import prefect_server
from flows.site import SiteSettings, dask_task_runner
n_workers = int(sys.argv[1])
with prefect_server() as url:
    kwargs = dask_task_runner(SiteSettings(workers=n_workers or 1)).cluster_kwargs
    with LocalCluster(**kwargs) if n_workers else nullcontext() as cluster:
        print(url, cluster.scheduler_address if cluster else "", flush=True)
        sys.stdin.read()
"""


@contextmanager
def running_site(
    environment: dict[str, str], n_workers: int = 0, log: Path | None = None
) -> Iterator[dict[str, str]]:
    """Run what several commands share, each of which would start its own: a Prefect server, a Dask cluster.

    What these print goes to the log, where there is one.

    Yields
    ------
        Environment that names them; without workers, each command starts a cluster.
    """
    with ExitStack() as opened:
        site = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(n_workers)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if log is None else opened.enter_context(log.open("w")),
            text=True,
            cwd=PROJECT,
        )
        opened.enter_context(site)
        if site.stdin is None or site.stdout is None:
            message = "the site was started without pipes"
            raise RuntimeError(message)
        try:
            names = ("PREFECT_API_URL", "CMR_DASK_SCHEDULER")[: 2 if n_workers else 1]
            yield dict(zip(names, site.stdout.readline().split(), strict=True))
        finally:
            site.stdin.close()
            site.wait(timeout=60)


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
def site(environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """Environment of a site with a Prefect server and a Dask cluster of its own: a night starts neither."""
    with running_site(environment, n_workers=2) as names:
        yield names


@pytest.fixture(scope="session")
def on_site(
    environment: dict[str, str], site: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cmrtrials]:
    """Run the command on the site, in a fork of a process that has imported what a night needs."""
    folder, numbers = tmp_path_factory.mktemp("printed"), itertools.count(1)
    with subprocess.Popen(
        [sys.executable, "-m", "tests.flows.forked_commands"],
        env=environment | site,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
    ) as process:

        def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
            assert process.stdin is not None
            assert process.stdout is not None
            number = next(numbers)
            out, err = (folder / f"{number}.{name}" for name in ("out", "err"))
            process.stdin.write(json.dumps([[*map(str, arguments)], str(out), str(err)]) + "\n")
            process.stdin.flush()
            file, code = "", 0
            while file != str(out):  # an answer that a test did not wait for is nobody's
                file, code = json.loads(process.stdout.readline())
            return subprocess.CompletedProcess(arguments, code, out.read_text(), err.read_text())

        yield run


@pytest.fixture(scope="session")
def demo_night(tmp_path_factory: pytest.TempPathFactory, on_site: Cmrtrials) -> DemoNight:
    """Trial with the demo's faults after one night, two uploads outstanding; what changes it takes a copy."""
    root = tmp_path_factory.mktemp("demo") / "trial"
    simulated = on_site("simulate", root, "--subjects", "5", "--difficulty", "clean", "--guides", "all")
    assert simulated.returncode == 0, simulated.stderr
    set_segmentation(root)
    for upload in ("S02_20260[78]*", "S03_20260[78]*"):
        withhold(root, upload)
    return DemoNight(root, on_site("run", root))


@pytest.fixture
def demo_copy(demo_night: DemoNight, tmp_path: Path) -> Path:
    """Copy of the demo trial after its first night."""
    return copy_trial(demo_night.root, tmp_path / "trial")


@pytest.fixture(scope="session")
def small_trial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trial of two sound subjects with one visit each, before its first night."""
    root = tmp_path_factory.mktemp("small") / "trial"
    simulate_trial(root, SMALL_TRIAL, on_visit=lambda _: None)
    set_segmentation(root)
    return root


@pytest.fixture
def small_copy(small_trial: Path, tmp_path: Path) -> Path:
    """Copy of the small trial before its first night."""
    return copy_trial(small_trial, tmp_path / "trial")


@pytest.fixture(scope="session")
def small_night(small_trial: Path, tmp_path_factory: pytest.TempPathFactory, on_site: Cmrtrials) -> Path:
    """Small trial after its first night; tests that change it take a copy."""
    root = copy_trial(small_trial, tmp_path_factory.mktemp("night") / "trial")
    night = on_site("run", root)
    assert night.returncode == 0, night.stdout + night.stderr
    return root


@pytest.fixture
def small_night_copy(small_night: Path, tmp_path: Path) -> Path:
    """Copy of the small trial after its first night."""
    return copy_trial(small_night, tmp_path / "trial")


def copy_trial(root: Path, copy: Path) -> Path:
    """Copy a trial with the times of its files, so that nothing looks new."""
    return Path(shutil.copytree(root, copy, copy_function=shutil.copy2))
