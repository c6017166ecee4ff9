"""locks/<name>/: tables, trial.toml and subjects.csv as they were at one moment, with a manifest of digests.

A lock is written aside, entered into the audit log with the digest of its manifest, and then moved into
place. Killed before the entry it never happened; killed after, locking under the same name again moves it
into place. A name is used once: what the log says was locked is never locked anew with other contents.

Where ``[privacy] dates = "shift"``, the copy of subjects.csv has the dates of the record, so that a lock can
be given away; the manifest seals the real one by HMAC-SHA256 with the trial's key.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage import audit
from storage.config import CONFIG_FILE, load_config
from storage.deidentify import needed_key
from storage.durable import exclusive_lock, fsync_path, shared_lock
from storage.errors import AlreadyWrittenError, NotStoredError, StorageError, TamperedError
from storage.lease import hold
from storage.lock_manifest import (
    LOCK_MANIFEST,
    array_differences,
    differences,
    manifest_digest,
    read_manifest,
    remove,
    write_files,
)
from storage.place import Place
from storage.plan import read_plan
from storage.record import RecordCheck, verify_record
from storage.tables import read_table

LOCKS_FOLDER = "locks"
LOCKED = "locked"
"""Event of the audit log."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock, as its manifest describes it."""

    name: str
    """Name."""
    locked_at: str
    """When, in ISO 8601."""
    manifest_digest: str
    """SHA-256 of its manifest, which names every file: noted elsewhere, it proves all of them."""
    n_files: int
    """Files, the manifest left out."""
    n_arrays: int
    """Results whose arrays the manifest names by digest; the arrays themselves stay where they are."""
    states: Mapping[str, int]
    """Visits in each state."""
    other_configuration: tuple[str, ...]
    """Visits whose row was written under another trial.toml than the one in the lock."""
    pending_reviews: tuple[str, ...]
    """Visits whose rows do not honor a reader's newest decisions, as no night has run since."""


@contextmanager
def night_underway(root: Place) -> Iterator[None]:
    """Keep a trial from being locked meanwhile; several nights may be under way, and await a lock's end.

    On an object store there is one night at a time.

    Raises
    ------
    BusyError
        If another night is under way on an object store.
    """
    with shared_lock(root) if isinstance(root, Path) else hold(root):
        yield


def lock_record(root: Path, name: str, who: str, why: str, code_version: str) -> Lock:
    """Freeze the tables, and what they came from, under a name.

    Parameters
    ----------
    root
        Root of the trial.
    name
        Name of the lock: letters, digits, ``.``, ``_`` and ``-``.
    who, why
        For the audit log and the manifest.
    code_version
        Version of the code that locks.

    Raises
    ------
    AlreadyWrittenError
        If there is, or was, a lock of this name.
    ConfigError
        If the trial's rules need the key of its pseudonyms and the environment has none.
    TamperedError
        If the record is not as it was published.
    StorageError
        If the name cannot be used, a night is under way or was interrupted, or a planned visit has no row.
    """
    folder = _lock_folder(root, name)
    config = load_config(root / CONFIG_FILE)
    key = needed_key(config.privacy)
    with _alone(root):
        if os.path.lexists(folder):
            message = f"there is a lock {name} already; a lock is never changed, choose another name"
            raise AlreadyWrittenError(message)
        audit.verify(root)
        staging = folder.with_name(f".{name}.tmp")
        entry = _entry(root, name)
        if entry is None:
            record = verify_record(root)
            _check_complete(root, record)
            remove(staging)
            about = {"name": name, "who": who, "why": why}
            facts = about | {"code_version": code_version, "config_digest": config.digest()}
            digest = write_files(root, staging, record.head, facts, config.privacy, key)
            audit.append(root, {"event": LOCKED, **about, "manifest": digest})
        elif not _is_as_entered(staging, entry):
            message = (
                f"the audit log says that {entry['who']} locked {name} at {entry['at']}, but it is gone; "
                f"restore {LOCKS_FOLDER}/{name} from a back-up, or choose another name"
            )
            raise AlreadyWrittenError(message)
        staging.rename(folder)
        fsync_path(folder.parent)
    return _described(folder)


