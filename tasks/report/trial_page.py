"""The trial's pages: what needs attention first, then all visits and nights; and the same with results.

Readers begin at ``index.html``, which holds no ECV, no change and no other metric but what a check quotes.
``results.html`` has metrics, distributions, drift and changes besides. Two files rather than a switch: what a
file does not hold, nobody meets in it by chance, by a search or in its source, and a site can hand out the
one without the other.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
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
from tasks.report.trial_blinding import blinded_records
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
    Tables,
    read_rows,
    visit_records,
)

TRIAL_PAGE = Path(REPORTS_FOLDER, "index.html")
RESULTS_PAGE = Path(REPORTS_FOLDER, "results.html")

VERDICTS_TOLD = ("pass", "review", "fail")

N_SLOWEST = 10
"""Visits that are named as the slowest."""


def write_trial_page(trial: Trial) -> Place:
    """Write the pages of a trial from its tables, plan, history and audit log; give the place of the first.

    Raises
    ------
    StorageError
        If the plan, a table or a former row cannot be read.
    """
    tables = read_rows(trial)
    values = page_values(trial, tables, datetime.now(UTC))
    # The results last: a night makes both anew where they are missing, and a former version's index held all.
    for page, shown in ((TRIAL_PAGE, blinded_values(values, tables)), (RESULTS_PAGE, values)):
        write_durably(trial.root / page, render("trial.html", **shown).encode())
    return trial.root / TRIAL_PAGE


def blinded_values(values: Mapping[str, Any], tables: Tables) -> dict[str, Any]:
    """Give what the template needs for the page that readers begin at, see `page_values`."""
    records = blinded_records(values["data"]["visits"], tables.flags)
    data = {"is_blinded": True, "visits": records, "slowest": values["data"]["slowest"]}
    return {**values, "is_blinded": True, "codes": codes_raised(records), "data": data}


def page_values(trial: Trial, tables: Tables, now: datetime) -> dict[str, Any]:
    """Give what the template needs for the page with results.

    Parameters
    ----------
    trial
        The trial.
    tables
        Its rows.
    now
        When the page is made; windows that ended before this day, in the trial's time zone, are over.
    """
    records = visit_records(trial, tables, now.astimezone(ZoneInfo(trial.config.schedule.timezone)).date())
    planned = [record for record in records if record["state"] != "unplanned"]
    shifted = trial.config.privacy.dates == "shift"
    return {
        "title": f"Trial {trial.config.trial_id}",
        "is_blinded": False,
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
            "is_blinded": False,
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
