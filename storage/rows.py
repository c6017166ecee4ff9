"""Rows of the tables in Arrow and pandas: checked before they are written, read whatever their age."""

import json
import math
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from storage.errors import StorageError
from storage.schema import (
    COUNT,
    DATE,
    LOCAL_TIME,
    NUMBER,
    SCHEMA_VERSION,
    TABLES,
    TEXT,
    TEXTS,
    TRUTH,
    UTC_TIME,
    Column,
)

if TYPE_CHECKING:
    import pandas as pd

VERSION_KEY = b"cmrtrials.schema_version"
"""Metadata of a file that says by which version of the schema it was written; the first wrote none."""

_CATEGORY = pa.dictionary(pa.int8(), pa.string())
"""Not marked as ordered: several files put together, some by a former version, may have it otherwise."""

_PYTHON_TYPES: dict[pa.DataType, tuple[type, ...]] = {
    TEXT: (str,),
    NUMBER: (float, int),
    COUNT: (int,),
    TRUTH: (bool,),
    DATE: (date,),
    LOCAL_TIME: (datetime,),
    UTC_TIME: (datetime,),
    TEXTS: (list, tuple),
}

_PANDAS_TYPES: dict[pa.DataType, str] = {
    TEXT: "str",
    NUMBER: "float64",
    COUNT: "int64",
    TRUTH: "bool",
    DATE: "object",
    LOCAL_TIME: "datetime64[us]",
    UTC_TIME: "datetime64[us, UTC]",
    TEXTS: "object",
}
_NULLABLE_PANDAS_TYPES: dict[pa.DataType, str] = {COUNT: "Int64", TRUTH: "boolean"}
"""What pandas has for values that may be missing; else a count would come as a float."""


@cache
def arrow_schema(name: str) -> pa.Schema:
    """Arrow schema of a table, with unit, meaning and values as metadata of each field.

    Raises
    ------
    StorageError
        If there is no such table.
    """
    fields = [
        pa.field(
            column.name,
            _CATEGORY if column.values else column.type,
            nullable=not column.required,
            metadata={
                "unit": column.unit,
                "meaning": column.meaning,
                **({"values": ", ".join(column.values)} if column.values else {}),
            },
        )
        for column in table_columns(name)
    ]
    metadata = {VERSION_KEY: str(SCHEMA_VERSION), "cmrtrials.table": name, "pandas": _pandas_metadata(name)}
    return pa.schema(fields, metadata=metadata)


