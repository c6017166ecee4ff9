"""subjects.csv: every planned subject and visit, with hematocrit and site.

What is wrong is told by row and column, never by the cell's text: a name or a birth date that was typed into
the plan must not reach a log or a database by way of the message.
"""

import csv
import io
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from itertools import combinations
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator

from storage.errors import NotStoredError, PlanError
from storage.place import Place

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

HEMATOCRIT_POSSIBLE = (0.05, 0.8)
"""Hematocrit outside of this is a typing error; what is implausible in a patient, trial.toml says."""

YEARS_POSSIBLE = (2000, 2100)

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


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

    def describe_distance(self, study_date: date) -> str:
        """Say how far from the visit a date lies, in words that give away neither date."""
        days = (study_date - self.visit_date).days
        where = f"{abs(days)} d {'after' if days > 0 else 'before'}" if days else "on the day of"
        return f"{where} {self.visit_id} (window +- {self.window_days} d)"


def read_plan(root: Place) -> tuple[PlannedVisit, ...]:
    """Read and check the plan of a trial.

    Raises
    ------
    NotStoredError
        If there is no subjects.csv.
    PlanError
        Listing all errors with row, counted as a spreadsheet does, and column.
    """
    try:
        text = (root / PLAN_FILE).read_bytes().decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""), restkey="", restval=None, strict=True)
        header = list(reader.fieldnames or ())
        # Spreadsheets leave rows of empty cells behind.
        records = [(reader.line_num, record) for record in reader if any(record.values())]
    except FileNotFoundError:
        message = f"{PLAN_FILE} is missing: write one with the columns {', '.join(REQUIRED_COLUMNS)}"
        raise NotStoredError(message) from None
    except UnicodeDecodeError as error:
        message = f"{PLAN_FILE} is no CSV in UTF-8: byte {error.start} is of another encoding"
        raise PlanError(message) from None
    except csv.Error as error:
        message = f"{PLAN_FILE} is no CSV in UTF-8: {error}"
        raise PlanError(message) from None
    _check_header(header)
    errors: list[tuple[int, str]] = []
    visits: list[tuple[int, PlannedVisit]] = []
    for row_number, record in records:
        visit = _parse_row(record)
        if isinstance(visit, PlannedVisit):
            visits.append((row_number, visit))
        else:
            errors += [(row_number, text) for text in visit]
    errors += _conflicts(visits)
    if errors:
        raise PlanError(f"{PLAN_FILE}: " + "; ".join(f"row {row}: {text}" for row, text in sorted(errors)))
    return tuple(visit for _, visit in visits)


