"""subjects.csv."""

from datetime import date, time
from pathlib import Path

import pytest

from storage.errors import NotStoredError, PlanError
from storage.plan import PlannedVisit, counted, read_plan

HEADER = (
    "subject_id,visit_id,visit_date,window_days,hematocrit_fraction,hematocrit_date,hematocrit_time,site_id"
)
ROW = "S01,V1,2026-03-01,7,0.42,2026-03-01,09:15,01"


def _plan(root: Path, *rows: str, header: str = HEADER, encoding: str = "utf-8") -> tuple[PlannedVisit, ...]:
    (root / "subjects.csv").write_text("\n".join((header, *rows)) + "\n", encoding=encoding)
    return read_plan(root)


def test_a_row_becomes_a_planned_visit(tmp_path: Path) -> None:
    """Ids stay text, so that site 01 is not site 1."""
    assert _plan(tmp_path, ROW) == (
        PlannedVisit("S01", "V1", "01", date(2026, 3, 1), 7, 0.42, date(2026, 3, 1), time(9, 15)),
    )


def test_an_unknown_hematocrit_is_none(tmp_path: Path) -> None:
    """Blood results often come after the images."""
    (visit,) = _plan(tmp_path, "S01,V1,2026-03-01,7,,,,01")
    assert (visit.hematocrit_fraction, visit.hematocrit_date, visit.hematocrit_time) == (None, None, None)


def test_the_time_column_may_be_absent(tmp_path: Path) -> None:
    """Many sites record the day only."""
    header = HEADER.replace(",hematocrit_time", "")
    (visit,) = _plan(tmp_path, "S01,V1,2026-03-01,7,0.42,2026-03-01,01", header=header)
    assert visit.hematocrit_time is None


def test_a_spreadsheets_byte_order_mark_and_blank_lines_are_harmless(tmp_path: Path) -> None:
    """Spreadsheets write both."""
    assert len(_plan(tmp_path, ROW, "", encoding="utf-8-sig")) == 1


@pytest.mark.parametrize(
    ("study_date", "covered"),
    [("2026-02-21", False), ("2026-02-22", True), ("2026-03-08", True), ("2026-03-09", False)],
)
def test_a_window_covers_both_its_ends(tmp_path: Path, study_date: str, covered: bool) -> None:
    """The window counts in days before and after the planned date."""
    (visit,) = _plan(tmp_path, ROW)
    assert visit.covers(date.fromisoformat(study_date)) is covered


@pytest.mark.parametrize(
    ("row", "message"),
    [
        pytest.param("S 01,V1,2026-03-01,7,,,,01", "subject_id: expected 1 to 64", id="id"),
        pytest.param("../x,V1,2026-03-01,7,,,,01", "subject_id: expected", id="path"),
        pytest.param("S01,V1,2026-03-01,7,,,,", "site_id: expected", id="no-site"),
        pytest.param("S01,V1,1.3.2026,7,,,,01", "visit_date: is no date", id="date"),
        pytest.param("S01,V1,,7,,,,01", "visit_date: is no date", id="no-date"),
        pytest.param("S01,V1,2026-03-01,-1,,,,01", "window_days: is no whole number", id="window"),
        pytest.param(
            "S01,V1,2026-03-01,7,42,2026-03-01,,01",
            "hematocrit_fraction: looks like percent, expected a fraction",
            id="percent",
        ),
        pytest.param(
            'S01,V1,2026-03-01,7,"0,42",2026-03-01,,01', "no number with a decimal point", id="comma"
        ),
        pytest.param("S01,V1,2026-03-01,7,-0.4,2026-03-01,,01", "is not between 0.05 and 0.8", id="negative"),
        pytest.param("S01,V1,2026-03-01,7,nan,2026-03-01,,01", "is not between 0.05 and 0.8", id="nan"),
        pytest.param(
            "S01,V1,2026-03-01,7,0.42,,,01", "hematocrit_date is empty although", id="no-sample-date"
        ),
        pytest.param("S01,V1,2026-03-01,7,0.42,2026-03-01,9am,01", "hematocrit_time: is no time", id="time"),
        pytest.param(
            "S02,V1,2026-03-01,7,0.42,,09:15,01",
            "hematocrit_date is empty although hematocrit_f",
            id="no-day",
        ),
        pytest.param("S02,V1,2026-03-01,7,,,09:15,01", "although hematocrit_time is given", id="only-time"),
        pytest.param("S02,V1,2026-03-01,7,0.042,2026-03-01,,01", "is not between 0.05 and 0.8", id="decimal"),
        pytest.param("S02,V1,20260301,7,,,,01", "visit_date: is no date", id="compact-date"),
        pytest.param("S02,V1,2026-02-30,7,,,,01", "visit_date: is no date", id="no-such-day"),
        pytest.param("S02,V1,0206-03-01,7,,,,01", "year is not between 2000 and 2100", id="year"),
        pytest.param("s01,V2,2027-03-01,7,,,,01", "differs from that of row 2 by capitals", id="capitals"),
        pytest.param("S01,V1,2026-03-01,7", "another number of cells", id="short"),
        pytest.param("S01,V1,2026-03-01,7,,,,01,more", "another number of cells", id="long"),
    ],
)
def test_a_wrong_cell_is_refused_with_its_row(tmp_path: Path, row: str, message: str) -> None:
    """The row number is the spreadsheet's, with the header as row 1."""
    with pytest.raises(PlanError, match=f"row 3: .*{message}"):
        _plan(tmp_path, ROW, row)


