"""All visits of a trial as its page tells them: one record a visit, planned or published."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc

from storage.place import Place
from storage.plan import PlannedVisit, counted
from storage.tables import read_tables
from storage.trial import Trial

REPORTS_FOLDER = "reports"

Record = Mapping[str, Any]
"""A visit, ready for JSON, see `visit_records`."""

Key = tuple[str, str]
"""Subject and visit."""

STATES_TOLD = ("done", "flagged", "failed", "refused", "overdue", "waiting", "new", "unplanned")
"""States of the tables, and three more that plan and clock tell apart: waiting with the window over, not seen
by any night yet, published but no longer in the plan."""

OUTCOMES = {
    "pass": "QC pass",
    "review": "QC review",
    "fail": "QC fail",
    "failed": "failed",
    "refused": "refused",
    "overdue": "overdue",
    "waiting": "waiting",
    "new": "not seen yet",
}
"""What can become of a planned visit, in the order of bars and legends, and how it is told."""

NOMINAL_FIELDS_T = (0.55, 1.5, 3.0, 7.0)
"""Scanners round theirs: 1.494 T or 2.89 T are told as what they are sold as [T]."""

FIELD_TOLERANCE_T = 0.2
"""Largest distance from a nominal field strength [T]."""

SCAN_NUMBERS = {
    "t1": "t1_native_ms",
    "t1_septal": "t1_native_septal_ms",
    "post": "t1_post_ms",
    "blood": "blood_t1_native_ms",
    "ecv": "ecv_fraction",
    "ecv_septal": "ecv_septal_fraction",
    "r2": "r_squared_native_mean",
    "hct": "hematocrit_fraction",
}
"""Name on the page of each column of ``scans`` that it shows."""

_STAGES = ("intake", "segment", "quantify")


class Tables(NamedTuple):
    """Rows of the tables the page is made of, as they stood at one moment."""

    visits: list[dict[str, Any]]
    """Rows of ``visits``."""
    scans: list[dict[str, Any]]
    """Rows of ``scans``."""
    flags: list[dict[str, Any]]
    """Rows of ``flags`` that bear on a verdict."""
    longitudinal: list[dict[str, Any]]
    """Rows of ``longitudinal`` about the whole heart and the septum."""


def read_rows(trial: Trial) -> Tables:
    """Read what the page needs of the tables."""
    tables = read_tables(trial.root, ["visits", "scans", "flags", "longitudinal"])
    flags, longitudinal = tables["flags"], tables["longitudinal"]
    whole = pc.is_in(longitudinal["level"].cast("string"), pa.array(["global", "septal"]))
    longitudinal = longitudinal.filter(pc.and_(whole, pc.is_null(longitudinal["aha_segment"])))
    flags = flags.filter(pc.not_equal(flags["severity"].cast("string"), "note"))
    return Tables(*(table.to_pylist() for table in (tables["visits"], tables["scans"], flags, longitudinal)))


def visit_records(trial: Trial, tables: Tables, today: date) -> list[Record]:
    """Give one record a visit, ready for JSON: the plan's in its order of subjects, then those it lost.

    Where dates are shifted, a record has none but those of the tables: beside a shifted date, the plan's
    would give the shift away.

    Parameters
    ----------
    trial
        The trial.
    tables
        Its rows.
    today
        Day that windows are held against.
    """
    rows = {_key(row): row for row in tables.visits}
    scans = {_key(row): row for row in tables.scans}
    codes: dict[Key, dict[str, str]] = defaultdict(dict)
    for flag in tables.flags:  # a code of several slices counts with its worst
        known = codes[_key(flag)].get(flag["code"])
        codes[_key(flag)][flag["code"]] = "fail" if "fail" in (known, flag["severity"]) else "review"
    planned = {(line.subject_id, line.visit_id): line for line in trial.plan()}
    shifted = trial.config.privacy.dates == "shift"
    pages = visit_pages(trial.root)
    records: list[Record] = []
    for key in [*_in_order(planned.values()), *(key for key in rows if key not in planned)]:
        line, row = planned.get(key), rows.get(key) or {}
        state = _state(line, row, today)
        verdict = row.get("qc_verdict") or scans.get(key, {}).get("qc_verdict")
        record = {
            "subject": key[0],
            "visit": key[1],
            "site": line.site_id if line else row["site_id"],
            "planned": _planned_date(line, row, shifted=shifted),
            "window": line.window_days if line else None,
            "state": state,
            "verdict": verdict,
            "outcome": _outcome(state, row.get("state"), verdict),
            "reason": _reason(state, row),
            "stage": row.get("failed_stage"),
            "codes": codes.get(key, {}) if row.get("result_digest") else {},
            "has_result": bool(row.get("result_digest")),
            "page": page_link(*key) if key in pages else None,
            "seconds": [_number(row.get(f"seconds_{stage}")) for stage in _STAGES],
            "published": _iso(row.get("published_at")),
            **_scan_part(scans.get(key, {})),
        }
        if "summary_failed:" in (row.get("reason") or ""):  # no flag of a table: the summary would hold it
            record["codes"] = {**record["codes"], "summary_failed": "review"}
        records.append(record)
    return records


def page_link(subject_id: str, visit_id: str) -> str:
    """Link from the trial's page to that of a visit."""
    return f"{quote(subject_id, safe='')}/{quote(visit_id, safe='')}.html"


