"""Whether the record is as it was published: the audit log, the tables and the former rows agree."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from storage import audit
from storage.digest import file_digest
from storage.durable import shared_lock
from storage.errors import TamperedError
from storage.schema import TABLES
from storage.tables import (
    HISTORY_FOLDER,
    MANIFEST_FILE,
    STAGING_FOLDER,
    SUPERSEDED_FILE,
    TABLES_FOLDER,
    table_file,
)

VisitKey = tuple[str, str]


@dataclass(frozen=True, slots=True)
class RecordCheck:
    """What was compared and found to agree."""

    head: audit.Head
    """Where the audit log ends."""
    n_visits: int
    """Visits whose rows are those that the log names."""
    n_former: int
    """Former states of visits that are those that the log names."""
    interrupted: tuple[str, ...]
    """Visits whose publication a kill interrupted and the next run completes; they are not compared."""


def verify_record(root: Path) -> RecordCheck:
    """Compare the audit log with itself, and with the tables and history it speaks of.

    Raises
    ------
    TamperedError
        If the log was edited, cut or reordered; else naming every file that is not as it was published.
    """
    head = audit.verify(root)
    publications: dict[VisitKey, list[dict[str, Any]]] = {}
    if not (root / TABLES_FOLDER).is_dir():
        if head.n_lines and any(event["event"] == "published" for event in audit.read_events(root)):
            message = f"{TABLES_FOLDER}/ is missing, but {audit.AUDIT_LOG} names publications"
            raise TamperedError(message)
        return RecordCheck(head, 0, 0, ())
    with shared_lock(root / TABLES_FOLDER):
        for event in audit.read_events(root):
            if event["event"] == "published":
                publications.setdefault((event["subject_id"], event["visit_id"]), []).append(event)
        interrupted = _interrupted(root)
        problems = _unknown_files(root, publications, interrupted)
        compared = {key: events for key, events in publications.items() if key not in interrupted}
        for key, events in compared.items():
            problems += _differences(root, key, events)
    if problems:
        raise TamperedError("not as published: " + "; ".join(problems))
    n_former = sum(len(events) - 1 for events in compared.values())
    return RecordCheck(head, len(compared), n_former, tuple(sorted("/".join(key) for key in interrupted)))


def _interrupted(root: Path) -> set[VisitKey]:
    staged = (root / TABLES_FOLDER / STAGING_FOLDER).glob(f"*/*/{MANIFEST_FILE}")
    return {(path.parent.parent.name, path.parent.name) for path in staged}


def _unknown_files(
    root: Path, publications: Mapping[VisitKey, list[dict[str, Any]]], interrupted: set[VisitKey]
) -> list[str]:
    """Name files of visits, and former states of visits, of which the log knows nothing.

    A table is read with all that lies in its folder, so a file under a new name adds rows to it.
    """
    visits = publications.keys() | interrupted
    problems = [
        f"{path.relative_to(root)}: the log knows of no such visit"
        for name in TABLES
        for path in sorted((root / TABLES_FOLDER / name).glob("*/*.parquet"))
        if (path.parent.name, path.stem) not in visits
    ]
    known = {
        (*key, str(event["history_number"])) for key, events in publications.items() for event in events[1:]
    }
    problems += [
        f"{path.relative_to(root)}: the log knows of no such former state"
        for path in sorted((root / HISTORY_FOLDER).glob("*/*/*"))
        if (place := path.relative_to(root / HISTORY_FOLDER).parts) not in known
        and place[:2] not in interrupted
    ]
    return problems


def _differences(root: Path, key: VisitKey, events: list[dict[str, Any]]) -> Iterator[str]:
    """Name the files of a visit that differ from what the log says of its publications."""
    current = {name: table_file(root, name, *key) for name in TABLES}
    yield from _file_differences(root, current, events[-1]["files"])
    for former, event in pairwise(events):
        folder = root / HISTORY_FOLDER / key[0] / key[1] / str(event["history_number"])
        kept = {name: folder / f"{name}.parquet" for name in TABLES}
        digests = {**former["files"], SUPERSEDED_FILE: event["files"][SUPERSEDED_FILE]}
        yield from _file_differences(root, {**kept, SUPERSEDED_FILE: folder / SUPERSEDED_FILE}, digests)


def _file_differences(root: Path, paths: Mapping[str, Path], digests: Mapping[str, str]) -> Iterator[str]:
    for name, path in paths.items():
        found = file_digest(path) if path.is_file() else None
        if found != digests.get(name):
            what = "is missing" if found is None else "was changed" if name in digests else "was added"
            yield f"{path.relative_to(root)} {what}"
