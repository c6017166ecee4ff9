"""What the trial's page says of a visit."""

import math
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.plan import PlannedVisit, plan_csv
from storage.rows import arrow_table
from storage.staging import table_file
from storage.trial import Trial, open_trial
from tasks.report.trial_visits import (
    nominal_field,
    page_link,
    read_rows,
    visit_pages,
    visit_records,
)
from tests.storage.drawn_rows import row
from tests.storage.drawn_uploads import DEMO_CONFIG
from tests.tasks.report.drawn_trial import write_row, write_visit_page

TODAY = date(2026, 3, 15)


def plan_line(visit_id: str = "V1", when: date = date(2026, 3, 1), subject_id: str = "S01") -> PlannedVisit:
    """Give a line of a plan."""
    return PlannedVisit(subject_id, visit_id, "01", when, 14, None, None, None)


def trial_of(root: Path, *lines: PlannedVisit, config: str | None = None) -> Trial:
    """Write configuration and plan of a trial."""
    (root / "trial.toml").write_text(config or DEMO_CONFIG.read_text())
    (root / "subjects.csv").write_text(plan_csv(lines))
    return open_trial(root)


def records_of(trial: Trial, today: date = TODAY) -> list[Any]:
    """Tell its visits."""
    return list(visit_records(trial, read_rows(trial), today))


@pytest.mark.parametrize(
    ("when", "published", "state"),
    [
        (date(2026, 3, 1), "waiting", "waiting"),
        (date(2026, 2, 28), "waiting", "overdue"),
        (date(2026, 3, 1), None, "new"),
        (date(2026, 2, 28), None, "overdue"),
        (date(2026, 2, 1), "refused", "refused"),
        (date(2026, 2, 1), "done", "done"),
    ],
    ids=["last day", "day after", "not seen", "not seen, over", "refused is no wait", "done"],
)
def test_a_visit_is_overdue_once_its_window_is_over(
    tmp_path: Path, when: date, published: str | None, state: str
) -> None:
    """Hold the window against today, for visits without an upload alone."""
    trial = trial_of(tmp_path, plan_line(when=when))
    if published:
        write_row(tmp_path, "visits", row("visits", state=published, visit_date=when))

    (record,) = records_of(trial)

    assert record["state"] == state


def test_a_visit_that_left_the_plan_is_told_apart(tmp_path: Path) -> None:
    """Keep rows that nobody plans any more in sight, with what they said."""
    trial = trial_of(tmp_path, plan_line())
    write_row(tmp_path, "visits", row("visits", visit_id="V9", state="flagged", reason="ecv_high: 0.9"))

    record = records_of(trial)[1]

    assert (record["visit"], record["state"], record["outcome"]) == ("V9", "unplanned", "review")
    assert record["reason"] == "flagged, but no longer in subjects.csv; its rows stay; ecv_high: 0.9"


@pytest.mark.parametrize(
    ("state", "verdict", "outcome"),
    [
        ("done", "pass", "pass"),
        ("done", None, "pass"),
        ("flagged", "fail", "fail"),
        ("flagged", "review", "review"),
        ("flagged", "pass", "review"),
        ("failed", None, "failed"),
    ],
)
def test_state_and_verdict_make_one_outcome(
    tmp_path: Path, state: str, verdict: str | None, outcome: str
) -> None:
    """A summary that failed flags a scan that passed: somebody should look."""
    trial = trial_of(tmp_path, plan_line())
    write_row(tmp_path, "visits", row("visits", state=state, qc_verdict=verdict))

    assert records_of(trial)[0]["outcome"] == outcome


def test_shifted_dates_are_never_shown_beside_real_ones(tmp_path: Path) -> None:
    """A real planned date beside a shifted one would give the subject's secret number of days away."""
    config = DEMO_CONFIG.read_text().replace('dates = "keep"', 'dates = "shift"')
    trial = trial_of(tmp_path, plan_line(), plan_line("V2", date(2026, 9, 1)), config=config)
    assert trial.config.privacy.dates == "shift"
    write_row(tmp_path, "visits", row("visits", visit_date=date(2025, 11, 7)))

    planned = [record["planned"] for record in records_of(trial)]

    assert planned == ["2025-11-07", None]


