"""Change between visits: drawn numbers with known answers, and unchanged hearts that must stay unflagged."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from cmrcore.quantify import ChangeSettings, Row, VisitFindings, change_rows, check_scanner, visit_flags
from cmrcore.quantify.longitudinal import retest_values, same_conditions, visit_pairs
from cmrcore.quantify.regions import GLOBAL, LEVELS, SEPTAL, Region, segment_region
from cmrcore.quantify.repeatability import Coefficients, StatedRepeatability
from cmrcore.quantify.shape import HeartMasks
from tests.cmrcore.hearts import drawn_heart

STATED = StatedRepeatability(
    t1_native_global_ms=37.0,
    t1_native_septal_ms=58.0,
    t1_native_levels_ms=(58.0, 72.0, 73.0),
    t1_native_segments_ms=tuple(100.0 + number for number in range(1, 17)),
    ecv_global_fraction=0.04,
    ecv_septal_fraction=0.05,
    ecv_levels_fraction=(0.06, 0.07, 0.08),
    ecv_segments_fraction=(0.10,) * 16,
)
SETTINGS = ChangeSettings(
    pixel_tolerance_mm=0.1,
    ecv_change_relative=0.10,
    false_discovery_rate=0.05,
    coefficients=STATED.coefficients(),
)

PIXELS: Row = {"n_pixels_read_native": 400, "n_pixels_read_post": 400, "n_pixels_ecv": 400}
USED: Row = {"used_native": True, "used_post": True, "used_ecv": True}


def visit(
    name: str,
    t1_native_ms: float | None = 1000.0,
    ecv_fraction: float | None = 0.40,
    *,
    segment_ecv: dict[int, float] | None = None,
    levels: tuple[str, ...] = LEVELS,
    heart: HeartMasks | None = None,
    **scan: Any,
) -> VisitFindings:
    """Visit whose regions all have these values, but for segments that are given."""
    values: Row = {"t1_native_ms": t1_native_ms, "t1_post_ms": 450.0, "ecv_fraction": ecv_fraction}
    septal: Row = {
        "t1_native_septal_ms": t1_native_ms,
        "t1_post_septal_ms": 450.0,
        "ecv_septal_fraction": ecv_fraction,
    }
    scanner: Row = {
        "field_strength_t": 1.5,
        "manufacturer": "SIEMENS",
        "scanner_model": "Avanto",
        "scheme_native": "5(3)3",
        "scheme_post": "4(1)3(1)2",
    }
    numbers = [number for number in range(1, 17) if segment_region(number)[0] in levels]
    return VisitFindings(
        visit_id=name,
        scan={**values, **septal, **scanner, **scan},
        slices=[
            {**values, **PIXELS, **USED, "level": level, "slice_index": index}
            for index, level in enumerate(levels)
        ],
        segments=[
            {**values, "ecv_fraction": (segment_ecv or {}).get(number, ecv_fraction)}
            | {**PIXELS, "aha_segment": number, "slice_index": levels.index(segment_region(number)[0])}
            for number in numbers
        ],
        pixel_spacing_mm=(1.5, 1.5),
        heart=heart,
    )


def row_of(rows: list[Row], region: Region, visit_id: str = "V2", baseline: str = "V1") -> Row:
    """Row of one region and pair of visits."""
    (row,) = (
        row
        for row in rows
        if (row["level"], row["aha_segment"]) == region
        and (row["baseline_visit_id"], row["visit_id"]) == (baseline, visit_id)
    )
    return row


def test_the_first_visit_is_compared_with_each_and_each_with_the_last() -> None:
    """Every pair once."""
    assert visit_pairs(4) == [(0, 1), (0, 2), (0, 3), (1, 3), (2, 3)]
    assert visit_pairs(2) == [(0, 1)]
    assert visit_pairs(1) == visit_pairs(0) == []


def test_every_region_has_its_change() -> None:
    """Absolute for T1 and ECV, relative for ECV; global, septal, three levels and sixteen segments."""
    visits = [visit("V1", 1100.0, 0.40), visit("V2", 1110.0, 0.42), visit("V3", 1080.0, 0.36)]
    rows = change_rows(visits, SETTINGS)
    assert len(rows) == 3 * 21
    for region in (GLOBAL, SEPTAL, ("mid", None), ("mid", 8), ("apical", 16)):
        first = row_of(rows, region)
        assert first["t1_native_change_ms"] == pytest.approx(10)
        assert first["ecv_change_fraction"] == pytest.approx(0.02)
        assert first["ecv_change_relative"] == pytest.approx(0.05)
        last = row_of(rows, region, "V3", "V2")
        assert last["ecv_change_fraction"] == pytest.approx(-0.06)
        assert last["ecv_change_relative"] == pytest.approx(-0.06 / 0.42)


def test_a_visits_rows_begin_with_its_pair_with_the_first_visit() -> None:
    """Flags are raised on that pair."""
    rows = change_rows([visit("V1"), visit("V2"), visit("V3")], SETTINGS)
    of_last = [row for row in rows if row["visit_id"] == "V3"]
    assert of_last[0]["baseline_visit_id"] == "V1"
    assert (of_last[0]["level"], of_last[0]["aha_segment"]) == GLOBAL


@pytest.mark.parametrize(
    ("later", "beyond"), [(0.5499, False), (0.5501, True), (0.4499, True), (0.4501, False)]
)
def test_relative_limit_counts_in_both_directions(later: float, beyond: bool) -> None:
    """10 % relative is clinically significant, up or down (S1)."""
    rows = change_rows([visit("V1", ecv_fraction=0.50), visit("V2", ecv_fraction=later)], SETTINGS)
    assert row_of(rows, GLOBAL)["ecv_change_beyond_limit"] is beyond


@pytest.mark.parametrize(
    ("region", "coefficient"),
    [(GLOBAL, 37.0), (SEPTAL, 58.0), (("mid", None), 72.0), (("basal", 3), 103.0), (("apical", 14), 114.0)],
)
def test_the_coefficient_of_the_very_region_decides(region: Region, coefficient: float) -> None:
    """A change of 60 ms is measurement error in a segment, and none in the whole heart."""
    for change, beyond in ((coefficient - 0.5, False), (-coefficient - 0.5, True)):
        rows = change_rows([visit("V1", 1000.0), visit("V2", 1000.0 + change)], SETTINGS)
        row = row_of(rows, region)
        assert row["t1_native_repeatability_ms"] == coefficient
        assert row["t1_native_beyond_repeatability"] is beyond
        assert (float(row["t1_native_p_value"] or 0) < 0.05) is beyond
        assert row["t1_native_retest_pairs"] is None


def test_missing_values_stay_missing() -> None:
    """A visit without ECV still has its T1 change, and no verdict on ECV."""
    rows = change_rows([visit("V1", ecv_fraction=None), visit("V2", 1150.0)], SETTINGS)
    row = row_of(rows, GLOBAL)
    assert row["t1_native_change_ms"] == 150
    empty = ("change_fraction", "change_relative", "change_beyond_limit", "beyond_repeatability", "p_value")
    assert all(row[f"ecv_{name}"] is None for name in (*empty, "q_value", "changed"))
    assert row["area_change_mm2"] is row["thickness_change_mm"] is row["overlap_dice"] is None
    segment = row_of(rows, ("mid", 8))
    assert segment["ecv_q_value"] is segment["ecv_changed"] is None


@pytest.mark.parametrize("visits", [[], [visit("V1")]], ids=["none", "one"])
def test_fewer_than_two_visits_give_no_rows(visits: list[VisitFindings]) -> None:
    """There is nothing to compare with."""
    assert change_rows(visits, SETTINGS) == []
    assert visit_flags([]) == []


def test_visits_with_other_levels_share_what_both_show() -> None:
    """A follow-up without its apical slice."""
    rows = change_rows([visit("V1"), visit("V2", levels=("basal", "mid"))], SETTINGS)
    assert {row["level"] for row in rows} == {"global", "septal", "basal", "mid"}
    assert sorted(int(row["aha_segment"] or 0) for row in rows if row["aha_segment"]) == list(range(1, 13))


def test_a_level_in_several_slices_has_their_weighted_mean() -> None:
    """By the pixels that were read, as the mean of the scan has it."""
    before, after = visit("V1", levels=("mid",)), visit("V2", levels=("mid",))
    two = [
        {**before.slices[0], "t1_native_ms": 1000.0, "n_pixels_read_native": 300},
        {**before.slices[0], "t1_native_ms": 1040.0, "n_pixels_read_native": 100},
        {**before.slices[0], "slice_index": 2, "t1_native_ms": None, "n_pixels_read_native": None},
    ]
    several = VisitFindings("V1", before.scan, two, before.segments, (1.5, 1.5), None)
    row = row_of(change_rows([several, after], SETTINGS), ("mid", None))
    assert row["t1_native_change_ms"] == pytest.approx(1000 - 1010)


def test_a_slice_that_failed_is_no_value_of_its_level_or_segments() -> None:
    """Nor does it weigh in where another slice of the level is there; what did not fail in it stays."""
    of = visit("V1")
    failed = {**of.slices[1], "t1_native_ms": 300.0, "used_native": False, "used_ecv": False}
    values = replace(of, slices=[of.slices[0], failed, of.slices[2]]).values()
    for region in (("mid", None), ("mid", 8)):
        assert values[region] == {"t1_native_ms": None, "t1_post_ms": 450.0, "ecv_fraction": None}
    assert values["basal", 3]["t1_native_ms"] == values["basal", None]["t1_native_ms"] == 1000.0
    another = {**of.slices[1], "slice_index": 3, "t1_native_ms": 1010.0}
    values = replace(of, slices=[*of.slices[:1], failed, of.slices[2], another]).values()
    assert values["mid", None]["t1_native_ms"] == 1010.0


def test_one_changed_segment_is_found_among_sixteen() -> None:
    """A change of 0.16 where 0.10 is repeatable (p = 0.0017) stands; one of 0.11 (p = 0.03) does not."""
    for change, changed in ((0.16, True), (0.11, False)):
        rows = change_rows([visit("V1"), visit("V2", segment_ecv={9: 0.40 + change})], SETTINGS)
        row = row_of(rows, ("mid", 9))
        assert row["ecv_beyond_repeatability"] is True
        assert row["ecv_changed"] is changed
        assert row_of(rows, ("mid", 8))["ecv_changed"] is False
        # Benjamini & Hochberg: the smallest of 16 p-values, times 16.
        assert row["ecv_q_value"] == pytest.approx(16 * float(row["ecv_p_value"] or 0))


def test_few_unchanged_hearts_have_a_changed_segment() -> None:
    """At 5 % a segment, over half of them would have one (1 - 0.95^16 = 56 %); controlled, about 5 %."""
    rng = np.random.default_rng(8)
    n_hearts, noise = 250, 0.10 / 1.96
    before = visit("V1")
    beyond = changed = hearts_beyond = hearts_changed = 0
    for _ in range(n_hearts):
        drawn = dict(zip(range(1, 17), (0.40 + rng.normal(0, noise, 16)).tolist(), strict=True))
        rows = change_rows([before, visit("V2", segment_ecv=drawn)], SETTINGS)
        segments = [row for row in rows if row["aha_segment"] is not None]
        found = [
            sum(bool(row[f"ecv_{name}"]) for row in segments) for name in ("beyond_repeatability", "changed")
        ]
        beyond, changed = beyond + found[0], changed + found[1]
        hearts_beyond, hearts_changed = hearts_beyond + bool(found[0]), hearts_changed + bool(found[1])
    assert beyond / n_hearts / 16 == pytest.approx(0.05, abs=0.015)
    assert hearts_beyond / n_hearts == pytest.approx(1 - 0.95**16, abs=0.08)
    assert hearts_changed / n_hearts < 0.09
    assert changed / n_hearts / 16 < 0.01


def test_another_scanner_or_protocol_leaves_no_verdict() -> None:
    """Repeatability is that of one scanner and protocol; the change itself stands all the same."""
    before = visit("V1")
    for other, column in (
        (visit("V2", 1200.0, field_strength_t=3.0), "same_scanner"),
        (visit("V2", 1200.0, scanner_model="Prisma"), "same_scanner"),
        (visit("V2", 1200.0, scheme_native="3(3)3(3)5"), "same_protocol"),
    ):
        row = row_of(change_rows([before, other], SETTINGS), GLOBAL)
        assert row["t1_native_change_ms"] == 200
        assert row["t1_native_beyond_repeatability"] is row["t1_native_changed"] is None
        assert row["t1_native_repeatability_ms"] == 37
        assert row[column] is False
        assert not same_conditions(before, other, 0.1)


def test_means_of_other_levels_leave_no_verdict() -> None:
    """The apex failed before contrast at one visit: T1 and ECV of the whole are not of the same heart."""
    before, after = visit("V1"), visit("V2", 1200.0, 0.6)
    apex = {**after.slices[2], "used_native": False, "used_ecv": False}
    after = replace(after, slices=[*after.slices[:2], apex])
    rows = change_rows([before, after], SETTINGS)
    for region in (GLOBAL, SEPTAL):
        row = row_of(rows, region)
        assert row["t1_native_change_ms"] == 200
        for stem in ("t1_native", "ecv"):
            assert all(
                row[f"{stem}_{name}"] is None for name in ("beyond_repeatability", "p_value", "changed")
            )
    assert row_of(rows, ("mid", None))["t1_native_changed"] is True
    assert row_of(rows, ("apical", None))["t1_native_change_ms"] is None
    assert visit_flags(rows) == []
    only_ecv = replace(after, slices=[*after.slices[:2], {**apex, "used_native": True}])
    row = row_of(change_rows([before, only_ecv], SETTINGS), GLOBAL)
    assert (row["t1_native_changed"], row["ecv_changed"]) == (True, None)


def test_retests_of_other_levels_do_not_tell_repeatability() -> None:
    """Of the whole heart and septum; what both visits show by itself does."""
    first, second = visit("V1"), visit("V2")
    second = replace(second, slices=[*second.slices[:2], {**second.slices[2], "used_native": False}])
    for values in retest_values(first, second):
        for region in (GLOBAL, SEPTAL):
            assert values[region]["t1_native_ms"] is None
            assert values[region]["ecv_fraction"] == 0.40
        assert values["mid", 8]["t1_native_ms"] == 1000.0


def test_what_is_not_known_of_the_scanner_is_not_held_against_a_visit() -> None:
    """Nor is a post-contrast series that was not acquired."""
    before = visit("V1", field_strength_t=None, scheme_post=None)
    row = row_of(change_rows([before, visit("V2", 1200.0)], SETTINGS), GLOBAL)
    assert row["same_scanner"] is None
    assert row["same_protocol"] is True
    assert row["t1_native_changed"] is True
    row = row_of(change_rows([visit("V1", scheme_native=None), visit("V2")], SETTINGS), GLOBAL)
    assert row["same_protocol"] is None


@pytest.mark.parametrize(
    ("size", "tolerance_mm", "same"),
    [(1.55, 0.1, True), (1.62, 0.1, False), (1.62, 0.15, True), (1.38, 0.1, False)],
)
def test_pixels_of_another_size_are_another_protocol(size: float, tolerance_mm: float, same: bool) -> None:
    """By the trial's tolerance, as the flag pixels_differ has it: 0.12 mm are within it or not."""
    before, after = visit("V1"), replace(visit("V2"), pixel_spacing_mm=(size, size))
    settings = replace(SETTINGS, pixel_tolerance_mm=tolerance_mm)
    assert row_of(change_rows([before, after], settings), GLOBAL)["same_protocol"] is same
    assert same_conditions(before, after, tolerance_mm) is same


