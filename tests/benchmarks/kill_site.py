"""What nights need that are to be killed: a Prefect server, a Dask cluster, and processes that begin at once.

A night is a fork of a process that has imported all it needs, which saves most of the seconds that a night
of stub stages takes. Import this module only with the environment of `environment` in place.
"""

import atexit
import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import httpx

from tests.benchmarks.kill_switch import ORDER, switch

REPOSITORY = Path(__file__).parents[2]
START_S = 180.0
"""Longest wait for a server or cluster, on a machine that has other things to do [s]."""
NIGHT_S = 900.0
"""Longest time that a night may take before it counts as hanging [s]."""
N_WORKERS = 2
PR_SET_PDEATHSIG = 1
"""Of linux/prctl.h."""


def environment(folder: Path) -> dict[str, str]:
    """Give the environment of the site: its own Prefect home, server and orders."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        ORDER: str(folder / "order"),
    }


class Server:
    """The Prefect server, which can be killed and started again with its database."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        from flows.server import _command

        port = int(self.url.rpartition(":")[2].partition("/")[0])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "flows.server_process", *_command(port, with_ui=False)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            cwd=REPOSITORY,
        )
        wait_until(self.answers, "the Prefect server does not answer")

    def kill(self) -> None:
        """SIGKILL, and nobody is told."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def states(self, root: Path, kind: str = "flow_runs") -> list[tuple[str, str]]:
        """Give id and state of all flow runs of a trial, or of their task runs."""
        runs = [one for one in self._filter("flow_runs", {}) if one["parameters"].get("root") == str(root)]
        if kind == "task_runs":
            ids = [one["id"] for one in runs]
            runs = self._filter("task_runs", {"flow_runs": {"id": {"any_": ids}}}) if ids else []
        return [(one["id"], (one["state"] or {}).get("type", "NONE")) for one in runs]

    def post(self, path: str, body: dict[str, Any]) -> Any:  # noqa: ANN401 (JSON)
        """Ask the server."""
        answer = httpx.post(f"{self.url}/{path}", json=body, timeout=60)
        answer.raise_for_status()
        return answer.json()

    def _filter(self, kind: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            page = self.post(f"{kind}/filter", body | {"offset": len(found), "limit": 200})
            found += page
            if len(page) < 200:
                return found

    def answers(self) -> bool:
        """Whether it does."""
        with suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/health", timeout=10).status_code == httpx.codes.OK
        return False


def wait_until(is_so: Callable[[], bool], otherwise: str, within_s: float = START_S) -> None:
    """Wait for something.

    Raises
    ------
    TimeoutError
        When it does not become so in time.
    """
    deadline = time.monotonic() + within_s
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{otherwise} within {within_s:.0f} s")
        time.sleep(0.05)


def fork(body: Callable[[], int], log: Path) -> ForkProcess:
    """Run a function in a process of its own, in a session of its own, that writes into a log."""

    def child() -> None:
        os.setsid()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # nothing outlives this program
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        code = 70
        try:
            code = body()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 70
        except BaseException:  # noqa: BLE001 (nobody else would say so)
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()
            os._exit(code)

    process = get_context("fork").Process(target=child)
    process.start()
    return process


@contextmanager
def cluster(folder: Path) -> Iterator[int]:
    """Run a Dask cluster as a night's own would be, and have nights use it.

    Yields
    ------
        Id of the process that keeps its workers.
    """
    reader, writer = os.pipe()

    def keep() -> int:
        from distributed import LocalCluster

        from flows.site import SiteSettings, dask_task_runner

        settings = SiteSettings(dask_scheduler=None, workers=N_WORKERS)
        runner = dask_task_runner(settings)
        with LocalCluster(**runner.cluster_kwargs) as own:  # type: ignore[attr-defined]
            os.write(writer, f"{own.scheduler_address}\n".encode())
            signal.sigwait({signal.SIGTERM})
        return 0

    keeper = fork(keep, folder / "cluster.log")
    try:
        os.close(writer)
        with os.fdopen(reader) as pipe:
            address = pipe.readline().strip()
        if not address:
            raise RuntimeError(f"no Dask cluster, see {folder / 'cluster.log'}")
        os.environ["CMR_DASK_SCHEDULER"] = address
        yield keeper.pid or 0
    finally:
        os.environ.pop("CMR_DASK_SCHEDULER", None)
        keeper.terminate()
        keeper.join(30)
        kill_session(keeper.pid or 0)


def begin_night(root: Path, log: Path, kill_at: int = 0, *, own_cluster: bool = False) -> ForkProcess:
    """Begin a night; it dies before its step ``kill_at`` on the disk, where that is not 0."""

    def night() -> int:
        if own_cluster:
            os.environ.pop("CMR_DASK_SCHEDULER", None)
            os.environ["CMR_WORKERS"] = str(N_WORKERS)
        return run_command(["run", str(root)], root, kill_at)

    return fork(night, log)


def run_command(arguments: list[str], root: Path, kill_at: int = 0) -> int:
    """Run the command with stub stages, its connection to Dask as the environment has it now."""
    from flows.nightly import nightly
    from flows.site import dask_task_runner
    from tests.benchmarks import stub_flow
    from tests.benchmarks.stub_night import stub_command

    for flow in (nightly, stub_flow.nightly):
        flow.task_runner = dask_task_runner()
    switch.arm(root, kill_at)
    sys.argv = ["cmrtrials", *arguments]
    try:
        stub_command()
    finally:
        (root.parent / "steps").write_text(str(switch.n_steps))
    return 0


def end_of(process: ForkProcess, within_s: float = NIGHT_S) -> int | None:
    """Wait for a process and give its exit code; None for one that had to be killed as it hung."""
    process.join(within_s)
    if process.exitcode is None:
        kill_session(process.pid or 0)
        process.join()
        return None
    return process.exitcode


def workers_of(keeper: int) -> list[int]:
    """Ids of the worker processes of a cluster."""
    return [pid for pid in _children(keeper) if "spawn_main" in _command_line(pid)]


def session(leader: int) -> list[int]:
    """Ids of the processes that live in a session."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError, IndexError):
            if not entry.name.isdigit():
                continue
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == leader and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def kill_session(leader: int) -> None:
    """End all that lives in a session which this program began."""
    for pid in session(leader) if leader else []:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, file.read_text().split())
    return found


def _command_line(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""
