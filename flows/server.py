"""The Prefect server that a night reports to: the site's own, or one for the time of the command."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from prefect.logging.handlers import APILogWorker
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import PREFECT_API_URL, temporary_settings

START_S = 120
"""Longest time until the server answers; the machine may be busy [s]."""


@contextmanager
def prefect_server() -> Iterator[str]:
    """Use the server that PREFECT_API_URL names, or else start one on loopback and stop it at the end.

    Yields
    ------
        URL of the server's API.
    """
    configured = PREFECT_API_URL.value()
    if configured:
        yield configured
        return
    server = SubprocessASGIServer()
    server.start(timeout=START_S)
    # Workers inherit the environment; a worker that finds no URL would start a server of its own.
    os.environ["PREFECT_API_URL"] = server.api_url
    try:
        with temporary_settings({PREFECT_API_URL: server.api_url}):
            yield server.api_url
            APILogWorker.drain_all(timeout=10)
    finally:
        del os.environ["PREFECT_API_URL"]
        server.stop()
