"""Flags and verdicts."""

import datetime
from dataclasses import replace

import pytest

from cmrcore.quantify import CHECKS, HematocritLimits, verdict
from cmrcore.quantify.qc import (
    Place,
    check_hematocrit,
    check_range,
    raise_flag,
    reasons,
    scan_verdict,
    slice_verdict,
)
from tests.cmrcore.quantify.drawn_scans import QC

LIMITS = HematocritLimits(min_fraction=0.2, max_fraction=0.6, max_hours=24.0, max_days=1)
SCAN = datetime.datetime(2026, 3, 10, 9, 0)


def codes(
    fraction: float,
    day: int,
    time: datetime.time | None,
    scan: datetime.datetime | None,
    scan_date: datetime.date | None = None,
) -> list[str]:
    """Codes raised for a hematocrit of that day in March."""
    flags = check_hematocrit(fraction, datetime.date(2026, 3, day), time, scan, scan_date, LIMITS)
    return [flag.code for flag in flags]


AGES = {
    "same morning": (10, datetime.time(8), []),
    "exactly 24 h before": (9, datetime.time(9), []),
    "a minute more": (9, datetime.time(8, 59), ["hematocrit_old"]),
    "25 h after": (11, datetime.time(10), ["hematocrit_old"]),
    "day before, no time": (9, None, []),
    "day after, no time": (11, None, []),
    "two days before, no time": (8, None, ["hematocrit_old"]),
}


@pytest.mark.parametrize(("day", "time", "expected"), AGES.values(), ids=AGES.keys())
def test_hematocrit_must_be_of_the_day(day: int, time: datetime.time | None, expected: list[str]) -> None:
    """Within 24 h where the time is known, else within one calendar day, before or after."""
    assert codes(0.42, day, time, SCAN) == expected


def test_age_across_midnight_counts_hours_not_days() -> None:
    """Two dates apart may be 20 hours apart."""
    scan_time = datetime.datetime(2026, 3, 10, 0, 30)
    flags = check_hematocrit(0.42, datetime.date(2026, 3, 8), datetime.time(23), scan_time, None, LIMITS)
    assert [(flag.code, flag.value, flag.threshold) for flag in flags] == [("hematocrit_old", 25.5, 24)]


@pytest.mark.parametrize("time", [None, datetime.time(8)], ids=["date", "time"])
def test_unknown_scan_date_is_a_doubt(time: datetime.time | None) -> None:
    """An age that cannot be told is not taken for young."""
    assert codes(0.42, 10, time, None) == ["hematocrit_old"]


@pytest.mark.parametrize("time", [None, datetime.time(8)], ids=["date", "time"])
@pytest.mark.parametrize(
    ("day", "expected"), [(9, []), (11, []), (8, ["hematocrit_old"])], ids=["before", "after", "old"]
)
def test_calendar_days_need_no_scan_time(day: int, expected: list[str], time: datetime.time | None) -> None:
    """The study date alone tells the day."""
    assert codes(0.42, day, time, None, SCAN.date()) == expected


def test_the_scan_time_goes_before_its_date() -> None:
    """A scan after midnight keeps the study date of the evening."""
    assert codes(0.42, 8, None, SCAN, datetime.date(2026, 3, 9)) == ["hematocrit_old"]


@pytest.mark.parametrize("fraction", [0.05, 0.9])
def test_implausible_hematocrit_fails_the_scan(fraction: float) -> None:
    """ECV is proportional to 1 - hematocrit, so a wrong one spoils it without a trace."""
    flags = check_hematocrit(fraction, SCAN.date(), None, SCAN, SCAN.date(), LIMITS)
    assert [flag.code for flag in flags] == ["hematocrit_implausible"]
    assert verdict(flags) == "fail"


