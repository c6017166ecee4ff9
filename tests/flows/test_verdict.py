"""The last line of a night, and whether it ends as Failed."""

from typing import Any, cast

from flows.verdict import tally, verdict
from storage.upload import UploadListing
from tasks.matching import VisitKey
from tests.flows.drawn_night import line_of, plan_of, stray_of

LINES = tuple(line_of(f"V{month}", month) for month in (1, 2, 3))
ROWS: dict[VisitKey, dict[str, Any]] = {
    ("S01", "V1"): {"state": "flagged"},
    ("S01", "V2"): {"state": "done"},
    ("S01", "V3"): {"state": "done"},
}


def test_a_quiet_night_counts_its_visits_by_state() -> None:
    """What is as it should be takes no words."""
    assert tally(plan_of(LINES), ROWS, {}, {}) == "3 visits: 2 done, 1 flagged"


def test_all_that_somebody_should_know_is_in_one_line() -> None:
    """A visit that is no longer planned is named, and not counted among the planned ones."""
    plan = plan_of(
        LINES[:2],
        stray=(stray_of("U1"), stray_of("U2")),
        arriving=(cast("UploadListing", None),) * 3,
        idle=("S01/V1",),
        outdated=("S01/V2",),
    )
    assert tally(plan, ROWS, {"S01/V1": "a broken store"}, {"S01/V2": "no arrays"}) == (
        "2 visits: 1 done, 1 flagged"
        "; uploads that no planned visit takes: upload U1: fits no planned visit, "
        "upload U2: fits no planned visit"
        "; uploads still arriving: 3"
        "; asked for, but without an upload: S01/V1"
        "; results of an older plan, trial.toml or review, as their uploads are gone: S01/V2"
        "; published, but no longer planned: S01/V3"
        "; summary not renewed: S01/V1: a broken store"
        "; page not made: S01/V2: no arrays"
    )


def test_news_fail_a_night_and_are_listed_in_order() -> None:
    """The exit code of the command follows from how the message begins."""
    state = verdict({"S02/V1": "failed: b", "S01/V1": "refused: a"}, "2 visits")
    assert state.is_failed()
    assert state.message == "failed or refused tonight: S01/V1 refused: a; S02/V1 failed: b (2 visits)"


def test_a_night_without_news_is_completed() -> None:
    """Whatever was refused before."""
    state = verdict({}, "2 visits: 2 refused")
    assert state.is_completed()
    assert state.message == "2 visits: 2 refused"
