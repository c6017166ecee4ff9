"""tables/<table>/<subject>/<visit>.parquet: one file a visit and table, published together or not at all.

A publication is written aside with a manifest, then moved into place file by file, the row in ``visits``
last. Killed before the manifest is whole it never happened; killed after, `recover` carries it through. Each
step can be repeated, so a kill during the recovery does no harm either.

Each table's folder also holds a file without rows. Whoever reads the folder as a whole, pandas for one,
takes the columns from the first file by name and drops what else the others have; no subject's name sorts
before it.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from storage import audit
from storage.digest import canonical_digest
from storage.durable import exclusive_lock, fsync_path, shared_lock, write_durably
from storage.errors import StorageError, os_reason
from storage.rows import arrow_schema, arrow_table, conform, schema_version
from storage.schema import SCHEMA_VERSION, TABLES

TABLES_FOLDER = "tables"
HISTORY_FOLDER = "history"
STAGING_FOLDER = ".staging"
MANIFEST_FILE = "manifest.json"
SUPERSEDED_FILE = "superseded.json"
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
        staging = _stage(root, visit_row, contents, {"who": who, "why": why, "arrays_digest": arrays_digest})
        manifest = _carry_through(root, staging)
        audit.append(root, *_events(manifest))
        _remove_staging(root)
    return "published"


def recover(root: Path) -> tuple[Recovery, ...]:
    """Make whole what a killed publication left behind; to be called once at start-up."""
    if not (root / TABLES_FOLDER).is_dir():
        return ()
    with exclusive_lock(root / TABLES_FOLDER):
        return _recover(root)


def read_table(root: Path, name: str, subject_id: str | None = None) -> pa.Table:
    """Read a table, sorted by subject and visit; with all columns and no rows where nothing is published.

    Only rows of published results are given: those whose digest is the one in ``visits``. Files of former
    versions of the schema are read as `storage.rows.conform` says.

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


def read_tables(root: Path, names: Iterable[str], subject_id: str | None = None) -> dict[str, pa.Table]:
    """Read several tables as they stand at one moment; see `read_table`."""
    schemas = {name: arrow_schema(name) for name in names}
    if not (root / TABLES_FOLDER).is_dir():
        return {name: schema.empty_table() for name, schema in schemas.items()}
    with shared_lock(root / TABLES_FOLDER):
        tables = {name: _read_files(root, name, subject_id) for name in {**schemas, "visits": None}}
    visits = tables["visits"].select(list(_KEYS))
    published = set(zip(*(visits[key].to_pylist() for key in _KEYS), strict=True))
    for name in schemas.keys() - {"visits"}:
        keys = zip(*(tables[name][key].to_pylist() for key in _KEYS), strict=True)
        tables[name] = tables[name].filter(pa.array([key in published for key in keys], type=pa.bool_()))
    return {name: tables[name] for name in schemas}


def _read_files(root: Path, name: str, subject_id: str | None) -> pa.Table:
    folders = (root / TABLES_FOLDER / name).glob("*")
    files = sorted(
        file
        for folder in folders
        if subject_id is None or folder.name == subject_id
        for file in folder.glob("*.parquet")
    )
    return pa.concat_tables([arrow_schema(name).empty_table(), *(_read_rows(name, file) for file in files)])


def _read_rows(name: str, path: Path) -> pa.Table:
    subject_id, visit_id = path.parent.name, path.stem
    try:
        table = _read_file(path)
    except (pa.ArrowException, OSError) as error:
        what = os_reason(error) if isinstance(error, OSError) else "no Parquet, or damaged"
        message = (
            f"table {name}, subject {subject_id}, visit {visit_id}: cannot be read ({what}); "
            f"see `cmrtrials audit verify ROOT`"
        )
        raise StorageError(message) from error
    return conform(name, table, subject_id, visit_id)


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
    """Give each table its file without rows, as the schema is today."""
    for name in TABLES:
        folder = root / TABLES_FOLDER / name
        path, columns = folder / EMPTY_FILE, _empty_table_bytes(name)
        if not path.exists() or path.read_bytes() != columns:
            write_durably(path, columns)
        (folder / FORMER_EMPTY_FILE).unlink(missing_ok=True)


@cache
def _empty_table_bytes(name: str) -> bytes:
    return _parquet_bytes(arrow_schema(name).empty_table())


def _parquet_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _is_unchanged(root: Path, new: pa.Table) -> bool:
    row = new.to_pylist()[0]
    current = table_file(root, "visits", row["subject_id"], row["visit_id"])
    if not current.exists():
        return False
    former = _read_file(current)
    if schema_version(former) != SCHEMA_VERSION:
        return False  # so that a visit that runs again gets the columns of today
    return _result_part(former.to_pylist()[0]) == _result_part(row)