def test_range_flag_tells_value_limit_and_place() -> None:
    """The reviewer needs to know what, where and against which limit."""
    place = Place("post", 2, "apical")
    (flag,) = check_range("t1_post_implausible", "mean T1", 150.0, (200.0, 900.0), place)
    assert (flag.role, flag.slice_index, flag.level) == ("post", 2, "apical")
    assert (flag.value, flag.threshold) == (150, 200)
    assert flag.message == "mean T1 150 ms, expected 200 to 900 ms"
    (high,) = check_range("t1_post_implausible", "mean T1", 950.0, (200.0, 900.0))
    assert high.threshold == 900
    (share,) = check_range("t1_apart", "T1 off that of the other slices by", 0.123, (None, 0.1))
    assert share.message == "T1 off that of the other slices by 12.3 %, expected at most 10 %"


@pytest.mark.parametrize("value", [None, 200.0, 900.0])
def test_limits_themselves_are_plausible(value: float | None) -> None:
    """And a missing value is another check's matter."""
    assert check_range("t1_post_implausible", "mean T1", value, (200.0, 900.0)) == []


def test_verdict_is_the_worst_flag() -> None:
    """Order does not matter."""
    review, fail = raise_flag("post_missing", "x"), raise_flag("nothing_measured", "y")
    assert verdict([]) == "pass"
    assert verdict([review]) == "review"
    assert verdict([review, fail, review]) == "fail"


def test_every_check_says_what_it_means() -> None:
    """The table is the documentation of the column ``code``."""
    assert all(check.meaning for check in CHECKS.values())
    assert {check.severity for check in CHECKS.values()} == {"note", "review", "fail"}


def test_a_note_is_no_verdict() -> None:
    """Most sound slices break the rules of S1 about R2."""
    note = raise_flag("r_squared_pixels", "12 % of pixels", Place("native", 0))
    assert verdict([note]) == scan_verdict([note]) == slice_verdict([note], 0) == "pass"
    assert reasons([note]) == []


def test_a_failed_slice_is_a_scans_review() -> None:
    """It left the means; a check of the whole scan that fails is another matter."""
    failed = raise_flag("t1_native_implausible", "300 ms", Place("native", 1))
    assert slice_verdict([failed], 1) == "fail"
    assert slice_verdict([failed], 0) == "pass"
    assert scan_verdict([failed]) == "review"
    assert scan_verdict([failed, raise_flag("nothing_left", "none")]) == "fail"
    assert scan_verdict([raise_flag("hematocrit_missing", "none")]) == "review"


def test_reasons_name_each_code_once() -> None:
    """In the order of the alphabet, whatever came first."""
    flags = [
        raise_flag(code, "", Place("native", i)) for i, code in enumerate(["t1_apart", "area_jumps"] * 2)
    ]
    assert reasons(flags) == ["area_jumps", "t1_apart"]


@pytest.mark.parametrize(
    ("limits", "expected"),
    [((1.0, None), "at least 1"), ((None, -1.0), "at most -1"), ((1.0, 2.0), "1 to 2")],
    ids=["low", "high", "both"],
)
def test_a_range_may_be_open(limits: tuple[float | None, float | None], expected: str) -> None:
    """The message says what was expected, and the threshold is the bound that was broken."""
    (flag,) = check_range("area_jumps", "ratio", 0.0, limits)
    assert flag.message == f"ratio 0, expected {expected}"
    assert flag.threshold == (limits[1] if limits[0] is None else limits[0])


@pytest.mark.parametrize(
    ("field_t", "largest_ms"),
    [
        (1.5, 1500.0),
        (1.494, 1500.0),
        (2.89, 1700.0),
        (3.0, 1700.0),
        (None, 1700.0),
        (0.55, None),
        (7.0, None),
    ],
)
def test_limits_are_those_of_the_field_strength(field_t: float | None, largest_ms: float | None) -> None:
    """T1 at 0.55 T is not that at 1.5 T, so nothing is said about it."""
    at_3t = replace(QC.tissue_3t, t1_native_max_ms=1700.0)
    tissue = replace(QC, tissue_3t=at_3t).tissue(field_t)
    assert (None if tissue is None else tissue.t1_native_max_ms) == largest_ms
