"""The Prefect UI in a real browser: a failed night is mended and retried from there."""

import os
import re
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.flows.conftest import COMMAND
from tests.flows.trials import cut_off, interruptible, mend, states

pytestmark = pytest.mark.slow

STAGES = ("intake", "segment", "quantify")

LIMIT_S = 240.0
"""Longest wait for anything; seconds on a quiet machine [s]."""

CHROMIUM_OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]


@pytest.fixture
def page(chromium: str) -> Iterator[Page]:
    """Page of a headless Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_OPTIONS)
        yield browser.new_page(viewport={"width": 1400, "height": 900})
        browser.close()


@pytest.fixture
def broken_trial(small_copy: Path) -> Path:
    """Small trial, one image of whose second subject is cut off."""
    cut_off(small_copy, "S02_*")
    return small_copy


@pytest.fixture
def served(broken_trial: Path, environment: dict[str, str], tmp_path: Path) -> Iterator[str]:
    """Address of a Prefect server that serves the small trial."""
    port = free_port()
    with (tmp_path / "serve.log").open("w") as log:
        process = subprocess.Popen(
            [COMMAND, "serve", broken_trial, "--port", str(port)],
            env=environment | {"PREFECT_HOME": str(tmp_path / "prefect"), "CMR_WORKERS": "1"},
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=interruptible,
        )
        address = f"http://127.0.0.1:{port}"
        try:
            wait_until(lambda: deployment_ids(address).keys() >= {"nightly", "rerun"})
            yield address
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=60)


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


def test_retry_in_the_ui_executes_only_what_failed(served: str, broken_trial: Path, page: Page) -> None:
    """The night fails for one broken upload; mended and retried in the UI, only that visit runs."""
    created = ask(served, f"deployments/{deployment_ids(served)['nightly']}/create_flow_run")
    flow_run_id = created["id"]

    def state() -> dict[str, Any]:
        answer = httpx.get(f"{served}/api/flow_runs/{flow_run_id}", timeout=30)
        return dict(answer.json()["state"])

    wait_until(lambda: state()["type"] == "FAILED")
    assert "S02/V1 refused: " in state()["message"]
    # Workers send their log lines in batches, after the state.
    wait_until(lambda: executions(served, flow_run_id).total() >= 3)
    first = executions(served, flow_run_id)
    assert first == dict.fromkeys(((stage, "S01/V1") for stage in STAGES), 1)

    mend(broken_trial, "S02_*")
    page.goto(f"{served}/v2/runs/flow-run/{flow_run_id}")
    expect(page.get_by_text("Failed").first).to_be_visible(timeout=60_000)
    page.locator("button[aria-haspopup=menu]").last.click()
    page.get_by_role("menuitem", name="Retry").click()
    page.get_by_role("button", name="Retry").click()

    wait_until(lambda: state()["type"] == "COMPLETED")
    expect(page.get_by_text("Completed").first).to_be_visible(timeout=60_000)
    wait_until(lambda: executions(served, flow_run_id).total() >= 2 * 3)
    again = executions(served, flow_run_id) - first
    assert again == dict.fromkeys(((stage, "S02/V1") for stage in STAGES), 1)
    assert Counter(states(broken_trial).values()) == {"done": 2}
