"""The Prefect UI in a real browser: a failed night is mended and retried from there."""

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
from tests.flows.trials import DemoNight, mend, states

pytestmark = pytest.mark.slow

CHROMIUM_OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]


@pytest.fixture
def page(chromium: str) -> Iterator[Page]:
    """Page of a headless Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_OPTIONS)
        yield browser.new_page(viewport={"width": 1400, "height": 900})
        browser.close()


@pytest.fixture
def unprocessed_demo(demo_night: DemoNight, tmp_path: Path) -> Path:
    """Demo trial as it was before its first night."""
    root = tmp_path / "trial"
    root.mkdir()
    for name in ("trial.toml", "subjects.csv", "incoming"):
        subprocess.run(["cp", "-a", demo_night.root / name, root / name], check=True)
    return root


@pytest.fixture
def served(unprocessed_demo: Path, environment: dict[str, str], tmp_path: Path) -> Iterator[str]:
    """Address of a Prefect server that serves the demo trial."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (tmp_path / "serve.log").open("w") as log:
        process = subprocess.Popen(
            [COMMAND, "serve", unprocessed_demo, "--port", str(port)],
            env=environment | {"PREFECT_HOME": str(tmp_path / "prefect")},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        address = f"http://127.0.0.1:{port}"
        try:
            wait_until(lambda: deployment_ids(address).keys() >= {"nightly", "rerun"}, 90)
            yield address
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=60)


def wait_until(condition: Callable[[], bool], limit_s: float) -> None:
    """Ask again until it is true; a test that waits in vain fails with the question."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    pytest.fail(f"not true within {limit_s} s")


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
    found = (re.match(r"(intake|segment|quantify) (\S+) executed", line) for line in lines)
    return Counter((match[1], match[2]) for match in found if match)


def test_retry_in_the_ui_executes_only_what_failed(served: str, unprocessed_demo: Path, page: Page) -> None:
    """The night fails for one broken upload; mended and retried in the UI, only that visit runs."""
    created = ask(served, f"deployments/{deployment_ids(served)['nightly']}/create_flow_run")
    flow_run_id = created["id"]

    def state() -> dict[str, Any]:
        answer = httpx.get(f"{served}/api/flow_runs/{flow_run_id}", timeout=30)
        return dict(answer.json()["state"])

    wait_until(lambda: state()["type"] == "FAILED", 180)
    assert "S06/V2 refused: " in state()["message"]
    # Workers send their log lines in batches, after the state.
    wait_until(lambda: executions(served, flow_run_id).total() >= 11 * 3, 60)
    first = executions(served, flow_run_id)
    assert first["quantify", "S01/V1"] == 1
    assert first["intake", "S06/V2"] == 0
    assert first.total() == 11 * 3

    mend(unprocessed_demo)
    page.goto(f"{served}/v2/runs/flow-run/{flow_run_id}")
    expect(page.get_by_text("Failed").first).to_be_visible(timeout=30_000)
    page.locator("button[aria-haspopup=menu]").last.click()
    page.get_by_role("menuitem", name="Retry").click()
    page.get_by_role("button", name="Retry").click()

    wait_until(lambda: state()["type"] == "COMPLETED", 120)
    expect(page.get_by_text("Completed").first).to_be_visible(timeout=30_000)
    wait_until(lambda: executions(served, flow_run_id).total() >= 12 * 3, 60)
    again = executions(served, flow_run_id) - first
    assert again == {("intake", "S06/V2"): 1, ("segment", "S06/V2"): 1, ("quantify", "S06/V2"): 1}
    assert Counter(states(unprocessed_demo).values()) == {"done": 10, "flagged": 2}
