"""The Prefect servers that nights and users need."""

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


ASK_TWICE = """
from prefect.settings import PREFECT_API_URL
from flows.server import prefect_server
with prefect_server() as url:
    with prefect_server() as again:
        print(again == url)
print(PREFECT_API_URL.value())
"""


def test_a_configured_server_is_used(environment: dict[str, str]) -> None:
    """A site that has a server gets no second one."""
    answer = subprocess.run(
        [sys.executable, "-c", ASK_TWICE],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert answer.stdout.split() == ["True", "None"]
