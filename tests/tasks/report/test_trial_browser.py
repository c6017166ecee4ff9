"""The trial's page of 1,000 visits in a real browser, from a file."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from storage.trial import open_trial
from tasks.report.trial_page import RESULTS_PAGE, TRIAL_PAGE, write_trial_page
from tests.storage.drawn_rows import row
from tests.tasks.report.drawn_trial import draw_trial, write_row
from tests.tasks.report.test_trial_visits import plan_line, trial_of

pytestmark = pytest.mark.slow

CHROMIUM_OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]

N_SUBJECTS, N_VISITS = 200, 5

LOAD_S = 2.0
"""Longest time of a processor until all is laid out [s]; on a quiet machine that is the time it takes."""

WAIT_MS = 120_000.0
"""Longest wait for anything; moments on a quiet machine [ms]."""

NO_VALUE = "\N{EN DASH}"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Page of 1,000 visits."""
    root = tmp_path_factory.mktemp("large") / "trial"
    draw_trial(root, N_SUBJECTS, N_VISITS)
    write_trial_page(open_trial(root))
    return root / RESULTS_PAGE


@pytest.fixture(scope="module")
def browser_page(chromium: str) -> Iterator[Page]:
    """Page of a headless Chromium that notes what goes wrong."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_OPTIONS)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(WAIT_MS)
        yield page
        browser.close()


@pytest.fixture
def said(browser_page: Page) -> Iterator[list[str]]:
    """Errors of the page, and its requests but for files."""
    found: list[str] = []
    listeners = {
        "console": lambda message: found.append(f"{message.type}: {message.text}"),
        "pageerror": lambda error: found.append(str(error)),
        "request": lambda request: None if request.url.startswith("file:") else found.append(request.url),
    }
    for event, listener in listeners.items():
        browser_page.on(event, listener)  # type: ignore[call-overload]  # one overload an event's name
    yield found
    for event, listener in listeners.items():
        browser_page.remove_listener(event, listener)


@pytest.fixture
def page(browser_page: Page, large: Path) -> Page:
    """Give the large trial's page, freshly opened."""
    browser_page.goto(large.as_uri())
    return browser_page


def shown(page: Page) -> int:
    """Rows of the table that are to be seen."""
    return page.locator("#table tbody tr:not([hidden])").count()


def test_1000_visits_are_there_in_two_seconds(browser_page: Page, large: Path, said: list[str]) -> None:
    """Everything is drawn, nothing is asked for, nothing complains."""
    session = browser_page.context.new_cdp_session(browser_page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    browser_page.goto(large.as_uri())
    browser_page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    metrics = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}

    assert browser_page.locator("#table tbody tr").count() == N_SUBJECTS * N_VISITS
    assert browser_page.locator("#heat a.cell").count() == N_SUBJECTS * N_VISITS
    assert browser_page.locator("#plots-distributions svg").count() == 6
    assert browser_page.locator("#plots-drift svg").count() == 8
    assert browser_page.locator("#plots-changes svg").count() == 4
    assert browser_page.evaluate("document.documentElement.scrollWidth") == 1280
    assert said == []
    assert metrics["TaskDuration"] < LOAD_S


def test_readers_begin_at_a_page_without_results(browser_page: Page, large: Path, said: list[str]) -> None:
    """Map, table and filters work, no column and no plot tells what was measured, and a link leads on."""
    browser_page.goto(large.with_name(TRIAL_PAGE.name).as_uri())
    assert browser_page.locator("#heat a.cell").count() == N_SUBJECTS * N_VISITS
    headings = browser_page.locator("#table th button").all_inner_texts()
    assert headings[-2:] == ["Scanner", "Took [s]"]
    assert browser_page.locator("svg.plot").count() == 1  # durations
    assert browser_page.evaluate("document.documentElement.scrollWidth") == 1280
    browser_page.get_by_role("link", name="Results:").click()
    browser_page.wait_for_url("**/results.html")
    assert said == []


def test_a_count_filters_all_parts(page: Page, said: list[str]) -> None:
    """Press failed: the table, the map and the plots follow; once more takes it back."""
    tile = page.locator(".tile.failed")
    n_failed = int(tile.locator("b").inner_text())

    tile.click()

    expect(tile).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#shown")).to_have_text(f"{n_failed} of 1000 visits")
    assert shown(page) == n_failed
    assert page.locator("#heat a.cell:not(.dim)").count() == n_failed
    assert page.locator("#plots-distributions path.dots:not(.out)").first.get_attribute("d") == ""
    tile.click()
    assert shown(page) == 1000
    assert said == []