def _result_part(visit_row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in visit_row.items() if name not in _EXECUTION_COLUMNS}


def table_file(root: Path, name: str, subject_id: str, visit_id: str) -> Path:
    """Give the place of a visit's published rows in a table."""
    return root / TABLES_FOLDER / name / subject_id / f"{visit_id}.parquet"


def _stage(
    root: Path, visit_row: Mapping[str, Any], contents: Mapping[str, pa.Table], facts: Mapping[str, Any]
) -> Path:
    """Write a publication aside; its manifest, written last, makes it count.

    ``facts`` go into the audit log as they are.
    """
    subject_id, visit_id = str(visit_row["subject_id"]), str(visit_row["visit_id"])
    staging = root / TABLES_FOLDER / STAGING_FOLDER / subject_id / visit_id
    files = {name: _parquet_bytes(table) for name, table in contents.items()}
    former = [name for name in TABLES if table_file(root, name, subject_id, visit_id).exists()]
    former_row = _read_file(table_file(root, "visits", subject_id, visit_id)).to_pylist()[0] if former else {}
    history = root / HISTORY_FOLDER / subject_id / visit_id
    numbers = [int(path.name) for path in history.glob("*") if path.name.isdigit()]
    published_at: datetime = visit_row["published_at"]
    manifest: dict[str, Any] = {
        "subject_id": subject_id,
        "visit_id": visit_id,
        **facts,
        "when": published_at.isoformat(),
        "state": visit_row["state"],
        "result_digest": visit_row["result_digest"],
        "new": [name for name in TABLES if name in contents],
        "former": former,
        "history_number": max(numbers, default=0) + 1 if former else None,
        "settled_uploads": _settled_uploads(visit_row, former_row),
        "supersedes": {fact: former_row[fact] for fact in ("result_digest", "state")} if former else None,
    }
    if former:
        superseded = {
            **{fact: manifest[fact] for fact in ("who", "why", "when")},
            "superseded_by": {fact: manifest[fact] for fact in ("result_digest", "state")},
        }
        files[SUPERSEDED_FILE] = (json.dumps(superseded, indent=2) + "\n").encode()
    manifest["files"] = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    for name, data in files.items():
        write_durably(staging / (name if name == SUPERSEDED_FILE else f"{name}.parquet"), data)
    write_durably(staging / MANIFEST_FILE, json.dumps(manifest, indent=2).encode())
    return staging


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


def _recover(root: Path) -> tuple[Recovery, ...]:
    recoveries = []
    for staging in sorted((root / TABLES_FOLDER / STAGING_FOLDER).glob("*/*")):
        action: Literal["rolled forward", "removed"] = "removed"
        if (staging / MANIFEST_FILE).exists():
            action = "rolled forward"
            events = _events(_carry_through(root, staging))
            logged = {_identity(past) for past in audit.read_events(root)}
            audit.append(root, *(event for event in events if _identity(event) not in logged))
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
        target = table_file(root, name, subject_id, visit_id)
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
            kept.hardlink_to(table_file(root, name, subject_id, visit_id))
    if (staging / SUPERSEDED_FILE).exists():
        (staging / SUPERSEDED_FILE).replace(folder / SUPERSEDED_FILE)
    fsync_path(folder)


def _events(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Make the audit events of a publication; its manifest's digest tells whether they are logged already."""
    about = {fact: manifest[fact] for fact in ("who", "why", "subject_id", "visit_id")}
    about["publication"] = canonical_digest(manifest)
    events = []
    for upload in manifest["settled_uploads"]:
        facts = {fact: value for fact, value in upload.items() if fact != "verdict"}
        events.append({"event": upload["verdict"], **about, **facts})
    if manifest["former"]:
        place = {"history_number": manifest["history_number"]}
        events.append({"event": "superseded", **about, **manifest["supersedes"], **place})
    named = ("state", "result_digest", "arrays_digest", "history_number", "files")
    facts = {fact: manifest.get(fact) for fact in named}  # a manifest of a former version names fewer
    return [*events, {"event": "published", **about, **facts}]


def _identity(event: Mapping[str, Any]) -> tuple[Any, ...]:
    """Give what tells an event from the others of its publication, and from those of other ones."""
    return (event.get("publication"), event["event"], event.get("upload_digest"))


def _remove_staging(root: Path) -> None:
    """Remove all that is staged, manifests first: without one, what is done is not done again."""
    folder = root / TABLES_FOLDER / STAGING_FOLDER
    for manifest in folder.glob(f"*/*/{MANIFEST_FILE}"):
        manifest.unlink()
    if folder.exists():
        shutil.rmtree(folder)