def verify_lock(root: Path, name: str) -> Lock:
    """Prove that a lock is as it was made, and the arrays that it names too.

    Raises
    ------
    NotStoredError
        If there is no such lock.
    TamperedError
        If the audit log was changed; else naming each file that was added, changed or is missing.
    StorageError
        If the name cannot be one of a lock.
    """
    folder, where = _lock_folder(root, name), f"{LOCKS_FOLDER}/{name}"
    audit.verify(root)
    entry, exists = _entry(root, name), os.path.lexists(folder)
    if entry is None and not exists:
        message = f"no lock {name}; there are: {', '.join(lock_names(root)) or 'none'}"
        raise NotStoredError(message)
    problem = None
    if entry is None:
        problem = f"the audit log knows of no lock {name}"
    elif not exists:
        problem = f"{where} is missing; {entry['who']} locked it at {entry['at']}"
    elif folder.is_symlink() or not folder.is_dir():
        problem = f"{where} was replaced by a link or a file"
    elif (found := manifest_digest(folder)) is None:
        problem = f"{where}/{LOCK_MANIFEST} is missing"
    elif found != entry["manifest"]:
        problem = f"{where}/{LOCK_MANIFEST} was changed; what it lists proves nothing any more"
    if problem is not None:
        raise TamperedError(problem)
    manifest = read_manifest(folder)
    problems = [f"{where}/{difference}" for difference in differences(folder, manifest["files"])]
    problems += array_differences(root, manifest["arrays"])
    # The entry's chain proves the lines before it; the manifest, that nobody wrote all of the chain anew.
    if not _follows(root, manifest["audit"]):
        problems.append(f"{audit.AUDIT_LOG} before the lock is not what it was when the lock was made")
    if problems:
        raise TamperedError("not as locked: " + "; ".join(problems))
    return _described(folder)


def lock_names(root: Path) -> tuple[str, ...]:
    """Name the locks of a trial."""
    return tuple(path.name for path in sorted((root / LOCKS_FOLDER).glob("*")) if _NAME.fullmatch(path.name))


def _lock_folder(root: Path, name: str) -> Path:
    if not _NAME.fullmatch(name):
        message = (
            f"{name!r} cannot be the name of a lock: expected at most 64 letters, digits, '.', '_' and '-', "
            f"the first a letter or digit"
        )
        raise StorageError(message)
    return root / LOCKS_FOLDER / name


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Keep nights and other locks out; refuse where there is one."""
    with ExitStack() as held:
        try:
            held.enter_context(exclusive_lock(root, wait=False))
        except BlockingIOError:
            message = "a night, or another lock, is under way in this trial; lock it when that has ended"
            raise StorageError(message) from None
        yield


def _check_complete(root: Path, record: RecordCheck) -> None:
    """Refuse a record that nobody can vouch for, or that a night has yet to complete."""
    if record.head.n_unproven:
        message = (
            f"no head vouches for lines 1 to {record.head.n_unproven} of the audit log; "
            f"see `cmrtrials audit verify ROOT`, then `cmrtrials audit adopt ROOT`"
        )
        raise StorageError(message)
    if record.interrupted:
        message = f"a night was killed while it published {', '.join(record.interrupted)}; run a night first"
        raise StorageError(message)
    rows = {(row["subject_id"], row["visit_id"]) for row in read_table(root, "visits").to_pylist()}
    if not rows:
        message = "nothing is published yet; run a night first"
        raise StorageError(message)
    unseen = [
        f"{visit.subject_id}/{visit.visit_id}"
        for visit in read_plan(root)
        if (visit.subject_id, visit.visit_id) not in rows
    ]
    if unseen:
        message = f"planned, but no night has seen them: {', '.join(unseen)}; run a night first"
        raise StorageError(message)


def _entry(root: Path, name: str) -> dict[str, Any] | None:
    """Give what the audit log says of a lock; None where it says nothing."""
    for event in audit.read_events(root):
        if event["event"] == LOCKED and event["name"] == name:
            return event
    return None


def _is_as_entered(staging: Path, entry: Mapping[str, Any]) -> bool:
    """Whether what a kill left aside is the lock that the log speaks of."""
    if staging.is_symlink() or manifest_digest(staging) != entry["manifest"]:
        return False
    return not any(differences(staging, read_manifest(staging)["files"]))


def _follows(root: Path, head: Mapping[str, Any]) -> bool:
    """Whether the log's line after the one that was its end then follows from it."""
    events = list(audit.read_events(root))
    return [event["previous"] for event in events[head["n_lines"] :][:1]] == [head["digest"]]


def _described(folder: Path) -> Lock:
    manifest = read_manifest(folder)
    return Lock(
        name=manifest["name"],
        locked_at=manifest["locked_at"],
        manifest_digest=str(manifest_digest(folder)),
        n_files=len(manifest["files"]),
        n_arrays=len(manifest["arrays"]),
        states=manifest["states"],
        other_configuration=tuple(manifest["other_configuration"]),
        pending_reviews=tuple(manifest.get("pending_reviews", ())),  # locks of former versions lack it
    )
