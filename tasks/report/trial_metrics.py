"""What the trial's page computes of the scans' numbers: outliers, drift of blood T1, changes over visits."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from tasks.report.trial_visits import Record

OUTLIER_SDS = 3.5
"""Robust standard deviations from the median beyond which a scan is an outlier."""

ROBUST_SD = 1.4826
"""Median absolute deviation of a normal distribution times this is its standard deviation."""

LEAST_SCANS = 8
"""Scans of a group under which nothing is called an outlier."""

LEAST_TREND_SCANS = 10
"""Scans of a scanner under which there is no trend."""

LEAST_TREND_DAYS = 60.0
"""Time they must span for that [d]."""

TREND_CONFIDENCE = 0.99
"""Of the interval that must exclude 0: a trial has many scanners, and few of them may be marked by chance."""

DAYS_A_YEAR = 365.25


@dataclass(frozen=True, slots=True)
class Metric:
    """A number of a scan that is shown as a distribution."""

    name: str
    """Its name in a record."""
    title: str
    """What it is."""
    unit: str
    """Unit on the page; ``%`` multiplies a fraction by 100."""
    digits: int
    """Digits after the point."""
    by_field: bool
    """Whether scans of another field strength are another group."""


METRICS = (
    Metric("t1", "Native T1", "ms", 0, by_field=True),
    Metric("post", "Post-contrast T1", "ms", 0, by_field=True),
    Metric("blood", "Blood T1, native", "ms", 0, by_field=True),
    Metric("ecv", "ECV", "%", 1, by_field=True),
    Metric("r2", "R² of the native fit", "", 3, by_field=True),
    Metric("hct", "Hematocrit", "%", 1, by_field=False),
)


def outlier_limits(values: Float[np.ndarray, " scan"]) -> tuple[float, float] | None:
    """Limits beyond which a scan is an outlier: median -+ 3.5 robust standard deviations.

    Returns
    -------
        None for fewer than `LEAST_SCANS` values, and where more than half of them are equal.

    References
    ----------
    Leys et al. 2013, J Exp Soc Psychol 49:764, doi:10.1016/j.jesp.2013.03.013
    """
    if len(values) < LEAST_SCANS:
        return None
    middle = float(np.median(values))
    spread = OUTLIER_SDS * ROBUST_SD * float(np.median(np.abs(values - middle)))
    return (middle - spread, middle + spread) if spread > 0 else None


def distributions(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Give each metric's groups with median, limits and the indices of their scans and outliers."""
    told = []
    for metric in METRICS:
        members: dict[str, list[int]] = defaultdict(list)
        for index, record in enumerate(records):
            if record[metric.name] is not None:
                group = (record["field"] or "field unknown") if metric.by_field else "all scans"
                members[group].append(index)
        groups = []
        for name, indices in sorted(members.items()):
            values = np.array([records[index][metric.name] for index in indices])
            limits = outlier_limits(values)
            low, high = limits or (-np.inf, np.inf)
            outliers = [
                index for index, value in zip(indices, values, strict=True) if not low <= value <= high
            ]
            outliers.sort(key=lambda index: -abs(records[index][metric.name] - np.median(values)))
            groups.append(
                {
                    "name": name,
                    "scans": indices,
                    "median": float(np.median(values)),
                    "limits": limits,
                    "outliers": outliers,
                }
            )
        told.append(
            {
                "name": metric.name,
                "title": metric.title,
                "unit": metric.unit,
                "digits": metric.digits,
                "groups": groups,
            }
        )
    return told


