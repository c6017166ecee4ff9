"""The page of a visit in a real browser: everything painted, nothing loaded, decisions made and saved."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from annotated_types import MaxLen
from playwright.sync_api import expect

from storage import Trial
from storage.decisions import SliceDecision
from tasks.report.visit_page import write_visit_page
from tests.tasks.report.watched import PAINTED, Watched

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("visit_id", ["bare", "native", "no-hct", "half", "unknown-field"])
def test_every_picture_of_a_partial_visit_is_painted(
    partial_trial: Trial, watched: Watched, visit_id: str
) -> None:
    """Also where masks, a series or a hematocrit are missing."""
    page = watched.open(write_visit_page(partial_trial, "S01", visit_id))
    colors = page.evaluate(PAINTED)
    assert len(colors) >= 5 + 2 * 3
    assert min(colors) > 1


@pytest.mark.parametrize("visit_id", ["V3", "V4"], ids=["waiting", "refused"])
def test_a_visit_without_a_result_has_a_quiet_page(
    whole_trial: Trial, watched: Watched, visit_id: str
) -> None:
    """State and reason are seen."""
    page = watched.open(write_visit_page(whole_trial, "S01", visit_id))
    expect(page.locator(".panel .mark")).to_be_visible()


def test_echoes_are_stepped_through_by_slider_and_keys(whole_trial: Trial, watched: Watched) -> None:
    """The caption names the echo that is shown; contours, alignment and filmstrip have keys."""
    page = watched.open(write_visit_page(whole_trial, "S01", "V1"))
    assert min(page.evaluate(PAINTED)) > 1
    film = page.locator("#film-native-0")
    caption, reel = film.locator("output"), film.locator(".reel.is-acquired")
    expect(caption).to_contain_text("echo 1 of 8")
    slider = film.locator("input[type=range]")
    slider.focus()
    slider.press("ArrowRight")
    expect(caption).to_contain_text("echo 2 of 8 · TI 200 ms")
    assert reel.evaluate("one => one.style.left") == "-100%"
    page.keyboard.press("a")
    expect(reel).to_be_hidden()
    expect(film.locator(".reel.is-aligned")).to_be_visible()
    page.keyboard.press("c")
    expect(film.locator(".reel.is-aligned > svg")).to_be_hidden()
    width = film.locator(".view").evaluate("one => one.offsetWidth")
    page.keyboard.press("f")
    assert film.locator(".view").evaluate("one => one.offsetWidth") > 2 * width
    page.locator("#play").click()
    expect(page.locator("#play")).to_have_attribute("aria-pressed", "true")
    expect(caption).not_to_contain_text("echo 2 of 8")


def test_decisions_are_saved_and_end_the_blinding(
    whole_trial: Trial, watched: Watched, tmp_path: Path
) -> None:
    """ECV, change and history are hidden until every slice has a decision and the file is saved."""
    page = watched.open(write_visit_page(whole_trial, "S01", "V2"))
    hidden = page.locator(".after-decision")
    assert hidden.count() > 6
    assert not any(one.is_visible() for one in hidden.all())
    expect(page.locator("#history + p")).to_contain_text("hidden until")

    leaves = "() => window.dispatchEvent(new Event('beforeunload', { cancelable: true }))"
    assert page.evaluate(leaves)
    save = page.get_by_role("button", name="Save decisions")
    save.click()
    expect(page.locator("#problem")).to_contain_text("4 of 4 still open")
    page.check('input[name="decision-post-1"][value="repeat"]')
    assert not page.evaluate(leaves), "unsaved decisions are lost without a question"
    page.check('input[name="guide-post-1"][value="redraw"]')
    page.get_by_role("button", name="Accept what is still open").click()
    save.click()
    expect(page.locator("#problem")).to_contain_text("1 of 4 still open")
    comment = 'breathing; "apex" <b>'
    page.fill('textarea[name="comment-post-1"]', comment)
    save.click()
    expect(page.locator("#problem")).to_contain_text("reader id is missing")
    page.fill("#reader", "reader-a")
    with page.expect_download() as download:
        save.click()
    file = tmp_path / "decisions.json"
    download.value.save_as(file)

    decisions: Any = json.loads(file.read_text("utf-8"))
    decided_at = datetime.strptime(decisions.pop("decided_at"), "%Y-%m-%dT%H:%M:%S%z")
    assert decided_at.utcoffset() is not None
    accepted = {"guide": "accepted", "decision": "accept", "comment": ""}
    assert decisions == {
        "format": "cmrtrials-decisions",
        "version": 1,
        "trial_id": "demo",
        "subject_id": "S01",
        "visit_id": "V2",
        "result_digest": "V2-quantify",
        "reader_id": "reader-a",
        "slices": [
            {"role": "native", "slice_index": 0} | accepted,
            {"role": "post", "slice_index": 0} | accepted,
            {"role": "native", "slice_index": 1} | accepted,
            {"role": "post", "slice_index": 1, "guide": "redraw", "decision": "repeat", "comment": comment},
        ],
    }
    assert download.value.suggested_filename == "decisions_S01_V2_reader-a.json"
    expect(page.locator('figure.after-decision img[alt^="ECV"]').first).to_be_visible()
    expect(page.locator("#history ~ div.after-decision")).to_be_visible()
    expect(page.locator('input[name="decision-post-1"][value="accept"]')).to_be_disabled()
    assert page.evaluate(leaves)
    with page.expect_download() as again:
        page.get_by_role("button", name="Download them again").click()
    assert again.value.path().read_bytes() == file.read_bytes()


def test_a_comment_is_no_longer_than_a_decisions_file_takes(whole_trial: Trial, watched: Watched) -> None:
    """Else the file would be refused when the blinding is over."""
    page = watched.open(write_visit_page(whole_trial, "S01", "V2"))
    rules = SliceDecision.model_fields["comment"].metadata
    (limit,) = (rule.max_length for rule in rules if isinstance(rule, MaxLen))
    assert int(page.locator('textarea[name="comment-post-1"]').get_attribute("maxlength") or 0) == limit


def test_looking_without_deciding_saves_nothing(whole_trial: Trial, watched: Watched) -> None:
    """Who has seen the ECV cannot decide blindly any more."""
    page = watched.open(write_visit_page(whole_trial, "S01", "V2"))
    page.get_by_role("button", name="Look without deciding").click()
    expect(page.locator("#history ~ div.after-decision")).to_be_visible()
    expect(page.get_by_role("button", name="Save decisions")).to_be_disabled()
    expect(page.locator("#done")).to_contain_text("nothing is saved")
