"""The Prefect servers that nights and users need."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ASK_EMBEDDED_SERVER = """
import httpx
from flows.server import prefect_server
with prefect_server() as url:
    print(httpx.get(url + "/health").json(), httpx.get(url + "/admin/version").json())
"""


def test_an_embedded_prefect_server_starts_and_answers(environment: dict[str, str]) -> None:
    """An import does not show that the server runs: with a newer fastapi it does not start."""
    answer = subprocess.run(
        [sys.executable, "-c", ASK_EMBEDDED_SERVER],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert answer.stdout.startswith("True 3.8"), answer.stdout


def test_a_configured_server_is_used(environment: dict[str, str]) -> None:
    """A site that has a server gets no second one."""
    code = "from flows.server import prefect_server\nwith prefect_server() as url: print(url)"
    answer = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"PREFECT_API_URL": "http://127.0.0.1:9/api"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert answer.stdout.strip() == "http://127.0.0.1:9/api"
    assert "PREFECT_API_URL" not in os.environ