def blood_drift(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Give each scanner's native blood T1 over calendar time, with its trend.

    A scanner is what tables tell apart: site, manufacturer, model and field strength. The trend is Theil and
    Sen's, which outliers do not pull, with its 99 % interval; scans that failed QC are left out of it.

    References
    ----------
    Sen 1968, J Am Stat Assoc 63:1379, doi:10.1080/01621459.1968.10480934
    """
    members: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for index, record in enumerate(records):
        if record["blood"] is not None and record["scanned"] is not None:
            scanner = record["scanner"] or "scanner unnamed"
            members[record["site"], scanner, record["field"] or "field unknown"].append(index)
    scanners = []
    for (site, scanner, field), indices in sorted(members.items()):
        trusted = [records[index] for index in indices if records[index]["verdict"] != "fail"]
        days = np.array([_days(record["scanned"]) for record in trusted])
        blood_t1_ms = np.array([record["blood"] for record in trusted], dtype=float)
        scanners.append(
            {
                "site": site,
                "scanner": scanner,
                "field": field,
                "scans": indices,
                "trend": trend_a_year(days, blood_t1_ms),
            }
        )
    return scanners


def trend_a_year(
    days: Float[np.ndarray, " scan"], values: Float[np.ndarray, " scan"]
) -> dict[str, float] | None:
    """Theil-Sen slope a year with its 99 % interval, and the line's ends; None for too few or too short."""
    if len(days) < LEAST_TREND_SCANS or float(np.ptp(days)) < LEAST_TREND_DAYS:
        return None
    found = stats.theilslopes(values, days, TREND_CONFIDENCE)
    slope, low, high = (float(x) * DAYS_A_YEAR for x in (found.slope, found.low_slope, found.high_slope))
    ends = found.intercept + found.slope * np.array([days.min(), days.max()])
    return {"slope": slope, "low": low, "high": high, "from": float(ends[0]), "to": float(ends[1])}


def changes(records: Sequence[Record], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Give changes since each subject's first visit, of native T1 and ECV, whole and septal.

    Each point is ``[visit, first visit, days between, change, repeatability, whether beyond it]``, visits as
    indices of records. The last is None where visits cannot be compared. Scans that failed QC are left out.
    """
    index_of = {(record["subject"], record["visit"]): index for index, record in enumerate(records)}
    firsts = _first_visits(records, rows, index_of)
    panels = []
    for stem, unit, title in (("t1_native", "ms", "Native T1"), ("ecv", "fraction", "ECV")):
        change = "ecv_change_fraction" if stem == "ecv" else "t1_native_change_ms"
        for level, where in (("global", "whole heart"), ("septal", "septum")):
            points = []
            for row in rows:
                pair = [index_of.get((row["subject_id"], row[name])) for name in _PAIR]
                if row["level"] != level or row[change] is None or None in pair:
                    continue
                if pair[1] != firsts[row["subject_id"]]:
                    continue
                now, first = (records[index] for index in pair if index is not None)
                if "fail" in (now["verdict"], first["verdict"]):
                    continue
                apart = _apart_days(now, first)
                repeatability = row[f"{stem}_repeatability_{unit}"]
                if apart is not None:
                    beyond = row[f"{stem}_beyond_repeatability"]
                    points.append([*pair, apart, _short(row[change]), repeatability, beyond])
            known = [point[4] for point in points if point[4] is not None]
            panels.append(
                {
                    "value": ("t1" if stem == "t1_native" else "ecv") + ("_septal" * (level == "septal")),
                    "title": f"{title}, {where}",
                    "unit": "ms" if unit == "ms" else "%",
                    "repeatability": [min(known), max(known)] if known else None,
                    "points": points,
                }
            )
    return panels


_PAIR = ("visit_id", "baseline_visit_id")


def _first_visits(
    records: Sequence[Record], rows: Sequence[Mapping[str, Any]], index_of: Mapping[tuple[str, str], int]
) -> dict[str, int]:
    """Give the visit that each subject's changes are counted from: the earliest that any is counted from."""
    firsts: dict[str, int] = {}
    for row in rows:
        index = index_of.get((row["subject_id"], row["baseline_visit_id"]))
        if index is None:
            continue
        known = firsts.setdefault(row["subject_id"], index)
        if (_when(records[index]) or "~") < (_when(records[known]) or "~"):
            firsts[row["subject_id"]] = index
    return {row["subject_id"]: -1 for row in rows} | firsts


def _when(record: Record) -> str | None:
    when: str | None = record["scanned"] or record["planned"]
    return when


def _apart_days(now: Record, first: Record) -> float | None:
    both = [_when(now), _when(first)]
    if None in both:
        return None
    later, earlier = (_days(when) for when in both if when is not None)
    return round(later - earlier, 1)


def _days(when: str) -> float:
    """Days since an arbitrary moment [d]."""
    return (datetime.fromisoformat(when) - datetime(2000, 1, 1)).total_seconds() / 86400


def _short(value: float) -> float:
    return float(f"{value:.5g}")