def heart(inner: float = 14.0, levels: tuple[str, ...] = LEVELS, turn_deg: float = 0.0) -> HeartMasks:
    """Drawn heart of as many equal slices as levels."""
    masks = drawn_heart(inner=inner, septum_deg=180 + turn_deg)
    stack = torch.stack([masks] * len(levels))
    return HeartMasks(stack[:, 0], stack[:, 2], levels, (1.5, 1.5), (-1.0, 0.0))


def test_area_and_thickness_change_with_the_wall() -> None:
    """Two pixels of 1.5 mm more on the inside; areas of a slice, however many slices there are."""
    thicker = heart(12.0, ("basal", "mid", "mid", "apical"), 10.0)
    rows = change_rows([visit("V1", heart=heart()), visit("V2", heart=thicker)], SETTINGS)
    added_mm2 = np.pi * (14**2 - 12**2) * 1.5**2
    for region, share in ((GLOBAL, 1), (("mid", None), 1), (("mid", 9), 1 / 6), (("apical", 13), 1 / 4)):
        row = row_of(rows, region)
        assert row["thickness_change_mm"] == pytest.approx(3, abs=0.3)
        assert row["area_change_mm2"] == pytest.approx(added_mm2 * share, rel=0.1)
        assert row["overlap_dice"] == pytest.approx(2 * 288 / (288 + 340), abs=0.03)


