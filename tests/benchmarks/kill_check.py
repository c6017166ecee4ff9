"""Whether a trial looks as if nothing had happened to it."""

import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from storage.arrays import content_digest
from storage.audit import read_events
from storage.record import verify_record
from storage.running import dead_nights, running_nights
from storage.schema import TABLES
from storage.tables import _EXECUTION_COLUMNS, read_table
from tests.benchmarks.kill_site import Server

HOW_NOT_WHAT = _EXECUTION_COLUMNS
"""Columns of ``visits`` that are not compared: which device and run, how long and when; publication leaves
them out as well when it says whether a result is the same. All other columns of all tables are compared."""

EVENT_FACTS = ("event", "subject_id", "visit_id", "upload_id", "state", "result_digest", "arrays_digest")
"""Facts of the audit log that are compared; the others say who, when, by which run, and how lines chain."""

NOT_LISTED = ("incoming/", "running/", "steps")
"""Files that are not compared by name: inputs, and marks, which are looked at by themselves."""

FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
AT_WORK = {"RUNNING", "PENDING", "CANCELLING"}


@dataclass(frozen=True)
class Record:
    """All that must not depend on what happened to nights."""

    tables: dict[str, pd.DataFrame]
    """Rows of every table, sorted by subject and visit."""
    arrays: dict[str, str]
    """Digest of the content of each store."""
    files: frozenset[str]
    """Name of every file of the trial, inputs and marks left out; temporary ones would be among them."""
    events: Counter[tuple[str, ...]]
    """What the audit log tells, and how often."""


def record_of(root: Path) -> Record:
    """Read what a trial holds."""
    tables = {}
    for name in TABLES:
        frame = read_table(root, name).to_pandas()
        tables[name] = frame.drop(columns=[one for one in HOW_NOT_WHAT if one in frame])
    stores = sorted((root / "arrays").glob("*/*/*.zarr"))
    names = (path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    return Record(
        tables,
        {store.relative_to(root).as_posix(): content_digest(store) for store in stores},
        frozenset(name for name in names if not name.startswith(NOT_LISTED)),
        Counter(tuple(str(event.get(fact)) for fact in EVENT_FACTS) for event in read_events(root)),
    )


def differences(root: Path, reference: Record, *, had_failures: bool = False) -> list[str]:
    """Say in what a trial differs from one that was left in peace.

    Parameters
    ----------
    root
        The trial.
    reference
        The other.
    had_failures
        Whether visits may have failed on the way, so that history/ and the log may tell of that.
    """
    found = record_of(root)
    problems = []
    for name, frame in reference.tables.items():
        try:
            pd.testing.assert_frame_equal(found.tables[name], frame)
        except AssertionError as error:
            problems.append(f"table {name}: {' '.join(str(error).split())}")
    for store in sorted(found.arrays.keys() | reference.arrays.keys()):
        if found.arrays.get(store) != reference.arrays.get(store):
            kind = "missing" if store not in found.arrays else "left over or other bytes"
            problems.append(f"{store}: {kind}")
    more, less = found.files - reference.files, reference.files - found.files
    if had_failures:
        more = frozenset(name for name in more if not name.startswith("history/"))
    problems += [f"left over: {name}" for name in sorted(more)]
    problems += [f"missing: {name}" for name in sorted(less)]
    if had_failures:
        lost = reference.events - found.events
    else:
        lost, doubled = reference.events - found.events, found.events - reference.events
        problems += [f"audit: {n} times too often: {event}" for event, n in doubled.items()]
    problems += [f"audit: missing: {event}" for event in lost]
    check = verify_record(root)
    if check.interrupted:
        problems.append(f"interrupted still: {check.interrupted}")
    for kind, runs in (("dead", dead_nights(root)), ("at work", running_nights(root))):
        problems += [f"marked {kind}: {run}" for run in runs]
    return problems


def unsettled_runs(
    server: Server,
    root: Path,
    kinds: Collection[str] = ("flow_runs", "task_runs"),
    within_s: float = 20.0,
) -> list[str]:
    """Name the flow and task runs of a trial which Prefect believes still to run.

    What workers tell arrives a little later.
    """
    deadline = time.monotonic() + within_s
    while True:
        runs = {
            f"{kind} {run_id}: {state}"
            for kind in kinds
            for run_id, state in server.states(root, kind)
            if state in AT_WORK
        }
        if not runs or time.monotonic() > deadline:
            return sorted(runs)
        time.sleep(0.5)
