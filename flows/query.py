"""SQL over a trial's tables."""

from pathlib import Path
from typing import Any

import duckdb

from flows.errors import QueryError
from storage.schema import TABLES
from storage.tables import read_table
from storage.trial import open_trial


def run_query(root: Path, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Answer a question about a trial's tables.

    Parameters
    ----------
    root
        Folder of the trial.
    sql
        A DuckDB statement; each table of the trial is there under its name.

    Returns
    -------
        Names of the columns, and the rows.

    Raises
    ------
    QueryError
        When the statement is wrong.
    """
    trial = open_trial(root)
    with duckdb.connect() as connection:
        for name in TABLES:
            connection.register(name, read_table(trial.root, name))
        try:
            if not connection.extract_statements(sql):
                message = "there is no statement to run"
                raise QueryError(message)
            answer = connection.execute(sql)
        except duckdb.Error as error:
            raise QueryError(str(error)) from None
        columns = [column[0] for column in answer.description or ()]
        return columns, answer.fetchall()
