"""Pages of visits: made in the night, made anew by the command, and never in a result's way."""

import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from flows import report
from storage.trial import open_trial
from tasks.plan import Selection
from tests.flows.trials import Cmrtrials, states

pytestmark = pytest.mark.slow


def test_a_night_makes_the_page_of_every_visit(small_night: Path) -> None:
    """Whatever became of it; nothing failed, so nothing says so."""
    for visit in states(small_night):
        page = small_night / "reports" / f"{visit}.html"
        assert page.stat().st_size < 5_000_000
        assert "<!-- made from " in page.read_text()
    assert "S01/V1.html" in (small_night / "reports" / "index.html").read_text()
    assert not (small_night / "reports" / "failed.json").exists()


def test_the_command_makes_the_same_pages_again(small_night_copy: Path, on_site: Cmrtrials) -> None:
    """From what is stored alone: no upload is needed, and a chosen subject's pages are made alone."""
    reports = small_night_copy / "reports"
    before = {file.name: file.read_bytes() for file in (reports / "S01").iterdir()}
    shutil.rmtree(reports)
    shutil.rmtree(small_night_copy / "incoming")
    made = on_site("report", small_night_copy, "--subject", "S01")
    assert made.returncode == 0, made.stderr
    assert made.stdout.splitlines() == ["1 pages of visits", str(reports / "index.html")]
    assert {file.name: file.read_bytes() for file in (reports / "S01").iterdir()} == before
    assert not (reports / "S02").exists()
    unknown = on_site("report", small_night_copy, "--subject", "S09")
    assert unknown.returncode != 0
    assert "not planned in subjects.csv: S09" in unknown.stderr


def test_pages_are_the_same_whatever_process_makes_them(
    small_night_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several processes for many visits; a page that fails in one takes no other with it."""
    reports = small_night_copy / "reports"
    before = (reports / "S02" / "V1.html").read_bytes()
    shutil.rmtree(reports)
    shutil.rmtree(small_night_copy / "arrays" / "S01" / "V1")
    monkeypatch.setattr(report, "PAGES_A_PROCESS", 1)
    every = Selection("chosen", frozenset(), frozenset())
    made = report.make_pages(open_trial(small_night_copy), every, 2)
    assert made.n_made == 1
    assert set(made.failed) == {"S01/V1"}
    assert "no arrays of result" in made.failed["S01/V1"]
    assert (reports / "S02" / "V1.html").read_bytes() == before


def test_pages_of_a_process_that_died_are_made_by_another(
    small_night_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory may have run out with several at work."""
    reports = small_night_copy / "reports"
    before = (reports / "S02" / "V1.html").read_bytes()
    shutil.rmtree(reports)
    monkeypatch.setattr(report, "PAGES_A_PROCESS", 1)
    dying = partial(ProcessPoolExecutor, initializer=os._exit, initargs=(3,))
    monkeypatch.setattr(report, "ProcessPoolExecutor", dying)
    every = Selection("chosen", frozenset(), frozenset())
    made = report.make_pages(open_trial(small_night_copy), every, 2)
    assert (made.n_made, made.failed) == (2, {})
    assert (reports / "S02" / "V1.html").read_bytes() == before


def test_a_page_that_fails_leaves_the_visit_as_it_is(small_night_copy: Path, on_site: Cmrtrials) -> None:
    """The night ends well and says which page is missing, and so does the page; the command says it too."""
    page = small_night_copy / "reports" / "S01" / "V1.html"
    page.unlink()
    shutil.rmtree(small_night_copy / "arrays" / "S01" / "V1")
    night = on_site("run", small_night_copy)
    assert night.returncode == 0, night.stdout + night.stderr
    assert "page not made: S01/V1: subject S01, visit V1: no arrays of result" in night.stdout
    assert states(small_night_copy)["S01/V1"] == "done"
    assert "could not be made; its result is not touched by that" in page.read_text()
    assert "no arrays of result" in (small_night_copy / "reports" / "failed.json").read_text()
    again = on_site("report", small_night_copy, "--visit", "V1")
    assert again.returncode == 1
    assert "S01/V1: page not made: " in again.stderr
