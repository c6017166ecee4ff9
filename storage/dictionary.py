"""The data dictionary: every column of every table with type, unit, values and meaning, from the schema."""

import csv
import io

from storage.rows import pandas_type
from storage.schema import SCHEMA_VERSION, TABLES, TEXTS, Column

HEADINGS = ("table", "column", "type", "pandas", "unit", "required", "values", "meaning")

ABOUT = {
    "visits": "One row for each planned visit: what became of it, and from what it was made.",
    "scans": "One row for each imaged visit: its quantities over all slices.",
    "slices": "One row for each slice of a scan.",
    "segments": "One row for each AHA segment of a slice.",
    "echoes": "One row for each echo of a slice and series.",
    "flags": "One row for each raised quality check.",
    "longitudinal": "One row for each region and pair of visits of a subject: what changed.",
    "reviews": "One row for each slice and series of a visit's newest review: what its reader decided.",
}
"""What a row of each table is."""

_INTRODUCTION = f"""# Data dictionary

Version {SCHEMA_VERSION} of the schema. Written by `cmrtrials dictionary` from `storage/schema.py`; `cmrtrials dictionary
--csv` gives the same as CSV, and every Parquet file holds it too
(`pyarrow.parquet.read_schema(FILE).field(COLUMN).metadata`).

A missing value is null, never zero. Fractions are 0 to 1. The type is Arrow's, then that in pandas; where a column
has few values, they are listed in their order.
"""  # noqa: E501


def dictionary_csv() -> str:
    """Give the dictionary as CSV, one line for each column."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(HEADINGS)
    for table in _tables():
        writer.writerows([table, *_cells(column)] for column in TABLES[table])
    return file.getvalue()


def dictionary_markdown() -> str:
    """Give the dictionary as Markdown, one table for each table."""
    parts = [_INTRODUCTION]
    for table in _tables():
        rows = [
            "| column | type | unit | meaning |",
            "| --- | --- | --- | --- |",
            *(_markdown_row(column) for column in TABLES[table]),
        ]
        parts.append("\n".join([f"## {table}", "", ABOUT[table], "", *rows, ""]))
    return "\n".join(parts)


def _tables() -> list[str]:
    """Name the tables in the order they are read in, ``visits`` first."""
    return ["visits", *(name for name in TABLES if name != "visits")]


def _cells(column: Column) -> list[str]:
    return [
        column.name,
        _type_name(column),
        pandas_type(column),
        column.unit,
        "yes" if column.required else "no",
        " | ".join(column.values),
        column.meaning,
    ]


def _markdown_row(column: Column) -> str:
    kind = f"{_type_name(column)} / {pandas_type(column)}"
    if column.required:
        kind += ", required"
    meaning = column.meaning
    if column.values:
        meaning += ": " + ", ".join(f"`{value}`" for value in column.values)
    return f"| `{column.name}` | {kind} | {column.unit} | {meaning.replace('|', chr(92) + '|')} |"


def _type_name(column: Column) -> str:
    return "list of text" if column.type == TEXTS else str(column.type).replace("string", "text")
