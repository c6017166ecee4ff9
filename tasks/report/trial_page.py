"""The trial's page: what needs attention first, then all visits, distributions, drift, changes and nights."""

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from cmrcore.quantify.checks import CHECKS
from storage.durable import write_durably
from storage.place import Place
from storage.trial import Trial
from tasks.report.shell import render
from tasks.report.trial_metrics import (
    LEAST_SCANS,
    LEAST_TREND_DAYS,
    LEAST_TREND_SCANS,
    OUTLIER_SDS,
    ROBUST_SD,
    blood_drift,
    changes,
    distributions,
)
from tasks.report.trial_runs import run_history, slowest_visits, stray_uploads
from tasks.report.trial_visits import (
    OUTCOMES,
    REPORTS_FOLDER,
    STATES_TOLD,
    Record,
    read_rows,
    visit_records,
)

TRIAL_PAGE = Path(REPORTS_FOLDER, "index.html")

VERDICTS_TOLD = ("pass", "review", "fail")

N_SLOWEST = 10
"""Visits that are named as the slowest."""


def write_trial_page(trial: Trial) -> Place:
    """Write the page of a trial from its tables, plan, history and audit log, and give its place.

    Raises
    ------
    StorageError
        If the plan, a table or a former row cannot be read.
    """
    path = trial.root / TRIAL_PAGE
    now = datetime.now(UTC)
    write_durably(path, render("trial.html", **page_values(trial, now)).encode())
    return path


def page_values(trial: Trial, now: datetime) -> dict[str, Any]:
    """Give what the template needs.

    Parameters
    ----------
    trial
        The trial.
    now
        When the page is made; windows that ended before this day, in the trial's time zone, are over.
    """
    tables = read_rows(trial)
    records = visit_records(trial, tables, now.astimezone(ZoneInfo(trial.config.schedule.timezone)).date())
    planned = [record for record in records if record["state"] != "unplanned"]
    shifted = trial.config.privacy.dates == "shift"
    return {
        "title": f"Trial {trial.config.trial_id}",
        "version": version("cmrtrials"),
        "trial_id": trial.config.trial_id,
        "made_at": now,
        "n_planned": len(planned),
        "n_subjects": len({record["subject"] for record in planned}),
        "n_sites": len({record["site"] for record in records}),
        "states": _counts(records, "state", STATES_TOLD),
        "verdicts": _counts(records, "verdict", VERDICTS_TOLD),
        "n_scans": sum(record["verdict"] is not None for record in records),
        "stopped": [record for record in records if record["state"] in ("failed", "refused")],
        "overdue": [record for record in records if record["state"] == "overdue"],
        "unplanned": [record for record in records if record["state"] == "unplanned"],
        "strays": stray_uploads(trial.root),
        "codes": codes_raised(records),
        "without_page": [record for record in records if record["has_result"] and not record["page"]],
        "sites": _bars(planned, lambda record: record["site"]),
        "scanners": _bars([record for record in records if record["verdict"]], scanner_name),
        "outcomes": tuple(OUTCOMES),
        "names": OUTCOMES,
        "runs": run_history(trial.root, tables.visits),
        "shifted": shifted,
        "rule": {"sds": OUTLIER_SDS, "mad": ROBUST_SD, "least": LEAST_SCANS},
        "trend": {"scans": LEAST_TREND_SCANS, "days": LEAST_TREND_DAYS},
        "data": {
            "visits": records,
            "distributions": distributions(records),
            "drift": [] if shifted else blood_drift(records),
            "changes": changes(records, tables.longitudinal),
            "slowest": slowest_visits(records, N_SLOWEST),
        },
    }


def codes_raised(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Give each code that a verdict rests on: how many visits fail or are to be reviewed by it."""
    fail: Counter[str] = Counter()
    review: Counter[str] = Counter()
    for record in records:
        for code, severity in record["codes"].items():
            (fail if severity == "fail" else review)[code] += 1
    codes = sorted({*fail, *review}, key=lambda code: (-fail[code], -review[code], code))
    return [
        {"code": code, "fail": fail[code], "review": review[code], "meaning": _meaning(code)}
        for code in codes
    ]


def scanner_name(record: Record) -> str:
    """Name a scanner as far as tables tell scanners apart, site aside."""
    return f"{record['scanner'] or 'scanner unnamed'}, {record['field'] or 'field unknown'}"


def _meaning(code: str) -> str:
    if code == "summary_failed":
        return "the subject's summary could not be made, so changes are missing"
    return CHECKS[code].meaning if code in CHECKS else ""


def _counts(records: Sequence[Record], name: str, values: Sequence[str]) -> list[tuple[str, int]]:
    found = Counter(record[name] for record in records)
    return [(value, found[value]) for value in values]


def _bars(records: Sequence[Record], name_of: Callable[[Record], str]) -> list[dict[str, Any]]:
    """Count outcomes by group."""
    groups: dict[str, Counter[str]] = {}
    for record in records:
        groups.setdefault(name_of(record), Counter())[record["outcome"]] += 1
    return [
        {"name": name, "n": found.total(), "parts": {outcome: found[outcome] for outcome in OUTCOMES}}
        for name, found in sorted(groups.items())
    ]
