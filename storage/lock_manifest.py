"""The files of a lock and the manifest that names them by digest: written aside, described, compared."""

import hashlib
import hmac
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from storage import audit
from storage.arrays import ARRAYS, content_digest, store_path
from storage.config import CONFIG_FILE
from storage.config_uploads import PrivacyConfig
from storage.dictionary import dictionary_csv, dictionary_markdown
from storage.digest import file_digest
from storage.durable import fsync_path, shared_lock
from storage.errors import StorageError
from storage.plan import PLAN_FILE, plan_csv, read_plan
from storage.recorded_dates import recorded_plan, recorded_shift
from storage.reviews import pending_reviews
from storage.schema import SCHEMA_VERSION
from storage.staging import STAGING_FOLDER, TABLES_FOLDER
from storage.tables import read_table

LOCK_MANIFEST = "manifest.json"

_READ_ONLY_FILE, _READ_ONLY_FOLDER, _WRITABLE_FOLDER = 0o444, 0o555, 0o755


def write_files(
    root: Path,
    folder: Path,
    head: audit.Head,
    facts: Mapping[str, Any],
    privacy: PrivacyConfig,
    key: bytes | None,
) -> str:
    """Copy tables, trial.toml and subjects.csv into a new folder, read-only; give its manifest's digest.

    Where the trial's dates are shifted, those of the copied plan are too: next to the tables, the real ones
    would give away every subject's shift.

    Parameters
    ----------
    root
        Root of the trial.
    folder
        Folder to write.
    head
        End of the audit log when the record was compared with it.
    facts
        What else the manifest says; ``config_digest`` among it.
    privacy
        Rules of the trial.
    key
        What `storage.deidentify.needed_key` gives for them.

    Raises
    ------
    StorageError
        If something was published since the record was compared.
    """
    folder.mkdir(parents=True)
    tables = root / TABLES_FOLDER
    with shared_lock(tables):
        if audit.verify(root).digest != head.digest:
            message = "something was published while the record was compared; lock it again"
            raise StorageError(message)
        staged = tables / STAGING_FOLDER
        sources = [path for path in tables.rglob("*.parquet") if staged not in path.parents]
        for source in [*sources, root / CONFIG_FILE]:
            target = folder / source.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        plan_facts = _write_plan(root, folder, privacy, key)
        visits = read_table(root, "visits").to_pylist()
    (folder / "dictionary.md").write_text(dictionary_markdown())
    (folder / "dictionary.csv").write_text(dictionary_csv())
    config_digest = facts["config_digest"]
    manifest = {
        **facts,
        **plan_facts,
        "locked_at": datetime.now(UTC).isoformat(),
        "schema_version": SCHEMA_VERSION,
        "audit": {"n_lines": head.n_lines, "digest": head.digest},
        "states": Counter(row["state"] for row in visits),
        "other_configuration": [
            f"{row['subject_id']}/{row['visit_id']}"
            for row in visits
            if row["config_digest"] != config_digest
        ],
        "pending_reviews": pending_reviews(root),
        "arrays": _array_digests(root, visits),
        "files": {path: file_digest(folder / path) for path in _files(folder)},
    }
    data = json.dumps(manifest, indent=2, sort_keys=True).encode() + b"\n"
    (folder / LOCK_MANIFEST).write_bytes(data)
    _settle(folder)
    return hashlib.sha256(data).hexdigest()


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a lock."""
    manifest: dict[str, Any] = json.loads((folder / LOCK_MANIFEST).read_bytes())
    return manifest


def manifest_digest(folder: Path) -> str | None:
    """SHA-256 of a lock's manifest; None where there is no such file."""
    path = folder / LOCK_MANIFEST
    return file_digest(path) if path.is_file() and not path.is_symlink() else None


def differences(folder: Path, digests: Mapping[str, str]) -> Iterator[str]:
    """Name what lies in a lock's folder and should not, what is missing, and what was changed."""
    folders = {parent.as_posix() for path in digests for parent in Path(path).parents}
    found = dict(_entries(folder))
    for path in sorted(found.keys() | digests.keys()):
        if path == LOCK_MANIFEST or (path in folders and found[path] == "folder"):
            continue
        if path not in digests:
            yield f"{path} was added"
        elif path not in found:
            yield f"{path} is missing"
        elif found[path] != "file":
            yield f"{path} was replaced by a {found[path]}"
        elif file_digest(folder / path) != digests[path]:
            yield f"{path} was changed"


def array_differences(root: Path, digests: Mapping[str, str]) -> Iterator[str]:
    """Name the arrays of the trial that are not those a manifest names."""
    for result, digest in digests.items():
        subject_id, visit_id, result_digest = result.split("/")
        path = store_path(root, subject_id, visit_id, result_digest)
        if not path.is_dir():
            yield f"{ARRAYS}/{result}.zarr is missing"
        elif content_digest(path) != digest:
            yield f"{ARRAYS}/{result}.zarr was changed"


def remove(folder: Path) -> None:
    """Remove what a killed lock left, read-only or not."""
    for path, kind in [(".", "folder"), *_entries(folder)] if folder.is_dir() else []:
        if kind == "folder":
            (folder / path).chmod(_WRITABLE_FOLDER)
    shutil.rmtree(folder, ignore_errors=True)


def _write_plan(root: Path, folder: Path, privacy: PrivacyConfig, key: bytes | None) -> dict[str, str]:
    """Copy the plan, with the dates of the record; give the seal of the real one where they are others."""
    real = (root / PLAN_FILE).read_bytes()
    if privacy.dates == "keep" or key is None:
        (folder / PLAN_FILE).write_bytes(real)
        return {}
    visits = read_plan(root)
    moved = [recorded_plan(visit, recorded_shift(privacy, key, visit.subject_id)) for visit in visits]
    (folder / PLAN_FILE).write_text(plan_csv(moved), encoding="utf-8")
    # Without the key, the shifts of a few subjects could be tried until a plain digest fits.
    return {"plan_hmac_sha256": hmac.new(key, real, hashlib.sha256).hexdigest()}


def _array_digests(root: Path, visits: list[dict[str, Any]]) -> dict[str, str]:
    """Give the digest of each published result's arrays, as the audit log names it where it does."""
    named = {
        (event["subject_id"], event["visit_id"], event["result_digest"]): event["arrays_digest"]
        for event in audit.read_events(root)
        if event["event"] == "published" and event.get("arrays_digest")
    }
    found = {}
    for row in visits:
        key = (row["subject_id"], row["visit_id"], row["result_digest"])
        if key[2] is not None and (key in named or store_path(root, *key).is_dir()):
            found["/".join(key)] = named.get(key) or content_digest(store_path(root, *key))
    return found


def _files(folder: Path) -> list[str]:
    return sorted(path for path, kind in _entries(folder) if kind == "file")


def _entries(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield all that lies in a folder, links not followed: relative path, and file, folder, link or other."""
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(parent, name)
            kind = (
                "link"
                if path.is_symlink()
                else "folder"
                if path.is_dir()
                else "file"
                if path.is_file()
                else "special file"
            )
            yield path.relative_to(folder).as_posix(), kind


def _settle(folder: Path) -> None:
    """Force a folder to disk and make it read-only, all that is in it first."""
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            Path(parent, name).chmod(_READ_ONLY_FILE)
            fsync_path(Path(parent, name))
        Path(parent).chmod(_READ_ONLY_FOLDER)
        fsync_path(Path(parent))
