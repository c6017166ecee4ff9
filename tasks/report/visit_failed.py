"""Pages that could not be made: the visit keeps its result, and a file says what is missing."""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from storage.durable import write_durably
from storage.objects import remove
from storage.place import Place
from storage.trial import Trial
from tasks.matching import VisitKey
from tasks.report.visit_page import REPORTS_FOLDER, write_failed_page

FAILED_FILE = "failed.json"
"""In the folder of reports: pages that could not be made when last asked for; absent without any."""


def record_pages(trial: Trial, made: Iterable[VisitKey], failed: Mapping[VisitKey, str]) -> None:
    """Put the pages that failed on record, each replaced by one that says why, and take off those made.

    Parameters
    ----------
    trial
        Whose pages.
    made
        Pages that were made.
    failed
        Why others were not.
    """
    gone = {*made, *failed}
    before = [one for one in failed_pages(trial.root) if (one["subject_id"], one["visit_id"]) not in gone]
    now = datetime.now(UTC).isoformat(timespec="seconds")
    entries = before + [
        {"subject_id": subject_id, "visit_id": visit_id, "reason": reason, "failed_at": now}
        for (subject_id, visit_id), reason in failed.items()
    ]
    path = trial.root / REPORTS_FOLDER / FAILED_FILE
    if entries:
        write_durably(path, (json.dumps(entries, indent=1) + "\n").encode())
    else:
        remove(path)
    for (subject_id, visit_id), reason in failed.items():
        write_failed_page(trial, subject_id, visit_id, reason)


def failed_pages(root: Place) -> list[dict[str, Any]]:
    """Read which pages could not be made, and why."""
    try:
        entries: list[dict[str, Any]] = json.loads((root / REPORTS_FOLDER / FAILED_FILE).read_text())
    except FileNotFoundError:
        return []
    return entries
