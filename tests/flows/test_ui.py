"""The Prefect UI in a real browser: what a user does there alone, on a trial that is served.

CMRTRIALS_SCREENSHOTS=FOLDER keeps a picture of each step: `pytest tests/flows/test_ui.py`. The tests share
one served trial and follow one another.
"""

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError

from storage.audit import read_events
from storage.running import running_nights
from storage.trial import open_trial
from tests.flows.conftest import copy_trial
from tests.flows.served_trial import (
    CLUSTER,
    LIMIT_S,
    MARK,
    STAGES,
    STOP_S,
    Served,
    ask,
    deployment_ids,
    executing,
    executions,
    free_port,
    schedule_of,
    wait_until,
)
from tests.flows.test_stopped import processes_with
from tests.flows.trials import Cmrtrials, cut_off, mend, snapshot, states
from tests.flows.webhook import webhook

pytestmark = pytest.mark.slow


CHROMIUM_OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]


@pytest.fixture(scope="module")
def scheduler(environment: dict[str, str]) -> Iterator[str]:
    """Address of a Dask cluster with one worker, which no night has started."""
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as cluster:
        assert cluster.stdin is not None
        assert cluster.stdout is not None
        try:
            yield cluster.stdout.readline().strip()
        finally:
            cluster.stdin.close()
            cluster.wait(timeout=60)


@pytest.fixture(scope="module")
def served(
    small_trial: Path,
    environment: dict[str, str],
    scheduler: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Served]:
    """Small trial, one image of whose second subject is cut off, served."""
    folder = tmp_path_factory.mktemp("served")
    root = copy_trial(small_trial, folder / "trial")
    cut_off(root, "S02_*")
    with webhook() as (url, messages):
        own = {
            "PREFECT_HOME": str(folder / "prefect"),
            "CMR_DASK_SCHEDULER": scheduler,
            "CMR_NOTIFY_URL": url,
            "PREFECT_RUNNER_POLL_FREQUENCY": "2",
            "CMRTRIALS_TEST_MARK": MARK,
        }
        served = Served(root, free_port(), environment | own, messages)
        try:
            served.start()
            yield served
        finally:
            served.stop()


