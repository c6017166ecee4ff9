"""Area, wall thickness and overlap of drawn hearts."""

import math

import pytest
import torch
from jaxtyping import Bool
from torch import Tensor

from cmrcore.quantify.shape import HeartMasks, SliceShape, dice_aligned, slice_shapes
from tests.cmrcore.hearts import drawn_heart

PIXEL_MM = 1.5
ANTERIOR = (-1.0, 0.0)


def shape_of(
    masks: Bool[Tensor, "label row col"], anterior: tuple[float, float] = ANTERIOR, pixel_mm: float = PIXEL_MM
) -> SliceShape:
    """Shape of one mid slice."""
    heart = HeartMasks(masks[:1], masks[2:], ("mid",), (pixel_mm, pixel_mm), anterior)
    (shape,) = slice_shapes(heart)
    assert shape is not None
    return shape


def test_a_ring_has_its_area_and_thickness() -> None:
    """Radii of 14 and 22 pixels of 1.5 mm: pi (33^2 - 21^2) mm2, and a wall of 12 mm everywhere."""
    shape = shape_of(drawn_heart())
    assert shape.area_mm2(None) == pytest.approx(math.pi * (33**2 - 21**2), rel=0.01)
    assert shape.thickness_mm(None) == pytest.approx(12, abs=0.2)
    for segment in range(7, 13):
        assert shape.area_mm2((segment,)) == pytest.approx(math.pi * (33**2 - 21**2) / 6, rel=0.03)
        assert shape.thickness_mm((segment,)) == pytest.approx(12, abs=0.3)


def test_a_thicker_wall_is_thicker_by_as_much() -> None:
    """Two pixels more on the inside are 3 mm; pixels of another size do not matter."""
    before, after = shape_of(drawn_heart()), shape_of(drawn_heart(inner=12.0))
    change = (after.thickness_mm(None) or 0) - (before.thickness_mm(None) or 0)
    assert change == pytest.approx(3, abs=0.15)
    assert shape_of(drawn_heart(), pixel_mm=3.0).thickness_mm(None) == pytest.approx(24, abs=0.4)


def test_a_segment_that_is_missing_has_no_size() -> None:
    """None, never zero."""
    shape = shape_of(drawn_heart())
    assert shape.area_mm2((1,)) is None
    assert shape.thickness_mm((1,)) is None
    assert dice_aligned([(shape, shape)], (1,)) is None


@pytest.mark.parametrize("turn_deg", [0.0, 15.0, -40.0])
def test_a_heart_that_lies_elsewhere_overlaps_itself(turn_deg: float) -> None:
    """LV centers and RV insertions are laid upon each other, so the patient's position does not matter."""
    before = shape_of(drawn_heart())
    after = shape_of(drawn_heart(septum_deg=180 + turn_deg).roll((6, -8), (1, 2)))
    assert (dice_aligned([(before, after)]) or 0) > 0.97
    assert (dice_aligned([(before, after)], (8,)) or 0) > 0.93


def test_a_mirrored_heart_overlaps_itself() -> None:
    """Segments run the other way round there."""
    before, after = shape_of(drawn_heart(septum_deg=160.0)), shape_of(drawn_heart(septum_deg=160.0).flip(2))
    for segments in (None, (8,), (10,)):
        assert (dice_aligned([(before, after)], segments) or 0) > 0.97


def test_a_thicker_wall_overlaps_by_its_share() -> None:
    """Areas 22^2 - 14^2 = 288 and 22^2 - 10^2 = 384 share the smaller one."""
    before, after = shape_of(drawn_heart()), shape_of(drawn_heart(inner=10.0))
    assert dice_aligned([(before, after)]) == pytest.approx(2 * 288 / (288 + 384), abs=0.01)
    assert dice_aligned([(before, after), (before, before)]) == pytest.approx(
        2 * (288 + 288) / (288 + 384 + 2 * 288), abs=0.01
    )


def test_without_an_rv_only_the_centers_are_aligned() -> None:
    """A ring overlaps itself anyway; it has no segments."""
    before, after = shape_of(drawn_heart()), shape_of(drawn_heart(with_rv=False).roll((3, 4), (1, 2)))
    assert dice_aligned([(before, after)]) == pytest.approx(1)
    assert after.area_mm2((8,)) is None


def test_a_slice_without_myocardium_has_no_shape() -> None:
    """Its neighbors keep theirs."""
    masks = torch.stack([drawn_heart(), torch.zeros_like(drawn_heart())])
    heart = HeartMasks(masks[:, 0], masks[:, 2], ("basal", "mid"), (PIXEL_MM, PIXEL_MM), ANTERIOR)
    first, second = slice_shapes(heart)
    assert first is not None
    assert second is None
