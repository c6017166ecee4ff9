"""How a trial stands, as Markdown: counts, what needs attention, subjects by visits."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from storage.trial import Trial
from tasks.report.trial_picture import NEEDS_ATTENTION, SIGNS, trial_picture
from tasks.report.trial_visits import OUTCOMES, Record, Tables, visit_records

MOST_LISTED = 20
"""Visits that are listed with their reasons."""


def trial_summary_markdown(trial: Trial, visits: Iterable[Mapping[str, Any]]) -> str:
    """Tell how a trial stands, in Markdown: for people who are not at the trial's page.

    Counts of planned visits by outcome, the picture of subjects by visits, and visits that need attention
    with their reasons. Text of tables is escaped. Reasons may tell an ECV: this is no page for readers.

    Parameters
    ----------
    trial
        The trial.
    visits
        Rows of the table ``visits``.

    Raises
    ------
    StorageError
        If the plan cannot be read.
    """
    today = datetime.now(UTC).astimezone(ZoneInfo(trial.config.schedule.timezone)).date()
    records = visit_records(trial, Tables([dict(row) for row in visits], [], [], []), today)
    planned = [record for record in records if record["state"] != "unplanned"]
    if not planned:
        return f"**Trial {_plain(trial.config.trial_id)}**: no visit is planned.\n"
    parts = [
        f"**Trial {_plain(trial.config.trial_id)}**: {len(planned)} planned visits",
        _counts(planned),
        _picture(planned),
        _attention(planned),
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


def _picture(planned: Sequence[Record]) -> str:
    image, n_left_out = trial_picture(planned)
    more = f"\n\n{n_left_out} more subjects are on the trial's page." if n_left_out else ""
    return f"![Subjects by visits, each with what became of it]({image}){more}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text if text == "---" else _plain(text)


def _plain(text: str) -> str:
    r"""Keep text from being read as Markdown or HTML: entities mean nothing but themselves."""
    signs = "\\`*_{}[]()<>#|!~&"
    return "".join(f"&#{ord(sign)};" if sign in signs else sign for sign in " ".join(text.split()))
