"""Nights that are stopped or killed: nothing stays behind, and the next night ends what was begun."""

import os
import signal
import subprocess
import time
from pathlib import Path

import httpx
import pandas as pd
import pytest

from storage.running import running_nights
from tests.flows.conftest import COMMAND
from tests.flows.trials import Cmrtrials, interruptible, states

pytestmark = pytest.mark.slow

GONE_S = 20.0
"""Time in which everything that belonged to a night must have ended [s]."""


def start(root: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    """Start a night that is a process group of its own, as a terminal makes one."""
    return subprocess.Popen(
        [COMMAND, "run", root],
        env=environment | {"CMR_WORKERS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=interruptible,
    )


def wait_for_work(root: Path) -> None:
    """Wait until the first visit has been read."""
    deadline = time.monotonic() + 240
    while not any(root.glob("arrays/*/*/*.zarr")):
        assert time.monotonic() < deadline, "no visit was read"
        time.sleep(0.2)


def processes_with(mark: str) -> list[int]:
    """Give ids of processes that have a mark in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark.encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:  # it ended meanwhile
            continue
    return found


def assert_gone(mark: str) -> None:
    """Wait for all processes of a night to end."""
    deadline = time.monotonic() + GONE_S
    while time.monotonic() < deadline:
        if not processes_with(mark):
            return
        time.sleep(0.5)
    pytest.fail(f"still alive: {processes_with(mark)}")


def test_ctrl_c_ends_a_night_quickly_and_the_next_one_goes_on(
    small_copy: Path, environment: dict[str, str], on_site: Cmrtrials
) -> None:
    """Exit code 130, no traceback, nothing left running; Ctrl-C reaches the workers as well."""
    own = environment | {"CMRTRIALS_TEST_MARK": "ctrl-c-night"}
    night = start(small_copy, own)
    wait_for_work(small_copy)
    os.killpg(night.pid, signal.SIGINT)
    output, _ = night.communicate(timeout=60)
    assert night.returncode == 130, output
    assert "stopped; what was published stands" in output
    assert "Traceback" not in output
    assert_gone("ctrl-c-night")
    assert running_nights(small_copy) == []
    assert on_site("run", small_copy).returncode == 0
    assert set(states(small_copy).values()) == {"done"}


def test_a_killed_night_leaves_no_process_and_the_next_one_says_that_it_died(
    small_copy: Path, environment: dict[str, str], site: dict[str, str], on_site: Cmrtrials
) -> None:
    """SIGKILL lets nobody say anything: the next night sets the dead run to Crashed."""
    api = site["PREFECT_API_URL"]
    night = start(small_copy, environment | {"PREFECT_API_URL": api, "CMRTRIALS_TEST_MARK": "killed-night"})
    wait_for_work(small_copy)
    (run_id,) = running_nights(small_copy)
    night.kill()
    night.communicate()
    assert_gone("killed-night")
    assert on_site("run", small_copy).returncode == 0
    answer = httpx.get(f"{api}/flow_runs/{run_id}", timeout=30).json()
    assert answer["state"]["type"] == "CRASHED"
    body = {"flow_runs": {"id": {"any_": [run_id]}}}
    tasks = httpx.post(f"{api}/task_runs/filter", json=body, timeout=30).json()
    assert {task["state"]["type"] for task in tasks} <= {"COMPLETED", "CRASHED"}
    assert len(pd.read_parquet(small_copy / "tables" / "scans")) == 2


def test_a_killed_night_takes_its_own_server_with_it(small_copy: Path, environment: dict[str, str]) -> None:
    """A server that stays behind holds the database that the next one needs."""
    night = start(small_copy, environment | {"CMRTRIALS_TEST_MARK": "lonely-night"})
    wait_for_work(small_copy)
    night.kill()
    night.communicate()
    assert_gone("lonely-night")