def test_kept_dates_are_those_of_the_plan(tmp_path: Path) -> None:
    """The plan may have been corrected since the row was published."""
    trial = trial_of(tmp_path, plan_line())
    write_row(tmp_path, "visits", row("visits", visit_date=date(2025, 11, 7)))

    assert records_of(trial)[0]["planned"] == "2026-03-01"


def test_a_check_counts_once_a_visit_with_its_worst(tmp_path: Path) -> None:
    """Three slices with one flag are one visit to look at; notes are none."""
    trial = trial_of(tmp_path, plan_line())
    write_row(tmp_path, "visits", row("visits", reason="summary_failed: OSError: disk full"))
    flags = [("a", "review"), ("a", "fail"), ("a", "review"), ("b", "review"), ("c", "note")]
    write_row(tmp_path, "flags", *(row("flags", code=code, severity=severity) for code, severity in flags))

    assert records_of(trial)[0]["codes"] == {"a": "fail", "b": "review", "summary_failed": "review"}


def test_values_that_are_no_numbers_are_none(tmp_path: Path) -> None:
    """A file that holds NaN, or lacks columns of today, is told as having no value."""
    trial = trial_of(tmp_path, plan_line())
    write_row(tmp_path, "visits", row("visits"))
    table = arrow_table("scans", [row("scans")])
    place = table.column_names.index("ecv_fraction")
    table = table.set_column(place, "ecv_fraction", pa.array([math.nan]))
    table = table.drop_columns(["t1_native_septal_ms", "scanner_model", "field_strength_t"])
    path = table_file(tmp_path, "scans", "S01", "V1")
    path.parent.mkdir(parents=True)
    pq.write_table(table.replace_schema_metadata(None), path)

    (record,) = records_of(trial)

    assert (record["ecv"], record["t1_septal"], record["field"], record["scanner"]) == (
        None,
        None,
        None,
        "text",
    )
    assert record["t1"] == 1.5


def test_pages_are_linked_where_they_are(tmp_path: Path) -> None:
    """Link to no page that is not there."""
    lines = [plan_line("V.1-a_b"), plan_line("V2", date(2026, 4, 1))]
    trial = trial_of(tmp_path, *lines)
    write_visit_page(tmp_path, "S01", "V.1-a_b")

    assert visit_pages(tmp_path) == {("S01", "V.1-a_b")}
    assert [record["page"] for record in records_of(trial)] == ["S01/V.1-a_b.html", None]


def test_a_link_is_quoted() -> None:
    """Ids of a plan need no quotes, but a link must not depend on that."""
    assert page_link("a b#c", "50%/../d") == "a%20b%23c/50%25%2F..%2Fd.html"


@pytest.mark.parametrize(
    ("field_strength_t", "told"),
    [(1.494, "1.5 T"), (2.89362, "3 T"), (0.55, "0.55 T"), (1.0, "1.0 T"), (None, None), (math.nan, None)],
)
def test_field_strengths_are_told_as_sold(field_strength_t: float | None, told: str | None) -> None:
    """Scanners of one kind are one group, whatever their headers round to."""
    assert nominal_field(field_strength_t) == told


def test_subjects_are_in_order_and_their_visits_by_date(tmp_path: Path) -> None:
    """The plan's own order may be any."""
    lines = [
        plan_line("W12", date(2026, 6, 1)),
        plan_line("BL", date(2026, 3, 1)),
        plan_line("BL", date(2026, 5, 8), "R10"),
        plan_line("BL", date(2026, 5, 1), "R7"),
    ]
    records = records_of(trial_of(tmp_path, *lines))

    assert [(one["subject"], one["visit"]) for one in records] == [
        ("R7", "BL"),
        ("R10", "BL"),
        ("S01", "BL"),
        ("S01", "W12"),
    ]
    assert datetime.fromisoformat(records[0]["planned"]) == datetime(2026, 5, 1)
