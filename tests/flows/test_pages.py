"""The pages of the demo night in a real browser: visits that passed, that are to be reviewed, that failed."""

import json
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import expect

from storage import open_trial
from storage.decisions import read_decisions
from tasks.report.trial_visits import SCAN_NUMBERS
from tests.flows.conftest import copy_trial
from tests.flows.trials import Cmrtrials, DemoNight, published_row
from tests.tasks.report.watched import PAINTED, Watched

pytestmark = pytest.mark.slow

FAILED = ("S03", "V1")
"""Visit whose hematocrit somebody types in as 0.75 after the first night."""

VISITS = {"pass": ("S01", "V1"), "review": ("S05", "V1"), "fail": FAILED}
"""A visit of each verdict."""


@pytest.fixture(scope="module")
def root(
    demo_night: DemoNight,
    tmp_path_factory: pytest.TempPathFactory,
    on_site: Cmrtrials,
) -> Path:
    """Copy of the demo trial after a second night, which computes one visit again and fails it."""
    root = copy_trial(demo_night.root, tmp_path_factory.mktemp("pages") / "trial")
    plan = pd.read_csv(root / "subjects.csv", dtype=str, keep_default_na=False)
    here = (plan["subject_id"] == FAILED[0]) & (plan["visit_id"] == FAILED[1])
    plan.loc[here, "hematocrit_fraction"] = "0.75"
    plan.to_csv(root / "subjects.csv", index=False)
    night = on_site("run", root)
    assert night.returncode == 0, night.stdout + night.stderr
    return root


@pytest.mark.parametrize("verdict", VISITS)
def test_a_visit_of_each_verdict_is_painted_and_decided(
    root: Path, watched: Watched, tmp_path: Path, verdict: str
) -> None:
    """Every picture is seen, the verdict first; decisions are set, downloaded and can be read."""
    subject_id, visit_id = VISITS[verdict]
    assert published_row(root, "visits", subject_id, visit_id)["qc_verdict"] == verdict
    page = watched.open(root / "reports" / subject_id / f"{visit_id}.html")
    expect(page.locator(".verdict .mark")).to_have_text(verdict)
    expect(page.locator(".verdict .mark")).to_be_in_viewport()
    colors = page.evaluate(PAINTED)
    assert len(colors) >= 5 + 3 * 4 + 2 * 3
    assert min(colors) > 1
    assert page.evaluate("document.documentElement.scrollWidth") == 1280
    page.check('input[name="decision-native-1"][value="exclude"]')
    page.fill('textarea[name="comment-native-1"]', "ghosts")
    page.get_by_role("button", name="Accept what is still open").click()
    page.fill("#reader", "reader-a")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save decisions").click()
    file = tmp_path / "decisions.json"
    download.value.save_as(file)
    decisions, _ = read_decisions(file)
    row = published_row(root, "visits", subject_id, visit_id)
    assert (decisions.subject_id, decisions.result_digest) == (subject_id, row["result_digest"])
    found = {(one.role, one.slice_index): one.decision for one in decisions.slices}
    assert found.pop(("native", 1)) == "exclude"
    assert set(found.values()) == {"accept"}
    assert len(found) == 5


def test_the_pages_of_the_trial_lead_to_the_visits(root: Path, watched: Watched) -> None:
    """Readers begin where nothing measured is shown; the map has a cell for each visit, with its outcome."""
    page = watched.open(root / "reports" / "index.html")
    outcomes = ("pass", "review", "fail", "refused")
    counts = {outcome: page.locator(f"#heat a.cell.{outcome}").count() for outcome in outcomes}
    visits = open_trial(root).table("visits")
    assert counts == {**visits["qc_verdict"].value_counts().to_dict(), "refused": 1}
    assert counts["fail"] == 2  # the other one has no guide
    text = page.locator("body").inner_text()
    assert "hematocrit_implausible" in text
    data = json.loads(page.locator("#data").text_content() or "")
    assert not any(SCAN_NUMBERS.keys() & one.keys() for one in data["visits"])
    links = page.locator("#heat a.cell.fail").evaluate_all("all => all.map(one => one.getAttribute('href'))")
    assert "/".join(FAILED) + ".html" in links


def test_the_page_with_results_shows_all(root: Path, watched: Watched) -> None:
    """Plots of metrics, drift and changes, and no column cut off."""
    page = watched.open(root / "reports" / "results.html")
    assert page.locator("#plots-distributions svg").count() == 6
    assert page.locator("#plots-changes svg").count() == 4
    nights = page.locator("#runs .scroll").first
    assert nights.evaluate("one => one.scrollWidth - one.clientWidth") == 0
    assert page.evaluate("document.documentElement.scrollWidth") == 1280
