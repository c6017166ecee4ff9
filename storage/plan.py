"""subjects.csv: every planned subject and visit, with hematocrit and site."""

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from pathlib import Path

from storage.errors import NotStoredError, PlanError

PLAN_FILE = "subjects.csv"

REQUIRED_COLUMNS = (
    "subject_id",
    "visit_id",
    "visit_date",
    "window_days",
    "hematocrit_fraction",
    "hematocrit_date",
    "site_id",
)
OPTIONAL_COLUMNS = ("hematocrit_time",)
ID_COLUMNS = ("subject_id", "visit_id", "site_id")

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class PlannedVisit:
    """One row of the plan."""

    subject_id: str
    """Pseudonym of the subject."""
    visit_id: str
    """Visit, unique within the subject."""
    site_id: str
    """Site; text, so that ``01`` stays ``01``."""
    visit_date: date
    """Planned date."""
    window_days: int
    """Days the scan may lie before or after the planned date [d]."""
    hematocrit_fraction: float | None
    """Hematocrit, fraction 0-1; None where it is not known yet."""
    hematocrit_date: date | None
    """Date of the blood sample."""
    hematocrit_time: time | None
    """Time of day of the blood sample, where it is known."""

    def covers(self, study_date: date) -> bool:
        """Whether the date lies in the visit's window."""
        return abs(study_date - self.visit_date) <= timedelta(days=self.window_days)


def read_plan(root: Path) -> tuple[PlannedVisit, ...]:
    """Read and check the plan of a trial.

    Raises
    ------
    NotStoredError
        If there is no subjects.csv.
    PlanError
        Listing all errors with their row numbers, counted as a spreadsheet does.
    """
    try:
        with (root / PLAN_FILE).open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restkey="", restval=None, strict=True)
            header = list(reader.fieldnames or ())
            # Spreadsheets leave rows of empty cells behind.
            records = [(reader.line_num, record) for record in reader if any(record.values())]
    except FileNotFoundError:
        message = f"{PLAN_FILE} is missing: write one with the columns {', '.join(REQUIRED_COLUMNS)}"
        raise NotStoredError(message) from None
    except (csv.Error, UnicodeDecodeError) as error:
        message = f"{PLAN_FILE} is no CSV in UTF-8: {error}"
        raise PlanError(message) from None
    _check_header(header)
    errors: list[str] = []
    visits: dict[tuple[str, str], PlannedVisit] = {}
    for row_number, record in records:
        visit, wrong = _parse_row(record)
        if visit is not None:
            key = (visit.subject_id, visit.visit_id)
            if key in visits:
                wrong.append(f"subject {key[0]}, visit {key[1]} is planned twice")
            visits.setdefault(key, visit)
        errors += [f"row {row_number}: {text}" for text in wrong]
    if errors:
        raise PlanError(f"{PLAN_FILE}: " + "; ".join(errors))
    return tuple(visits.values())


def _check_header(header: list[str]) -> None:
    known = (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS)
    if len(header) == 1 and ";" in header[0]:
        raise PlanError(f"{PLAN_FILE}, row 1: cells are separated by semicolons, expected commas")
    problems = [f"column {name} is missing" for name in REQUIRED_COLUMNS if name not in header]
    problems += [f"column {name!r} is unknown, remove it" for name in header if name not in known]
    problems += [f"column {name} is there twice" for name in known if header.count(name) > 1]
    if problems:
        raise PlanError(f"{PLAN_FILE}, row 1: " + "; ".join(problems))


def _parse_row(record: Mapping[str, str | None]) -> tuple[PlannedVisit | None, list[str]]:
    """Give the visit, or None and what is wrong with the row."""
    if "" in record or None in record.values():
        return None, ["has another number of cells than the header"]
    cells = {column: (text or "").strip() for column, text in record.items()}
    wrong: list[str] = []
    ids = {column: _parse_id(column, cells[column], wrong) for column in ID_COLUMNS}
    visit_date = _parse_date("visit_date", cells["visit_date"], wrong)
    if visit_date is None and not cells["visit_date"]:
        wrong.append("visit_date is empty, expected YYYY-MM-DD")
    window_days = _parse_window(cells["window_days"], wrong)
    fraction = _parse_fraction(cells["hematocrit_fraction"], wrong)
    sample_date = _parse_date("hematocrit_date", cells["hematocrit_date"], wrong)
    sample_time = _parse_time(cells.get("hematocrit_time", ""), wrong)
    if fraction is not None and not cells["hematocrit_date"]:
        wrong.append("hematocrit_date is empty although hematocrit_fraction is given")
    if wrong or visit_date is None:
        return None, wrong
    return PlannedVisit(
        **ids,
        visit_date=visit_date,
        window_days=window_days,
        hematocrit_fraction=fraction,
        hematocrit_date=sample_date,
        hematocrit_time=sample_time,
    ), wrong


def _parse_id(column: str, text: str, wrong: list[str]) -> str:
    if not _ID.fullmatch(text):
        wrong.append(f"{column} {text!r}: expected 1 to 64 of A-Z a-z 0-9 . _ -, the first a letter or digit")
    return text


def _parse_date(column: str, text: str, wrong: list[str]) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        wrong.append(f"{column} {text!r} is no date YYYY-MM-DD")
        return None


def _parse_time(text: str, wrong: list[str]) -> time | None:
    if not text:
        return None
    try:
        return datetime.strptime(text, "%H:%M:%S" if text.count(":") == 2 else "%H:%M").time()
    except ValueError:
        wrong.append(f"hematocrit_time {text!r} is no time HH:MM")
        return None


def _parse_window(text: str, wrong: list[str]) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 4):
        wrong.append(f"window_days {text!r} is no whole number of days up to 9999")
        return 0
    return int(text)


def _parse_fraction(text: str, wrong: list[str]) -> float | None:
    if not text:
        return None
    try:
        fraction = float(text)
    except ValueError:
        wrong.append(f"hematocrit_fraction {text!r} is no number with a decimal point")
        return None
    if 1 < fraction <= 100:
        wrong.append(
            f"hematocrit_fraction {text} looks like percent, expected a fraction: {fraction / 100:g}"
        )
    elif not 0 < fraction <= 1:
        wrong.append(f"hematocrit_fraction {text} is not between 0 and 1")
    return fraction
