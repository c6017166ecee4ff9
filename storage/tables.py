"""tables/<table>/<subject>/<visit>.parquet: one file a visit and table, published together or not at all.

The row in ``visits`` is moved into place last, and is the commit; `storage.staging` says how. The table
``reviews`` is not published but recorded (`storage.reviews`): its rows outlast the result they are about.

Each table's folder also holds a file without rows. Whoever reads the folder as a whole, pandas for one,
takes the columns from the first file by name and drops what else the others have; no subject's name sorts
before it.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from storage.durable import shared_lock, write_durably
from storage.errors import StorageError, os_reason
from storage.objects import read_all
from storage.place import Place
from storage.rows import arrow_schema, arrow_table, conform, schema_version
from storage.schema import RESULT_TABLES, REVIEWS, SCHEMA_VERSION, TABLES
from storage.staging import (
    PUBLISHED,
    TABLES_FOLDER,
    Recovery,
    parquet_bytes,
    present_tables,
    read_parquet,
    recover_staged,
    replace_files,
    table_file,
    writing_tables,
)

if TYPE_CHECKING:
    from upath import UPath

EMPTY_FILE = "+columns.parquet"
FORMER_EMPTY_FILE = "columns.parquet"
"""Its name by schema version 1."""

_KEYS = ("subject_id", "visit_id", "site_id", "result_digest")
_EXECUTION_COLUMNS = (
    "device",
    "seconds_intake",
    "seconds_segment",
    "seconds_quantify",
    "run_id",
    "published_at",
)
"""Columns of ``visits`` that say how a result came about, not what it is."""


def publish(
    root: Place,
    visit_row: Mapping[str, Any],
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    who: str,
    why: str,
    arrays_digest: str | None = None,
) -> Literal["published", "unchanged"]:
    """Publish a visit's rows in place of its former ones, which move to history/.

    Nothing changes where the current row of ``visits`` says the same, apart from how it came about.

    Parameters
    ----------
    root
        Root of the trial.
    visit_row
        The row of ``visits``.
    rows
        Rows of the other tables; a table without rows has no file.
    who, why
        For the audit log, and for the former rows.
    arrays_digest
        Digest over the files of the arrays the rows were made with, for the audit log; None without arrays.

    Raises
    ------
    StorageError
        If a row does not fit its table's schema, or has other ids or another digest than ``visit_row``, or
        is one of ``reviews``.
    """
    contents = {name: arrow_table(name, rows[name]) for name in rows if rows[name]}
    contents["visits"] = arrow_table("visits", [visit_row])
    _check_keys(visit_row, rows)
    with writing_tables(root):
        recover_staged(root)
        write_empty_tables(root)
        if _is_unchanged(root, contents["visits"]):
            return "unchanged"
        facts = {"who": who, "why": why, "arrays_digest": arrays_digest}
        _replace_result(root, visit_row, contents, facts)
    return "published"


def recover(root: Place) -> tuple[Recovery, ...]:
    """Make whole what a killed publication left behind; to be called once at start-up."""
    if not (root / TABLES_FOLDER).is_dir():
        return ()
    with writing_tables(root):
        return recover_staged(root)


def read_table(root: Place, name: str, subject_id: str | None = None) -> pa.Table:
    """Read a table, sorted by subject and visit; with all columns and no rows where nothing is published.

    Only rows of published results are given: those whose digest is the one in ``visits``; those of
    ``reviews`` whatever result the reader saw. Files of former versions of the schema are read as
    `storage.rows.conform` says.

    Parameters
    ----------
    root
        Root of the trial.
    name
        Name of the table.
    subject_id
        The only subject whose files are opened; None for all.

    Raises
    ------
    StorageError
        If there is no such table, or a file cannot be read.
    """
    return read_tables(root, [name], subject_id)[name]


def read_tables(root: Place, names: Iterable[str], subject_id: str | None = None) -> dict[str, pa.Table]:
    """Read several tables as they stand at one moment; see `read_table`."""
    schemas = {name: arrow_schema(name) for name in names}
    judged = schemas.keys() - {"visits", REVIEWS}
    needed = {**schemas, "visits": None} if judged else schemas
    if not isinstance(root, Path):
        tables = _read_objects(root, needed, subject_id)
    elif not (root / TABLES_FOLDER).is_dir():
        return {name: schema.empty_table() for name, schema in schemas.items()}
    else:
        with shared_lock(root / TABLES_FOLDER):
            tables = {name: _read_files(root, name, subject_id) for name in needed}
    if judged:
        visits = tables["visits"].select(list(_KEYS))
        published = set(zip(*(visits[key].to_pylist() for key in _KEYS), strict=True))
    for name in judged:
        keys = zip(*(tables[name][key].to_pylist() for key in _KEYS), strict=True)
        tables[name] = tables[name].filter(pa.array([key in published for key in keys], type=pa.bool_()))
    return {name: tables[name] for name in schemas}


def _read_files(root: Path, name: str, subject_id: str | None) -> pa.Table:
    table = root / TABLES_FOLDER / name
    # One subject's files are found without a look at the others' folders: pages are made subject by subject.
    folders = table.glob("*") if subject_id is None else (table / subject_id,)
    # No subject's folder lies elsewhere, whatever somebody asks for.
    own = (folder for folder in folders if folder.parent == table and folder.name != "..")
    files = sorted(file for folder in own for file in folder.glob("*.parquet"))
    return pa.concat_tables(
        [
            arrow_schema(name).empty_table(),
            *(_read_rows(name, file, file.parent.name, file.stem) for file in files),
        ]
    )


def _read_objects(root: "UPath", names: Iterable[str], subject_id: str | None) -> dict[str, pa.Table]:
    from storage.snapshot import published_files

    return {
        name: pa.concat_tables(
            [
                arrow_schema(name).empty_table(),
                *(_read_rows(name, pa.BufferReader(data), *key) for key, data in files.items()),
            ]
        )
        for name, files in published_files(root, names, subject_id).items()
    }


def _read_rows(name: str, source: Path | pa.BufferReader, subject_id: str, visit_id: str) -> pa.Table:
    try:
        table = read_parquet(source)
    except (pa.ArrowException, OSError) as error:
        what = os_reason(error) if isinstance(error, OSError) else "no Parquet, or damaged"
        message = (
            f"table {name}, subject {subject_id}, visit {visit_id}: cannot be read ({what}); "
            f"see `cmrtrials audit verify ROOT`"
        )
        raise StorageError(message) from error
    return conform(name, table, subject_id, visit_id)


def _check_keys(visit_row: Mapping[str, Any], rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    for name, table_rows in rows.items():
        if name == "visits":
            message = "table visits: its row is handed over by itself"
            raise StorageError(message)
        if name == REVIEWS:
            message = f"table {REVIEWS}: it is recorded by itself, see storage.reviews"
            raise StorageError(message)
        for key in _KEYS:
            if any(row[key] != visit_row[key] for row in table_rows):
                message = f"table {name}, column {key}: a row is not of the visit that is published"
                raise StorageError(message)


def write_empty_tables(root: Place) -> None:
    """Give each table its file without rows, as the schema is today."""
    tables = root / TABLES_FOLDER
    if not isinstance(tables, Path):  # where each look costs a round trip, and there are no former ones
        last = f"{list(TABLES)[-1]}/{EMPTY_FILE}"
        if read_all(tables, [last]) != {last: _empty_table_bytes(list(TABLES)[-1])}:
            for name in TABLES:
                write_durably(tables / name / EMPTY_FILE, _empty_table_bytes(name))
        return
    for name in TABLES:
        path, columns = tables / name / EMPTY_FILE, _empty_table_bytes(name)
        if not path.exists() or path.read_bytes() != columns:
            write_durably(path, columns)
        (tables / name / FORMER_EMPTY_FILE).unlink(missing_ok=True)


@cache
def _empty_table_bytes(name: str) -> bytes:
    return parquet_bytes(arrow_schema(name).empty_table())


def _is_unchanged(root: Place, new: pa.Table) -> bool:
    row = new.to_pylist()[0]
    current = table_file(root, "visits", row["subject_id"], row["visit_id"])
    if not present_tables(root, ["visits"], row["subject_id"], row["visit_id"]):
        return False
    former = read_parquet(current)
    if schema_version(former) != SCHEMA_VERSION:
        return False  # so that a visit that runs again gets the columns of today
    return _result_part(former.to_pylist()[0]) == _result_part(row)


def _result_part(visit_row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in visit_row.items() if name not in _EXECUTION_COLUMNS}


def _replace_result(
    root: Place, visit_row: Mapping[str, Any], contents: Mapping[str, pa.Table], facts: Mapping[str, Any]
) -> None:
    """Put the rows of a result in place of the former ones; ``facts`` go into the audit log as they are."""
    key = (str(visit_row["subject_id"]), str(visit_row["visit_id"]))
    former = present_tables(root, RESULT_TABLES, *key)
    former_row = read_parquet(table_file(root, "visits", *key)).to_pylist()[0] if former else {}
    published_at: datetime = visit_row["published_at"]
    outcome = {fact: visit_row[fact] for fact in ("result_digest", "state")}
    manifest = {
        "event": PUBLISHED,
        "subject_id": key[0],
        "visit_id": key[1],
        **facts,
        "when": published_at.isoformat(),
        **outcome,
        "settled_uploads": _settled_uploads(visit_row, former_row),
        "supersedes": {fact: former_row[fact] for fact in outcome} if former else None,
    }
    replace_files(root, manifest, contents, former, outcome)


def _settled_uploads(visit_row: Mapping[str, Any], former_row: Mapping[str, Any]) -> list[dict[str, str]]:
    """Give the uploads that a publication accepts or refuses, and the one before did not."""

    def verdicts(row: Mapping[str, Any]) -> dict[tuple[str, str], str]:
        if row["state"] == "failed" and row["failed_stage"] == "intake":
            return {}  # nothing was found out about them
        verdict = "refused" if row["state"] == "refused" else "accepted"
        pairs = zip(row["upload_ids"], row["upload_digests"], strict=False)
        return dict.fromkeys(pairs, verdict)

    known = verdicts(former_row) if former_row else {}
    return [
        {"verdict": verdict, "upload_id": upload[0], "upload_digest": upload[1]}
        | ({"reason": visit_row["reason"]} if verdict == "refused" else {})
        for upload, verdict in verdicts(visit_row).items()
        if known.get(upload) != verdict
    ]
