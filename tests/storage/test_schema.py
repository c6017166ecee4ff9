"""Schema of the tables."""

import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from storage.errors import StorageError
from storage.rows import arrow_schema, arrow_table
from storage.schema import TABLES
from tests.storage.drawn_rows import row

SLICE_COLUMNS_NOT_OF_A_SCAN = {
    "used_native",
    "used_post",
    "used_ecv",
    "slice_distance_mm",
    "slice_index",
    "level",
    "blood_t1_native_sd_ms",
    "blood_t1_post_sd_ms",
    "n_pixels_blood_native",
    "n_pixels_blood_post",
    "n_echoes_left_out_blood_native",
    "n_echoes_left_out_blood_post",
    "alignment_native",
    "post_aligned_mm",
    "post_alignment",
    "post_dice",
    "alignment_post",
    "r_squared_native_unaligned_mean",
    "r_squared_post_unaligned_mean",
    "r_squared_native_unaligned_low_fraction",
    "r_squared_post_unaligned_low_fraction",
}


def _names(table: str) -> list[str]:
    return [column.name for column in TABLES[table]]


@pytest.mark.parametrize("table", TABLES)
def test_every_table_begins_with_ids_and_digest(table: str) -> None:
    """Any row says whose it is and of which result."""
    assert _names(table)[:4] == ["subject_id", "visit_id", "site_id", "result_digest"]


@pytest.mark.parametrize("table", TABLES)
def test_every_column_has_a_unit_and_a_meaning(table: str) -> None:
    """The unit agrees with the one in the name, and both reach the file."""
    units = {"_ms": "ms", "_mm": "mm", "_fraction": "1", "_hours": "h"}
    for field in arrow_schema(table):
        unit = field.metadata[b"unit"].decode()
        assert field.metadata[b"meaning"]
        assert all(unit == expected for ending, expected in units.items() if field.name.endswith(ending))
        assert unit or not pa.types.is_floating(field.type) or field.name in {"value", "threshold"}


@pytest.mark.parametrize("table", TABLES)
def test_no_column_is_named_twice(table: str) -> None:
    """A second one would hide the first."""
    assert len(set(_names(table))) == len(_names(table))


def test_slices_hold_what_scans_hold() -> None:
    """The same quantities on both levels, under the same names."""
    scans, slices = set(_names("scans")), set(_names("slices"))
    assert slices - scans == SLICE_COLUMNS_NOT_OF_A_SCAN
    assert {name for name in scans - slices if not name.startswith(("hematocrit", "scheme"))} == {
        "scan_datetime",
        "field_strength_t",
        "manufacturer",
        "scanner_model",
        "n_slices",
        "n_slices_used_native",
        "n_slices_used_post",
        "n_slices_used_ecv",
        "minutes_since_contrast",
        "row_spacing_mm",
        "col_spacing_mm",
    }


def test_visits_come_last() -> None:
    """Files are moved into place in this order, and the row in visits is the commit."""
    assert list(TABLES)[-1] == "visits"


@pytest.mark.parametrize("table", TABLES)
def test_a_fitting_row_becomes_a_table(table: str) -> None:
    """Values come back as they went in."""
    assert arrow_table(table, [row(table)]).to_pylist() == [row(table)]


def test_a_missing_value_is_null() -> None:
    """Never zero, never NaN."""
    assert arrow_table("scans", [row("scans", ecv_fraction=None)])["ecv_fraction"].to_pylist() == [None]


@pytest.mark.parametrize(
    ("table", "values", "message"),
    [
        pytest.param(
            "scans", {"ecv_fraktion": 0.3}, "table scans: row 0, column ecv_fraktion: unknown", id="unknown"
        ),
        pytest.param("scans", {"ecv_fraction": math.nan}, "column ecv_fraction: found float nan", id="nan"),
        pytest.param(
            "scans",
            {"ecv_fraction": "0.3"},
            "column ecv_fraction: found str '0.3', expected double",
            id="text",
        ),
        pytest.param("scans", {"ecv_fraction": True}, "found bool True, expected double", id="bool"),
        pytest.param("scans", {"ecv_fraction": np.float32(0.3)}, "found float32", id="float32"),
        pytest.param(
            "scans", {"n_slices": 3.0}, "column n_slices: found float 3.0, expected int64", id="float"
        ),
        pytest.param("scans", {"subject_id": 1}, "column subject_id: found int 1", id="number"),
        pytest.param(
            "scans", {"qc_verdict": None}, "column qc_verdict: is None, expected a value", id="required"
        ),
        pytest.param(
            "scans", {"scan_datetime": datetime.now(UTC)}, "column scan_datetime: found", id="aware"
        ),
        pytest.param(
            "visits", {"published_at": datetime(2026, 3, 5)}, "column published_at: found", id="naive"
        ),
        pytest.param(
            "visits", {"visit_date": datetime(2026, 3, 5)}, "column visit_date: found", id="datetime"
        ),
        pytest.param("visits", {"upload_ids": "u-1"}, "column upload_ids: found str", id="no-list"),
        pytest.param("visits", {"upload_ids": [1]}, "column upload_ids: found list", id="list-of-numbers"),
        pytest.param(
            "longitudinal", {"ecv_change_beyond_limit": 1}, "found int 1, expected bool", id="no-bool"
        ),
    ],
)
def test_a_row_that_does_not_fit_is_refused(table: str, values: dict[str, Any], message: str) -> None:
    """With table, row and column, before anything is written."""
    with pytest.raises(StorageError, match=message):
        arrow_table(table, [row(table, **values)])


def test_a_forgotten_column_is_refused() -> None:
    """None must be said."""
    incomplete = row("flags")
    del incomplete["threshold"]
    with pytest.raises(StorageError, match="table flags: row 1, column threshold: missing"):
        arrow_table("flags", [row("flags"), incomplete])


def test_an_unknown_table_is_refused() -> None:
    """The message names those there are."""
    with pytest.raises(StorageError, match="no table 'scan', expected one of echoes, flags"):
        arrow_schema("scan")
