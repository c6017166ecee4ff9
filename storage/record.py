"""Whether the record is as it was published: the audit log, tables, arrays and former rows agree.

A visit's published results and its reviews are two chains: each has its current files in tables/, and for
every earlier link a folder of history/.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from storage import audit
from storage.arrays import ARRAYS, content_digest, store_exists, store_path
from storage.digest import file_digest
from storage.durable import shared_lock
from storage.errors import TamperedError
from storage.objects import files_under
from storage.place import Place, relative_name
from storage.schema import RESULT_TABLES, REVIEWS, TABLES
from storage.staging import (
    HISTORY_FOLDER,
    MANIFEST_FILE,
    PUBLISHED,
    REVIEWED,
    STAGING_FOLDER,
    SUPERSEDED_FILE,
    TABLES_FOLDER,
    table_file,
    writing_tables,
)
from storage.tables import EMPTY_FILE, FORMER_EMPTY_FILE

VisitKey = tuple[str, str]

CHAINS = {PUBLISHED: RESULT_TABLES, REVIEWED: (REVIEWS,)}
"""Tables whose files an event of the audit log names."""

Chains = dict[str, dict[VisitKey, list[dict[str, Any]]]]
"""Events by their name and visit, oldest first."""

NOT_COVERED = (
    "trial.toml, subjects.csv, incoming/, quarantine/, reports/, exports/, arrays no publication names, "
    "locks/ (see `cmrtrials lock verify`)"
)
"""What no check looks at."""


@dataclass(frozen=True, slots=True)
class RecordCheck:
    """What was compared and found to agree."""

    head: audit.Head
    """Where the audit log ends."""
    n_visits: int
    """Visits whose rows are those that the log names."""
    n_former: int
    """Former states of visits that are those that the log names."""
    n_arrays: int
    """Published results, former ones among them, whose arrays are those that the log names."""
    n_unlisted: int
    """States of visits whose files, and results whose arrays, a former version did not put into the log."""
    n_reviews: int
    """Reviews, former ones among them, that are those that the log names."""
    interrupted: tuple[str, ...]
    """Visits whose publication a kill interrupted and the next run completes; they are not compared."""


def verify_record(root: Place) -> RecordCheck:
    """Compare the audit log with itself, and with the tables, arrays and history it speaks of.

    Raises
    ------
    TamperedError
        If the log was edited, cut or reordered; else naming every file that is not as it was published.
    """
    head = audit.verify(root)
    chains: Chains = {name: {} for name in CHAINS}
    if not (root / TABLES_FOLDER).is_dir():
        if head.n_lines and any(event["event"] in CHAINS for event in audit.read_events(root)):
            message = f"{TABLES_FOLDER}/ is missing, but {audit.AUDIT_LOG} names publications"
            raise TamperedError(message)
        return RecordCheck(head, 0, 0, 0, 0, 0, ())
    # On an object store a publication would look like a change to whoever compares meanwhile.
    with shared_lock(root / TABLES_FOLDER) if isinstance(root, Path) else writing_tables(root):
        for event in audit.read_events(root):
            if event["event"] in CHAINS:
                key = (event["subject_id"], event["visit_id"])
                chains[event["event"]].setdefault(key, []).append(event)
        interrupted = _interrupted(root)
        problems = _unknown_files(root, chains, interrupted)
        compared: Chains = {
            name: {key: events for key, events in of_visits.items() if key not in interrupted}
            for name, of_visits in chains.items()
        }
        for name, of_visits in compared.items():
            for key, events in of_visits.items():
                problems += _differences(root, key, events, CHAINS[name])
    published = compared[PUBLISHED]
    results = {key: _arrays_digests(events) for key, events in published.items()}
    for key, digests in results.items():
        problems += _array_differences(root, key, digests)
    if problems:
        raise TamperedError("not as published: " + "; ".join(problems))
    states = [event for events in published.values() for event in events]
    known = [bool(digests) for of_visit in results.values() for digests in of_visit.values()]
    n_unlisted = sum("files" not in event for event in states) + known.count(False)
    return RecordCheck(
        head=head,
        n_visits=sum("files" in events[-1] for events in published.values()),
        n_former=sum("files" in event for events in published.values() for event in events[:-1]),
        n_arrays=known.count(True),
        n_unlisted=n_unlisted,
        n_reviews=sum(map(len, compared[REVIEWED].values())),
        interrupted=tuple(sorted("/".join(key) for key in interrupted)),
    )


def _interrupted(root: Place) -> set[VisitKey]:
    staged = files_under(root / TABLES_FOLDER / STAGING_FOLDER)
    return {(path.parent.parent.name, path.parent.name) for path in staged if path.name == MANIFEST_FILE}


def _unknown_files(root: Place, chains: Chains, interrupted: set[VisitKey]) -> list[str]:
    """Name what lies in tables/ and history/ of which the log knows nothing.

    A table is read with all that lies in its folder, so a file under any name adds rows to it.
    """
    tables, history = root / TABLES_FOLDER, root / HISTORY_FOLDER
    expected = {
        table_file(root, name, *key)
        for event, names in CHAINS.items()
        for name in names
        for key in chains[event].keys() | interrupted
    }
    empty = {tables / name / file for name in TABLES for file in (EMPTY_FILE, FORMER_EMPTY_FILE)}
    expected |= empty
    problems = [
        f"{relative_name(path, root)}: the log knows of no such visit"
        for path in files_under(tables)
        if path not in expected and tables / STAGING_FOLDER not in path.parents
    ]
    problems += [
        f"{relative_name(path, root)} holds rows, expected none"
        for path in sorted(empty, key=str)
        if path.exists() and _n_rows(path) != 0
    ]
    kept = {
        history.joinpath(*key, str(event["history_number"]), name)
        for event_name, names in CHAINS.items()
        for key, events in chains[event_name].items()
        for event in events[1:]
        for name in (*(f"{table}.parquet" for table in names), SUPERSEDED_FILE)
    }
    problems += [
        f"{relative_name(path, root)}: the log knows of no such former state"
        for path in files_under(history)
        if path not in kept and tuple(relative_name(path, history).split("/")[:2]) not in interrupted
    ]
    return problems


def _n_rows(path: Place) -> int | None:
    """Count the rows of a Parquet file; None where it is none."""
    try:
        source = path if isinstance(path, Path) else pa.BufferReader(path.read_bytes())
        n_rows: int = pq.read_metadata(source).num_rows
    except (OSError, ValueError):
        return None
    return n_rows


def _differences(
    root: Place, key: VisitKey, events: list[dict[str, Any]], tables: Sequence[str]
) -> Iterator[str]:
    """Name the files of a visit in some tables that differ from what the log says of them."""
    current = {name: table_file(root, name, *key) for name in tables}
    if "files" in events[-1]:
        yield from _file_differences(root, current, events[-1]["files"])
    for former, event in pairwise(events):
        folder = root / HISTORY_FOLDER / key[0] / key[1] / str(event["history_number"])
        paths: dict[str, Place] = {}
        digests: dict[str, str] = {}
        if "files" in former:
            paths |= {name: folder / f"{name}.parquet" for name in tables}
            digests |= former["files"]
        if "files" in event:
            paths[SUPERSEDED_FILE] = folder / SUPERSEDED_FILE
            digests[SUPERSEDED_FILE] = event["files"][SUPERSEDED_FILE]
        yield from _file_differences(root, paths, digests)


def _file_differences(root: Place, paths: Mapping[str, Place], digests: Mapping[str, str]) -> Iterator[str]:
    for name, path in paths.items():
        found = file_digest(path) if path.is_file() else None
        if found != digests.get(name):
            what = "is missing" if found is None else "was changed" if name in digests else "was added"
            yield f"{relative_name(path, root)} {what}"


def _arrays_digests(events: list[dict[str, Any]]) -> dict[str, set[str]]:
    """Give what the log says of the arrays of each result of a visit; they are written once."""
    found: dict[str, set[str]] = {}
    for event in events:
        if event["result_digest"] is not None:
            named = event.get("arrays_digest")
            found.setdefault(event["result_digest"], set()).update({named} if named else ())
    return found


def _array_differences(root: Place, key: VisitKey, results: Mapping[str, set[str]]) -> Iterator[str]:
    """Name the results of a visit whose arrays are not those that the log names."""
    for result_digest, digests in results.items():
        place = f"{ARRAYS}/{key[0]}/{key[1]}/{result_digest}.zarr"
        path = store_path(root, *key, result_digest)
        if digests and not store_exists(root, *key, result_digest):
            yield f"{place} is missing"
        elif digests and digests != {content_digest(path)}:
            yield f"{place} was changed"
