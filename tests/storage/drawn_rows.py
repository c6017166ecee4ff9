"""Table rows made up for the tests."""

from datetime import UTC, date, datetime
from typing import Any

from storage.schema import COUNT, DATE, LOCAL_TIME, NUMBER, TABLES, TEXT, TEXTS, TRUTH, UTC_TIME

_VALUES: dict[Any, Any] = {
    TEXT: "text",
    TEXTS: ["u-3fa9c1d2e4"],
    NUMBER: 1.5,
    COUNT: 3,
    TRUTH: True,
    DATE: date(2026, 3, 1),
    LOCAL_TIME: datetime(2026, 3, 4, 10, 30),
    UTC_TIME: datetime(2026, 3, 5, 1, 0, tzinfo=UTC),
}
_REVIEWED_BY_NOBODY = {"visits": {"reviews_digest": None}}
_KEYS = {"subject_id": "S01", "visit_id": "V1", "site_id": "01", "result_digest": "digest-1"}


def row(table: str, **values: Any) -> dict[str, Any]:
    """Give a row that fits a table, with some values of its own."""
    drawn = {column.name: (*column.values, _VALUES[column.type])[0] for column in TABLES[table]}
    return drawn | _REVIEWED_BY_NOBODY.get(table, {}) | _KEYS | values


def visit_row(**values: Any) -> dict[str, Any]:
    """Give a row of ``visits``."""
    return row("visits", **{"state": "done"} | values)
