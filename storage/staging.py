"""Files of one visit that take the place of former ones together or not at all.

They are written aside with a manifest, then moved into place one by one; what they replace is kept in
history/, and the audit log is told last. Killed before the manifest is whole it never happened; killed after,
`recover_staged` carries it through. Each step can be repeated, so a kill during the recovery does no harm
either.

An object store can neither move nor link: there files are copied into place and to history/, what is staged
goes when all is done, and readers take a staged manifest's word for what is new (`storage.snapshot`).
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import pyarrow as pa
import pyarrow.parquet as pq

from storage import audit
from storage.digest import canonical_digest
from storage.durable import exclusive_lock, fsync_path, write_durably
from storage.errors import BrokenOffError, LeaseLostError
from storage.lease import fence, writing
from storage.objects import copy, get, put_all, read_all, remove, remove_all, store_errors, versions
from storage.place import Place, relative_name
from storage.schema import TABLES

_log = logging.getLogger(__name__)

TABLES_FOLDER = "tables"
HISTORY_FOLDER = "history"
STAGING_FOLDER = ".staging"
MANIFEST_FILE = "manifest.json"
SUPERSEDED_FILE = "superseded.json"

PUBLISHED, REVIEWED = "published", "reviewed"
"""Events of the audit log: a night published a visit's result; somebody recorded a reader's decisions."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """What was done about files that a kill had left aside."""

    subject_id: str
    """Subject."""
    visit_id: str
    """Visit."""
    action: Literal["rolled forward", "removed"]
    """Carried through, or taken back because they had not been written whole."""


def writing_tables(root: Place) -> AbstractContextManager[None]:
    """Keep other writers of tables out, and in a folder readers too.

    Raises
    ------
    BusyError
        If another writer is at work on an object store; in a folder it is awaited.
    """
    return exclusive_lock(root / TABLES_FOLDER) if isinstance(root, Path) else writing(root)


@overload
def table_file(root: Path, name: str, subject_id: str, visit_id: str) -> Path: ...
@overload
def table_file(root: Place, name: str, subject_id: str, visit_id: str) -> Place: ...
def table_file(root: Place, name: str, subject_id: str, visit_id: str) -> Place:
    """Give the place of a visit's rows in a table."""
    return root / TABLES_FOLDER / name / subject_id / f"{visit_id}.parquet"


def present_tables(root: Place, names: Iterable[str], subject_id: str, visit_id: str) -> list[str]:
    """Name those of some tables in which a visit has rows."""
    if not isinstance(root, Path):
        paths = {relative_name(table_file(root, name, subject_id, visit_id), root): name for name in names}
        return [paths[path] for path in read_all(root, paths)]
    return [name for name in names if table_file(root, name, subject_id, visit_id).exists()]


