"""Dates as the record gives them."""

from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest

from storage.config_uploads import PrivacyConfig
from storage.deidentify import date_shift
from storage.intake import intake_visit
from storage.plan import PlannedVisit
from storage.recorded_dates import recorded_plan, recorded_shift, recorded_stack
from tests.storage.drawn_uploads import NATIVE, demo_config, read_upload, write_visit

KEY = bytes(range(32))
LINE = PlannedVisit("S01", "V1", "01", date(2026, 3, 1), 7, 0.4, date(2026, 2, 28), None)


def _rules(dates: str) -> PrivacyConfig:
    return PrivacyConfig.model_validate({"headers": "none", "dates": dates, "keep_private": ()})


@pytest.mark.parametrize(
    ("dates", "key", "expected"),
    [("keep", KEY, timedelta()), ("keep", None, timedelta()), ("shift", KEY, date_shift("S01", KEY))],
)
def test_dates_move_where_the_trial_says_so(dates: str, key: bytes | None, expected: timedelta) -> None:
    """By the shift that cleaned headers have, too."""
    assert recorded_shift(_rules(dates), key, "S01") == expected


def test_all_dates_of_a_line_move_alike() -> None:
    """The age of the hematocrit stays, and so does the window; what is not known stays unknown."""
    moved = recorded_plan(LINE, timedelta(days=-40))
    assert moved == replace(LINE, visit_date=date(2026, 1, 20), hematocrit_date=date(2026, 1, 19))
    assert recorded_plan(replace(LINE, hematocrit_date=None), timedelta(days=1)).hematocrit_date is None


def test_the_dates_of_a_stack_move_and_nothing_else(tmp_path: Path) -> None:
    """The time of day stays."""
    write_visit(tmp_path / "incoming" / "S01_a")
    stack = intake_visit([read_upload(tmp_path)], demo_config().intake).native
    moved = recorded_stack(stack, timedelta(days=-1))
    started: datetime = NATIVE.started_at
    assert moved.acquired_at == started - timedelta(days=1)
    assert moved.study_date == started.date() - timedelta(days=1)
    assert moved.echoes is stack.echoes
    unknown = recorded_stack(replace(stack, acquired_at=None, study_date=None), timedelta(days=-1))
    assert (unknown.acquired_at, unknown.study_date) == (None, None)
