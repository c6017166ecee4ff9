"""SQL over a trial's tables, and over tables from outside of it."""

import csv
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa

from flows.errors import QueryError
from storage.place import Place
from storage.rows import arrow_schema
from storage.schema import TABLES
from storage.tables import read_tables
from storage.trial import open_trial

IDS = ("subject_id", "visit_id", "site_id")

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PADDED = re.compile(r"0\d+")


def run_query(
    root: Place, sql: str, outside: Mapping[str, Path] | None = None
) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Answer a question about a trial's tables, as they stand at one moment.

    The statement sees the tables alone: it can open, write or load nothing.

    Parameters
    ----------
    root
        Root of the trial.
    sql
        DuckDB statements; each table of the trial is there under its name.
    outside
        More tables by name: CSV or Parquet files, or folders of Parquet files; ids in them are text.

    Returns
    -------
        Names of the columns of the last statement's answer, and the rows.

    Raises
    ------
    QueryError
        When a statement is wrong, or a table from outside cannot be used.
    """
    trial = open_trial(root)
    named = [name for name in TABLES if re.search(rf"\b{name}\b", sql, re.IGNORECASE)]
    tables: dict[str, pa.Table | pd.DataFrame] = {name: arrow_schema(name).empty_table() for name in TABLES}
    tables |= read_tables(trial.root, named)  # the others are there with their columns only: nobody asks
    for name, path in (outside or {}).items():
        tables[name] = _read_outside(name, path)
    with duckdb.connect(config={"python_enable_replacements": False}) as connection:
        for name, table in tables.items():
            connection.register(name, table)
        connection.execute("SET enable_external_access = false; SET lock_configuration = true")
        try:
            if not connection.extract_statements(sql):
                message = "there is no statement to run"
                raise QueryError(message)
            answer = connection.execute(sql)
            columns = [column[0] for column in answer.description or ()]
            return columns, answer.fetchall()
        except duckdb.Error as error:
            raise QueryError(str(error)) from None


def parse_outside(texts: list[str]) -> dict[str, Path]:
    """Split what the command was given, NAME=FILE.

    Raises
    ------
    QueryError
        If one has another form, or a name that is taken.
    """
    found: dict[str, Path] = {}
    for text in texts:
        name, separator, path = text.partition("=")
        if not separator or not path or not _NAME.fullmatch(name):
            message = f"--with {text}: expected NAME=FILE, with a name of letters, digits and _"
            raise QueryError(message)
        if name.casefold() in {taken.casefold() for taken in (*TABLES, *found)}:
            message = f"--with {text}: there is a table {name} already, choose another name"
            raise QueryError(message)
        found[name] = Path(path)
    return found


def _read_outside(name: str, path: Path) -> pd.DataFrame:
    try:
        if path.is_dir() or path.suffix == ".parquet":
            return pd.read_parquet(path)
        return _read_csv(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        message = f"table {name} from {path}: {error}; expected a CSV or Parquet file, or a folder of Parquet"
        raise QueryError(message) from None


def _read_csv(path: Path) -> pd.DataFrame:
    """Read a CSV; ids stay text, and so does every column in which a number begins with a zero."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        header, *rows = [row for row in csv.reader(file) if row] or [[]]
    for number, row in enumerate(rows, 2):
        if len(row) != len(header):  # pandas would take the first column for an index, and shift the others
            message = f"row {number} has {len(row)} cells, the header {len(header)}"
            raise ValueError(message)
    texts = {
        name
        for index, name in enumerate(header)
        if name.casefold() in IDS or any(_PADDED.fullmatch(row[index]) for row in rows)
    }
    return pd.read_csv(
        path,
        dtype=dict.fromkeys(texts, "str"),
        keep_default_na=False,
        na_values=[""],
        index_col=False,
        encoding="utf-8-sig",
    )
