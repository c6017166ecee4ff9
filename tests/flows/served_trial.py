"""A trial that is served: Prefect server with UI, runner, webhook, and a Dask cluster from outside."""

import os
import re
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from distributed import Client

from tests.flows.conftest import COMMAND
from tests.flows.trials import interruptible

STAGES = ("intake", "segment", "quantify")

LIMIT_S = 240.0
"""Longest wait for anything; seconds on a quiet machine [s]."""

STOP_S = 15.0
"""Time in which a cancelled run must have stopped all its work [s]."""

MARK = "served-by-test-ui"
"""In the environment of everything that belongs to the served trial."""


CLUSTER = """
import sys
from flows.cli import main
main()  # sets the environment as the command does
from distributed import LocalCluster
from flows.site import SiteSettings, dask_task_runner
with LocalCluster(**dask_task_runner(SiteSettings(workers=1)).cluster_kwargs) as cluster:
    print(cluster.scheduler_address, flush=True)
    sys.stdin.read()
"""


@dataclass
class Served:
    """A trial on a Prefect server of its own, whose work is done by a Dask cluster from outside."""

    root: Path
    port: int
    environment: dict[str, str]
    messages: list[dict[str, Any]]
    """What the webhook was told."""
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def address(self) -> str:
        """Address of the UI."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Serve until `stop`; the log is kept beside the trial."""
        with (self.root.parent / "serve.log").open("a") as log:
            self.process = subprocess.Popen(
                [COMMAND, "serve", self.root, "--port", str(self.port)],
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=interruptible,
            )
        wait_until(lambda: "Ctrl-C ends it" in (self.root.parent / "serve.log").read_text())
        assert deployment_ids(self.address).keys() == {"nightly", "rerun", "whatif"}

    def stop(self) -> None:
        """Press Ctrl-C, and wait for the end."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(timeout=120)
            (self.root.parent / "serve.log").write_text("")

    def run(self, flow: str, **parameters: Any) -> str:
        """Ask for a run as the UI does; gives its id."""
        asked = f"deployments/{deployment_ids(self.address)[flow]}/create_flow_run"
        return str(ask(self.address, asked, {"parameters": parameters})["id"])

    def state(self, flow_run_id: str) -> dict[str, Any]:
        """State of a run."""
        answer = httpx.get(f"{self.address}/api/flow_runs/{flow_run_id}", timeout=30)
        return dict(answer.json()["state"])

    def newest(self, flow: str) -> str:
        """Id of the newest run of a flow that was asked for in the UI or by `run`."""
        body = {
            "flows": {"name": {"any_": [flow]}},
            "flow_runs": {"tags": {"all_": ["trial:demo"]}},
            "sort": "START_TIME_DESC",
            "limit": 1,
        }
        found = [run["id"] for run in ask(self.address, "flow_runs/filter", body) if run["start_time"]]
        return str(found[0]) if found else ""

    def artifact(self, key: str) -> dict[str, Any]:
        """Newest artifact of a key."""
        body = {"artifacts": {"key": {"any_": [key]}}}
        found: list[dict[str, Any]] = ask(self.address, "artifacts/latest/filter", body)
        assert found, key
        return found[0]


def free_port() -> int:
    """Find a port below those that the system hands out: nobody else gets it before the server is up."""
    for port in range(20_000 + os.getpid() % 10_000, 32_000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    pytest.fail("no port is free")


def wait_until(condition: Callable[[], bool]) -> None:
    """Ask again until it is true; a test that waits in vain fails with the question."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    pytest.fail(f"not true within {LIMIT_S} s")


def ask(address: str, what: str, body: dict[str, Any] | None = None) -> Any:  # noqa: ANN401 (JSON)
    """Ask the server's API."""
    answer = httpx.post(f"{address}/api/{what}", json=body or {}, timeout=30)
    answer.raise_for_status()
    return answer.json()


def deployment_ids(address: str) -> dict[str, str]:
    """Id of each deployment by the name of its flow."""
    flows = {flow["id"]: flow["name"] for flow in ask(address, "flows/filter")}
    return {flows[found["flow_id"]]: found["id"] for found in ask(address, "deployments/filter")}


def executions(address: str, flow_run_id: str) -> Counter[tuple[str, str]]:
    """How often each stage function did its work, by stage and visit, from the lines it logged."""
    lines: list[str] = []
    while True:
        batch = ask(
            address,
            "logs/filter",
            {"logs": {"flow_run_id": {"any_": [flow_run_id]}}, "limit": 200, "offset": len(lines)},
        )
        lines += [entry["message"] for entry in batch]
        if len(batch) < 200:
            break
    found = (re.match(rf"({'|'.join(STAGES)}) (\S+) executed", line) for line in lines)
    return Counter((match[1], match[2]) for match in found if match)


def schedule_of(address: str) -> tuple[str, str, bool]:
    """Cron, time zone and activity of the one schedule of the nights."""
    deployment = f"{address}/api/deployments/{deployment_ids(address)['nightly']}"
    (found,) = httpx.get(deployment, timeout=30).json()["schedules"]
    return found["schedule"]["cron"], found["schedule"]["timezone"], found["active"]


def executing(scheduler: str) -> list[str]:
    """Name what the workers of the outside cluster have been given."""
    with Client(scheduler, set_as_default=False) as client:
        return [str(key) for keys in client.processing().values() for key in keys]
