"""Outliers, drift and changes against answers that are known."""

from typing import Any

import numpy as np
import pytest
from jaxtyping import Float

from tasks.report.trial_metrics import blood_drift, changes, distributions, outlier_limits, trend_a_year


def record(**values: Any) -> dict[str, Any]:
    """Give a visit as the page tells it, as far as metrics look at it."""
    drawn: dict[str, Any] = {
        **dict.fromkeys(("t1", "t1_septal", "post", "blood", "ecv", "ecv_septal", "r2", "hct")),
        **{"subject": "S01", "visit": "V1", "site": "01", "planned": "2026-01-01", "scanned": None},
        **{"scanner": "GE Premier", "field": "3 T", "verdict": "pass"},
    }
    return drawn | values


def group_of(records: list[dict[str, Any]], name: str) -> dict[str, dict[str, Any]]:
    """Give the groups of one metric by name."""
    (metric,) = [one for one in distributions(records) if one["name"] == name]
    return {group["name"]: group for group in metric["groups"]}


def test_limits_are_the_median_and_35_robust_sds() -> None:
    """Of 1 to 9 the median is 5 and the median absolute deviation 2."""
    limits = outlier_limits(np.arange(1.0, 10.0))

    assert limits == pytest.approx((5 - 3.5 * 1.4826 * 2, 5 + 3.5 * 1.4826 * 2))


@pytest.mark.parametrize("values", [[1.0, 2, 3, 4, 5, 6, 99], [5.0] * 6 + [1, 2, 3]], ids=["few", "equal"])
def test_there_are_no_limits_without_a_spread_to_trust(values: list[float]) -> None:
    """Call nothing an outlier of seven scans, or where most are equal."""
    assert outlier_limits(np.array(values)) is None


def test_an_outlier_is_one_at_its_field_strength() -> None:
    """1300 ms is usual at 3 T and far off at 1.5 T; the farthest comes first."""
    low = [record(field="1.5 T", t1=1000.0 + step) for step in range(9)]
    high = [record(t1=1300.0 + step) for step in range(9)]
    odd = [record(field="1.5 T", t1=1050.0), record(field="1.5 T", t1=1300.0)]

    groups = group_of(low + high + odd, "t1")

    assert groups["1.5 T"]["outliers"] == [19, 18]
    assert groups["3 T"]["outliers"] == []
    assert groups["3 T"]["median"] == 1304.0


def test_hematocrit_is_one_group_and_unknown_fields_are_one() -> None:
    """Hematocrit knows no field strength; a scan without one is still shown."""
    records = [record(hct=0.4, t1=1000.0, field=None), record(hct=0.5, t1=1200.0)]

    assert list(group_of(records, "hct")) == ["all scans"]
    assert list(group_of(records, "t1")) == ["3 T", "field unknown"]


def test_a_metric_without_values_has_no_group() -> None:
    """Say nothing where nothing was measured."""
    assert group_of([record()], "ecv") == {}


def test_a_trend_is_the_line_whatever_a_few_scans_say() -> None:
    """A line of 0.1 ms a day is 36.525 ms a year, with two wild scans too."""
    days = np.arange(0.0, 300.0, 10)
    values = 1600 + 0.1 * days
    values[[3, 20]] += 400

    trend = trend_a_year(days, values)

    assert trend is not None
    assert trend["slope"] == pytest.approx(36.525, abs=0.01)
    assert trend["low"] <= trend["slope"] <= trend["high"]
    assert (trend["from"], trend["to"]) == pytest.approx((1600, 1629), abs=1)


@pytest.mark.parametrize("days", [np.arange(9.0) * 30, np.arange(40.0)], ids=["few", "short"])
def test_there_is_no_trend_of_little(days: Float[np.ndarray, " scan"]) -> None:
    """Give none under ten scans or sixty days."""
    assert trend_a_year(days, days) is None


def test_drift_is_by_scanner_and_leaves_out_failed_scans() -> None:
    """A scanner of another site is another one; failed scans are shown, and not believed."""
    dates = [f"2026-{month:02d}-01T10:00" for month in range(1, 13)]
    good = [record(scanned=when, blood=1800.0 + index % 2) for index, when in enumerate(dates)]
    failed = [record(scanned=when, blood=5000.0, verdict="fail") for when in dates[6:]]
    other = [record(scanned=dates[0], blood=1600.0, site="02", scanner=None, field=None), record(blood=1.0)]

    here, there = blood_drift(good + failed + other)

    assert len(here["scans"]) == 18
    assert abs(here["trend"]["slope"]) < 3
    assert (there["scanner"], there["field"], there["trend"]) == ("scanner unnamed", "field unknown", None)


def change_row(visit_id: str, baseline: str, change: float | None, **values: Any) -> dict[str, Any]:
    """Give a row of ``longitudinal``, as far as the page reads it."""
    drawn: dict[str, Any] = {
        **{"subject_id": "S01", "visit_id": visit_id, "baseline_visit_id": baseline, "level": "global"},
        **{"t1_native_change_ms": change, "t1_native_repeatability_ms": 37.0},
        **{"t1_native_beyond_repeatability": None if change is None else abs(change) > 37},
        **{"ecv_change_fraction": None, "ecv_repeatability_fraction": None},
        "ecv_beyond_repeatability": None,
    }
    return drawn | values


VISITS = [
    record(visit="V1", scanned="2026-01-01T10:00"),
    record(visit="V2", scanned="2026-02-01T10:00"),
    record(visit="V3", scanned="2026-03-01T22:00"),
]


def test_changes_are_counted_from_the_first_visit_alone() -> None:
    """The table holds each earlier visit against the last one too."""
    rows = [change_row("V3", "V2", -50.0), change_row("V2", "V1", 40.0), change_row("V3", "V1", -10.0)]

    panel = changes(VISITS, rows)[0]

    assert panel["points"] == [[1, 0, 31.0, 40.0, 37.0, True], [2, 0, 59.5, -10.0, 37.0, False]]
    assert panel["repeatability"] == [37.0, 37.0]


def test_what_cannot_be_shown_is_left_out() -> None:
    """Leave out changes without a value, from a failed scan, or of a visit that has gone."""
    visits = [VISITS[0], record(visit="V2", scanned="2026-02-01T10:00", verdict="fail"), VISITS[2]]
    rows = [change_row("V2", "V1", 40.0), change_row("V3", "V1", None), change_row("V4", "V1", 1.0)]

    panels = changes(visits, [*rows, change_row("V5", "V0", 2.0, subject_id="S09")])

    assert [panel["points"] for panel in panels] == [[], [], [], []]
    assert panels[0]["repeatability"] is None


def test_what_cannot_be_compared_says_so() -> None:
    """Another scanner: a change without a verdict."""
    rows = [change_row("V2", "V1", 90.0, t1_native_beyond_repeatability=None)]

    assert changes(VISITS, rows)[0]["points"][0][5] is None