def visit_pages(root: Place) -> set[Key]:
    """Visits that have a page."""
    return {(path.parent.name, path.stem) for path in (root / REPORTS_FOLDER).glob("*/*.html")}


def nominal_field(field_strength_t: float | None) -> str | None:
    """Say a field strength as people do, ``3 T``; None where it is unknown."""
    value = _number(field_strength_t)
    if value is None:
        return None
    nearest = min(NOMINAL_FIELDS_T, key=lambda nominal: abs(nominal - value))
    return f"{nearest:g} T" if abs(nearest - value) <= FIELD_TOLERANCE_T else f"{value:.1f} T"


def _key(row: Mapping[str, Any]) -> Key:
    return row["subject_id"], row["visit_id"]


def _in_order(planned: Iterable[PlannedVisit]) -> list[Key]:
    """Order subjects by their ids, their visits by date."""
    lines = sorted(
        planned, key=lambda line: (counted(line.subject_id), line.visit_date, counted(line.visit_id))
    )
    return [(line.subject_id, line.visit_id) for line in lines]


def _state(line: PlannedVisit | None, row: Mapping[str, Any], today: date) -> str:
    if line is None:
        return "unplanned"
    state: str = row.get("state") or "new"
    is_over = line.visit_date + timedelta(days=line.window_days) < today
    return "overdue" if state in ("waiting", "new") and is_over else state


def _outcome(state: str, published_state: str | None, verdict: str | None) -> str:
    """Say in one word what became of a visit: the verdict where it has a result, else its state."""
    told = (published_state or state) if state == "unplanned" else state
    if told == "done":
        return verdict or "pass"
    if told == "flagged":
        return "fail" if verdict == "fail" else "review"
    return told


def _reason(state: str, row: Mapping[str, Any]) -> str:
    reason: str = row.get("reason") or ""
    if state == "new":
        return "no night has run since it was planned"
    if state == "unplanned":
        return "; ".join(
            filter(None, [f"{row['state']}, but no longer in subjects.csv; its rows stay", reason])
        )
    if state == "overdue":
        return "; ".join(filter(None, ["its window is over", reason]))
    return reason


def _planned_date(line: PlannedVisit | None, row: Mapping[str, Any], *, shifted: bool) -> str | None:
    recorded = row.get("visit_date")
    if line is None or shifted:
        return _iso(recorded)
    return _iso(line.visit_date)


def _scan_part(scan: Mapping[str, Any]) -> dict[str, Any]:
    names = [(scan.get("manufacturer") or "").strip(), (scan.get("scanner_model") or "").strip()]
    return {
        "scanned": _iso(scan.get("scan_datetime")),
        "scanner": " ".join(filter(None, names)) or None,
        "field": nominal_field(scan.get("field_strength_t")),
        **{name: _number(scan.get(column)) for name, column in SCAN_NUMBERS.items()},
    }


def _iso(when: date | datetime | None) -> str | None:
    if isinstance(when, datetime):
        return when.isoformat(timespec="minutes")
    return None if when is None else when.isoformat()


def _number(value: float | None) -> float | None:
    """Give a number that JSON can hold, with the digits that a page needs."""
    return float(f"{value:.5g}") if value is not None and math.isfinite(value) else None