def test_shapes_are_compared_at_the_levels_that_both_visits_show() -> None:
    """A thinner apex that one visit lacks must not look like a change."""
    with_apex = heart()
    with_apex.myocardium[2] = drawn_heart(inner=18.0)[0]
    without = visit("V2", levels=("basal", "mid"), heart=heart(levels=("basal", "mid")))
    rows = change_rows([visit("V1", heart=with_apex), without], SETTINGS)
    assert row_of(rows, GLOBAL)["area_change_mm2"] == pytest.approx(0)
    assert row_of(rows, GLOBAL)["overlap_dice"] == pytest.approx(1)


def test_a_visit_whose_masks_share_no_level_has_no_shape_change() -> None:
    """None, and no division by nothing."""
    first, second = visit("V1", heart=heart(levels=("basal",))), visit("V2", heart=heart(levels=("mid",)))
    row = row_of(change_rows([first, second], SETTINGS), GLOBAL)
    assert row["area_change_mm2"] is row["overlap_dice"] is None


def flags_of(*visits: VisitFindings, coefficients: Coefficients | None = None) -> list[str]:
    """Codes of the flags of the last visit."""
    settings = SETTINGS if coefficients is None else replace(SETTINGS, coefficients=coefficients)
    rows = [row for row in change_rows(visits, settings) if row["visit_id"] == visits[-1].visit_id]
    return [flag.code for flag in visit_flags(rows)]


