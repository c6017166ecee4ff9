"""tables/<table>/<subject>/<visit>.parquet: one file a visit and table, published together or not at all.

A publication is written aside with a manifest, then moved into place file by file, the row in ``visits``
last. Killed before the manifest is whole it never happened; killed after, `recover` carries it through. Each
step can be repeated, so a kill during the recovery does no harm either.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from storage import audit
from storage.digest import canonical_digest
from storage.durable import exclusive_lock, fsync_path, shared_lock, write_durably
from storage.errors import StorageError
from storage.schema import TABLES, arrow_schema, arrow_table

TABLES_FOLDER = "tables"
HISTORY_FOLDER = "history"
STAGING_FOLDER = ".staging"
MANIFEST_FILE = "manifest.json"
SUPERSEDED_FILE = "superseded.json"
EMPTY_FILE = "columns.parquet"

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


@dataclass(frozen=True, slots=True)
class Recovery:
    """What was done about a publication that a kill had interrupted."""

    subject_id: str
    """Subject."""
    visit_id: str
    """Visit."""
    action: Literal["rolled forward", "removed"]
    """Carried through, or taken back because it had not been written whole."""


def publish(
    root: Path,
    visit_row: Mapping[str, Any],
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    who: str,
    why: str,
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

    Raises
    ------
    StorageError
        If a row does not fit its table's schema, or has other ids or another digest than ``visit_row``.
    """
    contents = {name: arrow_table(name, rows[name]) for name in rows if rows[name]}
    contents["visits"] = arrow_table("visits", [visit_row])
    _check_keys(visit_row, rows)
    with exclusive_lock(root / TABLES_FOLDER):
        _recover(root)
        _write_empty_tables(root)
        if _is_unchanged(root, contents["visits"]):
            return "unchanged"
        staging = _stage(root, visit_row, contents, who, why)
        manifest = _carry_through(root, staging)
        audit.append(root, _event(manifest))
        _remove_staging(root)
    return "published"


def recover(root: Path) -> tuple[Recovery, ...]:
    """Make whole what a killed publication left behind; to be called once at start-up."""
    if not (root / TABLES_FOLDER).is_dir():
        return ()
    with exclusive_lock(root / TABLES_FOLDER):
        return _recover(root)


def read_table(root: Path, name: str) -> pa.Table:
    """Read a table, sorted by subject and visit; with all columns and no rows where nothing is published.

    Only rows of published results are given: those whose digest is the one in ``visits``.
    """
    schema = arrow_schema(name)
    if not (root / TABLES_FOLDER).is_dir():
        return schema.empty_table()
    with shared_lock(root / TABLES_FOLDER):
        table = _read_files(root, name)
        if name == "visits":
            return table
        visits = _read_files(root, "visits").select(list(_KEYS))
    published = set(zip(*(visits[key].to_pylist() for key in _KEYS), strict=True))
    keys = zip(*(table[key].to_pylist() for key in _KEYS), strict=True)
    return table.filter(pa.array([key in published for key in keys], type=pa.bool_()))


def _read_files(root: Path, name: str) -> pa.Table:
    schema = arrow_schema(name)
    files = sorted((root / TABLES_FOLDER / name).glob("*/*.parquet"))
    return pa.concat_tables([schema.empty_table(), *(_read_file(file).cast(schema) for file in files)])


def _read_file(path: Path) -> pa.Table:
    with pq.ParquetFile(path) as file:
        return file.read(use_threads=False)


