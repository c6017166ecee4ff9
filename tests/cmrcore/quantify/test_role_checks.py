"""Readings of a slice against their limits."""

from dataclasses import asdict, replace

import pytest

from cmrcore.quantify.checks import CHECKS
from cmrcore.quantify.quality import SliceQuality
from cmrcore.quantify.records import Role
from cmrcore.quantify.role_checks import READ_CODES, check_quality
from tests.cmrcore.quantify.drawn_scans import QC

SOUND = SliceQuality(
    ring_defects=0.0,
    wall_mm=9.0,
    area_ratio=1.2,
    center_off_mm=2.0,
    guide_dice=0.95,
    masks_apart_px=0.2,
    aligned_dice=0.93,
    separation=0.9,
    r_squared_mean=0.97,
    low_fraction=0.05,
    t1_ms=1000.0,
    t1_spread_fraction=0.04,
    t1_apart_fraction=0.01,
    amplitude_ratio=2.2,
    blood_t1_ms=1600.0,
    blood_r_squared=0.99,
    blood_spread_fraction=0.03,
    blood_n_pixels=200.0,
    blood_apart_fraction=0.02,
    t1_over_blood=0.65,
)
SOUND_POST = replace(SOUND, t1_ms=450.0, blood_t1_ms=350.0, t1_over_blood=1.3)

WRONG: dict[str, tuple[Role, dict[str, float | None], set[str]]] = {
    "two pieces": ("native", {"ring_defects": 1.0}, {"mask_no_ring"}),
    "thin wall": ("native", {"wall_mm": 2.9}, {"wall_implausible"}),
    "thick wall": ("post", {"wall_mm": 25.1}, {"wall_implausible"}),
    "no cavity": ("native", {"wall_mm": None}, set()),
    "twice the area": ("native", {"area_ratio": 2.1}, {"area_jumps"}),
    "elsewhere": ("native", {"center_off_mm": 10.1}, {"center_jumps"}),
    "masks left the guide": ("post", {"guide_dice": 0.69}, {"masks_leave_guide"}),
    "no guide": ("post", {"guide_dice": None}, set()),
    "reference mask apart": ("native", {"masks_apart_px": 1.1}, {"masks_disagree"}),
    "reference mask off": ("native", {"masks_apart_px": 9.1}, {"masks_disagree", "mask_off_others"}),
    "off the heart": ("post", {"separation": 0.29}, {"wall_like_blood", "wall_off_heart"}),
    "moved": ("native", {"aligned_dice": 0.69}, {"motion_remains"}),
    "no contrast": ("native", {"separation": 0.49}, {"wall_like_blood"}),
    "S1: mean": ("native", {"r_squared_mean": 0.89}, {"r_squared_mean"}),
    "S1: pixels": ("native", {"low_fraction": 0.11}, {"r_squared_pixels"}),
    "poor": ("native", {"low_fraction": 0.41}, {"r_squared_pixels", "fit_poor"}),
    "unfit": ("native", {"low_fraction": 0.81}, {"r_squared_pixels", "fit_poor", "fit_failed"}),
    "no inversion": ("native", {"amplitude_ratio": 1.6}, {"inversion_implausible"}),
    "delayed times": ("native", {"amplitude_ratio": 2.7}, {"inversion_implausible"}),
    "fat": ("native", {"t1_ms": 300.0}, {"t1_native_implausible"}),
    "native after contrast": ("post", {"t1_ms": 950.0}, {"t1_post_implausible"}),
    "scattered": ("post", {"t1_spread_fraction": 0.21}, {"t1_scattered"}),
    "another than its neighbors": ("native", {"t1_apart_fraction": 0.11}, {"t1_apart"}),
    "no blood": ("native", {"blood_t1_ms": None}, {"blood_missing"}),
    "blood like muscle": ("native", {"blood_t1_ms": 1100.0}, {"blood_t1_implausible"}),
    "blood without contrast": ("post", {"blood_t1_ms": 1600.0}, {"blood_t1_implausible"}),
    "blood fits badly": ("native", {"blood_r_squared": 0.94}, {"blood_fit_poor"}),
    "blood scattered": ("native", {"blood_spread_fraction": 0.21}, {"blood_scattered"}),
    "little blood": ("post", {"blood_n_pixels": 19.0}, {"blood_small"}),
    "other blood": ("native", {"blood_apart_fraction": 0.11}, {"blood_apart"}),
    "wall is blood": ("native", {"t1_over_blood": 0.98}, {"wall_not_below_blood"}),
    "wall is fat": ("native", {"t1_over_blood": 0.39}, {"wall_not_below_blood"}),
    "wall above blood after contrast": ("post", {"t1_over_blood": 1.5}, set()),
}


def codes(role: Role, quality: SliceQuality) -> set[str]:
    """Codes raised for one slice."""
    return {flag.code for flag in check_quality(role, [None, quality], ("basal", "mid"), 1.5, QC)}


def test_a_sound_slice_raises_nothing() -> None:
    """Each of the cases below differs from these in one reading."""
    assert codes("native", SOUND) == codes("post", SOUND_POST) == set()


@pytest.mark.parametrize(("role", "changed", "expected"), WRONG.values(), ids=WRONG.keys())
def test_a_reading_beyond_its_limit_is_flagged(
    role: Role, changed: dict[str, float | None], expected: set[str]
) -> None:
    """Its own check speaks, and no other."""
    sound = SOUND if role == "native" else SOUND_POST
    assert codes(role, SliceQuality(**{**asdict(sound), **changed})) == expected


def test_every_check_of_readings_is_tried() -> None:
    """A check that no case above raises may never speak."""
    assert {code for _, _, expected in WRONG.values() for code in expected} == READ_CODES


def test_a_flag_says_where_and_what() -> None:
    """Slice, level, value, the limit that it broke, and the severity of the table."""
    (flag,) = check_quality("post", [None, replace(SOUND_POST, wall_mm=2.0)], ("basal", "mid"), 3.0, QC)
    assert (flag.role, flag.slice_index, flag.level) == ("post", 1, "mid")
    assert (flag.value, flag.threshold, flag.severity) == (2.0, 3.0, CHECKS["wall_implausible"].severity)
    assert flag.message == "mean wall 2 mm, expected 3 to 25 mm"


def test_limits_of_t1_follow_the_field_strength() -> None:
    """Native T1 of 1500 ms is healthy at 3 T and none of a heart at 1.5 T; unknown is given the benefit."""
    limits = replace(QC, tissue_1_5t=replace(QC.tissue_1_5t, t1_native_max_ms=1300.0))
    quality = [replace(SOUND, t1_ms=1400.0)]
    raised = {
        field_t: [flag.code for flag in check_quality("native", quality, ("mid",), field_t, limits)]
        for field_t in (1.5, 2.89, None)
    }
    assert raised == {1.5: ["t1_native_implausible"], 2.89: [], None: []}
