"""The Prefect server that a night reports to: the site's own, or one for the time of the command."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic, sleep

import httpx
import prefect
from prefect.client.orchestration import get_client
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings

from flows.errors import ServerNotStartedError, ServerUnreachableError

START_S = 120.0
"""Longest wait for the server; its first start creates the database [s]."""
DRAIN_S = 10
"""Longest wait for log lines and events on their way to it [s]."""
STOP_S = 15.0
"""Longest wait for its end, before it is killed [s]."""


@contextmanager
def prefect_server(ui_port: int | None = None) -> Iterator[str]:
    """Use the server that PREFECT_API_URL names, or else start one on loopback and stop it at the end.

    It ends with this process, killed or not; Ctrl-C does not reach it, so that what ends can still report.

    Parameters
    ----------
    ui_port
        Port of a server with UI; None for one without, on any free port.

    Yields
    ------
        URL of the server's API.

    Raises
    ------
    ServerNotStartedError
        When the port is in use, or the server ends or does not answer.
    ServerUnreachableError
        When the server that PREFECT_API_URL names does not answer.
    """
    configured = PREFECT_API_URL.value()
    if configured:
        _check_answers(configured)
        yield configured
        return
    port = _bindable_port(ui_port or 0)
    url = f"http://127.0.0.1:{port}/api"
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.server_process", *_command(port, with_ui=ui_port is not None)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env=os.environ
        | get_current_settings().to_environment_variables(exclude_unset=True)
        | {"PREFECT_API_URL": url, "PREFECT_UI_ENABLED": "0" if ui_port is None else "1"},
        start_new_session=True,
    )
    try:
        _wait_for(process, f"{url}/health")
        # Workers inherit the environment; a worker that finds no URL would start a server of its own.
        os.environ["PREFECT_API_URL"] = url
        with temporary_settings({PREFECT_API_URL: url}):
            try:
                yield url
            finally:
                # What is not sent while the server lives is tried again at exit, for a minute and in vain.
                APILogWorker.drain_all(timeout=DRAIN_S)
                EventsWorker.drain_all(timeout=DRAIN_S)
    finally:
        os.environ.pop("PREFECT_API_URL", None)
        process.terminate()
        try:
            process.wait(timeout=STOP_S)
        except subprocess.TimeoutExpired:  # an open page may hold it for ever
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.stdin is not None:
            process.stdin.close()


def _check_answers(url: str) -> None:
    problem: Exception | None
    try:
        with get_client(sync_client=True) as client:
            problem = client.api_healthcheck()
    except RuntimeError as error:  # Prefect's, where the server goes between two questions
        problem = error
    if problem is not None:
        message = (
            f"no Prefect server answers at {url}, which PREFECT_API_URL names "
            f"({problem or type(problem).__name__}); start it with `prefect server start`, "
            f"or unset PREFECT_API_URL for a server of the command's own"
        )
        raise ServerUnreachableError(message)


def _command(port: int, *, with_ui: bool) -> list[str]:
    """Give module and arguments of a server; without UI it says nothing but errors."""
    place = ["--host", "127.0.0.1", "--port", str(port)]
    if with_ui:
        return ["prefect", "server", "start", *place]
    folder = str(prefect.__module_path__.parent)
    return [
        "uvicorn",
        *("--app-dir", folder, "--factory", "prefect.server.api.server:create_app", *place),
        *("--log-level", "error", "--lifespan", "on"),
    ]


def _bindable_port(port: int) -> int:
    """Give the port, or a free one for 0, if it can be bound."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            message = f"port {port} is in use; choose another with --port"
            raise ServerNotStartedError(message) from None
        bound: int = probe.getsockname()[1]
        return bound


def _wait_for(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = monotonic() + START_S
    # One client for all questions: each new one reads the certificates again, which costs a processor more
    # than the server's start leaves over.
    with httpx.Client(timeout=5) as client:
        while monotonic() < deadline:
            if process.poll() is not None:
                message = (
                    f"the Prefect server ended with code {process.returncode}; is its port in use? try --port"
                )
                raise ServerNotStartedError(message)
            try:
                if client.get(url).status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                sleep(0.1)
    message = f"the Prefect server did not answer at {url} within {START_S:.0f} s"
    raise ServerNotStartedError(message)
