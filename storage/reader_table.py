"""A reader's numbers as CSV: T1 and ECV of scans, levels, slices or segments.

What is wrong is told by row and column, never by the cell's text, which may be a name.
"""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.errors import NotStoredError, ReaderTableError
from storage.schema import REGIONS

ID_COLUMNS = ("subject_id", "visit_id")
PLACE_COLUMNS = ("level", "slice_index", "aha_segment")
QUANTITY_COLUMNS = ("t1_native_ms", "t1_post_ms", "ecv_fraction")

EMPTY = ("", "NA", "NaN", "nan")
"""How spreadsheets, R and pandas write that there is no number."""

T1_POSSIBLE_MS = (50.0, 5000.0)
"""T1 outside of this is a typing error or in another unit [ms]."""


@dataclass(frozen=True, slots=True)
class ReaderRow:
    """One row of a reader's table."""

    row_number: int
    """Row, counted as a spreadsheet does."""
    subject_id: str
    """Subject."""
    visit_id: str
    """Visit."""
    level: str | None
    """One of `storage.schema.REGIONS`; None where the row is about a slice or segment."""
    slice_index: int | None
    """Slice, 0 at the base."""
    aha_segment: int | None
    """AHA segment, 1 to 16."""
    values: Mapping[str, float | None]
    """Values by column, of those of `QUANTITY_COLUMNS` that the table has; None for one of `EMPTY`."""


def read_reader_table(path: Path) -> tuple[ReaderRow, ...]:
    """Read and check a reader's table.

    Raises
    ------
    NotStoredError
        If there is no such file.
    ReaderTableError
        Listing all errors with row, counted as a spreadsheet does, and column.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restkey="", restval=None, strict=True)
            header = list(reader.fieldnames or ())
            records = [(reader.line_num, record) for record in reader if any(record.values())]
    except FileNotFoundError:
        message = "there is no such file: name the second trial's folder, or a reader's table as CSV"
        raise NotStoredError(message) from None
    except (UnicodeDecodeError, csv.Error) as error:
        message = f"the reader's table is no CSV in UTF-8: {error}"
        raise ReaderTableError(message) from None
    _check_header(header)
    errors: list[str] = []
    rows: dict[tuple[Any, ...], ReaderRow] = {}
    for row_number, record in records:
        row, problems = _parse_row(row_number, record)
        errors += [f"row {row_number}: {problem}" for problem in problems]
        if row is None:
            continue
        key = (row.subject_id, row.visit_id, row.level, row.slice_index, row.aha_segment)
        if key in rows:
            errors.append(f"row {row_number}: says the same place again as row {rows[key].row_number}")
        rows[key] = row
    if errors:
        raise ReaderTableError("the reader's table: " + "; ".join(errors))
    if not rows:
        message = "the reader's table has a header and no rows"
        raise ReaderTableError(message)
    return tuple(rows.values())


def _check_header(header: Sequence[str]) -> None:
    known = (*ID_COLUMNS, *PLACE_COLUMNS, *QUANTITY_COLUMNS)
    if len(header) == 1 and ";" in header[0]:
        message = "the reader's table, row 1: cells are separated by semicolons, expected commas"
        raise ReaderTableError(message)
    problems = [f"column {name} is missing" for name in ID_COLUMNS if name not in header]
    problems += [
        f"column {number} has an unknown name, expected some of {', '.join(known)}"
        for number, name in enumerate(header, 1)
        if name not in known
    ]
    problems += [f"column {name} is there twice" for name in known if header.count(name) > 1]
    places = [name for name in PLACE_COLUMNS if name in header]
    if len(places) > 1:
        problems.append(f"{' and '.join(places)}: a table has one of them, or none for whole scans")
    if not any(name in header for name in QUANTITY_COLUMNS):
        problems.append(f"no column with numbers, expected any of {', '.join(QUANTITY_COLUMNS)}")
    if problems:
        raise ReaderTableError("the reader's table, row 1: " + "; ".join(problems))


def _parse_row(row_number: int, record: Mapping[str, str | None]) -> tuple[ReaderRow | None, list[str]]:
    """Give the row, or what is wrong with it."""
    if "" in record or None in record.values():
        return None, ["has another number of cells than the header"]
    cells = {column: (text or "").strip() for column, text in record.items()}
    problems: list[str] = []

    def parsed(column: str, parse: Callable[[str], Any]) -> Any:  # noqa: ANN401
        if column not in cells:
            return None
        try:
            return parse(cells[column])
        except ValueError as error:
            problems.append(f"{column}: {error}")
            return None

    subject_id, visit_id = (parsed(column, _parse_text) for column in ID_COLUMNS)
    slice_index, aha_segment = parsed("slice_index", _whole(0, 99)), parsed("aha_segment", _whole(1, 16))
    level = parsed("level", _parse_level)
    if not {"slice_index", "aha_segment", "level"} & cells.keys():
        level = "global"
    values = {
        column: parsed(column, _parse_fraction if column == "ecv_fraction" else _parse_t1)
        for column in QUANTITY_COLUMNS
        if column in cells
    }
    if problems:
        return None, problems
    return ReaderRow(row_number, subject_id, visit_id, level, slice_index, aha_segment, values), []


def _parse_text(text: str) -> str:
    if not text:
        message = "is empty"
        raise ValueError(message)
    return text


def _parse_level(text: str) -> str:
    if text not in REGIONS:
        message = f"expected one of {', '.join(REGIONS)}"
        raise ValueError(message)
    return text


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
            message = f"is no whole number from {low} to {high}"
            raise ValueError(message)
        return int(text)

    return parse


def _parse_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        message = "is no number with a decimal point"
        raise ValueError(message) from None


def _parse_t1(text: str) -> float | None:
    if text in EMPTY:
        return None
    value, (low, high) = _parse_number(text), T1_POSSIBLE_MS
    if not low <= value <= high:
        message = f"is not between {low:g} and {high:g}, so no T1 in ms"
        raise ValueError(message)
    return value


def _parse_fraction(text: str) -> float | None:
    if text in EMPTY:
        return None
    value = _parse_number(text)
    if 1 < value <= 100:
        message = "looks like percent, expected a fraction such as 0.27"
        raise ValueError(message)
    if not 0 <= value <= 1:
        message = "is not between 0 and 1"
        raise ValueError(message)
    return value