def test_rows_of_empty_cells_are_passed_over(tmp_path: Path) -> None:
    """Spreadsheets leave them behind."""
    assert len(_plan(tmp_path, ROW, "," * ROW.count(","))) == 1


def test_semicolons_are_named(tmp_path: Path) -> None:
    """A spreadsheet of another language writes them; eight missing columns would not say so."""
    with pytest.raises(PlanError, match="semicolons, expected commas"):
        _plan(tmp_path, header=HEADER.replace(",", ";"))


def test_all_errors_are_listed_at_once(tmp_path: Path) -> None:
    """A plan is mended in one go."""
    with pytest.raises(PlanError, match=r"row 2: visit_date: .*row 2: window_days: .*row 4: subject_id: "):
        _plan(tmp_path, "S01,V1,x,y,,,,01", ROW, "?,V1,2026-03-01,7,,,,01")


def test_windows_may_overlap(tmp_path: Path) -> None:
    """Wide windows are common; only an upload whose date lies in two of them has no visit (see matching)."""
    assert len(_plan(tmp_path, ROW, "S01,V2,2026-03-15,7,,,,01")) == 2


def test_a_visit_is_planned_once(tmp_path: Path) -> None:
    """Two rows of one visit would publish two rows."""
    with pytest.raises(PlanError, match="row 3: subject and visit are planned twice, see row 2"):
        _plan(tmp_path, ROW, ROW)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        pytest.param(
            HEADER.replace("site_id", "site"),
            r"column site_id is missing; column 8 \(H in",
            id="name",
        ),
        pytest.param(
            HEADER + ",treatment_arm",
            r"column 9 \(I in a spreadsheet\) has an unknown name, remove it",
            id="arm",
        ),
        pytest.param(HEADER + ",site_id", "column site_id is there twice", id="twice"),
    ],
)
def test_a_wrong_header_is_refused(tmp_path: Path, header: str, message: str) -> None:
    """An unknown column may be the treatment arm, which must not get near the images."""
    with pytest.raises(PlanError, match=message):
        _plan(tmp_path, header=header)


def test_a_plan_in_another_encoding_is_refused(tmp_path: Path) -> None:
    """Half-read ids would match the wrong subjects."""
    with pytest.raises(PlanError, match="no CSV in UTF-8"):
        _plan(tmp_path, "Sü,V1,2026-03-01,7,,,,01", encoding="latin-1")


def test_a_missing_plan_says_what_to_do(tmp_path: Path) -> None:
    """The message names the columns to write."""
    with pytest.raises(NotStoredError, match="subject_id, visit_id, visit_date"):
        read_plan(tmp_path)


def test_windows_may_touch_and_subjects_may_share_days(tmp_path: Path) -> None:
    """Only a day that is in two windows of one subject has two meanings."""
    rows = ("S01,V2,2026-03-16,7,,,,01", "S02,V1,2026-03-01,7,,,,01")
    assert len(_plan(tmp_path, ROW, *rows)) == 3


@pytest.mark.parametrize("column", range(8))
def test_no_message_quotes_a_cell(tmp_path: Path, column: int) -> None:
    """Messages go to logs and to Prefect's database; a wrong cell may hold a name or a birth date."""
    cells = ROW.split(",")
    cells[column] = "Jane^Doe 1961-05-23"
    with pytest.raises(PlanError, match="row 2: ") as refused:
        _plan(tmp_path, ",".join(cells))
    assert "Jane" not in str(refused.value)
    assert "1961" not in str(refused.value)


def test_a_plan_without_a_header_quotes_no_row(tmp_path: Path) -> None:
    """Then the first subject's row is taken for names of columns."""
    with pytest.raises(PlanError, match=r"column 1 \(A in a spreadsheet\) has an unknown name") as refused:
        _plan(tmp_path, header="Jane^Doe,V1,1961-05-23,7,,,,01")
    assert "Jane" not in str(refused.value)


def test_ids_sort_as_people_count_them() -> None:
    """Whatever else they hold, and the same for ids that count alike."""
    ids = ["S10", "S2", "s-1-b", "S1", "10", "9", "S02", "V1.10", "V1.9", "BL"]
    assert sorted(ids, key=counted) == ["9", "10", "BL", "S1", "S02", "S2", "S10", "V1.9", "V1.10", "s-1-b"]