def arrow_table(name: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Check rows and make a table of them.

    Raises
    ------
    StorageError
        Naming table, row and column of each unknown or missing column, wrong type or value, NaN or missing
        value.
    """
    columns = table_columns(name)
    problems = [
        f"row {index}, {problem}" for index, row in enumerate(rows) for problem in _problems(columns, row)
    ]
    if problems:
        raise StorageError(f"table {name}: " + "; ".join(problems))
    arrays = [_array(column, pa.array([row[column.name] for row in rows], column.type)) for column in columns]
    return pa.Table.from_arrays(arrays, schema=arrow_schema(name))


def complete_rows(name: str, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Give rows that a store keeps, maybe of a former version, the columns of today.

    As in `conform`, a column that they lack is None in every row, and one that there is no more is left out.

    Raises
    ------
    StorageError
        If there is no such table.
    """
    names = [column.name for column in table_columns(name)]
    return [{name: row.get(name) for name in names} for row in rows]


def conform(name: str, table: pa.Table, subject_id: str, visit_id: str) -> pa.Table:
    """Give a table that was read from a file the columns of today.

    A column that the file's version did not have yet is missing in every row; one that there is no more is
    left out.

    Parameters
    ----------
    name
        Name of the table.
    table
        What the file holds.
    subject_id, visit_id
        Whose file, for messages.

    Raises
    ------
    StorageError
        If the file lacks a column that every row must have, holds what does not fit its column, or was
        written by a later version than this one.
    """
    schema = arrow_schema(name)
    version = schema_version(table)
    where = f"table {name}, subject {subject_id}, visit {visit_id}"
    if version > SCHEMA_VERSION:
        message = (
            f"{where}: written by schema version {version}, this cmrtrials knows those up to "
            f"{SCHEMA_VERSION}; use the version of cmrtrials that wrote it, or a later one"
        )
        raise StorageError(message)
    if table.schema.equals(schema):
        return table
    arrays = []
    for column in table_columns(name):
        if column.name in table.column_names:
            try:
                array = _array(column, table[column.name])
            except pa.ArrowException as error:
                message = f"{where}, column {column.name}: found {table[column.name].type}, "
                message += f"expected {column.type}; run the visit again with `cmrtrials rerun`"
                raise StorageError(message) from error
        elif column.required and table.num_rows:
            message = (
                f"{where}: written by schema version {version}, without column {column.name}, which every "
                f"row has now; run `cmrtrials rerun ROOT --subject {subject_id} --visit {visit_id}`"
            )
            raise StorageError(message)
        else:
            array = pa.nulls(table.num_rows, schema.field(column.name).type)
        arrays.append(array)
    return pa.Table.from_arrays(arrays, schema=schema)


def schema_version(table: pa.Table) -> int:
    """Version of the schema that a file was written by."""
    return int((table.schema.metadata or {}).get(VERSION_KEY, 1))


def to_frame(name: str, table: pa.Table) -> "pd.DataFrame":
    """Give pandas a table: counts and truth values that may be missing, categories in their stated order."""
    frame: pd.DataFrame = table.to_pandas()
    for column in table_columns(name):
        if column.values:
            found = frame[column.name].cat.categories  # those of a former version may be others
            values = [*column.values, *(value for value in found if value not in column.values)]
            frame[column.name] = frame[column.name].cat.set_categories(values, ordered=True)
    return frame


def pandas_type(column: Column) -> str:
    """Name the type that a column has in pandas."""
    if column.values:
        return "category"
    kinds = _PANDAS_TYPES if column.required else _PANDAS_TYPES | _NULLABLE_PANDAS_TYPES
    return kinds[column.type]


def table_columns(name: str) -> tuple[Column, ...]:
    """Columns of a table.

    Raises
    ------
    StorageError
        If there is no such table.
    """
    if name not in TABLES:
        message = f"no table {name!r}, expected one of {', '.join(sorted(TABLES))}"
        raise StorageError(message)
    return TABLES[name]


def _array(column: Column, array: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Give values their column's type: categories with all values that are stated, in that order."""
    if not column.values:
        return array.cast(column.type)
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    text = array.cast(pa.string())
    values = [*column.values, *(value for value in text.unique().to_pylist() if value is not None)]
    values = list(dict.fromkeys(values))
    indices = pc.index_in(text, value_set=pa.array(values, pa.string())).cast(pa.int8())
    return pa.DictionaryArray.from_arrays(indices, pa.array(values, pa.string()))


def _pandas_metadata(name: str) -> str:
    """Tell pandas, in its own words, which columns have types that numpy has not."""
    columns = [
        {
            "name": column.name,
            "field_name": column.name,
            "pandas_type": _NULLABLE_PANDAS_TYPES[column.type],
            "numpy_type": _NULLABLE_PANDAS_TYPES[column.type],
            "metadata": None,
        }
        for column in table_columns(name)
        if column.type in _NULLABLE_PANDAS_TYPES and not column.required
    ]
    # The version is that of the metadata's form: what pandas 3 writes.
    return json.dumps(
        {"index_columns": [], "column_indexes": [], "columns": columns, "pandas_version": "3.0.0"}
    )


def _problems(columns: Sequence[Column], row: Mapping[str, Any]) -> list[str]:
    names = [column.name for column in columns]
    problems = [f"column {name}: unknown" for name in row if name not in names]
    for column in columns:
        value = row.get(column.name)
        if column.name not in row:
            problems.append(f"column {column.name}: missing")
        elif value is None:
            if column.required:
                problems.append(f"column {column.name}: is None, expected a value")
        elif not _fits(column.type, value):
            found = f"{type(value).__name__} {value!r}"
            problems.append(f"column {column.name}: found {found}, expected {column.type}")
        elif column.values and value not in column.values:
            expected = ", ".join(column.values)
            problems.append(f"column {column.name}: found {value!r}, expected one of {expected}")
    return problems


def _fits(kind: pa.DataType, value: Any) -> bool:  # noqa: ANN401
    """Whether a value is of a column's type; bool is no number, NaN is no value, datetime is no date."""
    if not isinstance(value, _PYTHON_TYPES[kind]) or isinstance(value, bool) != (kind == TRUTH):
        return False
    if isinstance(value, datetime):
        return kind in (LOCAL_TIME, UTC_TIME) and (value.tzinfo is None) == (kind == LOCAL_TIME)
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, list | tuple) or all(isinstance(item, str) for item in value)
