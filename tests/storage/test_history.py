"""Every row that visits ever had."""

from datetime import timedelta
from pathlib import Path

import pytest

from storage.errors import StorageError
from storage.history import all_visit_rows
from storage.staging import HISTORY_FOLDER
from storage.tables import publish
from tests.storage.drawn_rows import row, visit_row

FIRST = visit_row(run_id="run-1")
SECOND = visit_row(run_id="run-2", published_at=FIRST["published_at"] + timedelta(days=1), state="flagged")


def test_replaced_rows_come_before_those_that_replaced_them(tmp_path: Path) -> None:
    """In the order of publication, whatever their visits are called."""
    assert all_visit_rows(tmp_path) == []
    other = visit_row(visit_id="V0", run_id="run-3", published_at=FIRST["published_at"] + timedelta(days=2))
    for visit in (FIRST, SECOND, other):
        scan = row("scans", visit_id=visit["visit_id"])
        publish(tmp_path, visit, {"scans": [scan]}, "core lab", "nightly")
    found = [(line["visit_id"], line["run_id"], line["state"]) for line in all_visit_rows(tmp_path)]
    assert found == [("V1", "run-1", "done"), ("V1", "run-2", "flagged"), ("V0", "run-3", "done")]


def test_a_damaged_former_row_is_named(tmp_path: Path) -> None:
    """By its place in the root, with what to do."""
    for visit in (FIRST, SECOND):
        publish(tmp_path, visit, {"scans": [row("scans")]}, "core lab", "nightly")
    (tmp_path / HISTORY_FOLDER / "S01" / "V1" / "1" / "visits.parquet").write_bytes(b"no parquet")
    with pytest.raises(
        StorageError, match=r"^history/S01/V1/1/visits\.parquet cannot be read; `cmrtrials aud"
    ):
        all_visit_rows(tmp_path)
