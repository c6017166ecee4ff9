"""A trial served: Prefect server with UI, the nightly schedule, and runs on demand."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any, cast

import httpx
import prefect
from prefect import Flow
from prefect.deployments.runner import RunnerDeployment
from prefect.schedules import Cron, Schedule
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.types.entrypoint import EntrypointType

from flows.errors import ServerNotStartedError
from flows.nightly import nightly
from flows.rerun import rerun
from storage.trial import Trial, open_trial

SERVER_START_S = 120.0
"""Longest wait for the Prefect server; its first start creates the database [s]."""
STOP_S = 15.0
"""Longest wait for its end, before it is killed [s]."""


def serve_trial(root: Path, port: int) -> None:
    """Serve one trial until interrupted.

    The deployments ``nightly`` and ``rerun`` carry the trial's name; a run of theirs that failed can be
    retried in the UI. Runs wait for each other: a limit of one keeps two nights apart.
    """
    trial = open_trial(root)
    schedule = trial.config.schedule
    with ui_server(port):
        prefect.serve(
            _deployment(nightly, trial, Cron(schedule.cron, timezone=schedule.timezone)),
            _deployment(rerun, trial, None),
            limit=1,
        )


def _deployment(flow: Flow[..., Any], trial: Trial, schedule: Schedule | None) -> RunnerDeployment:
    made = flow.to_deployment(
        name=trial.config.trial_id,
        parameters={"root": str(trial.root)},
        schedule=schedule,
        tags=["cmrtrials", trial.config.trial_id],
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    return cast("RunnerDeployment", made)  # it is a coroutine only where an event loop runs


@contextmanager
def ui_server(port: int) -> Iterator[str]:
    """Use the server that PREFECT_API_URL names, or else start one with UI on loopback and stop it after.

    Yields
    ------
        URL of the server's API.

    Raises
    ------
    ServerNotStartedError
        When the server ends or does not answer.
    """
    configured = PREFECT_API_URL.value()
    if configured:
        yield configured
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            message = f"port {port} is in use; choose another with --port"
            raise ServerNotStartedError(message) from None
    address = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        env=os.environ | {"PREFECT_API_URL": f"{address}/api"},
        start_new_session=True,  # Ctrl-C is ours; and what it started ends with it
    )
    try:
        _wait_for(process, f"{address}/api/health")
        os.environ["PREFECT_API_URL"] = f"{address}/api"
        with temporary_settings({PREFECT_API_URL: f"{address}/api"}):
            yield f"{address}/api"
    finally:
        process.terminate()
        try:
            process.wait(timeout=STOP_S)
        except subprocess.TimeoutExpired:  # an open page may hold it for ever
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait_for(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = monotonic() + SERVER_START_S
    while monotonic() < deadline:
        if process.poll() is not None:
            message = (
                f"the Prefect server ended with code {process.returncode}; is its port in use? try --port"
            )
            raise ServerNotStartedError(message)
        try:
            if httpx.get(url, timeout=5).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            sleep(0.2)
    message = f"the Prefect server did not answer at {url} within {SERVER_START_S:.0f} s"
    raise ServerNotStartedError(message)
