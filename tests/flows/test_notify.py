"""Notifications of late and long nights, and automations that are made once."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.flows.webhook import webhook

pytestmark = pytest.mark.slow

LATE = """
import sys
from flows.cli import main
main()
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.states import Running, Scheduled
from flows.nightly import nightly
from flows.notify import notify
from flows.server import prefect_server
from flows.site import SiteSettings
quick = {"notify_late_minutes": 10 / 60, "notify_long_minutes": 10 / 60}
with prefect_server(ui_port=int(sys.argv[1])), get_client(sync_client=True) as client:
    deployment = nightly.to_deployment("demo", parameters={"root": "r"}, tags=["trial:demo"]).apply()
    for url in (sys.argv[2], sys.argv[2], None, sys.argv[2]):
        notify(client, "demo", "trial:demo", SiteSettings(notify_url=url, **quick))
        print(len(client.read_automations()), flush=True)
    late = client.create_flow_run_from_deployment(deployment, state=Scheduled(), tags=["trial:demo"])
    long = client.create_flow_run_from_deployment(deployment, state=Scheduled(), tags=["trial:demo"])
    client.set_flow_run_state(long.id, Running(), force=True)
    print(late.id, long.id, flush=True)
    sys.stdin.read()
"""


def test_a_night_that_does_not_begin_or_end_is_told_once(environment: dict[str, str], tmp_path: Path) -> None:
    """Nobody runs the first, nobody ends the second; setting up again makes no second automation."""
    own = {
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS": "PT1S",
        "PREFECT_SERVER_SERVICES_LATE_RUNS_LOOP_SECONDS": "1",
    }
    with (
        webhook() as (url, messages),
        subprocess.Popen(
            [sys.executable, "-c", LATE, str(21_000 + os.getpid() % 5_000), url],
            env=environment | own,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        ) as process,
    ):
        assert process.stdout is not None
        assert [process.stdout.readline().strip() for _ in range(4)] == ["3", "3", "0", "3"]
        late, long = process.stdout.readline().split()
        deadline = time.monotonic() + 240
        while len(messages) < 2:
            assert time.monotonic() < deadline, messages
            time.sleep(0.5)
        assert process.stdin is not None
        process.stdin.close()
        process.wait(timeout=60)
    told = {message["flow_run_id"]: message for message in messages}
    assert set(told) == {late, long}
    assert told[late]["state"] == "Late"
    assert told[late]["text"].startswith("cmrtrials, trial demo: night Late: due for 0.166667 minutes")
    assert told[long]["state"] == "Running"
    assert "more than" in told[long]["message"]
