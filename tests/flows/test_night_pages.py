"""Pages that a night makes, and what becomes of those that fail."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from flows import night_pages
from flows.night_pages import make_outdated_pages
from storage.errors import NotStoredError
from storage.trial import Trial
from tasks.fanout import Failure, Fanout
from tasks.matching import VisitKey
from tasks.report.trial_page import RESULTS_PAGE
from tests.flows.drawn_night import SubmittedOnly
from tests.storage.drawn_uploads import demo_config

FIRST, SECOND = ("S01", "V1"), ("S01", "V2")


class DrawnFanout(SubmittedOnly):
    """Cluster on which the page of the second visit fails."""

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        for key in self.arguments:
            yield key, Failure("error", NotStoredError("no arrays")) if key == SECOND else None


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    """Trial whose page with results is there."""
    (tmp_path / RESULTS_PAGE).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / RESULTS_PAGE).touch()
    return Trial(tmp_path, demo_config())


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Take the place of what writes; gives what would be written."""
    calls: list[object] = []

    def record(_: Trial, made: set[VisitKey], failed: Mapping[VisitKey, str]) -> None:
        calls.append((made, failed))

    monkeypatch.setattr(night_pages, "outdated_pages", lambda _, published: sorted(published))
    monkeypatch.setattr(night_pages, "record_pages", record)
    monkeypatch.setattr(night_pages, "write_trial_page", lambda _: calls.append("trial"))
    return calls


def make(trial: Trial, *visits: VisitKey) -> dict[str, str]:
    """Make the pages of visits."""
    return make_outdated_pages(trial, cast("Fanout", DrawnFanout()), {visit: {} for visit in visits})


def test_a_page_that_fails_is_recorded_and_told(trial: Trial, written: list[object]) -> None:
    """The others and the trial's are made."""
    assert make(trial, FIRST, SECOND) == {"S01/V2": "no arrays"}
    assert written == [({FIRST}, {SECOND: "no arrays"}), "trial"]


def test_a_night_without_news_writes_no_page(trial: Trial, written: list[object]) -> None:
    """Running it twice changes no file; a page that is not there yet is made."""
    assert make(trial) == {}
    assert written == [(set(), {})]
    (trial.folder / RESULTS_PAGE).unlink()
    make(trial)
    assert written[-1] == "trial"


def test_no_page_undoes_a_night(trial: Trial, written: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Results are published: that the trial's page cannot be made is told beside what else failed."""
    monkeypatch.setattr(night_pages, "write_trial_page", lambda _: 1 / 0)
    assert make(trial, SECOND) == {"pages": "ZeroDivisionError: division by zero", "S01/V2": "no arrays"}
    assert written == [(set(), {SECOND: "no arrays"})]