def test_only_global_and_septal_ecv_flag_a_visit() -> None:
    """Neither a segment nor T1; since the first visit, not since another."""
    assert flags_of(visit("V1"), visit("V2", ecv_fraction=0.4401)) == ["ecv_changed"]
    assert flags_of(visit("V1"), visit("V2", ecv_septal_fraction=0.34)) == ["ecv_changed"]
    assert flags_of(visit("V1"), visit("V2", 1500.0, ecv_fraction=0.4399)) == []
    assert flags_of(visit("V1"), visit("V2", segment_ecv={9: 0.8})) == []
    assert flags_of(visit("V1"), visit("V2", ecv_fraction=0.5), visit("V3")) == []
    assert flags_of(visit("V1"), visit("V2", ecv_fraction=0.6, scanner_model="Prisma")) == ["scanner_differs"]
    assert flags_of(visit("V1"), visit("V2", ecv_fraction=0.6), coefficients={}) == []


def test_a_change_is_a_note_with_its_numbers() -> None:
    """It must not sort scans out of the analysis: what changed is what a trial looks for."""
    rows = change_rows([visit("V1"), visit("V2", ecv_fraction=0.46)], SETTINGS)
    (flag,) = visit_flags(rows)
    assert flag.severity == "note"
    assert flag.message == (
        "ECV changed since V1 beyond measurement error: global +0.060, repeatability 0.040; "
        "septal +0.060, repeatability 0.050"
    )
    assert (flag.value, flag.threshold) == pytest.approx((0.06, 0.04))


def test_a_change_says_on_what_both_were_scanned() -> None:
    """T1 differs between field strengths and between vendors."""
    rows = change_rows([visit("V1"), visit("V2", field_strength_t=3.0, scanner_model="Prisma")], SETTINGS)
    row = row_of(rows, GLOBAL)
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