@pytest.fixture(scope="module")
def page(chromium: str) -> Iterator[Page]:
    """Page of a headless Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_OPTIONS)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(60_000)
        yield page
        browser.close()


def show(page: Page, name: str) -> None:
    """Keep a picture, where somebody asks for pictures."""
    folder = os.environ.get("CMRTRIALS_SCREENSHOTS")
    if folder:
        page.wait_for_timeout(1500)
        page.screenshot(path=Path(folder) / f"{name}.png")


def visible(locator: Locator) -> None:
    """Wait until something is seen, on a slow machine too."""
    expect(locator.first).to_be_visible(timeout=60_000)


def submit(page: Page) -> None:
    """Submit a form, and wait until it is taken."""
    form, deadline = page.url, time.monotonic() + LIMIT_S
    while page.url == form:  # after an error the first click only checks what was mended
        assert time.monotonic() < deadline
        page.get_by_role("button", name="Submit").click()
        with suppress(PlaywrightTimeoutError):
            page.wait_for_url(lambda url: url != form, timeout=20_000)


def events_of(root: Path, why: str) -> list[dict[str, Any]]:
    """Lines of the audit log with a reason."""
    return [event for event in read_events(root) if event.get("why") == why]


def reasons(root: Path) -> set[str]:
    """All reasons in the audit log."""
    return {str(event.get("why")) for event in read_events(root)}


def test_a_failed_night_shows_what_went_wrong_and_tells_the_webhook(served: Served, page: Page) -> None:
    """State, table, progress and summary are in the UI; the message holds trial, state and counts."""
    flow_run_id = served.run("nightly")
    wait_until(lambda: served.state(flow_run_id)["type"] == "FAILED")
    assert "S02/V1 refused: " in served.state(flow_run_id)["message"]

    page.goto(f"{served.address}/runs/flow-run/{flow_run_id}")
    page.get_by_text("Artifacts", exact=True).last.click()
    visible(page.get_by_text("demo-visits"))
    visible(page.get_by_text("demo-progress"))
    show(page, "night-artifacts")
    page.goto(f"{served.address}/artifacts/artifact/{served.artifact('demo-visits')['latest_id']}")
    visible(page.get_by_role("row").nth(1).get_by_text("refused"))
    visible(page.get_by_role("row").nth(2).get_by_text("done"))
    visible(page.get_by_role("link", name="page"))
    show(page, "night-visits")
    page.goto(f"{served.address}/artifacts/artifact/{served.artifact('demo-night')['latest_id']}")
    visible(page.get_by_role("heading", name="Night of demo"))
    visible(page.get_by_text("Failed or refused tonight"))
    picture = page.get_by_alt_text("Subjects by visits")
    visible(picture)
    assert int(picture.evaluate("one => one.naturalWidth")) > 0  # not blocked, not broken
    show(page, "night-summary")
    assert served.artifact("demo-progress")["data"] == 100

    wait_until(lambda: bool(served.messages))
    message = served.messages[0]
    assert {one["flow_run_id"] for one in served.messages} == {flow_run_id}
    assert (message["trial"], message["state"], message["flow_run_id"]) == ("demo", "Failed", flow_run_id)
    assert "2 visits: 1 done, 1 refused" in message["text"]


def test_links_lead_to_the_pages_of_reports(served: Served, page: Page) -> None:
    """A browser follows no file link from the UI, so the pages are served beside it."""
    reports = served.root / "reports"
    reports.mkdir(exist_ok=True)
    if not (reports / "index.html").exists():
        (reports / "index.html").write_text("<title>pages of the trial</title>")
    page.goto(f"{served.address}/artifacts/artifact/{served.artifact('demo-night')['latest_id']}")
    with page.expect_popup() as popup:
        page.get_by_role("link", name="demo", exact=True).last.click()
    popup.value.wait_for_url(f"http://127.0.0.1:{served.port + 1}/demo/index.html")
    assert popup.value.title()
    popup.value.close()


def test_retry_in_the_ui_executes_only_what_failed(served: Served, page: Page) -> None:
    """The night fails for one broken upload; mended and retried in the UI, only that visit runs."""
    flow_run_id = served.newest("nightly")
    # Workers send their log lines in batches, after the state.
    wait_until(lambda: executions(served.address, flow_run_id).total() >= 3)
    first = executions(served.address, flow_run_id)
    assert first == dict.fromkeys(((stage, "S01/V1") for stage in STAGES), 1)

    mend(served.root, "S02_*")
    page.goto(f"{served.address}/v2/runs/flow-run/{flow_run_id}")
    visible(page.get_by_text("Failed"))
    page.locator("button[aria-haspopup=menu]").last.click()
    page.get_by_role("menuitem", name="Retry").click()
    page.get_by_role("button", name="Retry").click()

    wait_until(lambda: served.state(flow_run_id)["type"] == "COMPLETED")
    visible(page.get_by_text("Completed"))
    wait_until(lambda: executions(served.address, flow_run_id).total() >= 2 * 3)
    again = executions(served.address, flow_run_id) - first
    assert again == dict.fromkeys(((stage, "S02/V1") for stage in STAGES), 1)
    assert Counter(states(served.root).values()) == {"done": 2}


def test_rerun_from_the_form_needs_a_reason_and_keeps_it(served: Served, page: Page) -> None:
    """What does not fit is said beside its field; the reason is in the audit log."""
    page.goto(f"{served.address}/v2/deployments/deployment/{deployment_ids(served.address)['rerun']}/run")
    visible(page.get_by_text("visit_ids"))
    visible(page.get_by_text("It is kept with the results"))
    reason = page.locator("textarea").nth(1)
    reason.fill("no")
    page.get_by_role("button", name="Submit").click()
    visible(page.get_by_text("'no' is too short"))
    show(page, "rerun-form-refused")
    reason.fill("site 02 sent it again")
    page.get_by_role("button", name="Add item").first.click()
    page.locator("textarea").nth(2).fill("S02")
    reason.click()
    show(page, "rerun-form")
    submit(page)
    wait_until(lambda: "rerun: site 02 sent it again" in reasons(served.root))
    flow_run_id = served.newest("rerun")
    wait_until(lambda: served.state(flow_run_id)["type"] == "COMPLETED")
    assert {event["subject_id"] for event in events_of(served.root, "rerun: site 02 sent it again")} == {
        "S02"
    }


def test_whatif_from_the_form_leaves_the_record_alone(
    served: Served, page: Page, cmrtrials: Cmrtrials
) -> None:
    """One visit under another setting, side by side with the record, and a trial of its own."""
    before = snapshot(served.root)
    page.goto(f"{served.address}/v2/deployments/deployment/{deployment_ids(served.address)['whatif']}/run")
    visible(page.get_by_text("align.method"))
    for index, text in enumerate(("is the rim too wide?", "S01", "V1"), 1):
        page.locator("textarea").nth(index).fill(text)
    page.get_by_role("button", name="Add item").click()
    page.locator("textarea").nth(4).fill("quantify.myocardium_erosion_mm=0.5")
    show(page, "whatif-form")
    submit(page)
    wait_until(lambda: bool(served.newest("whatif")))
    flow_run_id = served.newest("whatif")
    wait_until(lambda: served.state(flow_run_id)["type"] == "COMPLETED")
    page.goto(f"{served.address}/artifacts/artifact/{served.artifact('demo-whatif')['latest_id']}")
    visible(page.get_by_role("heading", name="S01/V1 under other settings"))
    visible(page.get_by_text("quantify.myocardium_erosion_mm"))
    show(page, "whatif")

    after = snapshot(served.root)
    assert {name: after[name] for name in before} == before
    assert {name.split("/")[0] for name in after.keys() - before.keys()} == {"whatif"}
    (folder,) = (served.root / "whatif").iterdir()
    record, other = (open_trial(root).table("scans", "S01").iloc[0] for root in (served.root, folder))
    assert other["n_pixels_read_native"] > record["n_pixels_read_native"]
    # Intake and masks are the record's.
    assert {stage for stage, _ in executions(served.address, flow_run_id)} == {"quantify"}
    status = cmrtrials("status", folder)
    assert status.returncode == 0
    assert "S01" in status.stdout
    assert "S02" not in status.stdout
    compared = cmrtrials("compare", served.root, folder)
    assert "t1_native_ms" in compared.stdout, compared.stderr


def test_pause_and_schedule_of_the_ui_survive_a_restart(served: Served, page: Page) -> None:
    """A restart loses nothing; a new schedule in trial.toml is taken over, and a pause holds even so."""
    page.goto(f"{served.address}/v2/deployments/deployment/{deployment_ids(served.address)['nightly']}")
    visible(page.get_by_text("At 02:00 AM"))
    page.get_by_role("button", name="Open menu").last.click()
    page.get_by_role("menuitem", name="Edit").click()
    page.locator("input[name='schedule.cron']").fill("30 3 * * *")
    page.get_by_role("button", name="Save").click()
    visible(page.get_by_text("At 03:30 AM"))
    page.get_by_role("switch", name="toggle At 03:30 AM").click()
    wait_until(lambda: schedule_of(served.address) == ("30 3 * * *", "UTC", False))
    show(page, "paused")
    completed = {"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
    n_completed = len(ask(served.address, "flow_runs/filter", completed))

    served.stop()
    served.start()
    assert schedule_of(served.address) == ("30 3 * * *", "UTC", False)
    assert len(ask(served.address, "flow_runs/filter", completed)) == n_completed
    assert len(ask(served.address, "automations/filter")) == 3

    toml = served.root / "trial.toml"
    toml.write_text(toml.read_text().replace('cron = "0 2 * * *"', 'cron = "0 4 * * *"'))
    served.stop()
    served.start()
    assert schedule_of(served.address) == ("0 4 * * *", "UTC", False)


def test_cancel_in_the_ui_stops_the_work_of_an_outside_cluster(
    served: Served, page: Page, scheduler: str
) -> None:
    """The cluster lives on, but within 15 s nothing of the run is on it, and no process of it is left."""
    idle = len(processes_with(MARK))
    flow_run_id = served.run("rerun", reason="to be cancelled", visit_ids=["V1"])
    page.goto(f"{served.address}/v2/runs/flow-run/{flow_run_id}")
    wait_until(lambda: bool(executing(scheduler)))
    page.reload()
    visible(page.get_by_text("Running"))
    page.locator("button[aria-haspopup=menu]").last.click()
    page.get_by_role("menuitem", name="Cancel").click()
    page.get_by_role("button", name="Cancel Flow Run").click()
    cancelled_s = time.monotonic()
    wait_until(lambda: not executing(scheduler))
    assert time.monotonic() - cancelled_s < STOP_S
    wait_until(lambda: len(processes_with(MARK)) <= idle)
    assert not executing(scheduler)
    wait_until(lambda: served.state(flow_run_id)["type"] == "CANCELLED")
    assert running_nights(served.root) == []
    tasks = ask(served.address, "task_runs/filter", {"flow_runs": {"id": {"any_": [flow_run_id]}}})
    assert {task["state"]["type"] for task in tasks} <= {"COMPLETED", "CANCELLED"}
    assert "rerun: to be cancelled" not in reasons(served.root)
