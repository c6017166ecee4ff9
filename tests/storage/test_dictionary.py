"""The data dictionary."""

import csv
import io
from pathlib import Path

import pytest

from storage.dictionary import ABOUT, HEADINGS, dictionary_csv, dictionary_markdown
from storage.schema import SCHEMA_VERSION, TABLES

COMMITTED = Path(__file__).parents[2] / "storage" / "DICTIONARY.md"


def test_the_committed_dictionary_is_that_of_the_schema() -> None:
    """Whoever changes a column writes it anew."""
    assert COMMITTED.read_text() == dictionary_markdown(), (
        "storage/DICTIONARY.md is not that of storage/schema.py; run: "
        ".venv/bin/cmrtrials dictionary > storage/DICTIONARY.md"
    )


def test_every_table_is_described() -> None:
    """What a row is; a new table needs its line in `storage.dictionary.ABOUT`."""
    assert set(ABOUT) == set(TABLES)


def test_the_csv_has_every_column_of_every_table() -> None:
    """In the order of the files, read back by another reader."""
    lines = list(csv.DictReader(io.StringIO(dictionary_csv())))
    assert tuple(lines[0]) == HEADINGS
    for table, columns in TABLES.items():
        own = [line for line in lines if line["table"] == table]
        assert [line["column"] for line in own] == [column.name for column in columns]
        assert [line["meaning"] for line in own] == [column.meaning for column in columns]
        assert [line["values"].split(" | ") for line in own] == [
            list(column.values) or [""] for column in columns
        ]
    assert len(lines) == sum(map(len, TABLES.values()))


@pytest.mark.parametrize("table", TABLES)
def test_the_markdown_names_each_column_with_unit_and_values(table: str) -> None:
    """A row of four cells each; a bar in a meaning would make it five."""
    text = dictionary_markdown()
    assert f"Version {SCHEMA_VERSION} of the schema" in text
    section = text.split(f"\n## {table}\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    assert len(rows) == len(TABLES[table])
    for column, line in zip(TABLES[table], rows, strict=True):
        name, kind, unit, meaning = (cell.strip() for cell in line.strip("|").split(" | "))
        assert (name, unit) == (f"`{column.name}`", column.unit)
        assert kind.endswith("required") == column.required
        assert all(f"`{value}`" in meaning for value in column.values)