def _check_keys(visit_row: Mapping[str, Any], rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    for name, table_rows in rows.items():
        if name == "visits":
            message = "table visits: its row is handed over by itself"
            raise StorageError(message)
        for key in _KEYS:
            if any(row[key] != visit_row[key] for row in table_rows):
                message = f"table {name}, column {key}: a row is not of the visit that is published"
                raise StorageError(message)


def _write_empty_tables(root: Path) -> None:
    """Give each table a file without rows, so that its folder can be read before a visit has a row in it."""
    for name in TABLES:
        path = root / TABLES_FOLDER / name / EMPTY_FILE
        if not path.exists():
            write_durably(path, _parquet_bytes(arrow_schema(name).empty_table()))


def _parquet_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _is_unchanged(root: Path, new: pa.Table) -> bool:
    row = new.to_pylist()[0]
    current = _table_file(root, "visits", row["subject_id"], row["visit_id"])
    if not current.exists():
        return False
    former = _read_file(current).to_pylist()[0]
    return _result_part(former) == _result_part(row)


def _result_part(visit_row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in visit_row.items() if name not in _EXECUTION_COLUMNS}


def _table_file(root: Path, name: str, subject_id: str, visit_id: str) -> Path:
    return root / TABLES_FOLDER / name / subject_id / f"{visit_id}.parquet"


def _stage(
    root: Path, visit_row: Mapping[str, Any], contents: Mapping[str, pa.Table], who: str, why: str
) -> Path:
    """Write a publication aside; its manifest, written last, makes it count."""
    subject_id, visit_id = str(visit_row["subject_id"]), str(visit_row["visit_id"])
    staging = root / TABLES_FOLDER / STAGING_FOLDER / subject_id / visit_id
    for name, table in contents.items():
        write_durably(staging / f"{name}.parquet", _parquet_bytes(table))
    former = [name for name in TABLES if _table_file(root, name, subject_id, visit_id).exists()]
    history = root / HISTORY_FOLDER / subject_id / visit_id
    numbers = [int(path.name) for path in history.glob("*") if path.name.isdigit()]
    published_at: datetime = visit_row["published_at"]
    manifest = {
        "subject_id": subject_id,
        "visit_id": visit_id,
        "who": who,
        "why": why,
        "when": published_at.isoformat(),
        "state": visit_row["state"],
        "result_digest": visit_row["result_digest"],
        "new": [name for name in TABLES if name in contents],
        "former": former,
        "history_number": max(numbers, default=0) + 1 if former else None,
    }
    if former:
        superseded = {
            **{fact: manifest[fact] for fact in ("who", "why", "when")},
            "superseded_by": {fact: manifest[fact] for fact in ("result_digest", "state")},
        }
        write_durably(staging / SUPERSEDED_FILE, (json.dumps(superseded, indent=2) + "\n").encode())
    write_durably(staging / MANIFEST_FILE, json.dumps(manifest, indent=2).encode())
    return staging


def _recover(root: Path) -> tuple[Recovery, ...]:
    recoveries = []
    for staging in sorted((root / TABLES_FOLDER / STAGING_FOLDER).glob("*/*")):
        action: Literal["rolled forward", "removed"] = "removed"
        if (staging / MANIFEST_FILE).exists():
            action = "rolled forward"
            event = _event(_carry_through(root, staging))
            logged = {past.get("publication") for past in audit.read_events(root)}
            if event["publication"] not in logged:
                audit.append(root, event)
        recoveries.append(Recovery(staging.parent.name, staging.name, action))
    _remove_staging(root)
    return tuple(recoveries)


def _carry_through(root: Path, staging: Path) -> dict[str, Any]:
    """Move a staged publication into place; repeating it, from any point, ends in the same state."""
    manifest: dict[str, Any] = json.loads((staging / MANIFEST_FILE).read_bytes())
    subject_id, visit_id = manifest["subject_id"], manifest["visit_id"]
    if manifest["former"]:
        _keep_former(root, staging, manifest)
    for name in TABLES:  # visits comes last
        target = _table_file(root, name, subject_id, visit_id)
        staged = staging / f"{name}.parquet"
        if name in manifest["new"] and staged.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            staged.replace(target)
            fsync_path(target.parent)
        elif name in manifest["former"] and name not in manifest["new"]:
            target.unlink(missing_ok=True)
            fsync_path(target.parent)
    return manifest


def _keep_former(root: Path, staging: Path, manifest: Mapping[str, Any]) -> None:
    """Link what is about to be replaced into history/, with who, why and by what it is superseded."""
    subject_id, visit_id = manifest["subject_id"], manifest["visit_id"]
    folder = root / HISTORY_FOLDER / subject_id / visit_id / str(manifest["history_number"])
    folder.mkdir(parents=True, exist_ok=True)
    for name in manifest["former"]:
        kept = folder / f"{name}.parquet"
        if not kept.exists():  # all links are made before the first file is replaced, so this is a former one
            kept.hardlink_to(_table_file(root, name, subject_id, visit_id))
    if (staging / SUPERSEDED_FILE).exists():
        (staging / SUPERSEDED_FILE).replace(folder / SUPERSEDED_FILE)
    fsync_path(folder)


def _event(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Make the audit event of a publication; its manifest's digest tells whether it is logged already."""
    facts = ("who", "why", "subject_id", "visit_id", "state", "result_digest", "history_number")
    event = {"event": "published", **{fact: manifest[fact] for fact in facts}}
    return {**event, "publication": canonical_digest(manifest)}


def _remove_staging(root: Path) -> None:
    """Remove all that is staged, manifests first: without one, what is done is not done again."""
    folder = root / TABLES_FOLDER / STAGING_FOLDER
    for manifest in folder.glob(f"*/*/{MANIFEST_FILE}"):
        manifest.unlink()
    if folder.exists():
        shutil.rmtree(folder)