def parquet_bytes(table: pa.Table) -> bytes:
    """Give the bytes of a table's file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    data: bytes = sink.getvalue().to_pybytes()
    return data


def read_parquet(source: Place | pa.BufferReader) -> pa.Table:
    """Read one file, or the bytes of one."""
    if not isinstance(source, Path | pa.BufferReader):
        source = pa.BufferReader(get(source))
    with pq.ParquetFile(source) as file:
        return file.read(use_threads=False)


def replace_files(
    root: Place,
    facts: Mapping[str, Any],
    contents: Mapping[str, pa.Table],
    former: list[str],
    superseded_by: Mapping[str, Any],
) -> None:
    """Put a visit's rows into place, and tell the audit log; to be called with the lock on tables/ held.

    Parameters
    ----------
    root
        Root of the trial.
    facts
        What the manifest says besides the files: ``event``, ``who``, ``why``, ``when``, ``subject_id``,
        ``visit_id``, and what `_events` needs of such an event.
    contents
        New rows by table.
    former
        Tables whose rows of this visit move to history/.
    superseded_by
        What stands there about the new ones.

    Raises
    ------
    OSError
        If it did not happen, for something could not be written.
    BrokenOffError
        If nobody can tell: it broke off, and `recover_staged` did so too.
    """
    is_told = False
    try:
        staging = _stage(root, facts, contents, former, superseded_by)
        audit.append(root, *_events(_carry_through(root, staging)))
        is_told = True
        _remove_staging(root)
    except LeaseLostError:
        raise
    except store_errors() as error:
        visit = f"{facts['subject_id']}/{facts['visit_id']}"
        _log.warning("publication of %s broke off (%s)", visit, type(error).__name__)
        try:
            recovered = {recovery.action for recovery in recover_staged(root)}
        except LeaseLostError:
            raise
        except store_errors() as again:
            if not is_told:
                message = (
                    f"publication broke off twice ({type(again).__name__}); the next night, or "
                    "whoever writes the trial next, carries it through or begins it anew"
                )
                raise BrokenOffError(message) from again
            return  # what is left of the staging goes with the next publication
        if not is_told and "rolled forward" not in recovered:
            raise  # else it has happened, and nobody must record that it failed


def recover_staged(root: Place) -> tuple[Recovery, ...]:
    """Make whole what a kill left aside; to be called with the lock on tables/ held."""
    recoveries = []
    for staging in _staged_visits(root):
        action: Literal["rolled forward", "removed"] = "removed"
        if (staging / MANIFEST_FILE).exists():
            action = "rolled forward"
            events = _events(_carry_through(root, staging))
            logged = {_identity(past) for past in audit.read_events(root)}
            audit.append(root, *(event for event in events if _identity(event) not in logged))
        recoveries.append(Recovery(staging.parent.name, staging.name, action))
    _remove_staging(root)
    return tuple(recoveries)


def _stage(
    root: Place,
    facts: Mapping[str, Any],
    contents: Mapping[str, pa.Table],
    former: list[str],
    superseded_by: Mapping[str, Any],
) -> Place:
    """Write files aside; their manifest, written last, makes them count."""
    subject_id, visit_id = str(facts["subject_id"]), str(facts["visit_id"])
    staging = root / TABLES_FOLDER / STAGING_FOLDER / subject_id / visit_id
    files = {name: parquet_bytes(table) for name, table in contents.items()}
    history = root / HISTORY_FOLDER / subject_id / visit_id
    numbers = [int(name) for name in _names(history) if name.isdigit()]
    manifest = {
        **facts,
        "new": [name for name in TABLES if name in contents],
        "former": former,
        "history_number": max(numbers, default=0) + 1 if former else None,
    }
    if former:
        superseded = {
            **{fact: facts[fact] for fact in ("who", "why", "when")},
            "superseded_by": dict(superseded_by),
        }
        files[SUPERSEDED_FILE] = (json.dumps(superseded, indent=2) + "\n").encode()
    manifest["files"] = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    named = {name if name == SUPERSEDED_FILE else f"{name}.parquet": data for name, data in files.items()}
    if isinstance(staging, Path):
        for name, data in named.items():
            write_durably(staging / name, data)
    else:
        put_all(staging, named)
    fence(root)
    write_durably(staging / MANIFEST_FILE, json.dumps(manifest, indent=2).encode())
    return staging


def _carry_through(root: Place, staging: Place) -> dict[str, Any]:
    """Move what is staged into place; repeating it, from any point, ends in the same state."""
    place = staging / MANIFEST_FILE
    manifest: dict[str, Any] = json.loads(place.read_bytes() if isinstance(place, Path) else get(place))
    subject_id, visit_id = manifest["subject_id"], manifest["visit_id"]
    if manifest["former"]:
        _keep_former(root, staging, manifest)
    for name in TABLES:  # visits comes last
        target = table_file(root, name, subject_id, visit_id)
        staged = staging / f"{name}.parquet"
        if name in manifest["new"]:
            if _is_staged(staged):
                fence(root)
                _put_into_place(staged, target)
            _settle(target)
        elif name in manifest["former"] and name not in manifest["new"]:
            fence(root)
            remove(target)
            _settle(target)
    return manifest


def _keep_former(root: Place, staging: Place, manifest: Mapping[str, Any]) -> None:
    """Link what is about to be replaced into history/, with who, why and by what it is superseded."""
    subject_id, visit_id = manifest["subject_id"], manifest["visit_id"]
    folder = root / HISTORY_FOLDER / subject_id / visit_id / str(manifest["history_number"])
    there = _names(folder)
    for name in manifest["former"]:
        kept = folder / f"{name}.parquet"
        if kept.name not in there:  # all are kept before the first file is replaced, so this is a former one
            fence(root)
            _keep(table_file(root, name, subject_id, visit_id), kept)
    if _is_staged(staging / SUPERSEDED_FILE):
        _put_into_place(staging / SUPERSEDED_FILE, folder / SUPERSEDED_FILE)
    _settle(folder / SUPERSEDED_FILE)


def _names(folder: Place) -> set[str]:
    """Names of what is in a folder."""
    if isinstance(folder, Path):
        return {path.name for path in folder.glob("*")}
    return {name.partition("/")[0] for name in versions(folder)}


def _is_staged(staged: Place) -> bool:
    """Whether a file has not been moved yet; what is copied stays staged until all is done."""
    return not isinstance(staged, Path) or staged.exists()


def _keep(current: Place, kept: Place) -> None:
    """Let a file that is about to be replaced stand in a second place as well."""
    if isinstance(current, Path) and isinstance(kept, Path):
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.hardlink_to(current)
    else:
        copy(current, kept)


def _put_into_place(staged: Place, target: Place) -> None:
    if isinstance(staged, Path) and isinstance(target, Path):
        target.parent.mkdir(parents=True, exist_ok=True)
        staged.replace(target)
    else:
        copy(staged, target)


def _settle(place: Place) -> None:
    """Force to disk what names of files were made or removed beside one."""
    if isinstance(place, Path):
        fsync_path(place.parent)


def _events(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Make the audit events; the manifest's digest tells whether they are logged already."""
    about = {fact: manifest[fact] for fact in ("who", "why", "subject_id", "visit_id")}
    about["publication"] = canonical_digest(manifest)
    place = {"history_number": manifest["history_number"]}
    if manifest.get("event") == REVIEWED:
        return [{"event": REVIEWED, **about, **manifest["review"], **place, "files": manifest["files"]}]
    events = []
    for upload in manifest["settled_uploads"]:
        facts = {fact: value for fact, value in upload.items() if fact != "verdict"}
        events.append({"event": upload["verdict"], **about, **facts})
    if manifest["former"]:
        events.append({"event": "superseded", **about, **manifest["supersedes"], **place})
    named = ("state", "result_digest", "arrays_digest", "history_number", "files")
    facts = {fact: manifest.get(fact) for fact in named}  # a manifest of a former version names fewer
    return [*events, {"event": PUBLISHED, **about, **facts}]


def _identity(event: Mapping[str, Any]) -> tuple[Any, ...]:
    """Give what tells an event from the others of its publication, and from those of other ones."""
    return (event.get("publication"), event["event"], event.get("upload_digest"))


def _staged_visits(root: Place) -> list[Place]:
    """Folders in which something is staged, whole or not."""
    folder = root / TABLES_FOLDER / STAGING_FOLDER
    if isinstance(folder, Path):
        return sorted(folder.glob("*/*"))
    return [folder / name for name in sorted({name.rpartition("/")[0] for name in versions(folder)})]


def _remove_staging(root: Place) -> None:
    """Remove all that is staged, manifests first: without one, what is done is not done again."""
    folder = root / TABLES_FOLDER / STAGING_FOLDER
    if not isinstance(folder, Path):
        fence(root)
        names = versions(folder).keys()
        manifests = {name for name in names if name.endswith(f"/{MANIFEST_FILE}")}
        for name in manifests:  # each by itself: a client that removes many may not say what it could not
            remove(folder / name)
        remove_all(folder, names - manifests)
        return
    for manifest in folder.glob(f"*/*/{MANIFEST_FILE}"):
        manifest.unlink()
    if folder.exists():
        shutil.rmtree(folder)
