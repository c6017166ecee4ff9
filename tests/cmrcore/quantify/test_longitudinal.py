"""Change between visits."""

import pytest

from cmrcore.quantify import Row, change_from_baseline, check_scanner


def visit(name: str, t1_native_ms: float | None, ecv_fraction: float | None) -> Row:
    """Scan row with what is compared."""
    return {
        "visit_id": name,
        "t1_native_ms": t1_native_ms,
        "ecv_fraction": ecv_fraction,
        "field_strength_t": 1.5 if name == "V1" else 3.0,
        "manufacturer": "SIEMENS",
        "scanner_model": "Avanto" if name == "V1" else "Prisma",
    }


def test_each_later_visit_is_compared_with_the_first() -> None:
    """Absolute changes for T1 and ECV, relative for ECV."""
    rows = change_from_baseline(
        [visit("V1", 1100.0, 0.40), visit("V2", 1110.0, 0.42), visit("V3", 1080.0, 0.36)], 0.10
    )
    assert [(row["baseline_visit_id"], row["visit_id"]) for row in rows] == [("V1", "V2"), ("V1", "V3")]
    assert [row["t1_native_change_ms"] for row in rows] == pytest.approx([10, -20])
    assert [row["ecv_change_fraction"] for row in rows] == pytest.approx([0.02, -0.04])
    assert [row["ecv_change_relative"] for row in rows] == pytest.approx([0.05, -0.10])
    assert all(row["level"] == "global" for row in rows)


@pytest.mark.parametrize(
    ("later", "beyond"), [(0.5499, False), (0.5501, True), (0.4499, True), (0.4501, False)]
)
def test_limit_counts_in_both_directions(later: float, beyond: bool) -> None:
    """10 % relative is clinically significant, up or down (S1)."""
    (row,) = change_from_baseline([visit("V1", 1100.0, 0.50), visit("V2", 1100.0, later)], 0.10)
    assert row["ecv_change_beyond_limit"] is beyond


def test_missing_values_stay_missing() -> None:
    """A visit without ECV still has its T1 change, and no verdict on ECV."""
    (row,) = change_from_baseline([visit("V1", 1100.0, None), visit("V2", 1150.0, 0.4)], 0.10)
    assert row["t1_native_change_ms"] == 50
    assert row["ecv_change_fraction"] is row["ecv_change_relative"] is row["ecv_change_beyond_limit"] is None


@pytest.mark.parametrize("rows", [[], [visit("V1", 1100.0, 0.4)]], ids=["none", "one"])
def test_fewer_than_two_visits_give_no_rows(rows: list[Row]) -> None:
    """There is nothing to compare with."""
    assert change_from_baseline(rows, 0.10) == []


def test_a_change_says_on_what_both_were_scanned() -> None:
    """T1 differs between field strengths and between vendors."""
    (row,) = change_from_baseline([visit("V1", 1000.0, 0.4), visit("V2", 1200.0, 0.4)], 0.10)
    assert (row["baseline_field_strength_t"], row["field_strength_t"]) == (1.5, 3.0)
    assert (row["baseline_scanner"], row["scanner"]) == ("SIEMENS Avanto", "SIEMENS Prisma")


@pytest.mark.parametrize(
    ("field_strength_t", "scanner", "codes"),
    [
        ((3.0, 1.5), ("a b", "a b"), ["field_strength_differs"]),
        ((1.5, 1.494), ("a b", "a b"), []),
        ((3.0, 3.0), ("a c", "a b"), ["scanner_differs"]),
        ((3.0, 1.5), ("a c", "a b"), ["field_strength_differs", "scanner_differs"]),
        ((None, 1.5), (" ", "a b"), []),
    ],
    ids=["field", "rounded", "scanner", "both", "unknown"],
)
def test_another_scanner_is_flagged(
    field_strength_t: tuple[float | None, float | None], scanner: tuple[str, str], codes: list[str]
) -> None:
    """Each with its numbers; what is not known is not held against the scan."""
    flags = check_scanner(field_strength_t, scanner, ("this visit", "baseline V1"))
    assert [flag.code for flag in flags] == codes
    for flag in flags:
        assert "baseline V1" in flag.message
        if flag.code == "field_strength_differs":
            assert (flag.value, flag.threshold) == field_strength_t