def test_filters_and_search_narrow_together(page: Page) -> None:
    """Site, verdict and words are all asked for; reset takes them back."""
    page.select_option("#site", "03")
    page.select_option("#verdict", "review")
    n_both = shown(page)
    rows = page.locator("#table tbody tr:not([hidden])")
    assert 0 < n_both < 1000
    assert {rows.nth(index).locator("td").nth(2).inner_text() for index in range(n_both)} == {"03"}

    page.keyboard.press("/")
    page.keyboard.type("w12 CENTER")

    assert 0 < shown(page) < n_both
    assert "W12" in rows.first.inner_text()
    assert "center_jumps" in rows.first.inner_text()
    page.get_by_role("button", name="Reset").click()
    assert shown(page) == 1000


def test_a_check_and_a_scanner_filter_by_name(page: Page) -> None:
    """Names in the lists are filters too."""
    page.get_by_role("button", name="mask_no_ring").click()
    n_fail = shown(page)
    assert n_fail == int(page.locator(".tile.fail b").inner_text())
    page.get_by_role("button", name="SIEMENS Prisma, 3 T").click()
    assert shown(page) < n_fail


def test_a_heading_sorts_both_ways(page: Page) -> None:
    """Numbers as numbers, and what has none last, whichever way."""
    heading = page.get_by_role("button", name="T1 [ms]")
    column = page.locator("#table tbody tr td:nth-child(10)")
    for direction in ("ascending", "descending"):
        heading.press("Enter")
        expect(page.locator("th[aria-sort]")).to_have_attribute("aria-sort", direction)
        texts = column.all_inner_texts()
        numbers = [float(text) for text in texts if text != NO_VALUE]
        assert numbers == sorted(numbers, reverse=direction == "descending")
        assert texts[-1] == NO_VALUE


def test_the_map_is_walked_by_keyboard(page: Page) -> None:
    """One stop for tab, arrows from cell to cell, Enter opens the visit's page."""
    cells = page.locator("#heat a.cell")
    assert page.locator("#heat a.cell[tabindex='0']").count() == 1
    cells.first.focus()
    page.keyboard.press("ArrowRight")
    expect(cells.nth(1)).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(cells.nth(N_VISITS + 1)).to_be_focused()
    page.keyboard.press("Home")
    expect(cells.nth(N_VISITS)).to_be_focused()

    linked = page.locator("#heat a.cell[href$='.html']").first
    target = linked.get_attribute("href")
    linked.focus()
    page.keyboard.press("Enter")

    page.wait_for_url(re.compile(re.escape(str(target)) + "$"))


def test_a_cell_without_a_page_shows_its_row(page: Page) -> None:
    """A refused visit has no page: the map leads to what is known of it, whatever is filtered."""
    page.select_option("#state", "done")
    page.locator("#heat a.cell.refused").first.press("Enter")

    row_found = page.locator("#table tr.here")
    expect(row_found).to_be_focused()
    assert "refused" in row_found.inner_text()


def test_changes_are_shown_as_values_too(page: Page, said: list[str]) -> None:
    """The choice draws the plots again, and filters still reach them."""
    page.get_by_label("values").check()
    assert page.locator("#plots-changes h3").first.inner_text() == "Native T1, whole heart [ms]"
    assert page.locator("#plots-changes .band").count() == 0
    page.select_option("#site", "03")
    assert page.locator("#plots-changes .thread.out").first.get_attribute("d")
    assert said == []


def test_a_dot_tells_its_visit(page: Page) -> None:
    """The mouse finds the nearest dot of a plot."""
    plot = page.locator("#plots-drift svg").first
    plot.scroll_into_view_if_needed()
    place = str(plot.locator("path.dots:not(.out)").get_attribute("d")).split("h0")[0].removeprefix("M")
    x, y = (float(number) for number in place.split())
    box = plot.bounding_box()
    assert box is not None
    zoom = box["width"] / 420
    page.mouse.move(box["x"] + x * zoom, box["y"] + y * zoom)

    expect(page.locator("#tip")).to_contain_text("blood T1")


@pytest.mark.parametrize("n_visits", [0, 1], ids=["empty", "one visit"])
def test_a_small_trial_has_a_quiet_page(
    browser_page: Page, tmp_path: Path, said: list[str], n_visits: int
) -> None:
    """Nothing to draw is no error."""
    trial = trial_of(tmp_path, *[plan_line()][:n_visits])
    if n_visits:
        write_row(tmp_path, "visits", row("visits", state="done", qc_verdict="pass"))
        write_row(tmp_path, "scans", row("scans"))
    write_trial_page(trial)
    for file in (TRIAL_PAGE, RESULTS_PAGE):
        browser_page.goto((trial.root / file).as_uri())
        expect(browser_page.locator("#shown")).to_have_text(f"{n_visits} of {n_visits} visits")
    assert said == []