def plan_csv(visits: Sequence[PlannedVisit]) -> str:
    """Write planned visits as a subjects.csv."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    columns = (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS)
    writer.writerow(columns)
    writer.writerows([getattr(visit, column) for column in columns] for visit in visits)
    return text.getvalue()


def by_subject(visits: Iterable[PlannedVisit]) -> dict[str, list[PlannedVisit]]:
    """Give the visits of each subject in their order."""
    of_subject: dict[str, list[PlannedVisit]] = {}
    for visit in visits:
        of_subject.setdefault(visit.subject_id, []).append(visit)
    return of_subject


def counted(identifier: str) -> tuple[list[str | int], str]:
    """Key by which ids sort as people count them: ``S2`` before ``S10``."""
    parts = re.split(r"([0-9]+)", identifier)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], identifier


def _check_header(header: Sequence[str]) -> None:
    known = (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS)
    if len(header) == 1 and ";" in header[0]:
        raise PlanError(f"{PLAN_FILE}, row 1: cells are separated by semicolons, expected commas")
    problems = [f"column {name} is missing" for name in REQUIRED_COLUMNS if name not in header]
    problems += [
        f"column {number} ({_letters(number)} in a spreadsheet) has an unknown name, remove it"
        for number, name in enumerate(header, 1)
        if name not in known
    ]
    problems += [f"column {name} is there twice" for name in known if header.count(name) > 1]
    if problems:
        raise PlanError(f"{PLAN_FILE}, row 1: " + "; ".join(problems))


def _letters(number: int) -> str:
    """Name a column as spreadsheets do."""
    letters = ""
    while number:
        number, rest = divmod(number - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters


def parse_id(text: str) -> str:
    """Check the name of a subject, visit or site, which names files and folders as well.

    Raises
    ------
    ValueError
        If it is none.
    """
    if not _ID.fullmatch(text):
        message = "expected 1 to 64 of A-Z a-z 0-9 . _ -, the first a letter or digit"
        raise ValueError(message)
    return text


def _parse_date(text: str) -> date:
    message = "is no date YYYY-MM-DD"
    if not _DATE.fullmatch(text):  # date.fromisoformat takes other forms, which a human would not read so
        raise ValueError(message)
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise ValueError(message) from None
    first, last = YEARS_POSSIBLE
    if not first <= day.year <= last:
        message = f"the year is not between {first} and {last}"
        raise ValueError(message)
    return day


def _parse_time(text: str) -> time:
    try:
        return datetime.strptime(text, "%H:%M:%S" if text.count(":") == 2 else "%H:%M").time()
    except ValueError:
        message = "is no time HH:MM"
        raise ValueError(message) from None


def _parse_window(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 4):
        message = "is no whole number of days up to 9999"
        raise ValueError(message)
    return int(text)


def _parse_fraction(text: str) -> float:
    try:
        fraction = float(text)
    except ValueError:
        message = "is no number with a decimal point"
        raise ValueError(message) from None
    lowest, highest = HEMATOCRIT_POSSIBLE
    if 1 < fraction <= 100:
        message = "looks like percent, expected a fraction such as 0.42"
        raise ValueError(message)
    if not lowest <= fraction <= highest:
        message = f"is not between {lowest} and {highest}, so no hematocrit"
        raise ValueError(message)
    return fraction


def _or_empty(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda text: parse(text) if text else None


class _Row(BaseModel):
    """One row of subjects.csv, cells as text."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    subject_id: Annotated[str, BeforeValidator(parse_id)]
    visit_id: Annotated[str, BeforeValidator(parse_id)]
    site_id: Annotated[str, BeforeValidator(parse_id)]
    visit_date: Annotated[date, BeforeValidator(_parse_date)]
    window_days: Annotated[int, BeforeValidator(_parse_window)]
    hematocrit_fraction: Annotated[float | None, BeforeValidator(_or_empty(_parse_fraction))]
    hematocrit_date: Annotated[date | None, BeforeValidator(_or_empty(_parse_date))]
    hematocrit_time: Annotated[time | None, BeforeValidator(_or_empty(_parse_time))] = None

    @model_validator(mode="after")
    def _check_sample(self) -> Self:
        if self.hematocrit_fraction is not None and self.hematocrit_date is None:
            message = "hematocrit_date is empty although hematocrit_fraction is given"
            raise ValueError(message)
        if self.hematocrit_time is not None and self.hematocrit_date is None:
            message = "hematocrit_date is empty although hematocrit_time is given"
            raise ValueError(message)
        return self


def _parse_row(record: Mapping[str, str | None]) -> PlannedVisit | list[str]:
    """Give the visit, or what is wrong with the row."""
    if "" in record or None in record.values():
        return ["has another number of cells than the header"]
    cells = {column: (text or "").strip() for column, text in record.items()}
    try:
        row = _Row.model_validate(cells)
    except ValidationError as error:
        return [
            ": ".join([*map(str, detail["loc"]), detail["msg"].removeprefix("Value error, ")])
            for detail in error.errors(include_url=False, include_input=False, include_context=False)
        ]
    return PlannedVisit(**{column: getattr(row, column) for column in _Row.model_fields})


def _conflicts(visits: Sequence[tuple[int, PlannedVisit]]) -> list[tuple[int, str]]:
    """Say which rows cannot stand beside an earlier one."""
    errors: list[tuple[int, str]] = []
    of_subject: dict[str, list[tuple[int, PlannedVisit]]] = defaultdict(list)
    for row, visit in visits:
        of_subject[visit.subject_id.casefold()].append((row, visit))
    for rows in of_subject.values():
        for (first_row, first), (row, visit) in combinations(rows, 2):
            if first.subject_id != visit.subject_id:
                errors.append((row, f"subject_id differs from that of row {first_row} by capitals only"))
            elif first.visit_id.casefold() == visit.visit_id.casefold():
                errors.append((row, f"subject and visit are planned twice, see row {first_row}"))
    return errors
