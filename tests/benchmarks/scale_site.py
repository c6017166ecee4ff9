"""A site of processes of their own, as deploy/systemd starts them, and what each takes while nights run."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import httpx
import psutil

TREE = Path(__file__).parents[2]
SAMPLE_S = 1.0
START_S = 300.0
"""Longest wait for the server [s]."""
STOP_S = 30.0
"""Longest wait for the end of a process [s]."""


class Watch:
    """Processor time and memory of processes with their children, by name."""

    def __init__(self) -> None:
        self._processes: dict[str, psutil.Process] = {}
        self._ended = threading.Event()
        self.cpu_s: dict[str, float] = {}
        """Processor time so far [s]."""
        self.peak_mib: dict[str, float] = {}
        """Most memory at one moment since `forget_peaks` [MiB]; what processes share counts in each."""

    def add(self, name: str, pid: int) -> None:
        """Watch a process from now on."""
        self._processes[name] = psutil.Process(pid)
        self.cpu_s[name] = 0.0

    def forget_peaks(self) -> None:
        """Count the peaks from here."""
        self.peak_mib.clear()

    def look(self) -> None:
        """Take all figures once."""
        for name, process in self._processes.items():
            try:
                family = [process, *process.children(recursive=True)]
                memory_mib = sum(one.memory_info().rss for one in family) / 2**20
                cpu_s = sum(sum(one.cpu_times()[:2]) for one in family)
            except psutil.Error:  # it ends
                continue
            self.peak_mib[name] = max(self.peak_mib.get(name, 0.0), memory_mib)
            self.cpu_s[name] = max(self.cpu_s[name], cpu_s)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look again and again for the time of the context."""
        self._ended.clear()
        thread = threading.Thread(target=self._look_on)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()

    def _look_on(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            self.look()


@contextmanager
def running_site(folder: Path, n_workers: int, watch: Watch) -> Iterator[dict[str, str]]:
    """Run Prefect's server on SQLite, Dask's scheduler and CPU workers.

    Parameters
    ----------
    folder
        For the database and logs.
    n_workers
        Worker processes, of one thread each.
    watch
        Watches them as ``server``, ``scheduler`` and ``workers``.

    Yields
    ------
        Environment for what uses them.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "CMR_"))}
    environment = kept | {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "storage",
        "DO_NOT_TRACK": "1",
        "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0",
        "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "None",
        "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
        "DASK_DISTRIBUTED__NANNY__PRE_SPAWN_ENVIRON": '{"MALLOC_TRIM_THRESHOLD_": None}',
        "DASK_LOGGING__DISTRIBUTED": "warning",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(TREE),
    }
    loopback, dashboard = ("--host", "127.0.0.1"), ("--dashboard-address", "127.0.0.1:0")
    addresses = folder / "scheduler.json"
    with ExitStack() as stack:
        log = stack.enter_context((folder / "site.log").open("w"))

        def start(name: str, module: str, *arguments: str) -> None:
            watch.add(name, stack.enter_context(_process(environment, log, module, *arguments)))

        # Whoever finds no scheduler file yet waits for it.
        where = ("--scheduler-file", str(addresses))
        start("scheduler", "distributed.cli.dask_scheduler", *loopback, "--port", "0", *dashboard, *where)
        port = _free_port()
        environment["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
        start("server", "prefect", "server", "start", *loopback, "--port", str(port))
        threads = ("--nworkers", str(n_workers), "--nthreads", "1", "--resources", "CPU=1")
        place = ("--local-directory", str(folder / "dask"))
        start("workers", "distributed.cli.dask_worker", *where, *loopback, *dashboard, *threads, *place)
        _wait_for_server(environment["PREFECT_API_URL"])
        environment["CMR_DASK_SCHEDULER"] = json.loads(addresses.read_text())["address"]
        yield environment


@contextmanager
def _process(environment: dict[str, str], log: IO[str], module: str, *arguments: str) -> Iterator[int]:
    """Run a module as a process; gives its id."""
    command = [sys.executable, "-m", module, *arguments]
    process = subprocess.Popen(command, env=environment, cwd=TREE, stdout=log, stderr=log)
    try:
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for_server(url: str) -> None:
    until_s = time.monotonic() + START_S
    while time.monotonic() < until_s:
        try:
            if httpx.get(f"{url}/health", timeout=START_S).status_code == httpx.codes.OK:
                return
        except httpx.HTTPError:
            time.sleep(0.5)
    message = f"Prefect's server did not answer within {START_S:.0f} s"
    raise TimeoutError(message)


def _free_port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
