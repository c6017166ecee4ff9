"""A trial that `cmrtrials serve` serves with stub stages, on a server of the test's own."""

import os
import signal
import socket
from multiprocessing.context import ForkProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.benchmarks.kill_site import Server, fork, kill_session, run_command, session, wait_until


class Served:
    """The runner of a trial, which can be killed and started again."""

    def __init__(self, server: Server, root: Path, log: Path) -> None:
        self._server, self._root, self._log = server, root, log
        self._runners: list[ForkProcess] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for runner in self._runners:
            kill_session(runner.pid or 0)
            runner.join()

    def start(self) -> None:
        """Serve, and wait until it is so."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1] - 1
        self._log.write_text("")
        arguments = ["serve", str(self._root), "--port", str(port)]
        self._runners.append(fork(lambda: run_command(arguments, self._root), self._log))
        wait_until(lambda: "Ctrl-C ends it" in self._log.read_text(), "nothing is served")
        wait_until(self._is_mine, "the deployment is not made")

    def kill(self, *, with_run: bool) -> None:
        """Kill the runner, and what it had begun or not."""
        runner = self._runners[-1]
        others = [pid for pid in session(runner.pid or 0) if pid != runner.pid]
        runner.kill()
        runner.join()
        for pid in others if with_run else []:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def ask_for_a_night(self) -> str:
        """Ask for a run as a user does, and give its id."""
        body = {"state": {"type": "SCHEDULED"}}
        made = self._server.post(f"deployments/{self._deployment()['id']}/create_flow_run", body)
        return str(made["id"])

    def retry(self, run_id: str) -> None:
        """Retry a run as the UI does."""
        state = {"type": "SCHEDULED", "name": "AwaitingRetry"}
        self._server.post(f"flow_runs/{run_id}/set_state", {"state": state, "force": True})

    def state(self, run_id: str) -> str:
        """State of a run."""
        answer = httpx.get(f"{self._server.url}/flow_runs/{run_id}", timeout=60).json()
        return str(answer["state"]["type"])

    def _is_mine(self) -> bool:
        return bool(self._deployment()["parameters"].get("root") == str(self._root))

    def _deployment(self) -> dict[str, Any]:
        answer = httpx.get(f"{self._server.url}/deployments/name/nightly/demo", timeout=60)
        found: dict[str, Any] = answer.json() if answer.is_success else {"parameters": {}}
        return found
