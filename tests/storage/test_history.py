"""What was published before is read back in order."""

from pathlib import Path

import pytest

from storage.errors import StorageError
from storage.history import former_rows
from storage.tables import publish
from tests.storage.drawn_rows import row, visit_row


def test_former_versions_come_oldest_first(tmp_path: Path) -> None:
    """Sort versions as numbers: the tenth comes after the second."""
    for number in range(12):
        publish(tmp_path, visit_row(n_files=number), {}, "core lab", "night")

    versions = former_rows(tmp_path, "visits")["S01", "V1"]

    assert [rows[0]["n_files"] for rows in versions] == list(range(11))


def test_a_version_without_rows_of_a_table_is_not_there(tmp_path: Path) -> None:
    """Tell apart tables: a waiting visit had no scan."""
    ids = {"subject_id": "S01", "visit_id": "V1", "site_id": "01", "result_digest": "digest-1"}
    publish(tmp_path, visit_row(state="waiting", result_digest=None), {}, "core lab", "night")
    publish(tmp_path, visit_row(n_files=1), {"scans": [row("scans", **ids)]}, "core lab", "night")
    publish(tmp_path, visit_row(n_files=2), {"scans": [row("scans", **ids)]}, "core lab", "night")

    assert len(former_rows(tmp_path, "visits")["S01", "V1"]) == 2
    assert [len(rows) for rows in former_rows(tmp_path, "scans")["S01", "V1"]] == [1]


def test_a_trial_without_history_has_none(tmp_path: Path) -> None:
    """Give nothing where nothing was ever replaced."""
    assert former_rows(tmp_path, "visits") == {}


def test_a_damaged_version_is_named(tmp_path: Path) -> None:
    """Say which file of history cannot be read."""
    for number in range(2):
        publish(tmp_path, visit_row(n_files=number), {}, "core lab", "night")
    path = tmp_path / "history" / "S01" / "V1" / "1" / "visits.parquet"
    path.write_bytes(b"no parquet")

    with pytest.raises(StorageError, match="subject S01, visit V1, number 1: cannot be read"):
        former_rows(tmp_path, "visits")
