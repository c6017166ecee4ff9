"""The trial's key picture as Markdown: counts, what needs attention, subjects by visits."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from storage.trial import Trial
from tasks.report.trial_visits import OUTCOMES, Record, read_rows, visit_records

SIGNS = {
    "pass": "✓",
    "review": "?",
    "fail": "✗",
    "failed": "!",
    "refused": "↩",
    "overdue": "◔",
    "waiting": "…",
    "new": "·",
}
"""Mark of each outcome, as on the trial's page."""

NEEDS_ATTENTION = ("failed", "refused", "fail", "review", "overdue")
"""Outcomes that somebody should look at, the most urgent first."""

MOST_LISTED = 20
"""Visits that are listed with their reasons."""

MOST_SUBJECTS = 40
"""Rows of the map; of a larger trial, it shows subjects that need attention."""


def trial_summary_markdown(trial: Trial) -> str:
    """Tell how a trial stands, in Markdown: for people who are not at the trial's page.

    Counts of planned visits by outcome, visits that need attention with their reasons, and the map of
    subjects by visits. Text of tables is escaped.

    Raises
    ------
    StorageError
        If the plan or a table cannot be read.
    """
    today = datetime.now(UTC).astimezone(ZoneInfo(trial.config.schedule.timezone)).date()
    records = visit_records(trial, read_rows(trial), today)
    planned = [record for record in records if record["state"] != "unplanned"]
    if not planned:
        return f"**Trial {_plain(trial.config.trial_id)}**: no visit is planned.\n"
    parts = [
        f"**Trial {_plain(trial.config.trial_id)}**: {len(planned)} planned visits",
        _counts(planned),
        _attention(planned),
        _map(planned),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _counts(planned: Sequence[Record]) -> str:
    found = Counter(record["outcome"] for record in planned)
    told = [outcome for outcome in OUTCOMES if found[outcome]]
    heads = [f"{SIGNS[outcome]} {OUTCOMES[outcome]}" for outcome in told]
    return _table(heads, [[str(found[outcome]) for outcome in told]])


def _attention(planned: Sequence[Record]) -> str:
    found = [record for record in planned if record["outcome"] in NEEDS_ATTENTION]
    found.sort(key=lambda record: NEEDS_ATTENTION.index(record["outcome"]))
    if not found:
        return "Nothing needs attention."
    rows = [
        [
            f"{record['subject']} {record['visit']}",
            f"{SIGNS[record['outcome']]} {OUTCOMES[record['outcome']]}",
            record["reason"],
        ]
        for record in found[:MOST_LISTED]
    ]
    more = len(found) - MOST_LISTED
    return _table(["Visit", "", "Why"], rows) + (f"\n\nand {more} more" if more > 0 else "")


def _map(planned: Sequence[Record]) -> str:
    subjects: dict[str, dict[str, Record]] = {}
    for record in planned:
        subjects.setdefault(record["subject"], {})[record["visit"]] = record
    shown = list(subjects)
    if len(shown) > MOST_SUBJECTS:
        shown = [subject for subject in shown if _urgency(subjects[subject]) < len(NEEDS_ATTENTION)]
        shown.sort(key=lambda subject: _urgency(subjects[subject]))
    visits = list(dict.fromkeys(record["visit"] for record in planned))
    rows = [
        [subject, *(_sign(subjects[subject].get(visit)) for visit in visits)]
        for subject in shown[:MOST_SUBJECTS]
    ]
    left_out = len(subjects) - len(rows)
    if not rows:
        return ""
    which = f"\n\n{left_out} more subjects are on the trial's page." if left_out else ""
    return _table(["Subject", *visits], rows) + which


def _urgency(visits: Mapping[str, Record]) -> int:
    """Place of a subject's most urgent visit; behind all others where nothing needs attention."""
    outcomes = {record["outcome"] for record in visits.values()}
    return next((place for place, one in enumerate(NEEDS_ATTENTION) if one in outcomes), len(NEEDS_ATTENTION))


def _sign(record: Record | None) -> str:
    return "" if record is None else SIGNS[record["outcome"]]


def _table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text if text == "---" else _plain(text)


def _plain(text: str) -> str:
    r"""Keep text from being read as Markdown or HTML: entities mean nothing but themselves."""
    signs = "\\`*_{}[]()<>#|!~&"
    return "".join(f"&#{ord(sign)};" if sign in signs else sign for sign in " ".join(text.split()))
