"""What became of a subject from visit to visit, held against what measuring twice would give."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from tasks.report.visit_charts import history_chart

Row = Mapping[str, Any]

_KINDS = (
    ("native T1 [ms]", "t1_native_ms", "t1_native_repeatability_ms", 1.0),
    ("ECV [%]", "ecv_fraction", "ecv_repeatability_fraction", 100.0),
)
_PLACES = ("global", "septal", "basal", "mid", "apical")


@dataclass(frozen=True, slots=True)
class Change:
    """Change of one region since another visit."""

    since: str
    """That visit."""
    region: str
    """Whole heart, septum or level."""
    t1_native: str
    """Change of native T1 and the repeatability coefficient."""
    t1_native_judged: str
    """Whether it changed."""
    ecv: str
    """Change of ECV and the repeatability coefficient."""
    ecv_judged: str
    """Whether it changed."""
    doubts: str
    """What differs between the visits besides the heart."""


def history_charts(
    visits: Sequence[str], scans: Mapping[str, Row], changes: Sequence[Row], shown: str
) -> list[Markup]:
    """Chart native T1 and ECV of all visits of a subject; those that no visit has are left out.

    Parameters
    ----------
    visits
        Visits of the subject in the order of their dates.
    scans
        Row of ``scans`` of each visit that has one.
    changes
        Rows of ``longitudinal`` of the subject.
    shown
        The visit of the page.
    """
    charts = []
    of_heart = [row for row in changes if row["level"] == "global" and row["aha_segment"] is None]
    for name, column, band_column, factor in _KINDS:
        points = [
            (visit, None if (value := scans.get(visit, {}).get(column)) is None else factor * value)
            for visit in visits
        ]
        if all(value is None for _, value in points):
            continue
        bands = (row[band_column] for row in of_heart)
        band = next((factor * value for value in bands if value is not None), None)
        text = ", ".join(f"{visit} {'-' if value is None else f'{value:.4g}'}" for visit, value in points)
        charts.append(history_chart(points, shown, band, name, f"History of {name}: {text}"))
    return charts


def change_lines(changes: Sequence[Row], shown: str) -> tuple[Change, ...]:
    """Give the changes of a visit in whole heart, septum and levels."""
    own = [row for row in changes if row["visit_id"] == shown and row["aha_segment"] is None]
    own.sort(key=lambda row: (row["baseline_visit_id"], _PLACES.index(row["level"])))
    return tuple(
        Change(
            since=row["baseline_visit_id"],
            region=row["level"],
            t1_native=_difference(row["t1_native_change_ms"], row["t1_native_repeatability_ms"], 1.0, "ms"),
            t1_native_judged=_judged(row["t1_native_changed"]),
            ecv=_difference(row["ecv_change_fraction"], row["ecv_repeatability_fraction"], 100.0, "points"),
            ecv_judged=_judged(row["ecv_changed"]),
            doubts=_doubts(row),
        )
        for row in own
    )


def _difference(change: float | None, coefficient: float | None, factor: float, unit: str) -> str:
    if change is None:
        return "-"
    decimals = 0 if factor == 1.0 else 1
    band = "" if coefficient is None else f" (repeatability {factor * coefficient:.{decimals}f})"
    return f"{factor * change:+.{decimals}f} {unit}{band}"


def _judged(changed: bool | None) -> str:
    return "not judged" if changed is None else "changed" if changed else "unchanged"


def _doubts(row: Row) -> str:
    parts = [] if row["same_scanner"] is not False else ["another scanner"]
    return "; ".join([*parts, *(row["protocol_deviations"] or [])])
