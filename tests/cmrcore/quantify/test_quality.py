"""Readings of drawn hearts."""

from dataclasses import replace

import pytest
import torch

from cmrcore.quantify import Series
from cmrcore.quantify.quality import SliceQuality
from cmrcore.quantify.role import measure_role
from tests.cmrcore.hearts import drawn_heart
from tests.cmrcore.quantify.drawn_scans import NATIVE, SETTINGS, SPACING_MM, masks_of, series, stack


def readings(native: Series) -> list[SliceQuality]:
    """Read a series in which every slice has a myocardium."""
    found = [one for one in measure_role("native", native, SETTINGS).quality if one is not None]
    assert len(found) == len(native.levels)
    return found


@pytest.fixture(scope="module")
def sound() -> list[SliceQuality]:
    """Read a scan with nothing wrong."""
    return readings(NATIVE)


def test_shape_is_that_of_the_drawn_ring(sound: list[SliceQuality]) -> None:
    """Radii of 14 and 22 pixels of 1.5 mm, every slice alike."""
    for one in sound:
        assert one.ring_defects == 0
        assert one.wall_mm == pytest.approx(8 * SPACING_MM[0], abs=0.2)
        assert (one.area_ratio, one.center_off_mm) == (1, 0)


def test_masks_that_do_not_move_agree(sound: list[SliceQuality]) -> None:
    """The guide was carried to every echo."""
    for one in sound:
        assert one.guide_dice == one.aligned_dice == 1
        assert one.masks_apart_px == 0
        assert one.separation == 1


def test_fits_are_those_of_the_drawn_tissue(sound: list[SliceQuality]) -> None:
    """T1 of 1100 ms beside blood of 1600, 1650 and 1700 ms, B over A of 1.95."""
    blood_ms = [1600.0, 1650.0, 1700.0]
    for one, pool_ms in zip(sound, blood_ms, strict=True):
        assert one.t1_ms == pytest.approx(1100, abs=0.1)
        assert one.amplitude_ratio == pytest.approx(1.95, abs=1e-3)
        assert one.t1_spread_fraction == pytest.approx(0, abs=1e-4)
        assert one.blood_spread_fraction == pytest.approx(0, abs=1e-4)
        assert one.t1_over_blood == pytest.approx(1100 / pool_ms, rel=1e-4)
    assert sound[0].blood_apart_fraction == pytest.approx(1 - 1600 / 1675, rel=1e-3)
    assert sound[1].blood_apart_fraction == pytest.approx(0, abs=1e-4)


def test_a_heart_elsewhere_in_one_slice_is_seen_from_all() -> None:
    """Six pixels of 1.5 mm; the slices at the ends have one neighbor, which lies elsewhere."""
    moved = replace(
        NATIVE,
        echoes=_rolled(NATIVE.echoes, 1, 6),
        masks=_rolled(masks_of(NATIVE).transpose(0, 1), 1, 6).transpose(0, 1),
        guide=_rolled(stack().transpose(0, 1), 1, 6).transpose(0, 1),
    )
    assert [one.center_off_mm for one in readings(moved)] == pytest.approx([9.0] * 3)
    assert [one.area_ratio for one in readings(moved)] == [1, 1, 1]


def test_a_larger_heart_in_one_slice_stands_out() -> None:
    """The ratio is over one, whichever of the two is larger."""
    guide = stack()
    guide[:, 2] = drawn_heart(inner=7.0, outer=11.0)
    ratios = [one.area_ratio for one in readings(series(1100.0, [1600.0] * 3, guide))]
    areas = [float((stack()[0, 0] | stack()[1, 0]).sum()), float((guide[0, 2] | guide[1, 2]).sum())]
    assert ratios == pytest.approx([1, 2 * areas[0] / (areas[0] + areas[1]), areas[0] / areas[1]])


def test_masks_of_other_echoes_may_leave_the_guide() -> None:
    """Five of eight masks slip by their wall's width: the median echo has left the guide."""
    masks = masks_of(NATIVE).clone()
    masks[:, 0, 1:6] = masks[:, 0, 1:6].roll(8, -1)
    still = replace(SETTINGS, align=replace(SETTINGS.align, method="none"))
    found = measure_role("native", replace(NATIVE, masks=masks), still).quality
    first, second = found[0], found[1]
    assert first is not None
    assert second is not None
    ring = stack()[0, 0]
    overlap = 2 * int((ring & ring.roll(8, -1)).sum()) / (2 * int(ring.sum()))
    assert first.guide_dice == pytest.approx(overlap)
    assert first.aligned_dice == pytest.approx(overlap)
    assert second.guide_dice == second.aligned_dice == 1


def test_masks_that_follow_a_heart_that_moved_keep_to_the_guide() -> None:
    """Five of eight echoes show it four pixels on, masks with it: aligned, they lie on the guide again."""
    masks, echoes = masks_of(NATIVE).clone(), NATIVE.echoes.clone()
    masks[:, 0, 1:6] = masks[:, 0, 1:6].roll(4, -1)
    echoes[0, 1:6] = echoes[0, 1:6].roll(4, -1)
    moved = replace(NATIVE, masks=masks, echoes=echoes)
    still = replace(SETTINGS, align=replace(SETTINGS.align, method="none"))
    aligned = measure_role("native", moved, SETTINGS).quality[0]
    unaligned = measure_role("native", moved, still).quality[0]
    assert aligned is not None
    assert unaligned is not None
    assert aligned.guide_dice is not None
    assert aligned.guide_dice > 0.97
    assert unaligned.guide_dice is not None
    assert unaligned.guide_dice < 0.8


def test_one_slice_alone_has_no_neighbors() -> None:
    """There is nothing to compare it with, and nothing to flag."""
    (one,) = readings(series(1100.0, [1600.0], stack(1)))
    assert one.area_ratio is one.center_off_mm is one.t1_apart_fraction is one.blood_apart_fraction is None


def test_a_slice_without_myocardium_has_no_readings() -> None:
    """Nor does it count as a neighbor."""
    masks = masks_of(NATIVE).clone()
    masks[:, 1] = False
    measured = measure_role("native", replace(NATIVE, masks=masks), SETTINGS)
    assert measured.quality[1] is None
    assert [None if one is None else one.area_ratio for one in measured.quality] == [None] * 3


def test_wall_that_looks_like_blood_is_not_told_apart() -> None:
    """No echo separates two tissues of one T1."""
    (one,) = readings(series(1400.0, [1400.0], stack(1)))
    assert one.separation == 0
    assert one.t1_over_blood == pytest.approx(1, abs=1e-6)


def test_readings_without_blood_are_none() -> None:
    """A cavity that erosion swallows."""
    guide = drawn_heart(inner=1.5, outer=8.0)[:, None]
    (one,) = readings(series(1100.0, [1600.0], guide))
    assert one.blood_t1_ms is one.blood_n_pixels is one.blood_spread_fraction is one.t1_over_blood is None


def test_a_failed_fit_everywhere_leaves_no_t1() -> None:
    """Constant images recover from nothing; the readings say so with None and a share of 1."""
    flat = replace(NATIVE, echoes=torch.full_like(NATIVE.echoes, 100.0))
    for one in readings(flat):
        assert one.t1_ms is one.t1_spread_fraction is one.t1_apart_fraction is None
        assert one.low_fraction == 1


def _rolled(values: torch.Tensor, index: int, shift: int) -> torch.Tensor:
    """Shift one slice of ``[slice, ...]`` along the columns."""
    moved = values.clone()
    moved[index] = values[index].roll(shift, -1)
    return moved
