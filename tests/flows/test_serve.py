"""What `cmrtrials serve` sets up on a Prefect server; what users do with it is in `test_ui`."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.errors import SettingsError
from flows.serve import serve_trials
from tests.flows.webhook import webhook
from tests.storage.drawn_uploads import DEMO_CONFIG

SET_UP = """
import json, sys
from pathlib import Path
from uuid import UUID
from flows.cli import main
main()  # sets the environment as the command does
from prefect.client.orchestration import get_client
from prefect.states import Cancelling, Pending, Running, Scheduled
from flows.nightly import nightly
from flows.notify import notify
from flows.reconcile import settle_lost_runs
from flows.server import prefect_server
from flows.site import SiteSettings
from storage.running import mark_running
from storage.trial import open_trial
port, url, root = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
quick = {"notify_late_minutes": 10 / 60, "notify_long_minutes": 10 / 60}
tags = ["trial:demo"]
with prefect_server(ui_port=port), get_client(sync_client=True) as client:
    deployment = nightly.to_deployment("demo", parameters={"root": str(root)}, tags=tags).apply()

    def run(state):
        made = client.create_flow_run_from_deployment(deployment, state=Scheduled(), tags=tags)
        if state.is_cancelling():  # of a run that never ran the server says Cancelled at once
            client.set_flow_run_state(made.id, Running(), force=True)
        client.set_flow_run_state(made.id, state, force=True)
        return str(made.id)

    lost = {name: run(state) for name, state in {
        "begun": Running(), "taken on": Pending(), "being cancelled": Cancelling(),
        "dead at once": Running(), "goes on": Running(), "goes on though cancelled": Cancelling(),
    }.items()}
    for name in ("begun", "being cancelled"):  # marks of processes that are gone: nobody holds them
        (root / "running" / lost[name]).touch()
    marks = [mark_running(root, lost[name]) for name in ("goes on", "goes on though cancelled")]
    settle_lost_runs(client, open_trial(root), "trial:demo")
    found = {name: client.read_flow_run(UUID(run_id)).state.name for name, run_id in lost.items()}
    for name in ("taken on", "goes on", "goes on though cancelled"):
        client.delete_flow_run(UUID(lost[name]))
    automations = []
    for told in (url, url, None, url):
        notify(client, "demo", "trial:demo", SiteSettings(notify_url=told, **quick))
        automations.append(len(client.read_automations()))
    ids = {"late": run(Scheduled()), "long": run(Running())}
    print(json.dumps({"found": found, "automations": automations} | ids), flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
def test_lost_runs_are_settled_and_late_and_long_nights_are_told(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """Nobody begins one night, nobody ends another; setting up again makes no second automation."""
    root = trial_at(tmp_path / "trial", "demo")
    (root / "running").mkdir()
    own = {
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS": "1",
        "PREFECT_SERVER_SERVICES_LATE_RUNS_LOOP_SECONDS": "1",
    }
    with (
        webhook() as (url, messages),
        subprocess.Popen(
            [sys.executable, "-c", SET_UP, str(21_000 + os.getpid() % 5_000), url, root],
            env=environment | own,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        ) as process,
    ):
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        deadline = time.monotonic() + 240
        while len(messages) < 2:
            assert time.monotonic() < deadline, messages
            time.sleep(0.5)
        assert process.stdin is not None
        process.stdin.close()
        process.wait(timeout=60)
    assert said["found"] == {
        **{"begun": "Crashed", "taken on": "Scheduled", "being cancelled": "Cancelled"},
        **{"dead at once": "Crashed", "goes on": "Running", "goes on though cancelled": "Cancelling"},
    }
    assert said["automations"] == [3, 3, 0, 3]
    told = {message["flow_run_id"]: message for message in messages}
    assert set(told) == {said["late"], said["long"]}
    assert told[said["late"]]["text"].startswith(
        "cmrtrials, trial demo: night Late: due for 0.166667 minutes"
    )
    assert told[said["long"]]["state"] == "Running"
    assert "more than" in told[said["long"]]["message"]


def test_trials_that_prefect_could_not_tell_apart_are_refused(tmp_path: Path) -> None:
    """Their nights would share deployments, artifacts and pages."""
    roots = [trial_at(tmp_path / "one", "Study.1"), trial_at(tmp_path / "two", "study_1")]
    with pytest.raises(SettingsError, match="need names"):
        serve_trials(roots, 4200)


def trial_at(root: Path, trial_id: str) -> Path:
    """Write the configuration of a trial."""
    root.mkdir()
    text = DEMO_CONFIG.read_text().replace('trial_id = "demo"', f'trial_id = "{trial_id}"')
    (root / "trial.toml").write_text(text)
    return root
