"""Myocardium away from its borders."""

import pytest
import torch

from cmrcore.quantify import erode_wall
from tests.cmrcore.hearts import drawn_heart

SPACING_MM = (1.5, 1.5)


def test_rims_have_the_asked_width_on_both_sides() -> None:
    """A ring from 14 to 22 pixels loses 1.5 mm, one pixel, at either border."""
    heart = drawn_heart()
    kept = erode_wall(heart[0], heart[1], 1.5, SPACING_MM)
    axis = torch.arange(96) - 47.5
    radius = torch.hypot(axis[:, None], axis[None, :])
    ideal = (radius >= 15) & (radius < 21)
    assert int((kept ^ ideal).sum()) / int(ideal.sum()) < 0.1
    assert not bool((kept & ~heart[0]).any())


@pytest.mark.parametrize("thickness", [1.0, 1.5, 2.0, 3.0, 4.0])
@pytest.mark.parametrize("spacing_mm", [(1.5, 1.5), (1.2, 1.6)], ids=["square", "oblong"])
def test_a_thin_wall_keeps_its_middle_all_around(thickness: float, spacing_mm: tuple[float, float]) -> None:
    """However much is asked: no direction from the center is left without a pixel, as far as it had one."""
    heart = drawn_heart(inner=14.0, outer=14.0 + thickness)
    kept = erode_wall(heart[0], heart[1], 10.0, spacing_mm)
    axis = torch.arange(96) - 47.5
    angle = torch.atan2(axis[:, None].expand(96, 96), axis[None, :].expand(96, 96))
    sector = ((angle + torch.pi) / (2 * torch.pi) * 24).long()
    assert set(sector[kept].tolist()) == set(sector[heart[0]].tolist())


def test_the_middle_half_stays_of_a_wall_of_any_width() -> None:
    """Eight pixels lose two at either side at most."""
    heart = drawn_heart()
    kept = erode_wall(heart[0], heart[1], 100.0, SPACING_MM)
    assert int(kept.sum()) == pytest.approx(torch.pi * (20**2 - 16**2), rel=0.08)


def test_nothing_is_taken_where_nothing_is_asked() -> None:
    """An erosion of 0 mm is a setting like any other."""
    heart = drawn_heart()
    assert torch.equal(erode_wall(heart[0], heart[1], 0.0, SPACING_MM), heart[0])


def test_a_ring_needs_no_blood_pool_and_no_cavity_means_no_erosion() -> None:
    """The hole of a ring is cavity; a disc without any has no border to the blood."""
    heart = drawn_heart()
    none = torch.zeros_like(heart[1])
    with_pool = erode_wall(heart[0], heart[1], 1.5, SPACING_MM)
    assert torch.equal(erode_wall(heart[0], none, 1.5, SPACING_MM), with_pool)
    assert torch.equal(erode_wall(heart[1], none, 1.5, SPACING_MM), heart[1])
    assert not bool(erode_wall(none, heart[1], 1.5, SPACING_MM).any())


def test_the_image_may_end_at_the_heart() -> None:
    """A wall cut off by the image's edge has no border there."""
    heart = drawn_heart()[:, 30:]
    kept = erode_wall(heart[0], heart[1], 1.5, SPACING_MM)
    assert bool(kept[0].any())
